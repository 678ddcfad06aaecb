"""Drawing a set by the renderer that is fastest for it: dense for small scenes, tiled for all others.

What a renderer keeps between draws is `lists`: tiling.Neighbors, or () for the dense one, which needs none.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from gaussjax import geometry, rendering, tiling
from gaussjax.types import Array, Gaussians

# Gaussian-pixel pairs below which the dense renderer is the faster one (measured, BUILD_NOTES.md).
DENSE_EVALUATIONS = 2**17

Lists = tiling.Neighbors | tuple[()]


def allocate(
  gaussians: Gaussians,
  like: Lists | None = None,
  *,
  height: int | None = None,
  width: int | None = None,
  affine: geometry.Affine | None = None,
) -> Lists:
  """Lists for drawing this set at the fitted size, or at another under `affine`; no smaller than `like`. Host."""
  canvas = geometry.canvas_of(gaussians)
  height, width = height or canvas.height, width or canvas.width
  if like == () or (like is None and len(gaussians.means) * height * width <= DENSE_EVALUATIONS):
    return ()
  placed = _place(gaussians, affine)
  if like:
    skin, lists = like.skin, like.lists
  else:
    ordered = canvas.blend not in rendering.LINEAR_BLENDS
    skin, lists = (
      jax.device_put(np.zeros((), placed.means.dtype)),
      tiling.empty(placed, height, width, max_blocks=int(ordered)),
    )
  lists = tiling.allocate(placed, lists, cutoff=canvas.cutoff, skin=skin)
  return tiling.Neighbors(lists, skin, jax.device_put(np.zeros((), np.int32)))


_place = jax.jit(geometry.geometry)


def refresh(gaussians: Gaussians, lists: Lists) -> tuple[Lists, Array]:
  """Lists that are valid for this set at the fitted size, and whether they overflowed. Jit."""
  if not lists:
    return (), jnp.array(False)
  return tiling.refresh(geometry.geometry(gaussians), lists, cutoff=geometry.canvas_of(gaussians).cutoff)


def rasterizer(
  gaussians: Gaussians, lists: Lists, height: int, width: int, affine: geometry.Affine | None = None
) -> rendering.Rasterizer:
  """The set on a pixel grid, by the renderer whose `lists` these are."""
  tau = rendering.tail(geometry.canvas_of(gaussians).cutoff)
  placed = geometry.geometry(gaussians, affine)
  if not lists:
    return rendering.dense(placed, height, width, tau=tau)
  return tiling.tiled(placed, lists.lists, tau=tau)


def render(
  gaussians: Gaussians,
  height: int | None = None,
  width: int | None = None,
  *,
  background: ArrayLike | None = None,
  viewport: tuple[float, float, float, float] | None = None,
) -> Array:
  """Draws a set at any size: `[height, width, C]`, not clipped.

  Without a size that of the fit; with one of the two the other keeps the aspect ratio. `viewport` is the part of
  the fitted image to draw, (left, top, right, bottom) in its pixels. Larger is exact, smaller low-pass filtered.
  Within jit, vmap or grad, where values cannot be read, the dense renderer draws.
  """
  canvas = geometry.canvas_of(gaussians)
  left, top, right, bottom = view = (0, 0, canvas.width, canvas.height) if viewport is None else viewport
  if not all(map(math.isfinite, view)) or right <= left or bottom <= top:
    raise ValueError(
      f"got the viewport {view}, expected finite (left, top, right, bottom), left < right, top < bottom"
    )
  if height is None:
    height = max(1, round((bottom - top) * (1 if width is None else width / (right - left))))
  if width is None:
    width = max(1, round((right - left) * height / (bottom - top)))
  if height < 1 or width < 1:
    raise ValueError(f"got a size of {height} x {width}, expected at least one pixel each way")
  if background is not None:
    colour = jnp.broadcast_to(jnp.asarray(background, gaussians.colors.dtype), gaussians.colors.shape[1:])
    gaussians = gaussians._replace(canvas=dataclasses.replace(canvas, background=colour))
  view_array = np.asarray(view, gaussians.means.dtype)
  lists: Lists = ()
  if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(gaussians)):
    gaussians = geometry.padded(gaussians, tiling.capacity(len(gaussians.means)))
    affine = rendering.output_affine(view_array, height, width)
    lists = allocate(gaussians, height=height, width=width, affine=affine)
  return _render(gaussians, lists, view_array, height=height, width=width)


def coverage(gaussians: Gaussians) -> Array:
  """W(p) at the fitted size, `[H, W]`: the sum of the weights, without the background's share."""
  return _coverage(gaussians, allocate(gaussians))


@jax.jit
def _coverage(gaussians: Gaussians, lists: Lists) -> Array:
  canvas = geometry.canvas_of(gaussians)
  return rendering.coverage(rasterizer(gaussians, lists, canvas.height, canvas.width))


@functools.partial(jax.jit, static_argnames=("height", "width"))
def _render(gaussians: Gaussians, lists: Lists, viewport: Array, *, height: int, width: int) -> Array:
  affine = rendering.output_affine(viewport, height, width)
  return rendering.picture(gaussians, rasterizer(gaussians, lists, height, width, affine))
