"""What every subcommand does with files, standard streams and whoever waits."""

import argparse
import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gaussjax import errors

DAMAGED, MISTAKE, INTERRUPTED = 1, 2, 130
MOST_INPUT = 1 << 28
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")  # of pictures that it writes


def _is_closed(stream: Any) -> bool:
  return getattr(stream, "name", None) == os.devnull


def fail(message: str, status: int) -> int:
  tell_user(message)
  return status


def tell_user(message: str) -> None:
  with contextlib.suppress(OSError):
    print(f"gaussjax: {message}", file=sys.stderr, flush=True)


def drop_output() -> None:
  """What could not be written is not tried again at the end of the process."""
  with contextlib.suppress(OSError):
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def start_jax() -> Any:
  """gaussjax, with JAX made ready. Raises ValueError where that cannot run."""
  import gaussjax
  from gaussjax import startup

  check_flags()
  startup.prepare_jax()
  startup.check_devices()
  return gaussjax


def check_flags() -> None:
  from gaussjax import startup

  if refused := startup.refused_flags():
    raise ValueError(refused)


def read_input(path: str) -> bytes:
  """The bytes of a file, a pipe or an address, or standard input's."""
  from gaussjax import files

  if path != "-":
    return files.read_bytes(path, most=MOST_INPUT)
  if _is_closed(sys.stdin):
    raise ValueError("got - as the input, but standard input is closed")
  data = sys.stdin.buffer.read(MOST_INPUT + 1)
  if len(data) > MOST_INPUT:
    raise ValueError(f"got more than {MOST_INPUT} bytes on standard input")
  return data


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
  """What is wrong with a file's bytes is told with its name."""
  try:
    yield
  except errors.FormatError as error:
    raise errors.FormatError(f"{'standard input' if path == '-' else path}: {error}") from error


def check_output(path: str, arguments: argparse.Namespace, suffixes: tuple[str, ...], *inputs: str) -> None:
  """Before the work: that it can be written, by a name of one of the `suffixes`. Raises ValueError."""
  from gaussjax import files

  if path == "-":
    if _is_closed(sys.stdout):
      raise ValueError("got - as the output, but standard output is closed")
    return
  if os.path.isdir(path):
    raise ValueError(f"got the output {path}, which is a folder; expected the name of a file")
  if files.is_regular(path) or files.is_url(path):
    if Path(path).suffix.lower() not in suffixes:
      raise ValueError(f"got the output {path}, expected a name that ends in {', '.join(suffixes)}")
    if files.exists(path):
      if path in inputs or any(os.path.exists(source) and os.path.samefile(source, path) for source in inputs):
        raise ValueError(f"got the output {path}, which is the input")
      if not arguments.force:
        raise ValueError(f"got the output {path}, which is there already; --force replaces it")
  files.check_writable(path)


def write_output(path: str, data: bytes) -> None:
  if path == "-":
    sys.stdout.buffer.write(data)
  else:
    from gaussjax import files

    files.write_whole(path, data)


def picture_bytes(path: str, picture: Any, metadata: dict[str, bytes] | None = None) -> bytes:
  """`[H, W, C]` in [0, 1] in the format of `path`, PNG for standard output."""
  from gaussjax import image_io

  suffix = Path(path).suffix.lower()
  pixels = image_io.as_uint8(picture)
  return image_io.image_bytes(pixels, suffix if suffix in PICTURE_SUFFIXES else ".png", metadata=metadata)


def say(arguments: argparse.Namespace, figures: dict[str, Any], *, to_stderr: bool = False) -> None:
  """Figures as JSON or as lines; on stderr where standard output holds the result."""
  out = sys.stderr if to_stderr else sys.stdout
  if arguments.json:
    print(_json(figures), file=out)
  else:
    width = max(map(len, figures))
    for name, value in figures.items():
      shown = f"{value:.4f}" if isinstance(value, float) else value
      print(f"{name.ljust(width)}  {shown}", file=out)


def _json(figures: dict[str, Any]) -> str:
  """With null for NaN and infinities, which are not JSON."""
  plain = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in figures.items()}
  return json.dumps(plain)


def progress_bars() -> Callable[[str, int, int], None]:
  """A bar for each stage on a terminal, a line every ten seconds elsewhere; on stderr."""
  starts: dict[str, float] = {}
  bars: dict[str, Any] = {}
  last = time.monotonic()

  def report(stage: str, done: int, total: int) -> None:
    nonlocal last
    now = time.monotonic()
    if done == 0 or stage not in starts:
      starts[stage] = now
      if sys.stderr.isatty():
        from tqdm import tqdm

        bars[stage] = tqdm(total=total, desc=stage, unit="step", leave=False, dynamic_ncols=True)
    if stage in bars:
      bars[stage].update(done - bars[stage].n)
      if done >= total:
        bars[stage].close()
    elif now - last > 10:
      last = now
      left = f", ETA {(now - starts[stage]) / done * (total - done):.0f} s" if done else ""
      print(f"{stage} {done}/{total}{left}", file=sys.stderr, flush=True)

  return report


def or_why(look: Callable[[], Any]) -> Any:
  """What `look` finds, or why it cannot."""
  try:
    return look()
  except Exception as error:
    return f"broken: {errors.one_line(error)}"
