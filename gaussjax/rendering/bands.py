"""Large pictures band by band: what is a mean over pixels needs only a band of rows in memory at a time.

For the renderer of scan lines, which can begin at any row. A picture of up to BAND_PIXELS is one band.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gaussjax import geometry
from gaussjax.rendering import blends, kernel, renderer, scanlines
from gaussjax.rendering.tiles import Neighbors
from gaussjax.types import Array, Gaussians

BAND_PIXELS = 2**22

# (prediction, target), both [rows, W, C] -> [], a mean of what each pixel gives by itself, 0 where both are alike
Mean = Callable[[Array, Array], Array]
# (the band's sums, the image's band [rows, W, C], which of its rows [rows] are in no band before) -> arrays
Visit = Callable[[kernel.Rasterizer, Array, Array], Any]


def split(neighbors: Neighbors) -> tuple[int, int]:
  """(the number of bands, rows of each) of a picture."""
  height, width = neighbors.height, neighbors.width
  if neighbors.renderer != "scanlines" or height * width <= BAND_PIXELS:
    return 1, height
  rows = max(1, BAND_PIXELS // width)
  return -(-height // rows), rows


def each(visit: Visit, gaussians: Gaussians, neighbors: Neighbors, image: Array) -> Any:
  """What `visit` finds in each band, along a first axis of the number of bands. `image` is `[H, W, C]`."""
  if split(neighbors)[0] == 1:
    alone = visit(renderer.rasterizer(gaussians, neighbors), image, jnp.ones(neighbors.height, bool))
    return jax.tree.map(lambda leaf: leaf[None], alone)
  one = lambda band: visit(*_band(gaussians, neighbors, image, band))
  return jax.lax.map(one, jnp.arange(split(neighbors)[0], dtype=jnp.int32))


def mean(of_pixels: Mean, gaussians: Gaussians, neighbors: Neighbors, image: Array) -> Array:
  """`of_pixels(picture, image)` at the neighbours' size, without more than a band in memory, its gradient included.

  The gradient is by the set; the image is taken as given.
  """
  if split(neighbors)[0] == 1:
    return of_pixels(blends.picture(gaussians, renderer.rasterizer(gaussians, neighbors)), image)
  return _mean(of_pixels, gaussians, neighbors, image)


def _band(
  gaussians: Gaussians, neighbors: Neighbors, image: Array, band: Array
) -> tuple[kernel.Rasterizer, Array, Array]:
  """What a `visit` is given."""
  canvas, (_, rows) = geometry.canvas_of(gaussians), split(neighbors)
  top = jnp.minimum(band * rows, neighbors.height - rows)  # the last band begins within the one before it
  seen = jax.lax.dynamic_slice_in_dim(image, top, rows)
  placed = geometry.geometry(gaussians, None)
  placed = placed._replace(means=placed.means - jnp.stack([jnp.zeros_like(top), top]).astype(placed.means.dtype))
  on = scanlines.scanlines(placed, rows, neighbors.width, tau=kernel.tail(canvas.cutoff))
  return on, seen, top + jnp.arange(rows) >= band * rows


def _share(of_pixels: Mean, gaussians: Gaussians, neighbors: Neighbors, image: Array, band: Array) -> Array:
  """A band's share of the mean."""
  on, seen, new = _band(gaussians, neighbors, image, band)
  drawn = jnp.where(new[:, None, None], blends.picture(gaussians, on), seen)
  return of_pixels(drawn, seen) * (len(new) / neighbors.height)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mean(of_pixels: Mean, gaussians: Gaussians, neighbors: Neighbors, image: Array) -> Array:
  share = lambda band: _share(of_pixels, gaussians, neighbors, image, band)
  return jnp.sum(jax.lax.map(share, jnp.arange(split(neighbors)[0], dtype=jnp.int32)))


def _mean_forward(of_pixels: Mean, gaussians: Gaussians, neighbors: Neighbors, image: Array):
  """The gradient is made along with the value: each band is drawn once."""
  share = jax.value_and_grad(functools.partial(_share, of_pixels))

  def add(sums: tuple[Array, Gaussians], band: Array) -> tuple[tuple[Array, Gaussians], None]:
    return jax.tree.map(jnp.add, sums, share(gaussians, neighbors, image, band)), None

  nothing = jnp.zeros((), image.dtype), jax.tree.map(jnp.zeros_like, gaussians)
  return jax.lax.scan(add, nothing, jnp.arange(split(neighbors)[0], dtype=jnp.int32))[0]


def _mean_backward(of_pixels: Mean, gradient: Gaussians, cotangent: Array):
  return jax.tree.map(lambda leaf: cotangent * leaf, gradient), None, None


_mean.defvjp(_mean_forward, _mean_backward)
