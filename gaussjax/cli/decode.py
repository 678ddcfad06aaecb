"""`gaussjax decode`, `render`, `info` and `compare`: what is in a file."""

import argparse
from typing import Any

from gaussjax.cli.streams import (
  PICTURE_SUFFIXES,
  check_output,
  named,
  picture_bytes,
  read_input,
  say,
  start_jax,
  tell_user,
  write_output,
)

LEAST_CROP = 1e-3  # pixels


def run_decode(arguments: argparse.Namespace) -> None:
  if arguments.zoom is not None and (arguments.width or arguments.height):
    raise ValueError("got --zoom and a size, expected one of the two")
  check_output(arguments.output, arguments, PICTURE_SUFFIXES, arguments.input)
  gaussjax = start_jax()
  from gaussjax.gjx import container, packing

  with named(arguments.input):
    contents = container.read(read_input(arguments.input), partial=arguments.partial)
    gaussians = packing.gaussians_of(contents)
  view, height, width = _size(arguments, gaussians.canvas, gaussians.colors.shape[1])
  picture = gaussjax.render(gaussians, height, width, viewport=view)
  if not arguments.nograin:
    picture = gaussjax.add_grain(picture, contents.header, viewport=view)
  write_output(arguments.output, picture_bytes(arguments.output, picture, contents.metadata))
  if arguments.verbose or arguments.json:
    figures = {"height": picture.shape[0], "width": picture.shape[1], "gaussians": len(gaussians.means)}
    say(arguments, figures, to_stderr=arguments.output == "-")


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
  if channels > 4:
    raise ValueError(f"got a file of {channels} channels, expected 1 to 4 for a picture")
  return view, height, width


def run_info(arguments: argparse.Namespace) -> None:
  from gaussjax.gjx import container, grids
  from gaussjax.rendering import blends

  data = read_input(arguments.input)
  with named(arguments.input):
    contents = container.read(data)
  header = contents.header
  count = sum(len(layer.minor) for layer in contents.layers)
  steps = {f"step {name}": grids.step(code) for name, code in header.steps._asdict().items()}
  bits = container.field_bits(contents)
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
  say(arguments, figures)


def read_picture(gaussjax: Any, path: str, *, grain: bool = True) -> Any:
  """`[H, W, C]` in [0, 1] of a picture, or of a `.gjx` file at 8 bits, with its `grain` or without."""
  from gaussjax.gjx import container, packing

  data = read_input(path)
  if data.startswith(container.SIGNATURES):
    with named(path):
      gaussians, header = gaussjax.decode(data)
      return packing.at_8_bits(gaussians, header if grain else None)
  return gaussjax.read_image(data, name=path, report_fn=lambda line: tell_user(f"{path}: {line}"))


def shape_of(picture: Any) -> str:
  height, width, channels = picture.shape
  return f"{width} x {height} pixels and {channels} channel{'s' if channels > 1 else ''}"


def run_compare(arguments: argparse.Namespace) -> None:
  if arguments.first == arguments.second == "-":
    raise ValueError("got - twice, expected standard input for one of the two")
  gaussjax = start_jax()
  from gaussjax.quality import metrics

  both = (arguments.first, arguments.second)
  first, second = (read_picture(gaussjax, path, grain=not arguments.nograin) for path in both)
  if first.shape != second.shape:
    raise ValueError(
      f"got {arguments.first} of {shape_of(first)} and {arguments.second} of {shape_of(second)}, "
      "expected equal sizes and channels"
    )
  measured = metrics.evaluate(second, first)
  say(arguments, measured | metrics.perceptual(second, first))
