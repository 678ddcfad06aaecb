"""Gaussians as integers: the grids of every field, the way onto them (JAX) and back from codes (numpy).

Lengths of cells follow from what an error costs in the picture (docs/decisions.md): log-scales on a uniform grid,
angles on one that is finer the longer the Gaussian, positions in cells stretched along it, colours finer the larger
it is. What decides how many codes a field has is computed in integers, so that every machine reads the same.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gaussjax import geometry
from gaussjax.types import Array, Canvas, Euler, Gaussians

# Steps are powers of 2^(1/8), stored in a byte: 2^(code / 8 - 16).
FRACTIONS = tuple(round(2**16 * 2 ** (i / 8)) for i in range(8))  # 2^(i / 8) in 1 / 2^16
STEP_ZERO = 128  # the code of a step of 1

SPLIT = 3  # a position's square cell is divided into 4^SPLIT parts, their shape that of the Gaussian
PARTS = 4**SPLIT
MARGIN = 1 / 16  # of the width and height: how far outside the picture a mean may be

MAX_BINS = 1 << 12
EIGHTHS = round(2**16 * 8 / math.log(2))  # of an octave, in a unit of a logarithm, in 1 / 2^16
MAX_EIGHTHS = 8 * 12  # longer Gaussians have no more angles than one of this aspect ratio
LEAST_LOG_SCALE = -1.5  # 0.22 pixels: under the floor of 0.3, so smaller ones look the same
MAX_LOG_SCALE = 12.0  # 160,000 pixels; also what a reader accepts

# The step of a colour is 2^(level / 4) times the file's, level = -round(3 log2 of the geometric mean scale).
COLOR_EXPONENT = round(2**16 * 3 / (2 * math.log(2)))  # 3 / (2 ln 2) in 1 / 2^16: a scale is exp of half the sum
MIN_LEVEL, MAX_LEVEL = -24, 12
COLOR_UNIT = 1 << 10  # colours are predicted in this fraction of the file's colour step


class Steps(NamedTuple):
  """Codes of the four steps, each standing for 2^(code / 8 - 16)."""

  position: int  # pixels: the side of the square that is as large as a position's cell
  log_scale: int
  turn: int  # bins of half a turn for each unit of a - 1 / a, a the aspect ratio
  color: int  # at a geometric mean scale of 1 pixel


class Grid(NamedTuple):
  """What steps amount to: sizes, and integers that decide how many codes there are (factors in 1 / 2^16)."""

  position: float  # pixels
  log_scale: float
  color: float
  eighths: int  # of an octave in the aspect ratio, for each unit of `ratio`
  bins: Any  # [MAX_EIGHTHS + 1] int32, of half a turn, by eighths of an octave in the aspect ratio
  level: int  # of a colour, for each unit of twice the mean log-scale


class Codes(NamedTuple):
  """N Gaussians as integers: int64 of numpy, or of JAX within `quantize`."""

  cells: Any  # [N, 2] (x, y) from the upper left corner of the margin
  parts: Any  # [N] of the cell, in 0 .. PARTS - 1
  minor: Any  # [N] logarithm of the lesser scale
  ratio: Any  # [N] at least 0: of the greater one, less that
  turn: Any  # [N] in 0 .. bins - 1
  colors: Any  # [N, C] decorrelated


def code_of(step: float) -> int:
  """The code whose step is nearest."""
  return min(255, max(0, round(8 * (math.log2(step) + 16))))


def step(code: int) -> float:
  """What a code stands for."""
  return 2 ** (code / 8 - 16)


def fixed(code: int) -> int:
  """A step in 1 / 2^16, rounded down."""
  return power(code - STEP_ZERO)


def power(eighths: int) -> int:
  """2^(eighths / 8) in 1 / 2^16, rounded down."""
  whole, eighth = divmod(eighths, 8)
  return FRACTIONS[eighth] << whole if whole >= 0 else FRACTIONS[eighth] >> -whole


def decorrelation(channels: int) -> NDArray:
  """The orthonormal DCT over the channels, `[C, C]`: for RGB brightness, red against blue, green against both."""
  k, c = np.mgrid[:channels, :channels]
  rows = np.cos(np.pi * k * (2 * c + 1) / (2 * channels)) * np.sqrt(2 / channels)
  rows[0] /= np.sqrt(2)
  return rows


def grid(steps: Steps) -> Grid:
  """What a file's steps amount to."""
  position, log_scale, _, color = map(step, steps)
  scale = fixed(steps.log_scale)
  # A turn by t moves an ellipse by t (a - 1 / a) in the Fisher metric: no angle is coarser than another.
  sizes = [power(n) - power(-n) for n in range(MAX_EIGHTHS + 1)]
  counts = [(fixed(steps.turn) * size + (1 << 31)) >> 32 for size in sizes]
  turns = np.clip(np.array(counts), 1, MAX_BINS).astype(np.int32)
  return Grid(position, log_scale, color, EIGHTHS * scale >> 16, turns, COLOR_EXPONENT * scale >> 16)


def bins(ratio, grid: Grid):
  """How many angles a Gaussian of this `ratio` may have."""
  return grid.bins[_clip(ratio * grid.eighths + (1 << 15) >> 16, 0, MAX_EIGHTHS)]


def level(minor, ratio, grid: Grid):
  """The colour level of a Gaussian: quarters of an octave on the colour step."""
  return _clip(-((2 * minor + ratio) * grid.level + (1 << 15) >> 16), MIN_LEVEL, MAX_LEVEL)


def _clip(value, low: int, high: int):
  return jnp.clip(value, low, high) if isinstance(value, jax.Array) else np.clip(value, low, high)


def color_unit(levels: NDArray) -> NDArray:
  """2^(level / 4) in 1 / COLOR_UNIT, in integers."""
  whole, quarter = np.divmod(levels, 4)
  mantissas = np.array([FRACTIONS[2 * i] for i in range(4)])[quarter]
  return mantissas * COLOR_UNIT >> (16 - whole)


def frame(log_scales, thetas, np=jnp):
  """(split `[N]`, slope `[N]`): how a cell is divided, for (major, minor) log-scales and angles.

  There are 2^(SPLIT - split) columns and 2^(SPLIT + split) rows; rows rise by `slope` along x. So parts are as long
  and as inclined as the Gaussian, as far as powers of two go.
  """
  major, minor = np.exp(2 * log_scales[:, 0]), np.exp(2 * log_scales[:, 1])
  cos, sin = np.cos(thetas), np.sin(thetas)
  xx = major * cos**2 + minor * sin**2
  stretch = xx / np.exp(log_scales[:, 0] + log_scales[:, 1])  # of x against y given x
  split = sum((stretch >= 2.0 ** (2 * i - 1)) * 1 for i in range(1, SPLIT + 1))
  split = split - sum((stretch < 2.0 ** (1 - 2 * i)) * 1 for i in range(1, SPLIT + 1))
  return split, (major - minor) * cos * sin / xx


def margins(canvas: Canvas) -> NDArray:
  """`[2]` (x, y) pixels."""
  return MARGIN * np.array([canvas.width, canvas.height])


def quantize(gaussians: Gaussians, grid: Grid) -> tuple[Gaussians, Codes]:
  """The set with every number at the nearest point of its grid, the major scale first, and its codes.

  Raises TypeError for shapes other than Euler.
  """
  canvas = geometry.canvas_of(gaussians)
  shape = gaussians.shape
  if not isinstance(shape, Euler):
    raise TypeError(f"got {type(shape).__name__}, expected Euler shapes")
  scales = jnp.clip(shape.log_scales, LEAST_LOG_SCALE, MAX_LOG_SCALE - 1)
  swapped = scales[:, 0] < scales[:, 1]
  thetas = shape.thetas + jnp.where(swapped, math.pi / 2, 0)
  minor, major = (jnp.round(f(scales, axis=1) / grid.log_scale).astype(int) for f in (jnp.min, jnp.max))
  ratio = major - minor
  count = bins(ratio, grid)
  turn = jnp.mod(jnp.round(thetas * count / math.pi).astype(int), count)
  log_scales = jnp.stack([major, minor], 1) * grid.log_scale
  thetas = turn * math.pi / count
  means, cells, parts = _quantize_means(gaussians.means, log_scales, thetas, grid.position, canvas)
  unit = grid.color * 2.0 ** (level(minor, ratio, grid) / 4)[:, None]
  matrix = jnp.asarray(decorrelation(gaussians.colors.shape[1]), gaussians.colors.dtype)
  colors = jnp.round(gaussians.colors @ matrix.T / unit).astype(int)
  nearest = gaussians._replace(means=means, shape=Euler(log_scales, thetas), colors=colors * unit @ matrix)
  return nearest, Codes(cells, parts, minor, ratio, turn, colors)


def _quantize_means(means: Array, log_scales: Array, thetas: Array, position: float, canvas: Canvas):
  """The means on their grid `[N, 2]`, the cells `[N, 2]` and the parts `[N]`."""
  side = position * 2**SPLIT
  margin = jnp.asarray(margins(canvas), means.dtype)
  inside = jnp.clip(means, -margin, jnp.array([canvas.width, canvas.height]) + margin) + margin
  cells = jnp.floor(inside / side).astype(int)
  split, slope = frame(log_scales, thetas)
  columns, rows = 2 ** (SPLIT - split), 2 ** (SPLIT + split)
  x, y = (inside / side - cells).T
  column = jnp.clip(jnp.floor(x * columns).astype(int), 0, columns - 1)
  # The row is that of a mean which moves to its column's middle along the slope, since that costs least.
  row = jnp.floor((y - slope * (x - 0.5)) * rows).astype(int)
  y = (row + 0.5) / rows + slope * ((column + 0.5) / columns - 0.5)
  # It may end in the cell above or below.
  below = jnp.floor(y).astype(int)
  cells = cells + jnp.stack([jnp.zeros_like(below), below], 1)
  cells = jnp.maximum(cells, 0)
  place = jnp.stack([(column + 0.5) / columns, y - below], 1)
  parts = column * rows + jnp.mod(row, rows)
  return (cells + place) * side - margin, cells, parts


def dequantize(codes: Codes, grid: Grid, canvas: Canvas) -> Gaussians:
  """The set that codes stand for, computed in float64 numpy and rounded to float32."""
  log_scales = np.stack([codes.minor + codes.ratio, codes.minor], 1) * grid.log_scale
  thetas = codes.turn * math.pi / bins(codes.ratio, grid)
  split, slope = frame(log_scales, thetas, np)
  columns, rows = 2.0 ** (SPLIT - split), 2.0 ** (SPLIT + split)
  column, row = np.divmod(codes.parts, rows)
  rise = slope * ((column + 0.5) / columns - 0.5)
  place = np.stack([(column + 0.5) / columns, ((row + 0.5) / rows + rise) % 1], 1)
  means = (codes.cells + place) * grid.position * 2**SPLIT - margins(canvas)
  unit = grid.color * 2.0 ** (level(codes.minor, codes.ratio, grid) / 4)[:, None]
  colors = codes.colors * unit @ decorrelation(codes.colors.shape[1])
  single = lambda array: jax.device_put(np.asarray(array, np.float32))  # jnp.asarray would compile a program
  return Gaussians(single(means), Euler(single(log_scales), single(thetas)), single(colors), None, canvas)
