"""The kernel, and what every renderer offers to blends: sums over one placed set of Gaussians.

`splat` is linear in its values and serves the linear blends, `composite` is ordered; a blend turns either into a
picture and does not know which renderer drew it. `removal` goes the other way, from pixels to Gaussians. Images are
`[H, W, C]`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gaussjax.geometry import Geometry
from gaussjax.types import Array


class Rasterizer(NamedTuple):
  """One set of Gaussians on one pixel grid."""

  splat: Callable[[Array], Array]  # values [N, D] -> [H, W, D], sum_i w_i(p) values_i
  composite: Callable[[Array, Array], tuple[Array, Array]]
  # (values [N, D], opacities [N]) -> ([H, W, D], transmittance [H, W, 1]), front to back in array order
  removal: Callable[[Array, Array, Array, Array], tuple[Array, Array]]
  # (colors [N, C], sum of all weights [H, W, 1], picture and target [H, W, C]) -> sums over the pixels of what
  # `without` says: (rise [N], weight [N])
  placed: Geometry  # the set on the grid
  tail: float  # tau, the kernel's value at the cut-off before it is cut
  squares: Callable[[Array, Array, Array, Array], Array] | None = None
  # Where it is cheaper than `splat` and what follows: (values [N, C + 1], or with gradients [N, C + 3], background
  # [C], target [H, W, C], first row that counts []) -> [], the sum of (average - target)^2, the average being the
  # blend `weighted_average`

  @property
  def log_weights(self) -> Array:
    """`[N]`."""
    return self.placed.log_weights


def tail(cutoff: float) -> float:
  """tau = exp(-cutoff^2 / 2), `cutoff` in standard deviations."""
  return math.exp(-(cutoff**2) / 2)


def kernel(half_q: Array, tau: float) -> Array:
  """w = max(exp(-q / 2) - tau, 0) / (1 - tau): a Gaussian with compact support, continuous at its edge."""
  return jnp.maximum(jnp.exp(-half_q) - tau, 0) / (1 - tau)


def weight(mean: Array, whitening: Array, pixel: Array, tau: float) -> Array:
  """The weight of one Gaussian at one pixel: `mean` `[2]`, `whitening` `[3]`, `pixel` `[2]` -> `[]`."""
  a11, a21, a22 = whitening
  dx, dy = pixel - mean
  return kernel(((a11 * dx) ** 2 + (a21 * dx + a22 * dy) ** 2) / 2, tau)


def cotangent(placed: Geometry, by_means: Array, by_whitening: Array) -> Geometry:
  """The gradient of `splat` by the set, on which its sums depend by means and whitening alone."""
  return jax.tree.map(jnp.zeros_like, placed)._replace(means=by_means, whitening=by_whitening)


def gradients(placed: Geometry) -> Array:
  """`[N, 2]`, the set's, zeros where it has none."""
  return jnp.zeros_like(placed.means) if placed.gradients is None else placed.gradients


def rise(mean: Array, gradient: Array, pixel: Array) -> Array:
  """How much brighter a Gaussian is at one pixel than at its mean, each `[2]` -> `[]`."""
  return jnp.sum(gradient * (pixel - mean))


def without(weight: Array, values: tuple[Array, ...], pixel: tuple[Array, ...], tail: float) -> tuple[Array, Array]:
  """What one pixel is without one Gaussian, drawn by weighted average: (rise of its squared error, the weight).

  Its colour moves by a (drawn - color), a = w / (W - w), W the sum of all weights with the background's.
  `weight` is of the kernel; `values` are the Gaussian's C colours there and the factor on its weight; `pixel` has
  W, the C colours that were drawn and the C that were wanted.
  """
  channels = len(values) - 1
  weight, total = weight * values[-1], pixel[0]
  change = weight / jnp.maximum(total - weight, tail)
  rise = jnp.zeros_like(weight)
  for color, drawn, wanted in zip(values, pixel[1 : 1 + channels], pixel[1 + channels :], strict=False):
    moved = change * (drawn - color)
    rise += moved * (2 * (drawn - wanted) + moved)
  return rise, weight
