"""`gaussjax encode`."""

import argparse
import contextlib
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from gaussjax.cli.streams import check_output, progress_bars, read_input, say, start_jax, tell_user, write_output

CHECKPOINT_SECONDS = 60.0  # before the first checkpoint of an encoding, and between two
SUFFIX = ".gjx"
LEAST_WEBP, MOST_WEBP = 128, 4096  # pixels each way of pictures of which a WebP is made, to compare with
# The 24 photographs without loss are 12 to 20 times as large as files of 0.6 bits a pixel; a drawing and a page of
# text half as large.
FEW_TIMES = 3


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
  from gaussjax.gjx import encoding

  names = ("quality", "bpp", "size", "target_psnr", "layers")
  effort = encoding.Effort.level(arguments.effort, arguments.tune, arguments.grain)._replace(seed=arguments.seed)
  return {"effort": effort} | {name: getattr(arguments, name) for name in names}


def _asked(arguments: argparse.Namespace, height: int, width: int) -> str:
  """The rate or quality that was asked for, in the user's words."""
  for name in ("quality", "bpp", "size", "target_psnr"):
    value = getattr(arguments, name)
    if value is not None:
      pixels = f" of {width} x {height} pixels is {math.floor(value * height * width / 8)} bytes"
      return f"--{name} {value:g}{pixels if name == 'bpp' else ''}: "
  return ""


def encode_one(
  gaussjax: Any, source: str, arguments: argparse.Namespace, tell: Callable, progress: Callable, **more: Any
) -> tuple[bytes, dict[str, Any]]:
  """(the file, its figures); `tell` gets what is to be known besides, a line each, `gaussjax.encode` has `more`."""
  from gaussjax import image_io
  from gaussjax.gjx import encoding, packing

  data = read_input(source)
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
  if arguments.verbose:
    _say_of_other_tools(image_io.as_uint8(image), len(encoded), lambda line: tell(f"{source}: {line}"))
  gaussians, header = gaussjax.decode(encoded)
  pixels = header.height * header.width
  return encoded, {
    "bytes": len(encoded),
    "bpp": 8 * len(encoded) / pixels,
    "psnr": encoding.psnr_of(packing.at_8_bits(gaussians), image),
    "gaussians": len(gaussians.means),
    "seconds": seconds,
  }


def _say_of_other_tools(pixels: Any, size: int, tell: Callable) -> None:
  """Says so where the picture itself, without loss, takes few bytes more than its file `size`: Gaussians are for
  photographs, and drawings, text and screenshots are not theirs."""
  from gaussjax import image_io

  height, width, _ = pixels.shape
  if not LEAST_WEBP <= math.sqrt(height * width) <= MOST_WEBP or pixels.shape[2] > 4:
    return
  lossless = len(image_io.image_bytes(pixels, ".webp"))
  if lossless < FEW_TIMES * size:
    tell(f"Gaussians do not suit this picture: a WebP without loss has {lossless:,} bytes, this file {size:,}")


def run_encode(arguments: argparse.Namespace) -> None:
  check_output(arguments.output, arguments, (SUFFIX,), arguments.input)
  gaussjax = start_jax()
  from gaussjax.fitting import checkpoints

  folder = _checkpoint_folder(arguments)
  more = {} if folder is None else {"checkpoint": _checkpoint(gaussjax, folder)}
  try:
    data, figures = encode_one(gaussjax, arguments.input, arguments, tell_user, progress_bars(), **more)
    write_output(arguments.output, data)
  except KeyboardInterrupt:
    if folder is not None and checkpoints.kept_parts(folder):
      raise KeyboardInterrupt(f"interrupted; what is done is in {folder}; go on with --resume") from None
    raise
  if folder is not None:
    checkpoints.discard_parts(folder)
  say(arguments, figures, to_stderr=arguments.output == "-")


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
