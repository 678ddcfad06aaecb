"""Gaussians as integers: the grids of every field, the way onto them (JAX) and back from codes (numpy).

Every grid is as fine as its number is felt in the picture (docs/decisions.md): the same change of a large
Gaussian, or of one of great weight, moves more. How fine follows from what is coded before, in integers, so that
every machine reads the same: log-weights first, then minor scales, ratios of scales, angles, colours, and places
within cells.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gaussjax import geometry
from gaussjax.errors import FormatError
from gaussjax.types import Array, Canvas, Euler, Gaussians

# Steps are powers of 2^(1/8), stored in a byte: 2^(code / 8 - 16).
FRACTIONS = tuple(round(2**16 * 2 ** (i / 8)) for i in range(8))  # 2^(i / 8) in 1 / 2^16
STEP_ZERO = 128  # the code of a step of 1
ONE = 1 << 16  # numbers are counted in 1 / ONE

SPLIT = 3  # a position's square cell is divided into some 4^SPLIT parts, their shape that of the Gaussian
MARGIN = 1 / 16  # of the width and height: how far outside the picture a mean may be

MAX_BINS = 1 << 12
MAX_EIGHTHS = 8 * 12  # longer Gaussians have no more angles than one of this aspect ratio
LEAST_LOG_SCALE = -1.5  # 0.22 pixels: under the floor of 0.3, so smaller ones look the same
MAX_LOG_SCALE = 12.0  # 160,000 pixels; also what a reader accepts
MAX_LOG_WEIGHT = 24.0  # what a reader accepts: fits hold them to 10

# Natural logarithms to eighths of an octave: times 8 / ln 2, in 1 / 2^10.
EIGHTHS = round(2**10 * 8 / math.log(2))


class Sensitivity(NamedTuple):
  """A field's step is 2^(-level / 4) of the file's: the level is a sum over eighths of octaves, in 1 / 2^7.

  Exponents of half the mean square change of the picture, fitted to sets of photographs (docs/decisions.md).
  """

  minor: int  # of the minor scale
  ratio: int  # of the ratio of scales
  weight: int  # of the weight


MINOR = Sensitivity(0, 0, 10)
RATIO = Sensitivity(23, 0, 9)
TURN = Sensitivity(34, 13, 11)
COLOR = Sensitivity(54, 27, 9)
PART = Sensitivity(-17, -1, 3)  # of the number of parts of a cell, in octaves
MIN_LEVEL, MAX_LEVEL = -24, 40  # quarters of an octave
FEWEST, MOST = -6, 8  # octaves more or fewer parts of a cell


class Steps(NamedTuple):
  """Codes of the five steps, each standing for 2^(code / 8 - 16)."""

  position: int  # pixels: the side of the square that is as large as a position's part, at a scale of a pixel
  log_scale: int  # of the minor scale's root, in roots of pixels, and of the ratio's logarithm
  turn: int  # bins of half a turn for each unit of a - 1 / a, a the aspect ratio
  color: int
  weight: int  # of the log-weight


class Grid(NamedTuple):
  """What steps amount to. Units are by level, from MIN_LEVEL, in 1 / ONE."""

  position: float  # pixels
  weight: Any  # [] int32, in 1 / ONE
  minor: Any  # [levels] int32
  ratio: Any  # [levels] int32
  color: Any  # [levels] int32
  bins: Any  # [MAX_EIGHTHS + 1, levels] int32: angles of half a turn, by eighths of an octave in the aspect ratio


class Codes(NamedTuple):
  """N Gaussians as integers: int64 of numpy, or int32 of JAX within `quantize`."""

  cells: Any  # [N, 2] (x, y) from the upper left corner of the margin
  weights: Any  # [N] log-weights
  minor: Any  # [N] at least 1: root of the lesser scale
  ratio: Any  # [N] at least 0: logarithm of the greater scale over the lesser
  turn: Any  # [N] in 0 .. bins - 1
  colors: Any  # [N, C] decorrelated
  parts: Any  # [N] of the cell, in 0 .. 2^part_bits - 1


class Features(NamedTuple):
  """What steps depend on, `[N]` each, in eighths of an octave."""

  minor: Any
  ratio: Any
  weight: Any


def code_of(step: float) -> int:
  """The code whose step is nearest."""
  return min(255, max(0, round(8 * (math.log2(step) + 16))))


def step(code: int) -> float:
  """What a code stands for."""
  return 2 ** (code / 8 - 16)


def fixed(code: int) -> int:
  """A step in 1 / ONE, rounded down."""
  return power(code - STEP_ZERO)


def power(eighths: int) -> int:
  """2^(eighths / 8) in 1 / ONE, rounded down."""
  whole, eighth = divmod(eighths, 8)
  return FRACTIONS[eighth] << whole if whole >= 0 else FRACTIONS[eighth] >> -whole


def decorrelation(channels: int) -> NDArray:
  """The orthonormal DCT over the channels, `[C, C]`: for RGB brightness, red against blue, green against both."""
  k, c = np.mgrid[:channels, :channels]
  rows = np.cos(np.pi * k * (2 * c + 1) / (2 * channels)) * np.sqrt(2 / channels)
  rows[0] /= np.sqrt(2)
  return rows


@functools.lru_cache(maxsize=64)
def grid(steps: Steps) -> Grid:
  """What a file's steps amount to."""
  levels = range(MIN_LEVEL, MAX_LEVEL + 1)
  units = lambda code: np.array(
    [min(max(power(code - STEP_ZERO - 2 * level), 1), ONE << 8) for level in levels], np.int32
  )
  # A turn by t moves an ellipse by t (a - 1 / a) in the Fisher metric.
  sizes = [power(n) - power(-n) for n in range(MAX_EIGHTHS + 1)]
  turns = [min(power(steps.turn - STEP_ZERO + 2 * level), 1 << 31) for level in levels]  # of more all are MAX_BINS
  counts = np.clip(np.multiply.outer(sizes, turns) + (1 << 31) >> 32, 1, MAX_BINS)
  return Grid(
    step(steps.position),
    np.int32(min(max(fixed(steps.weight), 1), ONE << 8)),
    units(steps.log_scale),
    units(steps.log_scale),
    units(steps.color),
    counts.astype(np.int32),
  )


def level(field: Sensitivity, features: Features):
  """The level of each Gaussian's step in a field, from MIN_LEVEL."""
  return _clip(_weighed(field, features), MIN_LEVEL, MAX_LEVEL) - MIN_LEVEL


def _weighed(field: Sensitivity, features: Features):
  total = sum(factor * feature for factor, feature in zip(field, features, strict=True) if factor)
  return total + (1 << 6) >> 7


def part_bits(features: Features):
  """The logarithm, of base 2, of how many parts a Gaussian's cell has."""
  return 2 * SPLIT + _clip(_weighed(PART, features), FEWEST, MOST)


def bins(grid: Grid, features: Features):
  """How many angles a Gaussian may have."""
  return grid.bins[_clip(features.ratio, 0, MAX_EIGHTHS), level(TURN, features)]


def features_of(roots: Any, ratios: Any, weights: Any) -> Features:
  """Features of minor scales' roots, ratios' and weights' logarithms in 1 / ONE."""
  return Features(2 * _octaves(roots), _of_logarithm(ratios), _of_logarithm(weights))


def weight_feature(weights: Any) -> Features:
  """Features while scales are not known."""
  return Features(0, 0, _of_logarithm(weights))


def _of_logarithm(value: Any):
  return ((value >> 6) * EIGHTHS + (1 << 19)) >> 20


def _octaves(value: Any):
  """Eighths of an octave of numbers in 1 / ONE, at least 1, rounded down."""
  mantissa: Any
  length: Any
  if isinstance(value, jax.Array):
    length = 32 - jax.lax.clz(value)
    mantissa = jnp.where(length > 17, value >> jnp.maximum(length - 17, 0), value << jnp.maximum(17 - length, 0))
    eighths = sum((mantissa >= fraction) * 1 for fraction in FRACTIONS[1:])
  else:
    length = np.frexp(np.asarray(value, np.float64))[1].astype(np.int64)
    mantissa = np.where(length > 17, value >> np.maximum(length - 17, 0), value << np.maximum(17 - length, 0))
    eighths = np.searchsorted(FRACTIONS[1:], mantissa, side="right")
  return 8 * (length - 17) + eighths


def _clip(value, low: int, high: int):
  return jnp.clip(value, low, high) if isinstance(value, jax.Array) else np.clip(value, low, high)


def frame(log_scales, thetas, bits, np=jnp):
  """(columns, rows, slope), `[N]` each: how a cell of 2^bits parts is divided, for (major, minor) and angles.

  Rows rise by `slope` along x. So parts are as long and as inclined as the Gaussian, as far as powers of two go.
  """
  major, minor = np.exp(2 * log_scales[:, 0]), np.exp(2 * log_scales[:, 1])
  cos, sin = np.cos(thetas), np.sin(thetas)
  xx = major * cos**2 + minor * sin**2
  stretch = xx / np.exp(log_scales[:, 0] + log_scales[:, 1])  # of x against y given x
  half = bits >> 1
  split = sum((stretch >= 2.0 ** (2 * i - 1)) * 1 for i in range(1, SPLIT + 1))
  split = split - sum((stretch < 2.0 ** (1 - 2 * i)) * 1 for i in range(1, SPLIT + 1))
  split = np.clip(split, half - bits, half)
  columns, rows = 2 ** (half - split), 2 ** (bits - half + split)
  return columns, rows, (major - minor) * cos * sin / xx


def size_of(canvas: Canvas) -> NDArray:
  """`[2]` (x, y) pixels."""
  return np.array([canvas.width, canvas.height])


def margins(canvas: Canvas) -> NDArray:
  """`[2]` (x, y) pixels."""
  return MARGIN * size_of(canvas)


def contain(gaussians: Gaussians) -> Gaussians:
  """The set as geometry.contain, its means no further outside of the picture than a file has them. A projection.

  Of few Gaussians some would be better further away, and rounding would move them by more than it can make good.
  """
  gaussians = geometry.contain(gaussians)
  canvas, dtype = geometry.canvas_of(gaussians), gaussians.means.dtype
  margin, size = (jnp.asarray(lengths, dtype) for lengths in (margins(canvas), size_of(canvas)))
  held = jnp.clip(gaussians.means, -margin, size + margin)
  return gaussians._replace(means=jnp.where(geometry.visible(gaussians)[:, None], held, gaussians.means))


def quantize(gaussians: Gaussians, grid: Grid, size: Array | None = None) -> tuple[Gaussians, Codes]:
  """The set with every number at the nearest point of its grid, the major scale first, and its codes.

  `size` `[2]` (x, y) is the picture's, in pixels, where it is not the canvas'. What is parked stays parked, its
  codes mean nothing. Raises TypeError for shapes other than Euler.
  """
  shape = gaussians.shape
  if size is None:
    size = jnp.asarray(size_of(geometry.canvas_of(gaussians)))
  if not isinstance(shape, Euler):
    raise TypeError(f"got {type(shape).__name__}, expected Euler shapes")
  whole = lambda value: jnp.round(value).astype(jnp.int32)
  dtype = gaussians.means.dtype
  chosen = lambda table, index: jnp.asarray(table)[index]
  log_weights = gaussians.log_weights
  if log_weights is None:
    log_weights = jnp.zeros_like(gaussians.means[:, 0])
  most = round(MAX_LOG_WEIGHT * ONE) // grid.weight  # rounding must not end beyond what readers accept
  weights = jnp.clip(whole(log_weights * (ONE / grid.weight)), -most, most)
  feature = weight_feature(weights * grid.weight)
  scales = jnp.clip(shape.log_scales, LEAST_LOG_SCALE, MAX_LOG_SCALE - 1)
  thetas = shape.thetas + jnp.where(scales[:, 0] < scales[:, 1], math.pi / 2, 0)
  unit = chosen(grid.minor, level(MINOR, feature))
  minor = jnp.maximum(whole(jnp.exp(jnp.min(scales, axis=1) / 2) * ONE / unit), 1)
  roots = minor * unit
  least = 2 * jnp.log(roots.astype(dtype) / ONE)
  feature = features_of(roots, jnp.zeros_like(roots), weights * grid.weight)
  unit = chosen(grid.ratio, level(RATIO, feature))
  # Coarse steps of light Gaussians must not end beyond what readers accept; the rest is for float32.
  longest = jnp.floor((MAX_LOG_SCALE - 0.01 - least) * ONE / unit).astype(jnp.int32)
  ratio = jnp.clip(whole((jnp.max(scales, axis=1) - least) * ONE / unit), 0, longest)
  feature = features_of(roots, ratio * unit, weights * grid.weight)
  log_scales = jnp.stack([least + (ratio * unit).astype(dtype) / ONE, least], 1)
  count = bins(grid._replace(bins=jnp.asarray(grid.bins)), feature)
  turn = jnp.mod(whole(thetas * count / math.pi), count)
  thetas = turn.astype(dtype) * math.pi / count
  unit = chosen(grid.color, level(COLOR, feature))[:, None] / ONE
  matrix = jnp.asarray(decorrelation(gaussians.colors.shape[1]), dtype)
  colors = whole(gaussians.colors @ matrix.T / unit)
  means, cells, parts = _quantize_means(
    gaussians.means, log_scales, thetas, part_bits(feature), grid.position, size
  )
  nearest = Gaussians(
    jnp.where(geometry.visible(gaussians)[:, None], means, gaussians.means),
    Euler(log_scales, thetas),
    colors * unit @ matrix,
    (weights * grid.weight).astype(dtype) / ONE if gaussians.log_weights is not None else None,
    gaussians.canvas,
  )
  return nearest, Codes(cells, weights, minor, ratio, turn, colors, parts)


def _quantize_means(means: Array, log_scales: Array, thetas: Array, bits: Array, position: float, size: Array):
  """The means on their grid `[N, 2]`, the cells `[N, 2]` and the parts `[N]`."""
  side = position * 2**SPLIT
  size = size.astype(means.dtype)
  margin = MARGIN * size
  inside = jnp.clip(means, -margin, size + margin) + margin
  cells = jnp.floor(inside / side).astype(int)
  columns, rows, slope = frame(log_scales, thetas, bits)
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


# With finer ones `quantize` leaves its 32 bits.
FINEST = Steps(position=80, log_scale=64, turn=208, color=48, weight=64)

_quantize = jax.jit(quantize)


def nearest(gaussians: Gaussians, steps: Steps) -> Gaussians:
  """The set with every number at the nearest point of its grid."""
  return _quantized(gaussians, steps)[0]._replace(canvas=gaussians.canvas)


def codes_of(gaussians: Gaussians, steps: Steps) -> Codes:
  """The integers, of numpy, nearest to a set on the grids of `steps`."""
  return Codes(*[np.asarray(field).astype(np.int64) for field in _quantized(gaussians, steps)[1]])


def _quantized(gaussians: Gaussians, steps: Steps) -> tuple[Gaussians, Codes]:
  """By one program for sets of all canvases."""
  return _quantize(gaussians._replace(canvas=None), grid(steps), picture_size(gaussians))


def picture_size(gaussians: Gaussians) -> NDArray:
  """The `size` of `quantize`."""
  return size_of(geometry.canvas_of(gaussians)).astype(np.int32)


class Known(NamedTuple):
  """What codes stand for, as far as it decides how others are read; `[N]` int64 in 1 / ONE."""

  features: Features
  roots: NDArray  # of minor scales in pixels
  ratios: NDArray  # logarithms
  weights: NDArray  # logarithms


def known(codes: Codes, grid: Grid) -> Known:
  """What codes of numpy stand for."""
  weights = codes.weights * int(grid.weight)
  roots = codes.minor * grid.minor[level(MINOR, weight_feature(weights))].astype(np.int64)
  feature = features_of(roots, np.zeros_like(roots), weights)
  ratios = codes.ratio * grid.ratio[level(RATIO, feature)].astype(np.int64)
  return Known(features_of(roots, ratios, weights), roots, ratios, weights)


def dequantize(codes: Codes, grid: Grid, canvas: Canvas) -> Gaussians:
  """The set that codes stand for, computed in float64 numpy and rounded to float32. Raises FormatError."""
  feature, roots, ratios, weights = known(codes, grid)
  least = 2 * np.log(roots / ONE)
  log_scales = np.stack([least + ratios / ONE, least], 1)
  check_scales(log_scales)
  thetas = codes.turn * math.pi / bins(grid, feature)
  columns, rows, slope = frame(log_scales, thetas, part_bits(feature), np)
  means = means_of(codes.cells, codes.parts, (columns, rows, slope), grid.position, canvas)
  unit = grid.color[level(COLOR, feature)][:, None] / ONE
  colors = codes.colors * unit @ decorrelation(codes.colors.shape[1])
  single = lambda array: jax.device_put(np.asarray(array, np.float32))  # jnp.asarray would compile a program
  log_weights = single(weights / ONE) if weights.any() else None
  return Gaussians(single(means), Euler(single(log_scales), single(thetas)), single(colors), log_weights, canvas)


def check_scales(log_scales: NDArray) -> None:
  """Raises FormatError for scales that no writer makes, of which exponentials may be infinite."""
  if float(np.abs(log_scales).max()) > MAX_LOG_SCALE:
    raise FormatError("damaged: a scale is out of range")


def means_of(cells: NDArray, parts: NDArray, frame: tuple, position: float, canvas: Canvas) -> NDArray:
  """`[N, 2]` pixels: the middles of parts of cells that are divided as `frame` says."""
  columns, rows, slope = frame
  column, row = np.divmod(parts, rows)
  rise = slope * ((column + 0.5) / columns - 0.5)
  place = np.stack([(column + 0.5) / columns, ((row + 0.5) / rows + rise) % 1], 1)
  return (cells + place) * position * 2**SPLIT - margins(canvas)
