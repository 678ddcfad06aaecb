"""What the numbers of a set cost in a file, with a gradient: a fit for a file minimises D + lambda R.

The estimate follows the coder (contexts.py): positions in order, each other number by how far it is from what the
nearest of those before it let expect, under a Laplace distribution. Positions and angles are left out: their bits
hardly depend on where they are.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gaussjax import geometry
from gaussjax.gjx import contexts, grids
from gaussjax.gjx.grids import Grid, Steps
from gaussjax.types import Array, Gaussians

# Of a photograph's file at a fifth of a bit a pixel. A fit's rate hardly depends on them.
TYPICAL = Steps(position=118, log_scale=102, turn=162, color=104, weight=124)
_TYPICAL_GRID = grids.grid(TYPICAL)

LAMBDA = 0.02  # share of the squared error that a bit for each Gaussian is worth
BLUNT = 0.1  # of a squared step: differences below a third of a step are not worth making smaller


def lagrangian(distortion: Array, gaussians: Gaussians, grid: Grid = _TYPICAL_GRID) -> Array:
  """D + lambda R of a set whose squared error is `distortion` []; lambda is LAMBDA of that, a Gaussian."""
  bits = estimate(gaussians, grid)
  return distortion + LAMBDA * jax.lax.stop_gradient(distortion) * bits / len(gaussians.means)


def estimate(gaussians: Gaussians, grid: Grid) -> Array:
  """[] bits that the log-weights, log-scales and colours of a set take on a `grid`."""
  distances = _distances(gaussians, grid)[0]
  # The entropy of a Laplace distribution, with the mean size that fits best.
  return jnp.sum(distances.shape[1] * jnp.log2(2 * math.e * jnp.mean(_blunt(distances), axis=1)))


def differences(gaussians: Gaussians, options: Sequence[Gaussians], grid: Grid) -> NDArray:
  """`[K, N]` bits that each Gaussian takes more if it is as in one of K `options`, while all others stay.

  Bits of its own, not of those that are expected to be like it. Of numpy; Euler shapes.
  """
  distances, units, order = map(np.asarray, _jitted_distances(gaussians, grid))
  back = np.argsort(order)
  distances, units = distances[:, back], units[:, back]
  sizes = _blunt(distances)
  of_size = math.log2(math.e) / np.maximum(np.mean(sizes, axis=1, keepdims=True), 1e-9)
  here = _numbers(gaussians)
  moved = [distances + (_numbers(option) - here) / units for option in options]
  return np.stack([np.sum(of_size * (_blunt(distance) - sizes), axis=0) for distance in moved])


def _blunt(distances):
  """How large distances are, of which those below a third of a step count as alike."""
  return (distances**2 + BLUNT) ** 0.5


def _numbers(gaussians: Gaussians) -> NDArray:
  """`[F, N]` of numpy, as the fields of `_distances`: roots of minor scales, colours, ratios, log-weights."""
  log_scales, colors = np.asarray(gaussians.shape[0]), np.asarray(gaussians.colors)
  minor = np.maximum(np.min(log_scales, axis=1), grids.LEAST_LOG_SCALE)
  channels = grids.decorrelation(colors.shape[1]) @ colors.T
  weights = [] if gaussians.log_weights is None else [np.asarray(gaussians.log_weights)]
  return np.stack([np.exp(minor / 2), *channels, np.max(log_scales, axis=1) - minor, *weights])


def _distances(gaussians: Gaussians, grid: Grid) -> tuple[Array, Array, Array]:
  """(how far numbers are from what is expected, in steps of their own; those steps) `[F, N]`, their order `[N]`.

  The order is that of a file.
  """
  near, weights, order = _neighbors(gaussians, grid)
  log_scales = geometry.to_euler(gaussians.shape).log_scales[order]
  minor = jnp.maximum(jnp.min(log_scales, axis=1), grids.LEAST_LOG_SCALE)
  ratio = jnp.max(log_scales, axis=1) - minor
  log_weights = jnp.zeros_like(minor) if gaussians.log_weights is None else gaussians.log_weights[order]
  unit = functools.partial(_unit, grid, minor, ratio, log_weights)
  root = jnp.exp(minor / 2)
  matrix = jnp.asarray(grids.decorrelation(gaussians.colors.shape[1]), minor.dtype)
  channels = (gaussians.colors[order] @ matrix.T).T
  # Fields that are told by their neighbours alone in one: a step compiles in nine tenths of the time.
  values = jnp.concatenate([root[None], channels])
  color = unit(grid.color, grids.COLOR)
  units = [unit(grid.minor, grids.MINOR), *[color] * len(channels), unit(grid.ratio, grids.RATIO)]
  alone = jax.vmap(lambda value, step: _distance(value, step, (), near, weights))(values, jnp.stack(units[:-1]))
  found = [alone, _distance(ratio, units[-1], (minor,), near, weights)[None]]
  if gaussians.log_weights is not None:
    units.append(jnp.full_like(minor, grid.weight / grids.ONE))
    found.append(_distance(log_weights, units[-1], (minor, ratio), near, weights)[None])
  return jnp.concatenate(found), jnp.stack(units), order


_jitted_distances = jax.jit(_distances)


def _unit(
  grid: Grid, minor: Array, ratio: Array, log_weights: Array, units: Array, field: grids.Sensitivity
) -> Array:
  """`[N]` steps of a field as in grids.quantize, without rounding of levels."""
  octaves = [value * (8 / math.log(2)) for value in (minor, ratio, log_weights)]
  level = sum(factor * value for factor, value in zip(field, octaves, strict=True)) / 2**7
  level = jnp.clip(level, grids.MIN_LEVEL, grids.MAX_LEVEL)
  return jax.lax.stop_gradient(units[-grids.MIN_LEVEL] / grids.ONE * 2.0 ** (-level / 4))


def _neighbors(gaussians: Gaussians, grid: Grid) -> tuple[Array, Array, Array]:
  """As contexts.neighbors: (indices, weights that sum to 1 or 0) `[N, NEIGHBORS]` in the order `[N]` of a file."""
  margin = jnp.asarray(grids.margins(geometry.canvas_of(gaussians)), gaussians.means.dtype)
  side = grid.position * 2**grids.SPLIT
  cells = jnp.floor((jax.lax.stop_gradient(gaussians.means) + margin) / side).astype(jnp.int32)
  cells = jnp.clip(cells, 0, contexts.MAX_CELL - 1)
  order = jnp.argsort(contexts.interleave(cells))
  cells = cells[order]
  before = jnp.arange(len(cells))[:, None] - jnp.arange(1, contexts.BEFORE + 1)
  apart = jnp.sum(jnp.square((cells[jnp.maximum(before, 0)] - cells[:, None]).astype(margin.dtype)), axis=-1)
  closeness, place = jax.lax.top_k(jnp.where(before >= 0, 1 / (1 + apart), 0), contexts.NEIGHBORS)
  near = jnp.maximum(jnp.take_along_axis(before, place, axis=1), 0)
  return near, closeness / jnp.maximum(jnp.sum(closeness, axis=1, keepdims=True), 1e-9), order


def _distance(values: Array, unit: Array, along: tuple[Array, ...], near: Array, weights: Array) -> Array:
  """`[N]` units from what least squares expect of a field `[N]`, by neighbours and the fields `along`."""
  around = jnp.sum(weights * values[near], axis=1)
  columns = jnp.stack([jnp.ones_like(values), around, *along], axis=1)
  design, wanted = jax.lax.stop_gradient((columns / unit[:, None], values / unit))
  square = design.T @ design
  # What is added must not be lost in float32, or equations of few Gaussians on fine grids have no solution.
  square += (1e-3 + 1e-5 * jnp.trace(square)) * jnp.eye(design.shape[1], dtype=design.dtype)
  factors = jax.lax.stop_gradient(jnp.linalg.solve(square, design.T @ wanted))
  return (values - columns @ factors) / unit
