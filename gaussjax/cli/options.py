"""What may be said on the command line."""

import argparse
import contextlib
import sys
from collections.abc import Callable
from typing import NoReturn

from gaussjax.cli import completion
from gaussjax.cli.batch import FAILURES, run_batch
from gaussjax.cli.decode import LEAST_CROP, run_compare, run_decode, run_info
from gaussjax.cli.doctor import run_doctor
from gaussjax.cli.encode import run_encode
from gaussjax.cli.streams import MISTAKE, fail
from gaussjax.cli.view import run_export, run_import, run_view

EFFORT = 5  # encoding.DEFAULT_EFFORT, which importing JAX would tell
MOST_WORKERS = 10_000
MOST_PIXELS = 1 << 27
MOST_PSNR = 99.0  # dB; of pictures of 8 bits that are not the same none comes near it

TOP_NOTES = """\
gaussjax COMMAND --help tells each one's options and gives examples. Inputs and outputs may be - (standard input and
output), or an address such as s3://bucket/photo.gjx where gaussjax[fsspec] is installed. Nothing that is there is
replaced without --force. The exit status is 0, 1 for a damaged file, 2 for a mistake, 130 after an interruption.
"""
EXAMPLES = {
  "encode": """\
examples:
  gaussjax encode photo.jpg photo.gjx                    at quality 50
  gaussjax encode photo.jpg photo.gjx --bpp 0.2 -e 6     at most 0.2 bits a pixel, with more time spent
  gaussjax encode photo.jpg photo.gjx --tune visual      keeps more of texture, for a dB or so
  gaussjax encode photo.jpg - --size 20000 > photo.gjx   at most 20,000 bytes
  gaussjax encode photo.jpg photo.gjx --resume           goes on with what was interrupted

Of --quality, --bpp, --size and --target_psnr one may be given.
""",
  "decode": """\
examples:
  gaussjax decode photo.gjx photo.png
  gaussjax decode cut.gjx photo.png --partial            what is whole of it
  gaussjax decode photo.gjx photo.png --nograin          the Gaussians alone
""",
  "render": """\
examples:
  gaussjax render photo.gjx large.png --zoom 4
  gaussjax render photo.gjx part.png --crop 100,80,300,230 --width 1600
""",
  "info": """\
examples:
  gaussjax info photo.gjx
  gaussjax info photo.gjx --json | jq .bpp
""",
  "compare": """\
examples:
  gaussjax compare photo.png photo.gjx
""",
  "view": """\
examples:
  gaussjax view photo.gjx side-by-side.png --original photo.jpg
  gaussjax view photo.gjx --html photo.html --original photo.jpg --open
""",
  "export": """\
examples:
  gaussjax export photo.gjx photo.ply
""",
  "import": """\
examples:
  gaussjax import checkpoint.pt photo.npz --width 768 --height 512
""",
  "batch": """\
examples:
  gaussjax batch photos --out_dir files --bpp 0.2
  gaussjax batch photos more/*.png --out_dir files --workers 4     run it again: only what is missing is done
""",
  "doctor": """\
examples:
  gaussjax doctor
""",
  "completion": """\
examples:
  gaussjax completion bash > ~/.local/share/bash-completion/completions/gaussjax
  gaussjax completion zsh > ~/.zfunc/_gaussjax           a folder in $fpath, before compinit
  gaussjax completion fish > ~/.config/fish/completions/gaussjax.fish
""",
}


class _Parser(argparse.ArgumentParser):
  """Mistakes in one line, without the usage."""

  def error(self, message: str) -> NoReturn:
    sys.exit(fail(f"{message}; see {self.prog} --help", MISTAKE))


def parser() -> argparse.ArgumentParser:
  """All subcommands with their arguments; needs no JAX."""
  top = _Parser(
    prog="gaussjax",
    description="Pictures as sets of 2D Gaussians, in small files.",
    epilog=TOP_NOTES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  top.add_argument("--version", action="store_true", help="print the version and exit")
  top.set_defaults(run=lambda arguments: _version(top, arguments))
  commands = top.add_subparsers(title="commands", metavar="COMMAND")

  def command(name: str, run: Callable, help: str) -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    added = commands.add_parser(name, help=help, description=help, epilog=EXAMPLES[name], formatter_class=form)
    added.set_defaults(run=run)
    return added

  encode = command("encode", run_encode, "a picture to a .gjx file")
  _add_files(encode, "a picture, or - for standard input", "a .gjx file, or - for standard output")
  _add_encoding(encode)
  encode.add_argument("--resume", action="store_true", help="go on from the checkpoint of an interrupted encoding")
  decode = command("decode", run_decode, "a .gjx file to a PNG of its own size")
  render = command("render", run_decode, "a .gjx file to a PNG of any size or part")
  for one in (decode, render):
    _add_files(one, "a .gjx file, or - for standard input", "a PNG, or - for standard output")
    one.add_argument("--partial", action="store_true", help="draw what is whole of a file that was cut off")
    one.set_defaults(width=None, height=None, crop=None, zoom=None)
  render.add_argument("--width", type=_whole(1, MOST_PIXELS), help="pixels")
  render.add_argument("--height", type=_whole(1, MOST_PIXELS), help="pixels; one of the two keeps the aspect ratio")
  render.add_argument("--zoom", type=_number(0, 1000), help="instead of a size: this many times the file's")
  render.add_argument("--crop", type=_crop, metavar="LEFT,TOP,RIGHT,BOTTOM", help="the part to draw, in its pixels")
  info = command("info", run_info, "what a .gjx file holds, and where its bytes go")
  info.add_argument("input", help="a .gjx file, or - for standard input")
  compare = command("compare", run_compare, "PSNR, SSIM and MS-SSIM of two pictures or .gjx files")
  compare.add_argument("first", help="the original")
  compare.add_argument("second", help="what is compared with it")
  for one in (decode, render, compare):
    one.add_argument(
      "--nograin", action="store_true", help="without the texture that a file has drawn by its reader"
    )
  view = command("view", run_view, "a page or a PNG of a .gjx file beside its original, and of its ellipses")
  _add_view(view)
  export = command("export", run_export, "a .gjx or .npz file for other tools: PLY of 3D Gaussians, or SVG")
  _add_files(export, "a .gjx or .npz file", "a .ply or .svg file")
  bring = command("import", run_import, "a checkpoint of GaussianImage or Image-GS as a set of ours")
  _add_files(bring, "a .npz, .safetensors or PyTorch file", "a .npz file, or a .gjx file, which is made smaller")
  bring.add_argument("--width", type=_whole(1, MOST_PIXELS), required=True, help="of the fitted picture, in pixels")
  bring.add_argument("--height", type=_whole(1, MOST_PIXELS), required=True, help="of it")
  batch = command("batch", run_batch, "many pictures to .gjx files; those that are there are left alone")
  _add_batch(batch)
  doctor = command("doctor", run_doctor, "versions, devices, whether renderers are right on them, flags, the cache")
  shell = command("completion", _complete, "what makes a shell complete the command's words")
  shell.add_argument("shell", choices=completion.SHELLS, help="which shell")
  for one in (encode, decode, render, info, compare, view, export, bring, batch, doctor):
    one.add_argument("--json", action="store_true", help="report as JSON")
  for one in (encode, decode, render, view, export, bring, batch):
    one.add_argument("--force", action="store_true", help="replace files that are there")
    one.add_argument("-v", "--verbose", action="store_true", help="say more")
  return top


def _complete(arguments: argparse.Namespace) -> None:
  print(completion.script(parser(), arguments.shell), end="")


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
    "-e", "--effort", type=int, default=EFFORT, choices=range(10), help=f"time spent, 0 to 9 (default {EFFORT})"
  )
  command.add_argument(
    "--tune", choices=("psnr", "visual"), default="psnr", help="what a file is best by: PSNR (default), or the eye"
  )
  command.add_argument(
    "--grain",
    type=_number(0, 1, open=False),
    metavar="SHARE",
    help="how much of the texture that Gaussians lack the reader draws by itself, 0 to 1 (default 0.5 with --tune "
    "visual, else 0)",
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
