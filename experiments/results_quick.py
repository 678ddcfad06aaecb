"""Do the published figures come out here? One photograph, some minutes, each figure beside the row it is to equal.

  python -m experiments.results_quick

Runs the runners' own measurements on the shipped photograph: files, bytes against other codecs, fits, damage.
What is expected are the rows of that photograph in experiments/results, of which the tables in docs/results.md are
made. Seconds are not compared: machines differ. Rows go to OUT_DIR, and the same command goes on where it stopped;
of another commit everything is measured again. Exits 1 if a figure is off by more than its tolerance.
"""

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from absl import flags

from experiments import curves, fuzz_format, rate_distortion, rowfile, runner, sweep

FLAGS = flags.FLAGS
DECIBELS = 0.15  # dB: two seeds of a photograph differ by up to 0.09
FILE_DECIBELS = 0.2  # dB, of files at a rate: five seeds of the photograph at 0.2 bits a pixel differ by 0.17
PERCENT = 2.5  # of bytes at equal PSNR: 0.1 dB is about as much
EFFORT = runner.EFFORT
FITS = (("balanced", 5000), ("balanced", 10000))
OTHERS = ("jpeg", "webp", "jpeg2000")
RATES = (0.12, 0.2, 0.3, 0.6)  # bits a pixel
MUTATIONS = 2000


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("out_dir", "out/results_quick", "Where rows go.")


class Figure(NamedTuple):
  """A line of the table."""

  name: str
  expected: float
  measured: float
  tolerance: float
  unit: str

  @property
  def met(self) -> bool:
    """Whether what was measured is near enough."""
    return abs(self.measured - self.expected) <= self.tolerance


def published(file: Path, wanted: rowfile.Row) -> rowfile.Row:
  """The last row of what is wanted. Raises ValueError if none was ever published."""
  row = rowfile.find(rowfile.read(file), wanted)
  if row is None:
    raise ValueError(f"{file} has no row of {wanted}, expected the photograph's")
  return row


def fit(variant: str, count: int, folder: Path, rows: rowfile.Source) -> Figure:
  """PSNR of a fit."""
  image, setting = runner.PHOTOGRAPH, sweep.Setting(variant, count, 0, None, None)
  row = sweep.row_of(folder / "fits.jsonl", image, setting, rows)
  expected = published(rowfile.RESULTS / "kodak.jsonl", sweep.wanted(image, setting))
  return Figure(f"fit of {count} Gaussians", expected["psnr"], row["psnr"], DECIBELS, "dB")


def file(rate: float, folder: Path, rows: rowfile.Source) -> Figure:
  """PSNR of a file at most so many bits a pixel; NaN if it has more."""
  row = row_of_file(folder, rate_distortion.OURS, rate, rows)
  expected = published(rate_distortion.KODAK, rate_distortion.wanted(*ours(rate)))
  psnr = row["psnr"] if row["bpp"] <= rate else math.nan
  return Figure(f"file of {rate:g} bits a pixel", expected["psnr"], psnr, FILE_DECIBELS, "dB")


def ours(rate: float) -> tuple[Path, str, float, rate_distortion.Ours]:
  """What a file of ours is of."""
  return runner.PHOTOGRAPH, rate_distortion.OURS, rate, rate_distortion.Ours(EFFORT)


def row_of_file(folder: Path, codec: str, setting: float, rows: rowfile.Source) -> rowfile.Row:
  """The row of a file of the photograph."""
  how = rate_distortion.Ours(EFFORT) if codec == rate_distortion.OURS else None
  return rate_distortion.row_of(folder / "files.jsonl", runner.PHOTOGRAPH, codec, setting, how, rows)


def against(codec: str, folder: Path, rows: rowfile.Source) -> Figure:
  """Bytes at equal PSNR, at the rates that are measured here, ours against another codec's."""
  points = lambda found: [(row["bpp"], row["psnr"]) for row in found]
  mine = points(row_of_file(folder, rate_distortion.OURS, rate, rows) for rate in RATES)
  theirs = points(row_of_file(folder, codec, setting, rows) for setting in rate_distortion.settings(codec))
  then = lambda *key: published(rate_distortion.KODAK, rate_distortion.wanted(*key))
  was_mine = points(then(*ours(rate)) for rate in RATES)
  was = points(then(runner.PHOTOGRAPH, codec, setting, None) for setting in rate_distortion.settings(codec))
  expected, measured = (percent(*pair) for pair in ((was_mine, was), (mine, theirs)))
  return Figure(f"bytes at equal PSNR against {codec}", expected, measured, PERCENT, "%")


def percent(mine: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> float:
  """The BD-rate of two curves, NaN if there is none."""
  if not all(math.isfinite(psnr) for _, psnr in mine):
    return math.nan
  found = curves.bd_rate(mine, theirs)
  return math.nan if found is None else found


def damaged() -> Figure:
  """Files that were neither refused in words nor drawn: none."""
  import gaussjax

  whole, survived = fuzz_format.small_file(), 0
  _, header = gaussjax.decode(whole)
  for data in fuzz_format.mutations(whole, MUTATIONS, 0):
    try:
      fuzz_format.outcome(data, header)
    except Exception as error:  # any other end of any kind is what is looked for
      print(f"a damaged file: {type(error).__name__}: {error}")
    else:
      survived += 1
  return Figure(f"damaged files of {MUTATIONS}, crashed on", 0.0, float(MUTATIONS - survived), 0.0, "")


def main() -> int:
  """Measures, prints the table: 1 if a figure is off."""
  from gaussjax import report

  folder, rows = Path(FLAGS.out_dir), rowfile.source(fresh=True)
  folder.mkdir(parents=True, exist_ok=True)
  work: list[Callable[[], Figure]] = [damaged]
  work += [functools.partial(file, rate, folder, rows) for rate in RATES]
  work += [functools.partial(against, codec, folder, rows) for codec in OTHERS]
  work += [functools.partial(fit, *given, folder, rows) for given in FITS]
  figures, began = list[Figure](), time.monotonic()
  for index, measure in enumerate(work):
    figures.append(measure())
    spent = time.monotonic() - began
    left = spent / (index + 1) * (len(work) - index - 1)
    print(f"{index + 1}/{len(work)} {figures[-1].name}: {figures[-1].measured:.2f}  ETA {left:.0f} s", flush=True)
  table = [
    (
      one.name,
      f"{one.expected:.2f}",
      f"{one.measured:.2f} {one.unit}",
      f"{one.tolerance:g}",
      "met" if one.met else "OFF",
    )
    for one in figures
  ]
  print(report.table(table, ("photograph kodim23", "expected", "measured", "tolerance", "")))
  off = [one for one in figures if not one.met]
  print(f"{len(figures) - len(off)} of {len(figures)} figures as published")
  return int(bool(off))


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
