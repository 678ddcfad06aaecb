"""Coordinate descent over the integers of a file: each number a code up or down, where that pays.

What is rounded in shares (quantization.py) stays as it is while the rest makes good for it, and the last have
nobody who does. So in the end each Gaussian in turn may move, by a code of its shape, its place or its colour. The
move is made that lowers most the squared error, which is exact, together with what the file's bits are worth. No
program is compiled for a sweep, and where there was a C++ compiler it takes tenths of a second.
"""

import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from gaussjax import geometry
from gaussjax.gjx import grids, rate
from gaussjax.gjx.grids import Codes, Grid, Steps
from gaussjax.rendering import buckets
from gaussjax.types import Array, Canvas, Euler, Gaussians

try:
  _native: Any = importlib.import_module("gaussjax.gjx._descent")
except ImportError:
  _native = None

# At most, and none after one that moves less than SETTLED of the Gaussians. In Python one takes seconds.
SWEEPS, SWEEPS_IN_PYTHON = 4, 1
SETTLED = 0.02
WORTH = 0.025  # of a bit: share of the mean squared error a Gaussian, the slope of the curve of rate and distortion


def available() -> bool:
  """Whether the native code was built."""
  return _native is not None


def descended(
  gaussians: Gaussians,
  target: Array,
  steps: Steps,
  *,
  colors: bool = True,
  seed: int = 0,
  progress_fn: Callable[[float], None] = lambda share: None,
) -> Gaussians:
  """A set on the grids of `steps`, that is near them, moved code by code towards `target` `[H, W, C]`.

  Its blend is the weighted average, without log-weights. If `colors` are not to move they stay as they are, on no
  grid. `seed` says whose turn is when. What is parked stays parked. `progress_fn` receives the share that is done.
  """
  grid, kept = grids.grid(steps), gaussians.colors
  on_grid = lambda one: grids.nearest(one, steps) if colors else grids.nearest(one, steps)._replace(colors=kept)
  gaussians = on_grid(gaussians)
  shown, rng = np.asarray(geometry.visible(gaussians)), np.random.default_rng(seed)
  canvas = geometry.canvas_of(gaussians)
  size = buckets.size(canvas.height, canvas.width)
  picture = _Picture.of(canvas, np.asarray(target), int(shown.sum()))
  sweeps = SWEEPS if available() else SWEEPS_IN_PYTHON
  for done in range(1, sweeps + 1):
    codes = grids.codes_of(gaussians, steps)
    options = [gaussians, *map(on_grid, _moves(gaussians, codes, grid, colors=colors))]
    tables = np.stack([_numbers(picture, option, shown) for option in options])
    sums = _drawn(picture, tables[0])  # anew, since changes of single precision add up
    worth = WORTH * picture.error(sums) / max(int(shown.sum()), 1)
    costs = np.zeros((len(options), len(shown)))
    if colors:
      costs = worth * rate.differences(buckets.on(gaussians, *size), options, grid)
    chosen = _sweep(picture, tables, costs.astype(np.float32), rng.permutation(len(shown)), sums)
    gaussians = _taken(options, chosen)
    progress_fn(done / sweeps)
    if np.count_nonzero(chosen) < SETTLED * len(shown):
      break
  return gaussians


def _moves(gaussians: Gaussians, codes: Codes, grid: Grid, *, colors: bool) -> Iterator[Gaussians]:
  """Sets in which each Gaussian has one number a code higher or lower; the rest of it is for the grid to round."""
  known = grids.known(codes, grid)
  shape = Euler(*gaussians.shape)
  log_scales, thetas, means = (np.asarray(field, np.float64) for field in (*shape, gaussians.means))
  features = grids.features_of(known.roots, np.zeros_like(known.roots), known.weights)
  root = known.roots / grids.ONE
  units = lambda table, field, features: np.asarray(table)[grids.level(field, features)] / grids.ONE
  of_root = units(grid.minor, grids.MINOR, grids.weight_feature(known.weights))
  of_ratio = units(grid.ratio, grids.RATIO, features)
  bits = grids.part_bits(known.features)
  columns, rows, slope = grids.frame(log_scales, thetas, bits, np)
  side = grid.position * 2**grids.SPLIT
  along = np.stack([side / columns, slope * side / columns], 1)
  down = np.stack([np.zeros_like(side / rows), side / rows], 1)
  angle = math.pi / grids.bins(grid, known.features)
  of_color = units(grid.color, grids.COLOR, known.features)[:, None]
  axes = grids.decorrelation(gaussians.colors.shape[1])
  single = lambda array: jax.device_put(np.float32(array))
  shaped = lambda major, minor: gaussians._replace(
    shape=shape._replace(log_scales=single(np.stack([np.maximum(major, minor), minor], 1)))
  )
  major, minor = log_scales.T
  for sign in (1, -1):
    other = 2 * np.log(np.maximum(root + sign * of_root, of_root))
    yield shaped(other + major - minor, other)
    yield shaped(major, other)
    yield shaped(major + sign * of_ratio, minor)
    yield gaussians._replace(shape=shape._replace(thetas=single(thetas + sign * angle)))
    yield gaussians._replace(means=single(means + sign * along))
    yield gaussians._replace(means=single(means + sign * down))
    if colors:
      for axis in axes:
        yield gaussians._replace(colors=single(np.asarray(gaussians.colors) + sign * of_color * axis))


def _taken(options: list[Gaussians], chosen: NDArray) -> Gaussians:
  """The set of which each Gaussian is as in the option that is `chosen` `[N]` for it."""
  each = np.arange(len(chosen))
  pick = lambda *leaves: jax.device_put(np.stack([np.asarray(leaf) for leaf in leaves])[chosen, each])
  canvases = [option._replace(canvas=None) for option in options]
  return jax.tree.map(pick, *canvases)._replace(canvas=options[0].canvas)


ENOUGH_PIXELS = 1024  # for each Gaussian: few are looked at on a smaller picture, and show all of it


class _Picture(NamedTuple):
  """What all Gaussians are drawn on, and towards."""

  canvas: Canvas
  target: NDArray  # [C, H, W] float32, each of its pixels the mean of `times` x `times` of the picture's
  tau: float
  times: int = 1

  @classmethod
  def of(cls, canvas: Canvas, target: NDArray, count: int) -> "_Picture":
    """The picture of a canvas for so many Gaussians, with a target [H, W, C]."""
    enough = math.isqrt(canvas.height * canvas.width // (ENOUGH_PIXELS * max(count, 1)))
    times = max(1, min(enough, canvas.height, canvas.width))
    height, width = canvas.height // times, canvas.width // times
    whole = np.asarray(target, np.float32)[: height * times, : width * times]
    blocks = whole.reshape(height, times, width, times, -1)
    planes = np.ascontiguousarray(np.moveaxis(np.mean(blocks, axis=(1, 3)), -1, 0))
    return cls(canvas, planes, math.exp(-(canvas.cutoff**2) / 2), times)

  @property
  def size(self) -> NDArray:
    """`[2]` (x, y) pixels of the target."""
    return np.array(self.target.shape[:0:-1])

  def error(self, sums: NDArray) -> float:
    """The sum of squared errors of what has the `sums` [C + 1, H, W]."""
    rows = (np.square(sums[:-1, y] / sums[-1, y] - self.target[:, y]) for y in range(self.target.shape[1]))
    return sum(float(np.sum(row)) for row in rows)  # row by row, for large pictures


NUMBERS = 8  # of a Gaussian in a table, besides its colours


def _numbers(picture: _Picture, gaussians: Gaussians, shown: NDArray) -> NDArray:
  """`[N, NUMBERS + C]` float32: mean, inverse covariance (xx, xy, yy), weight, reach along x and y, colours.

  Lengths are in pixels of the target.
  """
  canvas = picture.canvas
  log_scales, thetas = (np.asarray(field, np.float64) for field in gaussians.shape)
  (major, minor), cos, sin = np.exp(2 * log_scales).T, np.cos(thetas), np.sin(thetas)
  xx, yy = (major * a**2 + minor * b**2 + canvas.floor**2 for a, b in ((cos, sin), (sin, cos)))
  xy = (major - minor) * cos * sin
  determinant = xx * yy - xy**2
  weights = np.full_like(xx, 1 / (1 - picture.tau))
  reach = canvas.cutoff * np.sqrt(np.stack([xx, yy], 1))
  inverse = np.stack([yy, -xy, xx], 1) / determinant[:, None]
  table = np.hstack([np.asarray(gaussians.means), inverse, weights[:, None], reach, np.asarray(gaussians.colors)])
  table[:, [0, 1, 6, 7]] /= picture.times
  table[:, 2:5] *= picture.times**2
  table[~shown, :2], table[~shown, 6:8] = -1e9, 0
  return np.asarray(table, np.float32)


def _drawn(picture: _Picture, table: NDArray) -> NDArray:
  """`[C + 1, H, W]` float32: the sums of weights times colours, and of weights, with the background."""
  background = np.asarray(picture.canvas.background, np.float64)
  sums = np.empty((len(background) + 1, *picture.target.shape[1:]), np.float32)
  sums[:] = (picture.tau * np.append(background, 1))[:, None, None]
  nothing, count = table.copy(), len(table)
  nothing[:, 5] = 0
  gladly = np.array([[0], [-np.inf]], np.float32).repeat(count, 1)
  _sweep(picture, np.stack([nothing, table]), gladly, np.arange(count), sums)
  return sums


def _box(picture: _Picture, table: NDArray) -> tuple[slice, slice]:
  """The rows and columns of the pixels that any Gaussian of a table `[K, NUMBERS + C]` may reach, if any."""
  low, high = (table[:, :2] - table[:, 6:8]).min(axis=0), (table[:, :2] + table[:, 6:8]).max(axis=0)
  first, end = (np.clip(np.floor(low), 0, picture.size), np.clip(np.ceil(high), 0, picture.size))
  first, end = first.astype(int), end.astype(int)
  return slice(first[1], end[1]), slice(first[0], end[0])


def _weights(picture: _Picture, table: NDArray, box: tuple[slice, slice]) -> NDArray:
  """`[K, h, w]` float64, of Gaussians at the pixels of a box."""
  x, y, xx, xy, yy, weight = table[:, :6].astype(np.float64).T[:, :, None, None]
  down, across = (np.arange(side.start, side.stop) + 0.5 for side in box)
  dx, dy = across - x, down[:, None] - y
  square = xx * dx**2 + (2 * xy * dx + yy * dy) * dy
  return weight * np.maximum(np.exp(-square / 2) - picture.tau, 0)


def _sweep(picture: _Picture, tables: NDArray, costs: NDArray, order: NDArray, sums: NDArray) -> NDArray:
  """`[N]` which of the options each Gaussian takes, in turn; `sums` are kept up to date.

  `tables` `[K, N, NUMBERS + C]` are the options, the first of which is what is; `costs` `[K, N]` are what they cost
  besides the squared error.
  """
  if _native is None:
    return _sweep_in_python(picture, tables, costs, order, sums)
  chosen, (channels, height, width) = np.zeros(len(order), np.int64), picture.target.shape
  sizes = height, width, channels, picture.tau, picture.canvas.cutoff**2
  _native.sweep(*sizes, tables, costs, np.int64(order), sums, picture.target, chosen)
  return chosen


def _sweep_in_python(picture: _Picture, tables: NDArray, costs: NDArray, order: NDArray, sums: NDArray) -> NDArray:
  chosen = np.zeros(len(order), np.int64)
  for index in order.tolist():
    table = tables[:, index]
    box = _box(picture, table)
    rises, seen = _rises(picture, table, box, sums)
    chosen[index] = best = int(np.argmin(rises + np.where(seen, costs[:, index], 0)))
    if best:
      old, new = _added(picture, table[[0, best]], box)
      sums[:, *box] += new - old
  return chosen


AT_ONCE = 1 << 20  # numbers: of a large Gaussian few options are looked at together


def _rises(picture: _Picture, table: NDArray, box: tuple[slice, slice], sums: NDArray) -> tuple[NDArray, NDArray]:
  """`[K]` each: how much an option of a Gaussian raises the squared error, and whether any pixel sees it."""
  here, target = sums[:, *box].astype(np.float64), picture.target[:, *box]
  old = _added(picture, table[:1], box)
  error, together = np.square(here[:-1] / here[-1] - target), max(1, AT_ONCE // max(here.size, 1))
  rises, seen = [], []
  for first in range(0, len(table), together):
    changes = _added(picture, table[first : first + together], box) - old
    after = here + changes
    rises.append(np.sum(np.square(after[:, :-1] / after[:, -1:] - target) - error, axis=(1, 2, 3)))
    seen.append(np.any(changes != 0, axis=(1, 2, 3)))
  return np.concatenate(rises), np.concatenate(seen)


def _added(picture: _Picture, table: NDArray, box: tuple[slice, slice]) -> NDArray:
  """`[K, C + 1, h, w]`: what each Gaussian adds to the sums of a box's pixels."""
  values = np.hstack([table[:, NUMBERS:], np.ones_like(table[:, :1])]).astype(np.float64)
  return values[:, :, None, None] * _weights(picture, table, box)[:, None]
