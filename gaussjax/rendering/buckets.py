"""Buckets of sizes: pictures of many sizes share compiled programs.

XLA compiles a program for each shape. So a picture is put into the upper left corner of the next size of a table.
The pixels beyond it are NaN, and count for nothing wherever a target is looked at.
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gaussjax import geometry
from gaussjax.types import Array, Gaussians

SIDES = 8  # of the table, an octave
LEAST_SIDE = 16  # pixels: pictures with a smaller side are a bucket of their own,
MOST_PIXELS = 2**22  # and so are larger ones, where the pixels beyond would cost more than programs


def size(height: int, width: int) -> tuple[int, int]:
  """(height, width) of the bucket of a picture."""
  if min(height, width) < LEAST_SIDE or height * width > MOST_PIXELS:
    return height, width
  return _side(height), _side(width)


def _side(pixels: int) -> int:
  step = 2 ** int(math.log2(pixels)) // SIDES
  return -(-pixels // step) * step


def padded(image: NDArray) -> NDArray:
  """An image `[H, W, C]` in its bucket."""
  height, width = size(*image.shape[:2])
  beyond = ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0))
  return np.pad(image, beyond, constant_values=np.nan) if any(map(any, beyond)) else image


def on(gaussians: Gaussians, height: int, width: int) -> Gaussians:
  """The set on a canvas of another size, whose upper left corner is the same."""
  canvas = geometry.canvas_of(gaussians)
  return gaussians._replace(canvas=dataclasses.replace(canvas, height=height, width=width))


def counted(target: Any) -> Any:
  """`[H, W]` bool: the pixels of a target `[H, W, C]`, of numpy or JAX, that are a picture's."""
  return ~(np if isinstance(target, np.ndarray) else jnp).isnan(target[..., 0])


def extent(target: Any) -> tuple[Any, Any]:
  """(height [], width []) of the picture in a target."""
  there = counted(target)
  return there[:, 0].sum(dtype=np.int32), there[0].sum(dtype=np.int32)


def share(target: Array) -> Array:
  """[] the share of a target's pixels that are a picture's: by it a mean over all becomes one over those."""
  height, width = extent(target)
  return height * width / jnp.asarray(target.shape[0] * target.shape[1], target.dtype)


def filled(target: Array) -> Array:
  """The target with the picture's last row and column instead of what is beyond."""
  last_row, last_column = (number - 1 for number in extent(target))
  rows, columns = (jnp.arange(count, dtype=jnp.int32) for count in target.shape[:2])
  return target[jnp.minimum(rows, last_row)][:, jnp.minimum(columns, last_column)]


def smaller(image: Array, times: int) -> Array:
  """A target as means of squares of `times` pixels; those that are no picture's count for nothing."""
  if times == 1:
    return image
  height, width, channels = image.shape
  beyond = [(0, -side % times) for side in (height, width)]
  padded = jnp.pad(image, (*beyond, (0, 0)), constant_values=math.nan)
  squares = padded.reshape(padded.shape[0] // times, times, padded.shape[1] // times, times, channels)
  return jnp.nanmean(squares, axis=(1, 3))
