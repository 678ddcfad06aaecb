"""The blends: how sums over Gaussians become a picture."""

from collections.abc import Callable

import jax.numpy as jnp

from gaussjax.geometry import canvas_of
from gaussjax.rendering.kernel import Rasterizer
from gaussjax.types import Array, Gaussians

Blend = Callable[[Rasterizer, Array, Array], Array]  # (rasterizer, colors [N, C], background [C]) -> [H, W, C]


def weighted_average(rasterizer: Rasterizer, colors: Array, background: Array) -> Array:
  """sum_i w_i c_i / sum_i w_i, the background counting as one more Gaussian of weight tau everywhere.

  So a pixel that nothing reaches has the background's colour and a finite gradient.
  """
  values = jnp.exp(rasterizer.log_weights)[:, None] * jnp.pad(colors, ((0, 0), (0, 1)), constant_values=1)
  sums = rasterizer.splat(values)
  return (sums[..., :-1] + rasterizer.tail * background) / (sums[..., -1:] + rasterizer.tail)


def accumulated_sum(rasterizer: Rasterizer, colors: Array, background: Array) -> Array:
  """background + sum_i w_i c_i (GaussianImage, ECCV 2024)."""
  return rasterizer.splat(jnp.exp(rasterizer.log_weights)[:, None] * colors) + background


def alpha_composite(rasterizer: Rasterizer, colors: Array, background: Array) -> Array:
  """Front to back in array order, alpha_i = exp(min(log_weight_i, 0)) w_i, the background behind all."""
  opacities = jnp.exp(jnp.minimum(rasterizer.log_weights, 0))
  sums, transmittance = rasterizer.composite(colors, opacities)
  return sums + transmittance * background


def picture(gaussians: Gaussians, on: Rasterizer) -> Array:
  """`[H, W, C]`, the set's own blend of its colours over its background."""
  canvas = canvas_of(gaussians)
  return canvas.blend(on, gaussians.colors, canvas.background)


LINEAR_BLENDS = (weighted_average, accumulated_sum)  # those that need `splat` only


def coverage(rasterizer: Rasterizer) -> Array:
  """W(p), the sum of the weights, `[H, W]`."""
  return rasterizer.splat(jnp.exp(rasterizer.log_weights)[:, None])[..., 0]
