"""The command `gaussjax`: pictures to `.gjx` files and back. Exits 0, 1 for a damaged file, 2 for a mistake.

Standard output has what was asked for and nothing else: the file where it is `-`, one JSON document with `--json`.
"""

import argparse
import contextlib
import io
import json
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from gaussjax import errors

SUFFIX = ".gjx"
FAILURES = "failures.json"  # of a batch, in its folder
MOST_WORKERS = 10_000
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")  # of pictures that it writes
PAGE_SUFFIXES = (".html", ".htm")
MODULE_SUFFIXES = (".js", ".mjs")
EXPORT_SUFFIXES = (".ply", ".svg")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
DAMAGED, MISTAKE, INTERRUPTED = 1, 2, 130
MOST_PIXELS = 1 << 27
LEAST_CROP = 1e-3  # pixels
MOST_PSNR = 99.0  # dB; of pictures of 8 bits that are not the same none comes near it
MOST_INPUT = 1 << 28
CHECKPOINT_SECONDS = 60.0  # before the first checkpoint of an encoding, and between two


def main(argv: list[str] | None = None) -> NoReturn:
  """Runs a subcommand; errors are one line on stderr."""
  _open_streams()
  if argv is None:  # a process of its own
    sys.unraisablehook = _interrupt_again
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # they are for those who write programs
    status = _status(argv)
  if argv is None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done, and the way out is short
    if status == INTERRUPTED:  # Python and JAX may have noted that too, and would end otherwise
      with contextlib.suppress(OSError):
        sys.stdout.flush()
      os._exit(status)
  sys.exit(status)


def _interrupt_again(unraisable: Any) -> None:
  """An interruption that is raised in one of JAX's callbacks is lost there: so that it comes again in a moment."""
  if issubclass(unraisable.exc_type, KeyboardInterrupt):
    threading.Timer(0.02, _interrupt).start()
  else:
    sys.__unraisablehook__(unraisable)


def _open_streams() -> None:
  """Streams that are closed lead nowhere, and what a terminal cannot show is escaped."""
  for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
    if getattr(sys, name) is None:
      setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")


def _is_closed(stream: Any) -> bool:
  return getattr(stream, "name", None) == os.devnull


def _interrupt() -> None:
  if hasattr(signal, "pthread_kill"):  # wakes the main thread if it waits
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
  else:
    signal.raise_signal(signal.SIGINT)


def _status(argv: list[str] | None) -> int:
  """Runs a subcommand: the exit status."""
  try:
    arguments = parser().parse_args(argv)
    arguments.run(arguments)
    sys.stdout.flush()
  except KeyboardInterrupt as interruption:
    if argv is None:
      signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
    return _failed(str(interruption) or "interrupted; no file was left half written", INTERRUPTED)
  except BrokenPipeError:
    _drop_output()
    return DAMAGED
  except (errors.FormatError, RuntimeError) as error:  # FitError, and what XLA says of a device
    return _failed(errors.one_line(error), DAMAGED)
  except (ValueError, ImportError) as error:
    return _failed(errors.one_line(error), MISTAKE)
  except OSError as error:
    if error.filename is None:  # those of files have one
      _drop_output()
      return _failed(f"standard input or output: {errors.one_line(error)}", MISTAKE)
    return _failed(errors.one_line(error), MISTAKE)
  except MemoryError:
    return _failed("out of memory", DAMAGED)
  return 0


def _failed(message: str, status: int) -> int:
  _tell(message)
  return status


def _tell(message: str) -> None:
  with contextlib.suppress(OSError):
    print(f"gaussjax: {message}", file=sys.stderr, flush=True)


def _drop_output() -> None:
  """What could not be written is not tried again at the end of the process."""
  with contextlib.suppress(OSError):
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
  """Mistakes in one line, without the usage."""

  def error(self, message: str) -> NoReturn:
    sys.exit(_failed(f"{message}; see {self.prog} --help", MISTAKE))


def parser() -> argparse.ArgumentParser:
  """All subcommands with their arguments; needs no JAX."""
  top = _Parser(prog="gaussjax", description="Pictures as sets of 2D Gaussians, in small files.")
  top.add_argument("--version", action="store_true", help="print the version and exit")
  top.set_defaults(run=lambda arguments: _version(top, arguments))
  commands = top.add_subparsers(title="commands", metavar="COMMAND")

  def command(name: str, run: Callable, help: str) -> argparse.ArgumentParser:
    added = commands.add_parser(name, help=help, description=help)
    added.set_defaults(run=run)
    return added

  encode = command("encode", _encode, "a picture to a .gjx file")
  _add_files(encode, "a picture, or - for standard input", "a .gjx file, or - for standard output")
  _add_encoding(encode)
  encode.add_argument("--resume", action="store_true", help="go on from the checkpoint of an interrupted encoding")
  decode = command("decode", _decode, "a .gjx file to a PNG of its own size")
  render = command("render", _decode, "a .gjx file to a PNG of any size or part")
  for one in (decode, render):
    _add_files(one, "a .gjx file, or - for standard input", "a PNG, or - for standard output")
    one.add_argument("--partial", action="store_true", help="draw what is whole of a file that was cut off")
    one.set_defaults(width=None, height=None, crop=None, zoom=None)
  render.add_argument("--width", type=_whole(1, MOST_PIXELS), help="pixels")
  render.add_argument("--height", type=_whole(1, MOST_PIXELS), help="pixels; one of the two keeps the aspect ratio")
  render.add_argument("--zoom", type=_number(0, 1000), help="instead of a size: this many times the file's")
  render.add_argument("--crop", type=_crop, metavar="LEFT,TOP,RIGHT,BOTTOM", help="the part to draw, in its pixels")
  info = command("info", _info, "what a .gjx file holds, and where its bytes go")
  info.add_argument("input", help="a .gjx file, or - for standard input")
  compare = command("compare", _compare, "PSNR, SSIM and MS-SSIM of two pictures or .gjx files")
  compare.add_argument("first", help="the original")
  compare.add_argument("second", help="what is compared with it")
  view = command("view", _view, "a page or a PNG of a .gjx file beside its original, and of its ellipses")
  _add_view(view)
  export = command("export", _export, "a .gjx or .npz file for other tools: PLY of 3D Gaussians, or SVG")
  _add_files(export, "a .gjx or .npz file", "a .ply or .svg file")
  bring = command("import", _import, "a checkpoint of GaussianImage or Image-GS as a set of ours")
  _add_files(bring, "a .npz, .safetensors or PyTorch file", "a .npz file, or a .gjx file, which is made smaller")
  bring.add_argument("--width", type=_whole(1, MOST_PIXELS), required=True, help="of the fitted picture, in pixels")
  bring.add_argument("--height", type=_whole(1, MOST_PIXELS), required=True, help="of it")
  batch = command("batch", _batch, "many pictures to .gjx files; those that are there are left alone")
  _add_batch(batch)
  doctor = command("doctor", _doctor, "versions, devices, whether renderers are right on them, flags, the cache")
  for one in (encode, decode, render, info, compare, view, export, bring, batch, doctor):
    one.add_argument("--json", action="store_true", help="report as JSON")
  for one in (encode, decode, render, view, export, bring, batch):
    one.add_argument("--force", action="store_true", help="replace files that are there")
    one.add_argument("-v", "--verbose", action="store_true", help="say more")
  return top


def _add_files(command: argparse.ArgumentParser, source: str, target: str) -> None:
  command.add_argument("input", help=source)
  command.add_argument("output", help=target)


def _add_view(view: argparse.ArgumentParser) -> None:
  view.add_argument("input", help="a .gjx file, or - for standard input")
  view.add_argument("output", nargs="?", help="a PNG; NAME-ellipses.png comes beside it")
  view.add_argument("--html", help="a page to look at the file with, which needs no server")
  view.add_argument("--module", help="where to put gjx.js, by which pages of your own have <gjx-image>")
  view.add_argument("--original", help="the picture it was made from, for a comparison")
  view.add_argument("--open", action="store_true", help="open the page of --html in a browser")


def _add_batch(batch: argparse.ArgumentParser) -> None:
  from gaussjax import engines

  batch.add_argument("inputs", nargs="+", help="pictures, or folders of them with all that is below")
  batch.add_argument(
    "--out_dir",
    required=True,
    help="where the files go, in folders like those of the pictures; of a.png comes a.gjx, "
    "but a.png.gjx and a.jpg.gjx where there are both",
  )
  _add_encoding(batch)
  batch.add_argument(
    "--workers",
    type=_whole(1, MOST_WORKERS),
    help=f"pictures at a time, each by a process with its share of the cores; what fails thrice is in {FAILURES}",
  )
  batch.add_argument(
    "--engine",
    choices=engines.NAMES,
    help="who runs the workers: this machine (local), the Ray cluster at RAY_ADDRESS, or Slurm, which sbatch's "
    "variables tell of (SBATCH_PARTITION, SBATCH_TIMELIMIT); all machines need the same folders and gaussjax",
  )


def _add_encoding(command: argparse.ArgumentParser) -> None:
  goal = command.add_mutually_exclusive_group()
  goal.add_argument("-q", "--quality", type=_number(0, 100, open=False), help="0 to 100 (default 50)")
  goal.add_argument("--bpp", type=_number(0, 1e6), help="at most so many bits a pixel")
  goal.add_argument("--size", type=_whole(1, 1 << 40), help="at most so many bytes")
  goal.add_argument("--target_psnr", type=_number(0, MOST_PSNR), help="at least so many dB")
  command.add_argument(
    "-e", "--effort", type=int, default=4, choices=range(10), help="time spent, 0 to 9 (default 4)"
  )
  command.add_argument("--layers", type=int, default=1, choices=range(1, 5), help="for progressive drawing, 1 to 4")
  command.add_argument("--seed", type=_whole(0, 2**31 - 1), default=0, help="of the random numbers")
  command.add_argument("--metadata", action="store_true", help="keep EXIF and the ICC profile")


def _whole(low: int, high: int) -> Callable[[str], int]:
  """What an option takes: a whole number from `low` to `high`."""

  def parse(text: str) -> int:
    with contextlib.suppress(ValueError):
      if low <= int(text) <= high:
        return int(text)
    raise argparse.ArgumentTypeError(f"got {text[:40]}, expected a whole number from {low} to {high}")

  return parse


def _number(low: float, high: float, *, open: bool = True) -> Callable[[str], float]:
  """What an option takes: a number from `low`, itself left out if `open`, to `high`."""

  def parse(text: str) -> float:
    with contextlib.suppress(ValueError):
      value = float(text)
      if low <= value <= high and not (open and value == low):
        return value
    raise argparse.ArgumentTypeError(
      f"got {text[:40]}, expected a number {'above' if open else 'from'} {low:g}, at most {high:g}"
    )

  return parse


def _crop(text: str) -> tuple[float, ...]:
  with contextlib.suppress(ValueError):
    left, top, right, bottom = (float(part) for part in text.split(","))
    bounded = all(abs(number) <= MOST_PIXELS for number in (left, top, right, bottom))
    if bounded and right - left >= LEAST_CROP and bottom - top >= LEAST_CROP:
      return left, top, right, bottom
  raise argparse.ArgumentTypeError(
    f"got {text[:80]}, expected LEFT,TOP,RIGHT,BOTTOM in pixels, LEFT < RIGHT and TOP < BOTTOM"
  )


def _version(top: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
  from gaussjax import startup

  if not arguments.version:
    top.print_help()
    sys.exit(MISTAKE)
  print(f"gaussjax {startup.versions()['gaussjax']}")


def _start() -> Any:
  """gaussjax, with JAX made ready. Raises ValueError where that cannot run."""
  import gaussjax
  from gaussjax import startup

  _check_flags()
  startup.prepare_jax()
  startup.check_devices()
  return gaussjax


def _check_flags() -> None:
  from gaussjax import startup

  if refused := startup.refused_flags():
    raise ValueError(refused)


def _input(path: str) -> bytes:
  """The bytes of a file or a pipe, or standard input's."""
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
def _named(path: str) -> Iterator[None]:
  """What is wrong with a file's bytes is told with its name."""
  try:
    yield
  except errors.FormatError as error:
    raise errors.FormatError(f"{'standard input' if path == '-' else path}: {error}") from error


def _check_output(path: str, arguments: argparse.Namespace, suffixes: tuple[str, ...], *inputs: str) -> None:
  """Before the work: that it can be written, by a name of one of the `suffixes`. Raises ValueError."""
  from gaussjax import files

  if path == "-":
    if _is_closed(sys.stdout):
      raise ValueError("got - as the output, but standard output is closed")
    return
  if os.path.isdir(path):
    raise ValueError(f"got the output {path}, which is a folder; expected the name of a file")
  if files.is_regular(path):
    if Path(path).suffix.lower() not in suffixes:
      raise ValueError(f"got the output {path}, expected a name that ends in {', '.join(suffixes)}")
    if os.path.exists(path):
      if any(os.path.exists(source) and os.path.samefile(source, path) for source in inputs):
        raise ValueError(f"got the output {path}, which is the input")
      if not arguments.force:
        raise ValueError(f"got the output {path}, which is there already; --force replaces it")
  files.check_writable(path)


def _output(path: str, data: bytes) -> None:
  if path == "-":
    sys.stdout.buffer.write(data)
  else:
    from gaussjax import files

    files.write_whole(path, data)


def _picture_bytes(path: str, picture: Any, metadata: dict[str, bytes] | None = None) -> bytes:
  """`[H, W, C]` in [0, 1] in the format of `path`, PNG for standard output."""
  from gaussjax import image_io

  suffix = Path(path).suffix.lower()
  pixels = image_io.as_uint8(picture)
  return image_io.image_bytes(pixels, suffix if suffix in PICTURE_SUFFIXES else ".png", metadata=metadata)


def _say(arguments: argparse.Namespace, figures: dict[str, Any], *, to_stderr: bool = False) -> None:
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


def _progress() -> Callable[[str, int, int], None]:
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


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
  from gaussjax.gjx import encoding

  names = ("quality", "bpp", "size", "target_psnr", "layers")
  effort = encoding.EFFORTS[arguments.effort]._replace(seed=arguments.seed)
  return {"effort": effort} | {name: getattr(arguments, name) for name in names}


def _asked(arguments: argparse.Namespace, height: int, width: int) -> str:
  """The rate or quality that was asked for, in the user's words."""
  for name in ("quality", "bpp", "size", "target_psnr"):
    value = getattr(arguments, name)
    if value is not None:
      pixels = f" of {width} x {height} pixels is {math.floor(value * height * width / 8)} bytes"
      return f"--{name} {value:g}{pixels if name == 'bpp' else ''}: "
  return ""


def _encode_one(
  gaussjax: Any, source: str, arguments: argparse.Namespace, tell: Callable, progress: Callable, **more: Any
) -> tuple[bytes, dict[str, Any]]:
  """(the file, its figures); `tell` gets what is to be known besides, a line each, `gaussjax.encode` has `more`."""
  from gaussjax import image_io
  from gaussjax.gjx import packing
  from gaussjax.quality import metrics

  data = _input(source)
  image = gaussjax.read_image(data, name=source, report_fn=lambda line: tell(f"{source}: {line}"))
  found = image_io.read_metadata(data)
  if arguments.verbose and not arguments.metadata:
    for kind, what in (("icc", "colour profile of sRGB, which every file here is in,"), ("exif", "EXIF")):
      if kind in found:
        tell(f"{source}: {what} left out; --metadata keeps it")
  kept = found if arguments.metadata else {}
  began = time.monotonic()
  try:
    encoded = gaussjax.encode(image, metadata=kept, progress_fn=progress, **_options(arguments), **more)
  except ValueError as error:
    raise ValueError(f"{source}: {_asked(arguments, *image.shape[:2])}{error}") from error
  seconds = time.monotonic() - began
  gaussians, header = gaussjax.decode(encoded)
  decoded = packing.at_8_bits(gaussians)
  pixels = header.height * header.width
  return encoded, {
    "bytes": len(encoded),
    "bpp": 8 * len(encoded) / pixels,
    "psnr": float(metrics.psnr(decoded, image)),  # type: ignore[arg-type]
    "gaussians": len(gaussians.means),
    "seconds": seconds,
  }


def _encode(arguments: argparse.Namespace) -> None:
  _check_output(arguments.output, arguments, (SUFFIX,), arguments.input)
  gaussjax = _start()
  from gaussjax.fitting import checkpoints

  folder = _checkpoint_folder(arguments)
  more = {} if folder is None else {"checkpoint": _checkpoint(gaussjax, folder)}
  try:
    data, figures = _encode_one(gaussjax, arguments.input, arguments, _tell, _progress(), **more)
    _output(arguments.output, data)
  except KeyboardInterrupt:
    if folder is not None and checkpoints.kept_parts(folder):
      raise KeyboardInterrupt(f"interrupted; what is done is in {folder}; go on with --resume") from None
    raise
  if folder is not None:
    checkpoints.discard_parts(folder)
  _say(arguments, figures, to_stderr=arguments.output == "-")


def _checkpoint(gaussjax: Any, folder: str) -> Any:
  """Of an encoding, written by the clock alone."""
  return gaussjax.Checkpoint(
    folder, every_steps=sys.maxsize, every_seconds=CHECKPOINT_SECONDS, after_seconds=CHECKPOINT_SECONDS
  )


def _checkpoint_folder(arguments: argparse.Namespace) -> str | None:
  """Beside the output; None where that is a pipe or a device.

  Raises ValueError unless there is a checkpoint to go on from exactly with --resume, OSError for too long a name.
  """
  from gaussjax import files
  from gaussjax.fitting import checkpoints

  if arguments.output == "-" or not files.is_regular(arguments.output):
    if arguments.resume:
      raise ValueError(f"got --resume and the output {arguments.output}, expected a file, which has a checkpoint")
    return None
  folder = f"{arguments.output}.checkpoint"
  with contextlib.suppress(FileNotFoundError):
    os.lstat(folder)
  if os.path.exists(folder) and not os.path.isdir(folder):
    raise ValueError(f"got {folder}, which is a file, where the checkpoint would go; take another output")
  found = bool(checkpoints.kept_parts(folder))
  if found and not arguments.resume:
    raise ValueError(
      f"{folder} holds an encoding that is not finished; go on with --resume, or remove it to begin anew"
    )
  if arguments.resume and not found:
    raise ValueError(f"got --resume, but {folder} holds no checkpoint; leave it out to begin")
  return folder


def _decode(arguments: argparse.Namespace) -> None:
  if arguments.zoom is not None and (arguments.width or arguments.height):
    raise ValueError("got --zoom and a size, expected one of the two")
  _check_output(arguments.output, arguments, PICTURE_SUFFIXES, arguments.input)
  gaussjax = _start()
  from gaussjax.gjx import container, packing

  with _named(arguments.input):
    contents = container.read(_input(arguments.input), partial=arguments.partial)
    gaussians = packing.gaussians_of(contents)
  view, height, width = _size(arguments, gaussians.canvas, gaussians.colors.shape[1])
  picture = gaussjax.render(gaussians, height, width, viewport=view)
  _output(arguments.output, _picture_bytes(arguments.output, picture, contents.metadata))
  if arguments.verbose or arguments.json:
    figures = {"height": picture.shape[0], "width": picture.shape[1], "gaussians": len(gaussians.means)}
    _say(arguments, figures, to_stderr=arguments.output == "-")


def _size(arguments: argparse.Namespace, canvas: Any, channels: int) -> tuple[tuple[float, ...], int, int]:
  """(the part of the file's picture to draw, height, width). Raises ValueError for what cannot be drawn."""
  from gaussjax.rendering import renderer

  view = left, top, right, bottom = arguments.crop or (0, 0, canvas.width, canvas.height)
  if left >= canvas.width or top >= canvas.height or right <= 0 or bottom <= 0:
    raise ValueError(f"got --crop outside of the picture, which has {canvas.width} x {canvas.height} pixels")
  height, width = arguments.height, arguments.width
  if arguments.zoom is not None:
    width = max(1, round((right - left) * arguments.zoom))
    height = max(1, round((bottom - top) * arguments.zoom))
  height, width = renderer.output_size(view, height, width)
  if height * width > MOST_PIXELS:
    raise ValueError(f"got a size of {width} x {height}, expected at most {MOST_PIXELS} pixels")
  if channels > 4:
    raise ValueError(f"got a file of {channels} channels, expected 1 to 4 for a picture")
  return view, height, width


def _info(arguments: argparse.Namespace) -> None:
  from gaussjax.gjx import container, contexts, grids
  from gaussjax.rendering import blends

  data = _input(arguments.input)
  with _named(arguments.input):
    contents = container.read(data)
  header = contents.header
  count = sum(len(layer.minor) for layer in contents.layers)
  steps = {f"step {name}": grids.step(code) for name, code in header.steps._asdict().items()}
  bits = contexts.field_bits(contents.layers, header.channels, header.steps)
  figures = {
    "size": f"{header.width} x {header.height}",
    "channels": header.channels,
    "blend": blends.BY_CODE[header.blend].name,
    "cutoff": header.cutoff / container.FIXED,
    "floor": header.floor / container.FIXED,
    "bytes": len(data),
    "bpp": 8 * len(data) / (header.width * header.height),
    "gaussians": count,
    "bits a Gaussian": 8 * len(data) / count,
    **{f"bits {name}": value / count for name, value in bits.items()},
    **steps,
    **{f"bytes {name}": size for name, size in contents.sizes},
  }
  _say(arguments, figures)


def _picture(gaussjax: Any, path: str) -> Any:
  """`[H, W, C]` in [0, 1] of a picture or a `.gjx` file, at 8 bits in the latter case."""
  from gaussjax.gjx import container, packing

  data = _input(path)
  if data.startswith(container.SIGNATURE):
    with _named(path):
      return packing.at_8_bits(gaussjax.decode(data)[0])
  return gaussjax.read_image(data, name=path, report_fn=lambda line: _tell(f"{path}: {line}"))


def _shape(picture: Any) -> str:
  height, width, channels = picture.shape
  return f"{width} x {height} pixels and {channels} channel{'s' if channels > 1 else ''}"


def _compare(arguments: argparse.Namespace) -> None:
  if arguments.first == arguments.second == "-":
    raise ValueError("got - twice, expected standard input for one of the two")
  gaussjax = _start()
  from gaussjax.quality import metrics

  first, second = _picture(gaussjax, arguments.first), _picture(gaussjax, arguments.second)
  if first.shape != second.shape:
    raise ValueError(
      f"got {arguments.first} of {_shape(first)} and {arguments.second} of {_shape(second)}, "
      "expected equal sizes and channels"
    )
  measured = metrics.evaluate(second, first)
  _say(arguments, measured | metrics.perceptual(second, first))


def _view(arguments: argparse.Namespace) -> None:
  asked = arguments.output, arguments.html, arguments.module
  if asked == (None, None, None):
    raise ValueError("got neither a PNG nor --html nor --module, expected one of them to write")
  if "-" in asked:
    raise ValueError("got - as the output, expected a name, since several files are written")
  if arguments.open and arguments.html is None:
    raise ValueError("got --open without --html, expected the name of a page to open")
  if arguments.input == arguments.original == "-":
    raise ValueError("got - twice, expected standard input for one of the two")
  wanted = _view_outputs(arguments)
  inputs = arguments.input, arguments.original or "-"
  for path, suffixes in wanted.items():
    _check_output(path, arguments, suffixes, *inputs)
  gaussjax = _start()
  data = _input(arguments.input)
  with _named(arguments.input):
    gaussians, header = gaussjax.decode(data)
  original = _original(gaussjax, arguments.original, header)
  figures = dict[str, Any]()
  if arguments.output is not None:
    figures |= _view_pictures(gaussjax, arguments.output, gaussians, original)
  if arguments.html is not None:
    figures["page"] = arguments.html
    _output(arguments.html, _page(arguments.input, data, original).encode())
  if arguments.module is not None:
    from gaussjax.web import pages

    figures["module"] = arguments.module
    _output(arguments.module, pages.source("gjx.js").encode())
  _say(arguments, figures)
  if arguments.open:
    _open(arguments.html)


def _view_outputs(arguments: argparse.Namespace) -> dict[str, tuple[str, ...]]:
  """Names of the files to be written, with the suffixes that they may have."""
  wanted = dict[str, tuple[str, ...]]()
  if arguments.output is not None:
    wanted |= dict.fromkeys((arguments.output, _ellipses(Path(arguments.output))), PICTURE_SUFFIXES)
  if arguments.html is not None:
    wanted[arguments.html] = PAGE_SUFFIXES
  if arguments.module is not None:
    wanted[arguments.module] = MODULE_SUFFIXES
  return wanted


def _ellipses(output: Path) -> str:
  return str(output.with_name(f"{output.stem}-ellipses{output.suffix}"))


def _original(gaussjax: Any, path: str | None, header: Any) -> Any:
  """The picture that a file was made from, None without a path. Raises ValueError for one of another size."""
  if path is None:
    return None
  original = _picture(gaussjax, path)
  if original.shape != (header.height, header.width, header.channels):
    expected = f"{header.width} x {header.height} pixels and {header.channels} channels"
    raise ValueError(f"got {path} of {_shape(original)}, expected {expected}")
  return original


def _view_pictures(gaussjax: Any, output: str, gaussians: Any, original: Any) -> dict[str, str]:
  """Writes the comparison and the ellipses: their names."""
  from gaussjax import report

  picture = gaussjax.render(gaussians)
  shown = picture if original is None else report.comparison(original, picture)
  magnify = max(1, 1536 // max(picture.shape[:2]))
  ellipses = _ellipses(Path(output))
  outlines = report.ellipses(gaussians, picture, magnify=magnify)
  _output(output, _picture_bytes(output, shown))
  _output(ellipses, _picture_bytes(ellipses, outlines))
  return {"picture": output, "ellipses": ellipses}


def _page(name: str, data: bytes, original: Any) -> str:
  """The viewer's page of a file; its original as PNG, without what else its own file says."""
  from gaussjax.web import pages

  shown = "" if original is None else pages.address(_picture_bytes("-", original), "image/png")
  return pages.viewer(data, title="standard input" if name == "-" else Path(name).name, original=shown)


def _open(path: str) -> None:
  """Has a browser show a page. Raises ValueError where there is none."""
  import webbrowser

  if not webbrowser.open(Path(path).absolute().as_uri()):
    raise ValueError(f"found no browser to open {path} with; it is written, open it by hand")


def _export(arguments: argparse.Namespace) -> None:
  _check_output(arguments.output, arguments, EXPORT_SUFFIXES, arguments.input)
  _start()
  from gaussjax.exchange import ply, svg
  from gaussjax.gjx import store

  gaussians = store.load(arguments.input)
  written = svg.dumps(gaussians).encode() if arguments.output.lower().endswith(".svg") else ply.dumps(gaussians)
  _output(arguments.output, written)
  _say(arguments, {"gaussians": len(gaussians.means), "bytes": len(written)}, to_stderr=arguments.output == "-")


def _import(arguments: argparse.Namespace) -> None:
  from gaussjax.gjx import store

  if arguments.output == "-":
    raise ValueError("got - as the output, expected a name, whose end says of which kind the file is to be")
  _check_output(arguments.output, arguments, store.SUFFIXES, arguments.input)
  gaussjax = _start()
  from gaussjax import geometry
  from gaussjax.exchange import archives, foreign

  data = _input(arguments.input)
  with _named(arguments.input):
    gaussians = foreign.gaussians(archives.read(data), arguments.height, arguments.width)
  gaussjax.save(arguments.output, gaussians)
  _say(arguments, {"gaussians": len(gaussians.means), "blend": geometry.canvas_of(gaussians).blend.name})


class _Job(NamedTuple):
  """A picture of a batch."""

  source: str
  target: str
  trouble: str = ""  # why it cannot be encoded, known before


_Ends = Generator[tuple[int, dict[str, Any]], None, None]  # (index of a job, what came of it)


def _batch(arguments: argparse.Namespace) -> None:
  jobs = _jobs(arguments.inputs, arguments.out_dir)
  if not jobs:
    raise ValueError(f"got {' '.join(arguments.inputs)}, expected pictures or folders of them")
  by_engine = arguments.engine is not None or arguments.workers is not None
  if any(_is_due(job, arguments) for job in jobs):
    _make_folder(arguments.out_dir)
    _check_flags() if by_engine else _start()
  results = dict[int, dict[str, Any]]()
  try:
    with contextlib.closing((_by_engine if by_engine else _in_turn)(jobs, arguments)) as ended:
      for index, result in ended:
        results[index] = result
        if "error" in result:
          _tell(f"{jobs[index].source}: {result['error']}")
        elif not arguments.json:
          _say_result(result)
  finally:  # what is done counts, also after an interruption
    in_order = [results[index] for index in sorted(results)]
    failed = [result for result in in_order if "error" in result]
    if arguments.json:
      print(json.dumps({"results": in_order, "pictures": len(jobs), "failed": len(failed)}))
    _list_failures(arguments.out_dir, failed, whole=len(results) == len(jobs))
  if failed:
    raise ValueError(f"{len(failed)} of {len(jobs)} pictures could not be encoded")


def _in_turn(jobs: list[_Job], arguments: argparse.Namespace) -> _Ends:
  """One after another in this process."""
  busy, done = 0.0, 0
  for index, job in enumerate(jobs):
    if len(jobs) > 1:
      left = f", ETA {busy / done * (len(jobs) - index):.0f} s" if done else ""
      print(f"{index + 1}/{len(jobs)} {job.source}{left}", file=sys.stderr, flush=True)
    result = _result(job, arguments)
    if result is None:
      try:
        result = _named_files(job, _encode_job(job, arguments, _tell, _progress()))
      except Exception as error:  # whatever one picture brings, the others go on
        result = _named_files(job, {"error": _without_name(job, errors.one_line(error))})
    busy, done = busy + result.get("seconds", 0.0), done + ("seconds" in result)
    yield index, result


def _by_engine(jobs: list[_Job], arguments: argparse.Namespace) -> _Ends:
  """As they end in other processes, those first of which it is known before."""
  from gaussjax import engines

  known = {index: result for index, job in enumerate(jobs) if (result := _result(job, arguments)) is not None}
  yield from known.items()
  due = [index for index in range(len(jobs)) if index not in known]
  names = ("quality", "bpp", "size", "target_psnr", "layers", "effort", "seed", "metadata", "verbose", "force")
  options = {name: getattr(arguments, name) for name in names}
  absolute = os.path.abspath  # other processes may have another folder
  tasks = [(absolute(jobs[index].source), absolute(jobs[index].target), options) for index in due]
  report, engine = _progress(), arguments.engine or "local"
  report("batch", 0, len(due))
  ends = engines.run(encode_task, tasks, engine=engine, workers=arguments.workers, folder=arguments.out_dir)
  with contextlib.closing(ends):
    for done, outcome in enumerate(ends, 1):
      job, record = jobs[due[outcome.number]], outcome.record or {"error": outcome.error}
      for note in record.pop("notes", []):
        _tell(note.replace(tasks[outcome.number][0], job.source))
      if "error" in record:
        record["error"] = _without_name(job, record["error"].replace(tasks[outcome.number][0], job.source))
      report("batch", done, len(due))
      yield due[outcome.number], _named_files(job, record)


def encode_task(source: str, target: str, options: dict[str, Any]) -> dict[str, Any]:
  """What `batch` has other processes do: writes the file of a picture, whole, and returns its figures.

  A mistake in the picture is an `error` in them. What another attempt may mend is raised.
  """
  notes, arguments = list[str](), argparse.Namespace(**options)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    if os.path.isfile(target) and not arguments.force:  # an attempt that wrote it and died
      return {"skipped": "there already"}
    try:
      _start()
      return {**_encode_job(_Job(source, target), arguments, notes.append, lambda *_: None), "notes": notes}
    except (ValueError, errors.FitError) as error:
      if isinstance(error.__cause__, OSError):
        raise
      return {"error": errors.one_line(error), "notes": notes}


def _result(job: _Job, arguments: argparse.Namespace) -> dict[str, Any] | None:
  """What is known of a job before any work; None if it is to be done."""
  if job.trouble:
    return _named_files(job, {"error": job.trouble})
  return None if _is_due(job, arguments) else _named_files(job, {"skipped": "there already"})


def _named_files(job: _Job, result: dict[str, Any]) -> dict[str, Any]:
  return {"input": job.source, "file": job.target} | result


def _without_name(job: _Job, words: str) -> str:
  return words.removeprefix(f"{job.source}: ")


def _encode_job(job: _Job, arguments: argparse.Namespace, tell: Callable, progress: Callable) -> dict[str, Any]:
  """Writes a picture's file: its figures."""
  import gaussjax
  from gaussjax import startup

  Path(job.target).parent.mkdir(parents=True, exist_ok=True)
  _check_output(job.target, arguments, (SUFFIX,), job.source)
  startup.release_programs()
  data, figures = _encode_one(gaussjax, job.source, arguments, tell, progress)
  _output(job.target, data)
  return figures


def _list_failures(folder: str, failed: list[dict[str, Any]], *, whole: bool) -> None:
  """Writes which pictures failed in the last run; the file goes when a `whole` one has no failures."""
  from gaussjax import files

  path = Path(folder) / FAILURES
  if failed and path.parent.is_dir():
    files.write_whole(path, (json.dumps(failed, indent=1) + "\n").encode())
  elif whole and not failed:
    path.unlink(missing_ok=True)


def _say_result(result: dict[str, Any]) -> None:
  if "skipped" in result:
    print(f"{result['file']}: {result['skipped']}", flush=True)
  elif "error" not in result:
    shown = "{bytes} bytes, {bpp:.4f} bpp, {psnr:.2f} dB, {seconds:.0f} s".format(**result)
    print(f"{result['file']}: {shown}", flush=True)


def _is_due(job: _Job, arguments: argparse.Namespace) -> bool:
  return not job.trouble and (arguments.force or not os.path.isfile(job.target))


def _make_folder(folder: str) -> None:
  """Makes it, and sees that files can be written there. Raises ValueError."""
  from gaussjax import files

  try:
    Path(folder).mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(f"got --out_dir {folder}, which cannot be made ({error.strerror})") from error
  files.check_writable(Path(folder) / f"x{SUFFIX}")


def _jobs(inputs: list[str], out_dir: str) -> list[_Job]:
  """The pictures with their files, each once, by input and name; and what of the inputs gives none."""
  places, broken = dict[str, tuple[str, Path]](), list[_Job]()

  def add(path: str, place: Path) -> None:
    folder, name = os.path.split(path)
    places.setdefault(os.path.join(os.path.realpath(folder), name), (path, place))

  for name in inputs:
    if name in ("", "-"):
      broken.append(_Job(name, "", "expected a picture with a name, of which its file's is made"))
    elif not os.path.isdir(name):
      add(name, Path(Path(name).name))
    else:
      found = list(_walk(name))
      for path, trouble in found:
        if trouble:
          broken.append(_Job(path, "", trouble))
        else:
          add(path, Path(path).relative_to(name))
      if not found:
        broken.append(_Job(name, "", "a folder without pictures"))
  stems = Counter(place.with_suffix("") for _, place in places.values())
  named = {
    source: os.path.join(out_dir, place.with_suffix("") if stems[place.with_suffix("")] == 1 else place) + SUFFIX
    for source, place in places.values()
  }
  users = Counter(named.values())
  twin = "another picture has the same name; give it another --out_dir in a run of its own"
  return [_Job(source, target, twin if users[target] > 1 else "") for source, target in named.items()] + broken


def _walk(folder: str) -> Iterator[tuple[str, str]]:
  """(path, "") of the pictures in a folder and below, hidden ones apart; (path, why) of folders not to be read."""
  unread = list[OSError]()
  for parent, folders, names in os.walk(folder, onerror=unread.append):
    folders[:] = sorted(name for name in folders if not name.startswith("."))
    for name in sorted(names):
      if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
        yield os.path.join(parent, name), ""
  for error in unread:
    yield str(error.filename), str(error.strerror)


def _doctor(arguments: argparse.Namespace) -> None:
  """Whatever is broken is told of in its place."""
  from gaussjax import startup

  flags = os.environ.get("XLA_FLAGS", "").strip()
  refused = startup.refused_flags()
  if refused:
    del os.environ["XLA_FLAGS"]  # XLA would end the process
  startup.prepare_jax()
  folder = startup.cache_folder()

  def environment() -> dict[str, str]:
    from gaussjax import report

    return report.environment()

  def devices() -> str:
    import jax

    startup.check_devices()
    return ", ".join(map(str, jax.devices()))

  def trials() -> dict[str, str]:
    from gaussjax.rendering import trial

    return trial.summary()

  def programs() -> list[int]:
    return [file.stat().st_size for file in os.scandir(folder)] if folder and folder.is_dir() else []

  figures: dict[str, Any] = {**startup.versions(), "devices": _or_why(devices)}
  found = _or_why(environment)
  figures |= found if isinstance(found, dict) else {}
  found = _or_why(trials)
  figures |= found if isinstance(found, dict) else {"numbers": found}
  figures["XLA_FLAGS"] = f"broken: {refused}" if refused else os.environ.get("XLA_FLAGS", flags).strip()
  figures["cache"] = str(folder) if folder else "none: there is no home folder"
  sizes = _or_why(programs)
  figures |= (
    {"cached programs": len(sizes), "cached bytes": sum(sizes)}
    if isinstance(sizes, list)
    else {"cached programs": sizes}
  )
  _say(arguments, figures)


def _or_why(look: Callable[[], Any]) -> Any:
  """What `look` finds, or why it cannot."""
  try:
    return look()
  except Exception as error:
    return f"broken: {errors.one_line(error)}"


if __name__ == "__main__":
  main()
