"""The dense renderer: obviously right, O(N H W), the reference for all others."""

import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gaussjax.geometry import Geometry
from gaussjax.rendering.kernel import Rasterizer, rise, weight, without
from gaussjax.types import Array

# Evaluations (Gaussian-pixel pairs) held at once by the dense renderer: 16 MB an array in float32.
CHUNK_EVALUATIONS = 2**22


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
  per_pixel_rise = jax.vmap(jax.vmap(rise, in_axes=(0, 0, None)), in_axes=(None, None, 0))

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

  def removal(colors: Array, total: Array, drawn: Array, target: Array) -> tuple[Array, Array]:
    factor = jnp.exp(geometry.log_weights)
    image = jnp.concatenate([jnp.ones_like(total), total, drawn, target], axis=-1)
    flat = image.reshape(height * width, -1)
    flat = jnp.pad(flat, ((0, num_chunks * chunk - height * width), (0, 0)))
    flat = flat.reshape(num_chunks, chunk, -1)

    def one_chunk(of_chunk: tuple[Array, Array]) -> tuple[Array, Array]:
      pixels, image = of_chunk
      weights = per_pixel(geometry.means, geometry.whitening, pixels) * image[:, :1]
      above: Array | float = 0.0
      if geometry.gradients is not None:
        above = per_pixel_rise(geometry.means, geometry.gradients, pixels)
      values = (*[color + above for color in colors.T], factor)
      cost, weight = without(weights, values, tuple(image[:, 1:].T[..., None]), tau)
      return jnp.sum(cost, axis=0), jnp.sum(weight, axis=0)

    cost, weight = jax.lax.map(one_chunk, (pixels, flat))
    return jnp.sum(cost, axis=0), jnp.sum(weight, axis=0)

  return Rasterizer(splat, composite, removal, geometry, tau)
