"""The blends: how sums over Gaussians become a picture.

A blend is one value that carries all that others must know of it, so that one from outside of the package works
wherever a built-in one does:

    mean = Blend("mean", lambda rasterizer, colors, background: rasterizer.splat(colors) / 2)
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from gaussjax.geometry import canvas_of
from gaussjax.rendering import buckets
from gaussjax.rendering.kernel import Rasterizer
from gaussjax.types import Array, Gaussians


@dataclasses.dataclass(frozen=True)
class Blend:
  """How Gaussians become a picture: `draw(rasterizer, colors [N, C], background [C])` -> `[H, W, C]`."""

  name: str
  draw: Callable[[Rasterizer, Array, Array], Array]
  ordered: bool = False  # whether the Gaussians' order counts: `draw` may use `rasterizer.composite`
  density: bool = False  # whether the removal costs of density control are right for it
  code: int | None = None  # its number in files, None if they have none
  sloped: bool = False  # whether `draw` knows sets with slopes, by way of `columns`

  def __call__(self, rasterizer: Rasterizer, colors: Array, background: Array) -> Array:
    """The picture `[H, W, C]`."""
    return self.draw(rasterizer, colors, background)

  def __repr__(self) -> str:
    return f"Blend({self.name!r})"


def _weighted_average(rasterizer: Rasterizer, colors: Array, background: Array) -> Array:
  """sum_i w_i c_i / sum_i w_i, the background counting as one more Gaussian of weight tau everywhere.

  So a pixel that nothing reaches has the background's colour and a finite gradient.
  """
  return _average(rasterizer.splat(_averaged(rasterizer, colors)), background, rasterizer.tail)[0]


def _average(sums: Array, background: Array, tail: float) -> tuple[Array, Array]:
  """(the picture, the sum of weights `[H, W]`) of the sums of what is `_averaged`."""
  channels = len(background)
  weights = sums[..., channels : channels + 1]
  colors = resolved(sums[..., :channels], sums[..., channels + 1 :])
  return (colors + tail * background) / (weights + tail), weights[..., 0]


def _averaged(rasterizer: Rasterizer, colors: Array) -> Array:
  """`[N, C + 1 or C + 3]` what is summed for an average: colours, ones, gradients, times each Gaussian's weight."""
  colors, gradients = columns(rasterizer, colors)
  values = jnp.concatenate([colors, jnp.ones_like(colors[:, :1]), gradients], axis=1)
  return jnp.exp(rasterizer.log_weights)[:, None] * values


def columns(rasterizer: Rasterizer, colors: Array) -> tuple[Array, Array]:
  """(colours `[N, C]`, gradients of brightness `[N, 2]`, or `[N, 0]` of sets that have none), both to be summed.

  With a gradient g a colour is c + g . p at the pixel p. These are c and g, and `resolved` puts their sums
  together: so whatever is linear in its values draws Gaussians whose brightness changes with the place.
  """
  gradients = rasterizer.placed.gradients
  if gradients is None:
    return colors, colors[:, :0]
  return colors - jnp.sum(gradients * rasterizer.placed.means, axis=1, keepdims=True), gradients


def resolved(colors: Array, gradients: Array) -> Array:
  """`[H, W, C]` colours, summed, at each pixel: of the sums of both `columns`, `[H, W, C]` and `[H, W, 2 or 0]`."""
  if gradients.shape[-1] == 0:
    return colors
  height, width, _ = colors.shape
  x, y = (jnp.arange(side, dtype=colors.dtype) + 0.5 for side in (width, height))
  return colors + (x * gradients[..., 0] + y[:, None] * gradients[..., 1])[..., None]


def _accumulated_sum(rasterizer: Rasterizer, colors: Array, background: Array) -> Array:
  """background + sum_i w_i c_i (GaussianImage, ECCV 2024)."""
  values = jnp.concatenate(columns(rasterizer, colors), axis=1)
  sums = rasterizer.splat(jnp.exp(rasterizer.log_weights)[:, None] * values)
  return _resolved(sums, background) + background


def _alpha_composite(rasterizer: Rasterizer, colors: Array, background: Array) -> Array:
  """Front to back in array order, alpha_i = exp(min(log_weight_i, 0)) w_i, the background behind all."""
  opacities = jnp.exp(jnp.minimum(rasterizer.log_weights, 0))
  sums, transmittance = rasterizer.composite(jnp.concatenate(columns(rasterizer, colors), axis=1), opacities)
  return _resolved(sums, background) + transmittance * background


def _resolved(sums: Array, background: Array) -> Array:
  """`resolved`, of sums of colours and gradients in one."""
  return resolved(sums[..., : len(background)], sums[..., len(background) :])


weighted_average = Blend("weighted_average", _weighted_average, density=True, code=0, sloped=True)
accumulated_sum = Blend("accumulated_sum", _accumulated_sum, code=1, sloped=True)
alpha_composite = Blend("alpha_composite", _alpha_composite, ordered=True, sloped=True)

# The one table, by name: for files, flags and messages.
BLENDS = {blend.name: blend for blend in (weighted_average, accumulated_sum, alpha_composite)}
BY_CODE: dict[int | None, Blend] = {blend.code: blend for blend in BLENDS.values() if blend.code is not None}


def checked(blend: Any) -> Blend:
  """The blend itself. Raises ValueError for anything else, a plain function included."""
  if not isinstance(blend, Blend):
    raise ValueError(
      f"got the blend {blend!r}, expected one of gaussjax.blends, or your own: gaussjax.Blend('name', function)"
    )
  return blend


def picture(gaussians: Gaussians, on: Rasterizer) -> Array:
  """`[H, W, C]`, the set's own blend of its colours over its background."""
  canvas = canvas_of(gaussians)
  if gaussians.slopes is not None and not canvas.blend.sloped:
    raise ValueError(
      f"got slopes with the blend {canvas.blend.name}, expected a blend that draws them (sloped=True)"
    )
  return canvas.blend(on, gaussians.colors, canvas.background)


def mean_square(gaussians: Gaussians, on: Rasterizer, target: Array, first: Array | int = 0) -> Array:
  """The mean of (picture - target)^2 over all of `target` `[H, W, C]`; what is not `compared` counts as alike."""
  canvas = canvas_of(gaussians)
  if canvas.blend is weighted_average and on.squares is not None:
    return on.squares(_averaged(on, gaussians.colors), canvas.background, target, jnp.int32(first)) / target.size
  drawn, wanted = compared(picture(gaussians, on), target, first)
  return jnp.mean(jnp.square(drawn - wanted))


def compared(drawn: Array, target: Array, first: Array | int) -> tuple[Array, Array]:
  """(`drawn`, `target`), `[H, W, C]`, both 0 before row `first` and where the target has no picture (buckets)."""
  counts = (buckets.counted(target) & (jnp.arange(len(target)) >= first)[:, None])[..., None]
  return jnp.where(counts, drawn, 0), jnp.where(counts, target, 0)


def with_coverage(gaussians: Gaussians, on: Rasterizer) -> tuple[Array, Array]:
  """(`picture`, `coverage`); of the weighted average both are in the same sums."""
  canvas = canvas_of(gaussians)
  if canvas.blend is not weighted_average:
    return picture(gaussians, on), coverage(on)
  return _average(on.splat(_averaged(on, gaussians.colors)), canvas.background, on.tail)


def coverage(rasterizer: Rasterizer) -> Array:
  """W(p), the sum of the weights, `[H, W]`."""
  return rasterizer.splat(jnp.exp(rasterizer.log_weights)[:, None])[..., 0]
