"""Large pictures band by band: what is a mean over pixels needs only a band of rows in memory at a time.

For the renderer of scan lines, which can begin at any row. A picture of up to BAND_PIXELS is one band, or as many
as a mesh has devices: Gaussians are on each of them, rows are shared out, gradients summed.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gaussjax import geometry
from gaussjax.rendering import blends, kernel, renderer, scanlines
from gaussjax.rendering.sharding import varying_like
from gaussjax.rendering.tiles import Neighbors
from gaussjax.types import Array, Gaussians

BAND_PIXELS = 2**24  # or more: for each band all Gaussians are looked through
MOST_BANDS = 16

# (the band's sums, the image's band [rows, W, C], its first row that is in no band before []) -> arrays
Visit = Callable[[kernel.Rasterizer, Array, Array], Any]
# (set, and what a Visit is given) -> [], a mean over the band of what each pixel gives by itself
Mean = Callable[[Gaussians, kernel.Rasterizer, Array, Array], Array]


def split(neighbors: Neighbors) -> tuple[int, int]:
  """(the number of bands, rows of each) of a picture."""
  height, width, mesh = neighbors.height, neighbors.width, neighbors.mesh
  most = height
  if neighbors.renderer == "scanlines":
    most = max(1, max(BAND_PIXELS, height * width // MOST_BANDS) // width)
  rows = min(most, height if mesh is None else -(-height // mesh.size))
  return -(-height // rows), rows


def each(visit: Visit, gaussians: Gaussians, neighbors: Neighbors, image: Array) -> Any:
  """What `visit` finds in each band, along a first axis of the number of bands. `image` is `[H, W, C]`."""
  if split(neighbors)[0] == 1:
    alone = visit(renderer.rasterizer(gaussians, neighbors), image, jnp.int32(0))
    return jax.tree.map(lambda leaf: leaf[None], alone)
  one = lambda band: visit(*_band(gaussians, neighbors, image, band))
  return jax.lax.map(one, jnp.arange(split(neighbors)[0], dtype=jnp.int32))


@functools.cache  # the same function again
def of_pixels(loss: Callable[[Array, Array], Array]) -> Mean:
  """The mean `loss(prediction, target)`, which is 0 where both are alike."""

  def of_band(gaussians: Gaussians, on: kernel.Rasterizer, seen: Array, first: Array) -> Array:
    return loss(*blends.compared(blends.picture(gaussians, on), seen, first))

  return of_band


def mean(of_band: Mean, gaussians: Gaussians, neighbors: Neighbors, image: Array) -> Array:
  """What `of_band` says of the whole picture, without more than a band in memory, its gradient included.

  The gradient is by the set; the image is taken as given.
  """
  if split(neighbors)[0] == 1:
    return of_band(gaussians, renderer.rasterizer(gaussians, neighbors), image, jnp.int32(0))
  return _mean(of_band, gaussians, neighbors, image)


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
  return on, seen, band * rows - top


def _share(of_band: Mean, gaussians: Gaussians, neighbors: Neighbors, image: Array, band: Array) -> Array:
  """A band's share of the mean."""
  on, seen, first = _band(gaussians, neighbors, image, band)
  return of_band(gaussians, on, seen, first) * (len(seen) / neighbors.height)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mean(of_band: Mean, gaussians: Gaussians, neighbors: Neighbors, image: Array) -> Array:
  return _sum(functools.partial(_share, of_band), gaussians, neighbors, image)


def _mean_forward(of_band: Mean, gaussians: Gaussians, neighbors: Neighbors, image: Array):
  """The gradient is made along with the value: each band is drawn once."""
  return _sum(jax.value_and_grad(functools.partial(_share, of_band)), gaussians, neighbors, image)


def _sum(share: Callable, gaussians: Gaussians, neighbors: Neighbors, image: Array) -> Any:
  """The sum over all bands of share(gaussians, neighbors, image, band), by all devices of the mesh."""
  mesh, (count, _) = neighbors.mesh, split(neighbors)
  devices, axes = (1, ()) if mesh is None else (mesh.size, mesh.axis_names)

  def of_device(gaussians: Gaussians, neighbors: Neighbors, image: Array, bands: Array) -> Any:
    gaussians = varying_like(gaussians, bands)

    def add(sums: Any, band: Array) -> tuple[Any, None]:
      more = share(gaussians, neighbors, image, jnp.minimum(band, count - 1))
      return jax.tree.map(lambda a, b: a + jnp.where(band < count, b, 0), sums, more), None

    found = jax.eval_shape(share, gaussians, neighbors, image, bands[0])
    nothing = varying_like(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), found), bands)
    sums, _ = jax.lax.scan(add, nothing, bands)
    return jax.lax.psum(sums, axes) if axes else sums

  # As many for each device; those beyond the last count for nothing.
  bands = jnp.arange(-(-count // devices) * devices, dtype=jnp.int32)
  if mesh is None:
    return of_device(gaussians, neighbors, image, bands)
  every, shared = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(axes)
  inputs = (every, every, every, shared)
  return jax.shard_map(of_device, mesh=mesh, in_specs=inputs, out_specs=every)(gaussians, neighbors, image, bands)


def _mean_backward(of_band: Mean, gradient: Gaussians, cotangent: Array):
  return jax.tree.map(lambda leaf: cotangent * leaf, gradient), None, None


_mean.defvjp(_mean_forward, _mean_backward)
