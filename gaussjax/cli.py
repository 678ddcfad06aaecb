"""The command `gaussjax`: pictures to `.gjx` files and back. Exits 0, 1 for a damaged file, 2 for a mistake."""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from gaussjax import errors

SUFFIX = ".gjx"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
DAMAGED, MISTAKE, INTERRUPTED = 1, 2, 130
MAX_STDIN = 1 << 28


def main(argv: list[str] | None = None) -> NoReturn:
  """Runs a subcommand; errors are one line on stderr."""
  arguments = parser().parse_args(argv)
  try:
    arguments.run(arguments)
    sys.stdout.flush()
  except KeyboardInterrupt:
    _fail("interrupted; no file was left half written", INTERRUPTED)
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(DAMAGED)
  except (errors.FormatError, errors.FitError) as error:
    _fail(str(error), DAMAGED)
  except (ValueError, OSError) as error:
    _fail(str(error), MISTAKE)
  except MemoryError:
    _fail("out of memory", DAMAGED)
  sys.exit(0)


def _fail(message: str, status: int) -> NoReturn:
  print(f"gaussjax: {' '.join(message.split())}", file=sys.stderr)
  sys.exit(status)


def parser() -> argparse.ArgumentParser:
  """All subcommands with their arguments; needs no JAX."""
  top = argparse.ArgumentParser(prog="gaussjax", description="Pictures as sets of 2D Gaussians, in small files.")
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
  decode = command("decode", _decode, "a .gjx file to a PNG of its own size")
  render = command("render", _decode, "a .gjx file to a PNG of any size or part")
  for one in (decode, render):
    _add_files(one, "a .gjx file, or - for standard input", "a PNG, or - for standard output")
    one.add_argument("--partial", action="store_true", help="draw what is whole of a file that was cut off")
    one.set_defaults(width=None, height=None, crop=None, zoom=None)
  render.add_argument("--width", type=_positive, help="pixels")
  render.add_argument("--height", type=_positive, help="pixels; one of the two keeps the aspect ratio")
  render.add_argument("--zoom", type=float, help="instead of a size: this many times the file's")
  render.add_argument("--crop", type=_crop, metavar="LEFT,TOP,RIGHT,BOTTOM", help="the part to draw, in its pixels")
  info = command("info", _info, "what a .gjx file holds, and where its bytes go")
  info.add_argument("input", help="a .gjx file, or - for standard input")
  compare = command("compare", _compare, "PSNR, SSIM and MS-SSIM of two pictures or .gjx files")
  compare.add_argument("first", help="the original")
  compare.add_argument("second", help="what is compared with it")
  view = command("view", _view, "a PNG of a .gjx file beside its original, and of its ellipses")
  _add_files(view, "a .gjx file", "a PNG; NAME-ellipses.png comes beside it")
  view.add_argument("--original", help="the picture it was made from, for a comparison")
  batch = command("batch", _batch, "many pictures to .gjx files; those that are there are left alone")
  batch.add_argument("inputs", nargs="+", help="pictures, or folders of them")
  batch.add_argument("--out_dir", required=True, help="where the files go")
  _add_encoding(batch)
  doctor = command("doctor", _doctor, "versions, devices, flags and the cache of compiled programs")
  for one in (encode, decode, render, info, compare, view, batch, doctor):
    one.add_argument("--json", action="store_true", help="report as JSON")
  for one in (encode, decode, render, view, batch):
    one.add_argument("--force", action="store_true", help="replace files that are there")
    one.add_argument("-v", "--verbose", action="store_true", help="say more")
  return top


def _add_files(command: argparse.ArgumentParser, source: str, target: str) -> None:
  command.add_argument("input", help=source)
  command.add_argument("output", help=target)


def _add_encoding(command: argparse.ArgumentParser) -> None:
  goal = command.add_mutually_exclusive_group()
  goal.add_argument("-q", "--quality", type=float, help="0 to 100 (default 50)")
  goal.add_argument("--bpp", type=float, help="at most so many bits a pixel")
  goal.add_argument("--size", type=_positive, help="at most so many bytes")
  goal.add_argument("--target_psnr", type=float, help="at least so many dB")
  command.add_argument(
    "-e", "--effort", type=int, default=4, choices=range(10), help="time spent, 0 to 9 (default 4)"
  )
  command.add_argument("--layers", type=int, default=1, choices=range(1, 5), help="for progressive drawing, 1 to 4")
  command.add_argument("--seed", type=int, default=0, help="of the random numbers")
  command.add_argument("--metadata", action="store_true", help="keep EXIF and the ICC profile")


def _positive(text: str) -> int:
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f"got {text}, expected at least 1")
  return value


def _crop(text: str) -> tuple[float, ...]:
  numbers = tuple(float(part) for part in text.split(","))
  if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
    raise argparse.ArgumentTypeError(f"got {text}, expected four finite numbers: LEFT,TOP,RIGHT,BOTTOM")
  return numbers


def _version(top: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
  from importlib import metadata

  if not arguments.version:
    top.print_help()
    sys.exit(MISTAKE)
  print(f"gaussjax {metadata.version('gaussjax')}")


def _start() -> Any:
  """gaussjax, with JAX made ready."""
  import gaussjax

  gaussjax.startup.prepare_jax()
  return gaussjax


def _input(path: str) -> bytes:
  """A file's bytes, or standard input's."""
  if path != "-":
    if not Path(path).is_file():
      raise ValueError(f"got {path}, which is not a file")
    return Path(path).read_bytes()
  data = sys.stdin.buffer.read(MAX_STDIN + 1)
  if len(data) > MAX_STDIN:
    raise ValueError(f"got more than {MAX_STDIN} bytes on standard input")
  return data


def _check_output(path: str, force: bool) -> None:
  """Before the work: that a file may be written. Raises ValueError."""
  if path == "-":
    return
  if Path(path).exists() and not force:
    raise ValueError(f"got the output {path}, which is there already; --force replaces it")
  if not Path(path).absolute().parent.is_dir():
    raise ValueError(f"got the output {path}, whose folder does not exist")


def _output(path: str, data: bytes) -> None:
  if path == "-":
    sys.stdout.buffer.write(data)
  else:
    from gaussjax import files

    files.write_whole(path, data)


def _say(arguments: argparse.Namespace, figures: dict[str, Any], *, to_stderr: bool = False) -> None:
  """Figures as JSON or as lines; on stderr where standard output holds the result."""
  out = sys.stderr if to_stderr else sys.stdout
  if arguments.json:
    print(json.dumps(figures), file=out)
  else:
    width = max(map(len, figures))
    for name, value in figures.items():
      shown = f"{value:.4f}" if isinstance(value, float) else value
      print(f"{name.ljust(width)}  {shown}", file=out)


def _progress(quiet: bool) -> Callable[[str, int, int], None]:
  """A bar for each stage on a terminal, a line every ten seconds elsewhere."""
  if quiet:
    return lambda stage, done, total: None
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
  names = ("quality", "bpp", "size", "target_psnr", "effort", "layers", "seed")
  return {name: getattr(arguments, name) for name in names}


def _encode_one(gaussjax: Any, source: str, arguments: argparse.Namespace) -> tuple[bytes, dict[str, Any]]:
  """(the file, its figures)."""
  from gaussjax.gjx import search
  from gaussjax.quality import metrics

  data = _input(source)
  notes: list[str] = []
  image = gaussjax.read_image(data, name=source, report_fn=notes.append)
  if arguments.verbose:
    print(*[f"{source}: {note}" for note in notes], sep="\n", end="\n" if notes else "", file=sys.stderr)
  kept = gaussjax.image_io.read_metadata(data) if arguments.metadata else {}
  began = time.monotonic()
  progress_fn = _progress(quiet=arguments.json)
  encoded = gaussjax.encode(image, metadata=kept, progress_fn=progress_fn, **_options(arguments))
  seconds = time.monotonic() - began
  gaussians, header = gaussjax.decode(encoded)
  decoded = search.at_8_bits(gaussians)
  pixels = header.height * header.width
  return encoded, {
    "bytes": len(encoded),
    "bpp": 8 * len(encoded) / pixels,
    "psnr": float(metrics.psnr(decoded, image)),  # type: ignore[arg-type]
    "gaussians": len(gaussians.means),
    "seconds": seconds,
  }


def _encode(arguments: argparse.Namespace) -> None:
  _check_output(arguments.output, arguments.force)
  data, figures = _encode_one(_start(), arguments.input, arguments)
  _output(arguments.output, data)
  _say(arguments, figures, to_stderr=arguments.output == "-")


def _decode(arguments: argparse.Namespace) -> None:
  _check_output(arguments.output, arguments.force)
  gaussjax = _start()
  from gaussjax import geometry
  from gaussjax.gjx import container, search
  from gaussjax.rendering import renderer

  contents = container.read(_input(arguments.input), partial=arguments.partial)
  gaussians = search.gaussians_of(contents)
  canvas, width, height = geometry.canvas_of(gaussians), arguments.width, arguments.height
  view = left, top, right, bottom = arguments.crop or (0, 0, canvas.width, canvas.height)
  if arguments.zoom is not None:
    if width or height or not 0 < arguments.zoom <= 1000:
      raise ValueError(
        f"got --zoom={arguments.zoom}, expected a number above 0, at most 1000, and no size beside it"
      )
    width = max(1, round((right - left) * arguments.zoom))
    height = max(1, round((bottom - top) * arguments.zoom))
  height, width = renderer.output_size(view, height, width)
  if height * width > container.LIMITS.pixels:
    raise ValueError(f"got a size of {height} x {width}, expected at most {container.LIMITS.pixels} pixels")
  picture = gaussjax.render(gaussians, height, width, viewport=view)
  _output(arguments.output, gaussjax.image_io.encode_png(picture, metadata=contents.metadata))
  if arguments.verbose or arguments.json:
    figures = {"height": picture.shape[0], "width": picture.shape[1], "gaussians": len(gaussians.means)}
    _say(arguments, figures, to_stderr=arguments.output == "-")


def _info(arguments: argparse.Namespace) -> None:
  from gaussjax.gjx import container, contexts, grids
  from gaussjax.rendering import blends

  data = _input(arguments.input)
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
  from gaussjax.gjx import container, search

  data = _input(path)
  if data.startswith(container.SIGNATURE):
    return search.at_8_bits(gaussjax.decode(data)[0])
  return gaussjax.read_image(data, name=path)


def _compare(arguments: argparse.Namespace) -> None:
  gaussjax = _start()
  from gaussjax.quality import metrics

  first, second = _picture(gaussjax, arguments.first), _picture(gaussjax, arguments.second)
  if first.shape != second.shape:
    raise ValueError(f"got pictures of {first.shape} and {second.shape}, expected equal sizes and channels")
  measured = metrics.evaluate(second, first)
  _say(arguments, measured | metrics.perceptual(second, first))


def _view(arguments: argparse.Namespace) -> None:
  ellipses = str(Path(arguments.output).with_suffix("")) + "-ellipses.png"
  for path in (arguments.output, ellipses):
    _check_output(path, arguments.force)
  gaussjax = _start()
  gaussians, _ = gaussjax.decode(_input(arguments.input))
  picture = gaussjax.render(gaussians)
  shown = picture
  if arguments.original:
    original = _picture(gaussjax, arguments.original)
    if original.shape != picture.shape:
      raise ValueError(f"got an original of {original.shape}, expected {picture.shape}")
    shown = gaussjax.report.comparison(original, picture)
  magnify = max(1, 1536 // max(picture.shape[:2]))
  outlines = gaussjax.report.ellipses(gaussians, picture, magnify=magnify)
  _output(arguments.output, gaussjax.image_io.encode_png(shown))
  _output(ellipses, gaussjax.image_io.encode_png(outlines))
  _say(arguments, {"picture": arguments.output, "ellipses": ellipses})


def _batch(arguments: argparse.Namespace) -> None:
  sources = []
  for name in arguments.inputs:
    path = Path(name)
    sources += sorted(f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES) if path.is_dir() else [path]
  if not sources:
    raise ValueError(f"got {' '.join(arguments.inputs)}, expected pictures or folders of them")
  targets = [Path(arguments.out_dir) / (source.stem + SUFFIX) for source in sources]
  if len(set(targets)) < len(targets):
    raise ValueError("got pictures of the same name, expected names that differ in more than the ending")
  Path(arguments.out_dir).mkdir(parents=True, exist_ok=True)
  gaussjax, failed = _start(), 0
  for source, target in zip(sources, targets, strict=True):
    if target.exists() and not arguments.force:
      print(f"{target}: there already")
      continue
    gaussjax.startup.release_programs()
    try:
      data, figures = _encode_one(gaussjax, str(source), arguments)
    except (ValueError, errors.FitError) as error:
      failed += 1
      print(f"{source}: {' '.join(str(error).split())}", file=sys.stderr)
      continue
    _output(str(target), data)
    shown = "{bytes} bytes, {bpp:.4f} bpp, {psnr:.2f} dB, {seconds:.0f} s".format(**figures)
    line = json.dumps({"file": str(target), **figures}) if arguments.json else f"{target}: {shown}"
    print(line, flush=True)
  if failed:
    raise ValueError(f"{failed} of {len(sources)} pictures could not be encoded")


def _doctor(arguments: argparse.Namespace) -> None:
  gaussjax = _start()
  import jax

  folder = gaussjax.startup.cache_folder()
  programs = list(folder.glob("*")) if folder.is_dir() else []
  figures = {
    **gaussjax.report.environment(),
    "devices": ", ".join(str(device) for device in jax.devices()),
    "XLA_FLAGS": os.environ.get("XLA_FLAGS", "").strip(),
    "cache": str(folder),
    "cached programs": len(programs),
    "cached bytes": sum(file.stat().st_size for file in programs),
  }
  _say(arguments, figures)


if __name__ == "__main__":
  main()
