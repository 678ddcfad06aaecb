"""Bars for whoever waits, in a notebook or on a terminal."""

import math
from collections.abc import Callable
from typing import Any


def progress_bar(**options: Any) -> Callable[..., None]:
  """A `progress_fn` for `fit` and `encode` that draws a bar for each stage, with the time left.

  In a notebook it is a widget where ipywidgets are there, otherwise text on stderr; `options` are tqdm's. It serves
  one call after another.
  """
  from tqdm.auto import tqdm

  bars = dict[str, Any]()

  def show(stage: str, done: int, total: int | None, words: str = "") -> None:
    bar = bars.get(stage)
    if bar is not None and done < bar.n:  # the stage has begun again
      bars.pop(stage).close()
      bar = None
    if bar is None:
      bar = bars[stage] = tqdm(**({"total": total, "desc": stage, "unit": "step"} | options))
    bar.total = total
    bar.set_postfix_str(words, refresh=False)
    bar.update(done - bar.n)
    if total is not None and done >= total:
      bars.pop(stage).close()

  def report(*what: Any) -> None:
    if isinstance(what[0], str):  # of encode: stage, done, total
      show(*what)
    else:  # of fit: a record
      step, left = int(what[0]["step"]), what[0]["eta_seconds"] * what[0]["steps_per_second"]
      total = None if math.isnan(left) else step + round(left)  # which no record tells before the first steps
      show("fit", step, total, f"{what[0]['psnr']:.2f} dB")

  return report
