"""The door of this room: `render`, and the neighbour lists by which it is fast within jit and grad.

Four renderers draw the same picture to rounding: "scanlines", native code, wherever it serves; else "dense" for
small scenes and "tiles" for all others. "warp", kernels for a GPU, draws where it is asked for.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussjax import arguments, geometry, startup
from gaussjax.rendering import blends, dense, kernel, scanlines, splat, tiles, warp
from gaussjax.rendering.tiles import Neighbors
from gaussjax.types import Array, Canvas, Gaussians

# Gaussian-pixel pairs below which the dense renderer is the faster one (measured: docs/decisions.md).
DENSE_EVALUATIONS = 2**17

# Pairs that the dense renderer takes on within a trace, about a second of one core: there nothing can be listed.
TRACED_EVALUATIONS = 2**24

# Pairs for which first lists have room, over those of the set as it is: what skins and growth come to in a fit
# (measured: docs/decisions.md), so that one program mostly serves it to its end.
FIT_ROOM = 1.7

RENDERERS = ("scanlines", "tiles", "dense", "warp")
LISTED = ("tiles", "warp")  # those that draw over neighbour lists

# The first of these that serves draws; only if none does, "dense" or "tiles". "warp" is to be among them once a GPU
# has shown that it wins.
BY_DEFAULT: tuple[str, ...] = ("scanlines",)

MAX_PIXELS = 2**27  # of a render: 0.5 GB a channel

Viewport = tuple[float, float, float, float]  # (left, top, right, bottom) in fitted pixels


def allocate(
  gaussians: Gaussians,
  height: int | None = None,
  width: int | None = None,
  *,
  viewport: Viewport | None = None,
  like: Neighbors | None = None,
  renderer: str | None = None,
) -> Neighbors:
  """Neighbour lists by which `render` is fast within jit, grad and vmap. Host: not within a trace.

  For a set that is being changed: there is room for it to grow, and `refresh` keeps the lists valid step by step.
  Size and `viewport` are those of the render, as for `render`. Lists that overflowed are allocated anew, no
  smaller, with `like`, which also gives size and viewport. After the lists of jax-md (`partition.py`).

  `renderer` is one of RENDERERS instead of the fastest that serves. Only those of LISTED keep lists: the neighbours
  of the others are always valid.

  Raises ValueError within a trace, for sizes as `render` does, for a renderer that does not serve, and where no
  memory holds the lists.
  """
  if _traced(gaussians):
    raise ValueError("got traced Gaussians, expected values: allocate before jit or grad, refresh within")
  gaussians, canvas = geometry.single(gaussians), _canvas(gaussians)
  if like is None:
    height, width = output_size(viewport or _whole(canvas), height, width)
    chosen = _chosen(gaussians, height, width, renderer)
    like = Neighbors(None, _zero(gaussians.means.dtype), _zero(jnp.int32), height, width, viewport, chosen)
  if like.renderer not in LISTED:
    return like
  placed = _place(gaussians, _affine(like, canvas, gaussians.means.dtype))
  lists = _listed(placed, canvas, like, FIT_ROOM)
  return dataclasses.replace(like, lists=lists, age=_zero(jnp.int32))


def on_mesh(neighbors: Neighbors, mesh: jax.sharding.Mesh) -> Neighbors:
  """The same for devices that share out the rows of a fit's picture. Raises ValueError for lists."""
  if neighbors.renderer != "scanlines":
    raise ValueError(
      f"got a mesh where the renderer is {neighbors.renderer}, expected scanlines, which shares rows"
    )
  return dataclasses.replace(neighbors, mesh=mesh)


def refresh(gaussians: Gaussians, neighbors: Neighbors) -> tuple[Neighbors, Array]:
  """(neighbours that are valid for the set as it is now, whether they overflowed [] bool). For jit.

  Lists are built anew only where some support has outgrown its skin. If they overflowed, leave the step out and
  go on with allocate(gaussians, like=neighbors), outside of jit.
  """
  if neighbors.lists is None:
    return neighbors, jnp.array(False)
  gaussians, canvas = geometry.single(gaussians), geometry.canvas_of(gaussians)
  placed = geometry.geometry(gaussians, _affine(neighbors, canvas, gaussians.means.dtype))
  return tiles.refresh(placed, neighbors, cutoff=canvas.cutoff)


def rebuild(gaussians: Gaussians, neighbors: Neighbors) -> tuple[Neighbors, Array]:
  """(neighbours whose lists are made anew for the set, whether they overflowed [] bool). For jit, and vmap."""
  if neighbors.lists is None:
    return neighbors, jnp.array(False)
  gaussians, canvas = geometry.single(gaussians), geometry.canvas_of(gaussians)
  placed = geometry.geometry(gaussians, _affine(neighbors, canvas, gaussians.means.dtype))
  lists = tiles.update(placed, neighbors.lists, neighbors.skin, cutoff=canvas.cutoff)
  return dataclasses.replace(neighbors, lists=lists, age=jnp.zeros_like(neighbors.age)), tiles.overflowed(lists)


def render(
  gaussians: Gaussians,
  height: int | None = None,
  width: int | None = None,
  *,
  background: ArrayLike | None = None,
  viewport: Viewport | None = None,
  neighbors: Neighbors | None = None,
) -> Array:
  """Draws a set at any size: `[height, width, C]`, not clipped, in the type of the colours.

  Without a size that of the fit; with one of the two the other keeps the aspect ratio. `viewport` is the part of
  the fitted image to draw, (left, top, right, bottom) in its pixels. Larger is exact, smaller low-pass filtered.
  `background` [] or [C] is instead of the set's own.

  Within jit, grad or vmap give `neighbors` from `allocate`, whose size and viewport are then the render's: as fast
  as outside. Where they no longer hold (`refresh` them) the whole picture is NaN instead of subtly wrong. Without
  them, where the scan lines do not serve, the dense renderer draws there, up to TRACED_EVALUATIONS
  Gaussian-pixel pairs.

  Raises ValueError for sizes, viewports, backgrounds or sets that make no sense, and beyond that number of pairs.
  """
  canvas, dtype = _canvas(gaussians), jnp.asarray(gaussians.colors).dtype
  if neighbors is not None:
    height, width, viewport = _size_of(neighbors, height, width, viewport)
  view = _whole(canvas) if viewport is None else viewport
  height, width = output_size(view, height, width)
  traced = _traced((gaussians, neighbors))
  gaussians = _on(geometry.single(gaussians), background)
  if traced:
    drawn = _render_traced(gaussians, neighbors, view, height, width)
  else:
    drawn = _render_now(gaussians, neighbors, view, height, width)
  return drawn.astype(dtype) if jnp.issubdtype(dtype, jnp.floating) else drawn


def _render_traced(
  gaussians: Gaussians, neighbors: Neighbors | None, view: Viewport, height: int, width: int
) -> Array:
  if neighbors is not None and neighbors.lists is not None:
    drawn, outrun = _draw_listed(gaussians, neighbors)
    return jnp.where(outrun, jnp.nan, drawn)
  chosen = _chosen(gaussians, height, width, None) if neighbors is None else neighbors.renderer
  if chosen in LISTED and len(gaussians.means) * height * width > TRACED_EVALUATIONS:
    raise ValueError(
      f"got {len(gaussians.means)} Gaussians at {height} x {width} pixels within jit, grad or vmap, expected at"
      f" most {TRACED_EVALUATIONS} pairs there: neighbors = gaussjax.allocate(gaussians) outside, then"
      " render(..., neighbors=neighbors)"
    )
  placed = geometry.geometry(gaussians, output_affine(np.asarray(view, gaussians.means.dtype), height, width))
  on = Neighbors(None, _zero(placed.means.dtype), _zero(jnp.int32), height, width, None, chosen)
  return blends.picture(gaussians, _rasterizer(placed, geometry.canvas_of(gaussians), on))


def _render_now(
  gaussians: Gaussians, neighbors: Neighbors | None, view: Viewport, height: int, width: int
) -> Array:
  if neighbors is not None and neighbors.lists is not None:
    drawn, outrun = _draw_listed_now(gaussians, neighbors)
    if not outrun:
      return drawn
    neighbors = None
  chosen = _chosen(gaussians, height, width, None if neighbors is None else neighbors.renderer)
  gaussians = geometry.padded(gaussians, tiles.capacity(len(gaussians.means)))
  _make_room(height, width, len(gaussians.means))
  placed = _place(gaussians, output_affine(np.asarray(view, gaussians.means.dtype), height, width))
  neighbors = Neighbors(None, _zero(placed.means.dtype), _zero(jnp.int32), height, width, None, chosen)
  if chosen in LISTED:
    lists = _listed(placed, geometry.canvas_of(gaussians), neighbors, 1.0)
    neighbors = dataclasses.replace(neighbors, lists=lists)
  return _draw(gaussians, placed, neighbors)


@functools.lru_cache(maxsize=4096)  # once for each size, since looking takes as long as drawing a small picture
def _make_room(height: int, width: int, num_gaussians: int) -> None:
  startup.release_programs()


def _draw_listed(gaussians: Gaussians, neighbors: Neighbors) -> tuple[Array, Array]:
  """(the picture by the neighbours' lists, whether those do not hold for this set [] bool)."""
  canvas: Canvas = geometry.canvas_of(gaussians)
  lists: Any = neighbors.lists
  placed = geometry.geometry(gaussians, _affine(neighbors, canvas, gaussians.means.dtype))
  drawn = blends.picture(gaussians, _rasterizer(placed, canvas, neighbors))
  outrun = tiles.outrun(jax.lax.stop_gradient(placed), lists, cutoff=canvas.cutoff)
  return drawn, outrun | tiles.overflowed(lists)


_draw_listed_now = jax.jit(_draw_listed)


@jax.jit
def _draw(gaussians: Gaussians, placed: geometry.Geometry, neighbors: Neighbors) -> Array:
  return blends.picture(gaussians, _rasterizer(placed, geometry.canvas_of(gaussians), neighbors))


_place = jax.jit(geometry.geometry)


def _listed(placed: geometry.Geometry, canvas: Canvas, like: Neighbors, room: float) -> tiles.TileLists:
  """Lists for a placed set, no smaller than those of `like`. Host."""
  lists = like.lists
  if lists is None:
    pairs = tiles.expected_pairs(placed, like.height, like.width, cutoff=canvas.cutoff)
    size, blocks = tiles.capacity(math.ceil(room * pairs)), int(canvas.blend.ordered)
    lists = tiles.empty(placed, like.height, like.width, size=size, max_blocks=blocks)
  return tiles.allocate(placed, lists, cutoff=canvas.cutoff, skin=like.skin)


def rasterizer(gaussians: Gaussians, neighbors: Neighbors) -> kernel.Rasterizer:
  """The set on the neighbours' pixel grid, for whoever needs more than its picture: a blend's sums, `gather`.

  The neighbours are to be valid: from `allocate` or `refresh` for this set.
  """
  canvas = geometry.canvas_of(gaussians)
  placed = geometry.geometry(gaussians, _affine(neighbors, canvas, gaussians.means.dtype))
  return _rasterizer(placed, canvas, neighbors)


def _rasterizer(placed: geometry.Geometry, canvas: Canvas, neighbors: Neighbors) -> kernel.Rasterizer:
  tau = kernel.tail(canvas.cutoff)
  if neighbors.lists is not None:
    over = warp.warped if neighbors.renderer == "warp" else splat.tiled
    return over(placed, neighbors.lists, tau=tau)
  by = scanlines.scanlines if neighbors.renderer == "scanlines" else dense.dense
  return by(placed, neighbors.height, neighbors.width, tau=tau)


def target(image: ArrayLike, mesh: jax.sharding.Mesh | None = None) -> Array:
  """An image `[H, W, C]` on the device, or on each of a mesh, in memory as its renderer's pictures are."""
  placed: Any = np.asarray(image) if mesh is not None else jnp.asarray(image)
  whole = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  place = whole if mesh is None else jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  if scanlines.serves(placed.dtype, False):
    return scanlines.planar(placed, place)
  return placed if mesh is None else jax.device_put(placed, place)


def coverage(gaussians: Gaussians) -> Array:
  """W(p) at the fitted size, `[H, W]`: the sum of the weights, without the background's share."""
  return _coverage(gaussians, allocate(gaussians))


@jax.jit
def _coverage(gaussians: Gaussians, neighbors: Neighbors) -> Array:
  return blends.coverage(rasterizer(gaussians, neighbors))


def output_size(viewport: Viewport, height: int | None, width: int | None) -> tuple[int, int]:
  """(height, width) of a render, of which neither, one or both are given; the rest follows from the viewport.

  `viewport` is (left, top, right, bottom) in fitted pixels. Raises ValueError if it is empty or not finite, or for
  a size that is not of whole numbers, below one pixel, or beyond MAX_PIXELS.
  """
  try:
    left, top, right, bottom = (float(edge) for edge in viewport)
  except (TypeError, ValueError):
    left = top = right = bottom = math.nan
  if not (math.isfinite(right - left) and math.isfinite(bottom - top) and left < right and top < bottom):
    raise ValueError(
      f"got the viewport {viewport}, expected finite (left, top, right, bottom), left < right, top < bottom"
    )
  if height is not None:
    height = arguments.whole("height", height, least=1)
  if width is not None:
    width = arguments.whole("width", width, least=1)
  if height is None:
    height = max(1, round((bottom - top) * (1 if width is None else width / (right - left))))
  if width is None:
    width = max(1, round((right - left) * height / (bottom - top)))
  if height * width > MAX_PIXELS:
    raise ValueError(f"got a size of {height} x {width}, expected at most {MAX_PIXELS} pixels; draw it in parts")
  return height, width


def output_affine(viewport: Array | NDArray, height: int, width: int) -> geometry.Affine:
  """The map of the `viewport` `[4]`, (left, top, right, bottom) in fitted pixels, to `height` x `width` ones."""
  left_top, right_bottom = viewport[:2], viewport[2:]
  size: Any = np.array([width, height], viewport.dtype)
  return geometry.Affine(size / (right_bottom - left_top), left_top)  # type: ignore[arg-type]


def _affine(neighbors: Neighbors, canvas: Canvas, dtype: Any) -> geometry.Affine | None:
  """The map to the neighbours' grid, None for the fitted one."""
  view = neighbors.viewport
  if view is None and (neighbors.height, neighbors.width) == (canvas.height, canvas.width):
    return None
  return output_affine(np.asarray(view or _whole(canvas), dtype), neighbors.height, neighbors.width)


def _whole(canvas: Canvas) -> Viewport:
  return (0, 0, canvas.width, canvas.height)


def _size_of(neighbors: Neighbors, height: Any, width: Any, viewport: Any) -> tuple[int, int, Viewport | None]:
  """The neighbours' own size and viewport. Raises ValueError where others are asked for."""
  given = {"height": height, "width": width, "viewport": None if viewport is None else tuple(viewport)}
  for name, value in given.items():
    if value is not None and value != getattr(neighbors, name):
      raise ValueError(f"got {name}={value} beside neighbours allocated for {getattr(neighbors, name)}")
  return neighbors.height, neighbors.width, neighbors.viewport


def _on(gaussians: Gaussians, background: ArrayLike | None) -> Gaussians:
  """The set over another background, [] or [C]."""
  if background is None:
    return gaussians
  canvas, channels = geometry.canvas_of(gaussians), gaussians.colors.shape[1:]
  color = jnp.asarray(background, gaussians.colors.dtype)
  if color.shape not in ((), (1,), channels):
    raise ValueError(f"got a background of shape {color.shape}, expected [] or {channels}")
  return gaussians._replace(canvas=dataclasses.replace(canvas, background=jnp.broadcast_to(color, channels)))


def _canvas(gaussians: Gaussians) -> Canvas:
  """The canvas of a set whose parts belong together. Raises ValueError otherwise."""
  canvas = geometry.canvas_of(gaussians)
  blends.checked(canvas.blend)
  count = np.shape(gaussians.means)[:1]
  parts = {"means": (gaussians.means, (2,)), "colors": (gaussians.colors, np.shape(canvas.background))}
  if gaussians.slopes is not None:
    parts["slopes"] = (gaussians.slopes, (2,))
  for name, (leaf, row) in parts.items():
    if np.shape(leaf) != (*count, *row) or len(np.shape(leaf)) != 2:
      raise ValueError(f"got {name} of shape {np.shape(leaf)}, expected {(*count, *row)}")
  for name, leaf in {**gaussians.shape._asdict(), "log_weights": gaussians.log_weights}.items():
    if leaf is not None and np.shape(leaf)[:1] != count:
      raise ValueError(f"got {name} of shape {np.shape(leaf)}, expected {count[0]} Gaussians")
  return canvas


def _chosen(gaussians: Gaussians, height: int, width: int, asked: str | None) -> str:
  """The renderer of a set at a size: the one that is `asked` for, or the fastest that serves. Raises ValueError."""
  blend = geometry.canvas_of(gaussians).blend
  dtype = jnp.result_type(*jax.tree.leaves(gaussians))
  serves = {
    "scanlines": lambda: scanlines.serves(dtype, blend.ordered),
    "warp": lambda: warp.serves(dtype),
    "tiles": lambda: True,
    "dense": lambda: True,
  }
  if asked is None:
    small = len(gaussians.means) * height * width <= DENSE_EVALUATIONS
    return next((name for name in BY_DEFAULT if serves[name]()), "dense" if small else "tiles")
  if asked not in RENDERERS:
    raise ValueError(f"got renderer={arguments.shown(asked)}, expected one of {', '.join(RENDERERS)}")
  if not serves[asked]():
    raise ValueError(f"got renderer={asked}, which serves {_WHERE[asked]}; expected one of dense, tiles")
  return asked


_WHERE = {
  "scanlines": "float32, blends without order, and a CPU on which gaussjax was built by a C++ compiler",
  "warp": "float32, where Warp is installed: pip install 'gaussjax[warp]'",
}


def _traced(tree: Any) -> bool:
  return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def _zero(dtype: Any) -> Array:
  return jax.device_put(np.zeros((), dtype))
