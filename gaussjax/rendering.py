"""The kernel, the blends, and the dense renderer: obviously right, O(N H W), the reference for all others.

A renderer is a `Rasterizer`: functions over one placed set of Gaussians. `splat` is linear in its values and serves
the linear blends, `composite` is ordered; a blend turns either into a picture and does not know which renderer drew
it. `gather` goes the other way, from pixels to Gaussians. Images are `[H, W, C]`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gaussjax.geometry import Affine, Geometry, canvas_of
from gaussjax.types import Array, Gaussians

# Evaluations (Gaussian-pixel pairs) held at once by the dense renderer: 16 MB an array in float32.
CHUNK_EVALUATIONS = 2**22


# What one Gaussian makes of one pixel: (weight [], values: D numbers, pixel: E numbers) -> numbers.
Collect = Callable[[Array, tuple[Array, ...], tuple[Array, ...]], tuple[Array, ...]]


class Rasterizer(NamedTuple):
  """One set of Gaussians on one pixel grid."""

  splat: Callable[[Array], Array]  # values [N, D] -> [H, W, D], sum_i w_i(p) values_i
  composite: Callable[[Array, Array], tuple[Array, Array]]
  # (values [N, D], opacities [N]) -> ([H, W, D], transmittance [H, W, 1]), front to back in array order
  gather: Callable[[Collect, Array, Array], tuple[Array, ...]]
  # (collect, values [N, D], image [H, W, E]) -> for each number that `collect` gives its sum over the pixels, [N]
  log_weights: Array  # [N]
  tail: float  # tau, the kernel's value at the cut-off before it is cut


Blend = Callable[[Rasterizer, Array, Array], Array]  # (rasterizer, colors [N, C], background [C]) -> [H, W, C]


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


def pixel_grid(height: int, width: int, dtype: jnp.dtype) -> Array:
  """Pixel centres `[H * W, 2]` (x, y), row by row."""
  y, x = jnp.meshgrid(jnp.arange(height, dtype=dtype), jnp.arange(width, dtype=dtype), indexing="ij")
  return jnp.stack([x, y], axis=-1).reshape(-1, 2) + 0.5


def dense(geometry: Geometry, height: int, width: int, *, tau: float) -> Rasterizer:
  """Every Gaussian at every pixel, in chunks of pixels whose weights are recomputed in the backward pass."""
  chex.assert_shape([geometry.means, geometry.whitening], [(None, 2), (None, 3)])
  num_gaussians = geometry.means.shape[0]
  chunk = min(height * width, max(1, CHUNK_EVALUATIONS // num_gaussians))
  num_chunks = -(-height * width // chunk)
  pixels = pixel_grid(height, width, geometry.means.dtype)
  pixels = jnp.pad(pixels, ((0, num_chunks * chunk - height * width), (0, 0))).reshape(num_chunks, chunk, 2)
  per_gaussian = jax.vmap(functools.partial(weight, tau=tau), in_axes=(0, 0, None))
  per_pixel = jax.vmap(per_gaussian, in_axes=(None, None, 0))

  def over_pixels(draw: Callable[[Array], Array]) -> Array:
    one_chunk = jax.checkpoint(lambda pixels: draw(per_pixel(geometry.means, geometry.whitening, pixels)))
    drawn = jax.lax.map(one_chunk, pixels)
    return drawn.reshape(num_chunks * chunk, -1)[: height * width].reshape(height, width, -1)

  def splat(values: Array) -> Array:
    return over_pixels(lambda weights: jnp.matmul(weights, values, precision=jax.lax.Precision.HIGHEST))

  def composite(values: Array, opacities: Array) -> tuple[Array, Array]:
    def draw(weights: Array) -> Array:
      alphas = opacities * weights
      after = jnp.cumprod(1 - alphas, axis=1)
      before = jnp.concatenate([jnp.ones_like(after[:, :1]), after[:, :-1]], axis=1)
      sums = jnp.matmul(alphas * before, values, precision=jax.lax.Precision.HIGHEST)
      return jnp.concatenate([sums, after[:, -1:]], axis=1)

    drawn = over_pixels(draw)
    return drawn[..., :-1], drawn[..., -1:]

  def gather(collect: Collect, values: Array, image: Array) -> tuple[Array, ...]:
    inside = jnp.ones((height * width, 1), image.dtype)
    flat = jnp.concatenate([inside, image.reshape(height * width, -1)], axis=1)
    flat = jnp.pad(flat, ((0, num_chunks * chunk - height * width), (0, 0))).reshape(num_chunks, chunk, -1)

    def one_chunk(of_chunk: tuple[Array, Array]) -> tuple[Array, ...]:
      pixels, image = of_chunk
      weights = per_pixel(geometry.means, geometry.whitening, pixels) * image[:, :1]
      collected = collect(weights, tuple(values.T), tuple(image[:, 1:].T[..., None]))
      return tuple(jnp.sum(numbers, axis=0) for numbers in collected)

    return tuple(jnp.sum(sums, axis=0) for sums in jax.lax.map(one_chunk, (pixels, flat)))

  return Rasterizer(splat, composite, gather, geometry.log_weights, tau)


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


def output_affine(viewport: Array | NDArray, height: int, width: int) -> Affine:
  """The map of the `viewport` `[4]`, (left, top, right, bottom) in fitted pixels, to `height` x `width` ones."""
  left_top, right_bottom = viewport[:2], viewport[2:]
  size: Any = np.array([width, height], viewport.dtype)
  return Affine(size / (right_bottom - left_top), left_top)  # type: ignore[arg-type]
