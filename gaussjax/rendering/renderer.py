"""Drawing a set by the renderer that is fastest for it: dense for small scenes, tiled for all others.

What a renderer keeps between draws is `lists`: tiles.Neighbors, or () for the dense one, which needs none.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussjax import geometry
from gaussjax.rendering import blends, dense, kernel, splat, tiles
from gaussjax.types import Array, Canvas, Gaussians

# Gaussian-pixel pairs below which the dense renderer is the faster one (measured, BUILD_NOTES.md).
DENSE_EVALUATIONS = 2**17

# Pairs for which a fit's first lists have room, over those of its start: what skins and growth come to (measured,
# BUILD_NOTES.md), so that one program mostly serves it to its end.
FIT_ROOM = 1.7

Lists = tiles.Neighbors | tuple[()]


def allocate(gaussians: Gaussians, like: Lists | None = None) -> Lists:
  """Lists for drawing this set at the fitted size while it is fitted, no smaller than `like`. Host."""
  canvas = geometry.canvas_of(gaussians)
  if like == () or (like is None and _is_small(gaussians, canvas.height, canvas.width)):
    return ()
  return _allocate(_place(gaussians), canvas, canvas.height, canvas.width, like, FIT_ROOM)


def _is_small(gaussians: Gaussians, height: int, width: int) -> bool:
  return len(gaussians.means) * height * width <= DENSE_EVALUATIONS


_place = jax.jit(geometry.geometry)


def _allocate(
  placed: geometry.Geometry, canvas: Canvas, height: int, width: int, like: Lists | None, room: float
) -> Lists:
  if like:
    skin, lists = like.skin, like.lists
  else:
    skin = jax.device_put(np.zeros((), placed.means.dtype))
    blocks = int(canvas.blend not in blends.LINEAR_BLENDS)
    size = tiles.capacity(math.ceil(room * tiles.expected_pairs(placed, height, width, cutoff=canvas.cutoff)))
    lists = tiles.empty(placed, height, width, size=size, max_blocks=blocks)
  lists = tiles.allocate(placed, lists, cutoff=canvas.cutoff, skin=skin)
  return tiles.Neighbors(lists, skin, jax.device_put(np.zeros((), np.int32)))


def refresh(gaussians: Gaussians, lists: Lists) -> tuple[Lists, Array]:
  """Lists that are valid for this set at the fitted size, and whether they overflowed. Jit."""
  if not lists:
    return (), jnp.array(False)
  return tiles.refresh(geometry.geometry(gaussians), lists, cutoff=geometry.canvas_of(gaussians).cutoff)


def rasterizer(gaussians: Gaussians, lists: Lists, height: int, width: int) -> kernel.Rasterizer:
  """The set on a pixel grid, by the renderer whose `lists` these are."""
  return _rasterizer(geometry.geometry(gaussians), geometry.canvas_of(gaussians), lists, height, width)


def _rasterizer(
  placed: geometry.Geometry, canvas: Canvas, lists: Lists, height: int, width: int
) -> kernel.Rasterizer:
  tau = kernel.tail(canvas.cutoff)
  if not lists:
    return dense.dense(placed, height, width, tau=tau)
  return splat.tiled(placed, lists.lists, tau=tau)


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
  view = (0, 0, canvas.width, canvas.height) if viewport is None else viewport
  height, width = output_size(view, height, width)
  if background is not None:
    colour = jnp.broadcast_to(jnp.asarray(background, gaussians.colors.dtype), gaussians.colors.shape[1:])
    gaussians = gaussians._replace(canvas=dataclasses.replace(canvas, background=colour))
  traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(gaussians))
  if not traced:
    gaussians = geometry.padded(gaussians, tiles.capacity(len(gaussians.means)))
  placed = _place(gaussians, output_affine(np.asarray(view, gaussians.means.dtype), height, width))
  lists: Lists = ()
  if not traced and not _is_small(gaussians, height, width):
    lists = _allocate(placed, canvas, height, width, None, 1.0)
  return _render(gaussians, placed, lists, height=height, width=width)


def output_size(
  viewport: tuple[float, float, float, float], height: int | None, width: int | None
) -> tuple[int, int]:
  """(height, width) of a render, of which neither, one or both are given; the rest follows from the viewport.

  `viewport` is (left, top, right, bottom) in fitted pixels. Raises ValueError if it is empty or not finite, or if a
  given size is below one pixel.
  """
  left, top, right, bottom = viewport
  if not all(map(math.isfinite, viewport)) or right <= left or bottom <= top:
    raise ValueError(
      f"got the viewport {viewport}, expected finite (left, top, right, bottom), left < right, top < bottom"
    )
  if height is None:
    height = max(1, round((bottom - top) * (1 if width is None else width / (right - left))))
  if width is None:
    width = max(1, round((right - left) * height / (bottom - top)))
  if height < 1 or width < 1:
    raise ValueError(f"got a size of {height} x {width}, expected at least one pixel each way")
  return height, width


def coverage(gaussians: Gaussians) -> Array:
  """W(p) at the fitted size, `[H, W]`: the sum of the weights, without the background's share."""
  return _coverage(gaussians, allocate(gaussians))


@jax.jit
def _coverage(gaussians: Gaussians, lists: Lists) -> Array:
  canvas = geometry.canvas_of(gaussians)
  return blends.coverage(rasterizer(gaussians, lists, canvas.height, canvas.width))


@functools.partial(jax.jit, static_argnames=("height", "width"))
def _render(gaussians: Gaussians, placed: geometry.Geometry, lists: Lists, *, height: int, width: int) -> Array:
  on = _rasterizer(placed, geometry.canvas_of(gaussians), lists, height, width)
  return blends.picture(gaussians, on)


def output_affine(viewport: Array | NDArray, height: int, width: int) -> geometry.Affine:
  """The map of the `viewport` `[4]`, (left, top, right, bottom) in fitted pixels, to `height` x `width` ones."""
  left_top, right_bottom = viewport[:2], viewport[2:]
  size: Any = np.array([width, height], viewport.dtype)
  return geometry.Affine(size / (right_bottom - left_top), left_top)  # type: ignore[arg-type]
