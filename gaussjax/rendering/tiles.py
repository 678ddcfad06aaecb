"""Neighbour lists over tiles, after those of molecular dynamics: built now and then, valid until outrun.

Each tile lists the Gaussians whose support meets its pixels, grown by a skin. A list may hold more than it needs,
which changes nothing since the kernel's support is compact. `allocate` reads values on the host and fixes the
capacity; `update` works at that capacity and says whether it overflowed; `refresh` updates only when some support
has outgrown its skin, and picks the next skin by how fast.

What builds lists is written for numpy and JAX alike (by the array API's namespaces): numpy on the host, where JAX
would take a tenth of a second to trace a picture's first lists and XLA a second to compile them, JAX within steps.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gaussjax.geometry import Geometry
from gaussjax.rendering.sharding import varying_like
from gaussjax.types import Array

TILE = (16, 16)  # pixels, height and width
BLOCK = 16  # Gaussians evaluated together on one tile
GROWTH = 1.25  # of the capacity, from one size of the table to the next
MAX_PAIRS = 2**30  # more than this many Gaussian-tile pairs overflow 32-bit slots, and any memory
SKIN_COST = 0.6  # pixel steps: of a build over a pixel of skin a step (measured: docs/decisions.md)
MIN_SKIN, MAX_SKIN = 0.05, 8.0  # pixels
ROUNDING = 1e-3  # pixels of skin: what two programs' rounding of one geometry stays below
RADIUS_UNIT = 16.0  # pixels: a Gaussian's skin is `skin` * (1 + radius / RADIUS_UNIT)


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("ids", "starts", "order", "means", "roots", "skins", "required"),
  meta_fields=("height", "width", "tile", "max_blocks"),
)
@dataclasses.dataclass(frozen=True)
class TileLists:
  """The Gaussians of each tile, T tiles row by row, and what is needed to tell when they no longer hold."""

  ids: Array  # [K] int32, by tile, ascending within each; K is the capacity
  starts: Array  # [T + 1] int32, tile t's are ids[starts[t] : starts[t + 1]]
  order: Array  # [T] int32, tiles by number of blocks, the most first
  means: Array  # [N, 2] when built
  roots: Array  # [N, 3] (xx, xy, yy) of Sigma^1/2 when built
  skins: Array  # [N] pixels by which each support was grown
  required: Array  # [3] int32: the strips, pairs and blocks in a tile that this geometry needs
  height: int
  width: int
  tile: tuple[int, int]  # pixels, height and width
  max_blocks: int  # of BLOCK Gaussians in a tile that `composite` walks through; 0: for the linear blends only


def capacity(count: int) -> int:
  """The least size of a geometric table that holds `count` and a margin: few sizes, so compiled code is reused."""
  return math.ceil(256 * GROWTH ** math.ceil(math.log(max(count, 256) / 256 * 1.05, GROWTH)))


def _on_host(geometry: Geometry) -> Geometry:
  """In float64 numpy, which no finite float32 overflows. What is no ellipse becomes a circle in the first tile.

  There a bad number is drawn, and so seen; XLA puts it there too, numpy would index with whatever it makes of it.
  """
  means, whitening = (np.asarray(leaf, np.float64) for leaf in (geometry.means, geometry.whitening))
  good = np.isfinite(means).all(1) & np.isfinite(whitening).all(1) & (whitening[:, 0] * whitening[:, 2] > 0)
  mended: Any = np.where(good[:, None], means, 0.0), np.where(good[:, None], whitening, (1.0, 0.0, 1.0))
  return geometry._replace(means=mended[0], whitening=mended[1])


def expected_pairs(
  geometry: Geometry, height: int, width: int, *, cutoff: float, tile: tuple[int, int] = TILE
) -> int:
  """How many Gaussian-tile pairs to expect, from the supports' areas. Host.

  A convex set of area A and extent w x h, at random on a grid of tiles a high and b wide whose pixel centres span
  a - 1 and b - 1, meets (A + (a - 1) w + (b - 1) h + (a - 1) (b - 1)) / (a b) of them on average: the area in which
  a tile may lie to touch it. Clipped to the picture.
  Raises ValueError as `allocate` does.
  """
  means, whitening, *_ = _on_host(geometry)
  a11, a21, a22 = whitening.T
  reach = cutoff * np.stack([1 / a11, np.hypot(a21 / a11, 1) / a22], 1)
  ends = np.array([width, height], np.float64)
  inside = np.clip(means + reach, 0, ends) - np.clip(means - reach, 0, ends)
  area = math.pi * cutoff**2 / (a11 * a22) * np.prod(inside / (2 * reach), 1)
  tall, wide = tile[0] - 1, tile[1] - 1
  room = area + tall * inside[:, 0] + wide * inside[:, 1] + tall * wide
  pairs = np.sum(room, where=np.all(inside > 0, 1)) / (tile[0] * tile[1])
  if pairs > MAX_PAIRS:
    raise _too_many(geometry)
  return math.ceil(pairs)


def _too_many(geometry: Geometry) -> ValueError:
  count = geometry.means.shape[0]
  return ValueError(f"got {count} Gaussians that meet over {MAX_PAIRS} tiles, expected fewer or smaller ones")


def num_tiles(height: int, width: int, tile: tuple[int, int]) -> tuple[int, int]:
  """Rows and columns of tiles."""
  return -(-height // tile[0]), -(-width // tile[1])


Sigma = tuple[Array, Array, Array]  # the entries (xx, xy, yy) of covariances, each [N]


def spread(geometry: Geometry) -> Sigma:
  """Sigma = (A^T A)^-1 of each Gaussian."""
  a11, a21, a22 = geometry.whitening.T
  l11, l22 = 1 / a11, 1 / a22
  l21 = -a21 * l11 * l22
  return l11**2, l11 * l21, l21**2 + l22**2


def _namespace(array: Any) -> Any:
  """numpy for its arrays, jax.numpy for JAX's."""
  return array.__array_namespace__()


def roots(geometry: Geometry, sigma: Sigma) -> Array:
  """`[N, 3]` (xx, xy, yy) of Sigma^1/2 = (Sigma + sqrt(det) I) / sqrt(trace + 2 sqrt(det))."""
  (xx, xy, yy), xp = sigma, _namespace(geometry.means)
  root_det = 1 / (geometry.whitening[:, 0] * geometry.whitening[:, 2])
  return xp.stack([xx + root_det, xy, yy + root_det], -1) / xp.sqrt(xx + yy + 2 * root_det)[:, None]


def drift(geometry: Geometry, lists: TileLists, *, cutoff: float) -> Array:
  """`[N]`, at most how many pixels each support has outgrown the one listed."""
  dxx, dxy, dyy = (roots(geometry, spread(geometry)) - lists.roots).T
  moved = jnp.sqrt(jnp.sum(jnp.square(geometry.means - lists.means), axis=1))
  return moved + cutoff * jnp.sqrt(dxx**2 + 2 * dxy**2 + dyy**2)


def outrun(geometry: Geometry, lists: TileLists, *, cutoff: float) -> Array:
  """[] bool: some support has outgrown its skin by more than rounding, or is not a number."""
  skins = lists.skins + ROUNDING * skin_unit(spread(geometry), cutoff=cutoff)
  return ~jnp.all(drift(geometry, lists, cutoff=cutoff) <= skins)


def tile_range(low: Array, high: Array, size: int, count: int) -> tuple[Array, Array]:
  """The first tile and the number of tiles, of `size` pixels, with a pixel centre in [low, high]."""
  xp = _namespace(low)
  first = xp.clip(xp.ceil((low + 0.5) / size) - 1, 0, count).astype(xp.int32)
  last = xp.clip(xp.floor((high - 0.5) / size), -1, count - 1).astype(xp.int32)
  return first, xp.maximum(last - first + 1, 0)


def tally(values: Any, size: int) -> Any:
  """`[size]`: how often each of 0 .. size - 1 is among `values`; those beyond do not count."""
  if _namespace(values) is np:
    return np.bincount(np.minimum(values, size), minlength=size + 1)[:size]
  return jnp.zeros(size, jnp.int32).at[values].add(1, mode="drop")


def expand(counts: Array, size: int) -> tuple[Array, Array, Array]:
  """Item i repeated counts[i] times in `size` slots: (item, rank within it, slot is used), each `[size]`.

  On the host, where sizes need not be known before, only the slots that are used.
  """
  xp = _namespace(counts)
  ends, total = xp.cumsum(counts), xp.sum(counts)
  if xp is np:
    size = min(size, int(total))
  slots = xp.arange(size, dtype=xp.int32)
  item = xp.minimum(xp.cumsum(tally(ends, size)), counts.shape[0] - 1)
  return item, slots - (ends - counts)[item], slots < total


def rows_met(y: Array, yy: Array, skins: Array, height: int, tile: tuple[int, int], *, cutoff: float):
  """For each Gaussian the first row of tiles its support meets, and how many: both `[N]` int32."""
  reach = cutoff * _namespace(yy).sqrt(yy) + skins
  return tile_range(y - reach, y + reach, tile[0], num_tiles(height, 1, tile)[0])


def columns_met(
  mean: tuple[Array, Array],
  sigma: Sigma,
  skin: Array,
  row: Array,
  width: int,
  tile: tuple[int, int],
  *,
  cutoff: float,
) -> tuple[Array, Array]:
  """The tiles that ONE support meets in a row of tiles: first column and how many.

  Exact for the ellipse and the rectangle of pixel centres, since an ellipse cut by a strip is connected. The
  ellipse's rightmost point lies at dy = cutoff xy / sqrt(xx) from its mean, or at the end of the strip next to it.
  """
  (x, y), (xx, xy, yy), xp = mean, sigma, _namespace(row)
  reach = cutoff * xp.sqrt(yy)
  top, bottom = row * tile[0] + 0.5 - skin - y, (row + 1) * tile[0] - 0.5 + skin - y
  low, high = xp.clip(top, -reach, reach), xp.clip(bottom, -reach, reach)
  peak = cutoff * xy / xp.sqrt(xx)

  def half_width(dy: Array) -> Array:
    inside = xp.maximum(cutoff**2 - dy**2 / yy, 0)
    return xp.sqrt(xp.maximum(xx - xy**2 / yy, 0) * inside)

  right, left = xp.clip(peak, low, high), xp.clip(-peak, low, high)
  x_max = x + xy / yy * right + half_width(right) + skin
  x_min = x + xy / yy * left - half_width(left) - skin
  first, count = tile_range(x_min, x_max, tile[1], num_tiles(1, width, tile)[1])
  return first, xp.where((top > reach) | (bottom < -reach), 0, count)


def update(geometry: Geometry, lists: TileLists, skin: Array | NDArray, *, cutoff: float) -> TileLists:
  """Fresh lists at the capacity of `lists`, each support grown by `skin` pixels and in proportion to its radius."""
  height, width, tile = lists.height, lists.width, lists.tile
  xp = _namespace(geometry.means)
  size, (_, columns) = lists.ids.shape[0], num_tiles(height, width, tile)
  tiles = math.prod(num_tiles(height, width, tile))
  (x, y), sigma = geometry.means.T, spread(geometry)
  skins = xp.broadcast_to(skin * skin_unit(sigma, cutoff=cutoff), x.shape)
  first_row, num_rows = rows_met(y, sigma[2], skins, height, tile, cutoff=cutoff)
  gaussian, rank, used = expand(num_rows, size)
  row = first_row[gaussian] + rank
  mean, of_strip, its_skin = jax.tree.map(lambda leaf: leaf[gaussian], ((x, y), sigma, skins))
  first_column, num_columns = columns_met(mean, of_strip, its_skin, row, width, tile, cutoff=cutoff)
  num_columns = xp.where(used, num_columns, 0)
  strip, rank, used = expand(num_columns, size)
  tile_index = xp.where(used, row[strip] * columns + first_column[strip] + rank, tiles)
  tile_index, ids = sort_pairs(tile_index, gaussian[strip], tiles, geometry.means.shape[0])
  counts = tally(tile_index, tiles)
  ids = ids if len(ids) == size else xp.pad(ids, (0, size - len(ids)))
  starts = xp.pad(xp.cumsum(counts, dtype=xp.int32), (1, 0))
  required = xp.stack([saturating_sum(num_rows), saturating_sum(num_columns), in_blocks(xp.max(counts))])
  return TileLists(
    ids,
    starts,
    # Stable: tiles of as many blocks stay row by row, and what neighbours share stays in the cache.
    xp.argsort(-in_blocks(counts), stable=True).astype(xp.int32),
    geometry.means,
    roots(geometry, sigma),
    skins,
    required,
    height,
    width,
    tile,
    lists.max_blocks,
  )


def in_blocks(counts: Array) -> Array:
  """Of BLOCK Gaussians, how many hold so many; `//` would trace three times as much, for the sake of signs."""
  return (counts + (BLOCK - 1)) >> (BLOCK.bit_length() - 1)  # BLOCK is a power of two


def skin_unit(sigma: Sigma, *, cutoff: float) -> Array:
  """`[N]`: by how much more than the smallest a Gaussian's skin grows, since large ones change by more pixels."""
  xx, _, yy = sigma
  return 1 + cutoff * _namespace(xx).sqrt(xx + yy) / RADIUS_UNIT


def sort_pairs(tile_index: Array, ids: Array, tiles: int, num_gaussians: int) -> tuple[Array, Array]:
  """Both sorted by tile, then id. One 32-bit key takes a sort that is several times faster on CPU."""
  xp = _namespace(ids)
  bits = max(1, (num_gaussians - 1).bit_length())
  if tiles.bit_length() + bits <= 32:
    key = xp.sort((tile_index.astype(xp.uint32) << bits) | ids.astype(xp.uint32))
    return (key >> bits).astype(xp.int32), (key & ((1 << bits) - 1)).astype(xp.int32)
  order = xp.argsort(tile_index, stable=True)
  return tile_index[order], ids[order]


def saturating_sum(counts: Array) -> Array:
  """The sum of counts that are not negative, or MAX_PAIRS + 1 where it would be more."""
  xp = _namespace(counts)
  too_many = xp.sum(counts.astype(xp.float32)) > MAX_PAIRS
  return xp.where(too_many, MAX_PAIRS + 1, xp.sum(counts)).astype(xp.int32)


def overflowed(lists: TileLists) -> Array:
  """[] bool: some tile misses Gaussians; the lists are not to be used."""
  return _exceeds(lists.required, lists)


def _exceeds(required: Any, lists: TileLists) -> Any:
  """Whether strips, pairs or blocks are more than the lists hold: bool for numbers, `[]` for an array."""
  strips, pairs, blocks = required
  size = lists.ids.shape[0]
  return (strips > size) | (pairs > size) | ((lists.max_blocks > 0) & (blocks > lists.max_blocks))


def on_device() -> bool:
  """Whether lists are made where they are used: an accelerator, to which the way from the host is long."""
  return jax.default_backend() != "cpu"


_update_in_jit = jax.jit(update, static_argnames="cutoff")


def allocate(geometry: Geometry, like: TileLists, *, cutoff: float, skin: float | Array = 0.0) -> TileLists:
  """Lists with room for this geometry and a margin, no smaller than `like`. Host: reads values, not for jit.

  Raises ValueError where the Gaussians are so many and large that no memory holds their pairs with tiles.
  """
  if on_device() and isinstance(like.ids, jax.Array):  # not the first lists, whose capacity is a guess
    lists = _update_in_jit(geometry, like, jnp.asarray(skin, geometry.means.dtype), cutoff=cutoff)
    if not _exceeds(lists.required.tolist(), lists):
      return lists
  placed, host_skin = _on_host(geometry), np.asarray(skin, np.float64)
  while True:
    lists = update(placed, like, host_skin, cutoff=cutoff)
    strips, pairs, blocks = required = lists.required.tolist()
    if not _exceeds(required, lists):
      as_in_jit = lambda leaf: leaf.astype(np.int32 if leaf.dtype.kind == "i" else geometry.means.dtype)
      return jax.device_put(jax.tree.map(as_in_jit, lists))
    if max(strips, pairs) > MAX_PAIRS:
      raise _too_many(geometry)
    # Lists that outgrew their capacity will go on growing: twice the table's step, so that fewer programs compile.
    size = max(like.ids.shape[0], capacity(int(max(strips, pairs) * GROWTH)))
    max_blocks = like.max_blocks and max(like.max_blocks, -(-capacity(blocks * BLOCK) // BLOCK))
    like = empty(geometry, like.height, like.width, tile=like.tile, size=size, max_blocks=max_blocks)


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("lists", "skin", "age"),
  meta_fields=("height", "width", "viewport", "renderer", "mesh"),
)
@dataclasses.dataclass(frozen=True)
class Neighbors:
  """What a render of one set keeps from step to step: tile lists, with what it takes to choose their skin."""

  lists: TileLists | None  # of the renderers that need some: "tiles", "warp"
  skin: Array  # [] pixels, the lists'
  age: Array  # [] int32, steps since they were built
  height: int  # of the render, pixels
  width: int
  viewport: tuple[float, float, float, float] | None = None  # of the fitted image; None: all of it
  renderer: str = "tiles"  # one of renderer.RENDERERS
  mesh: jax.sharding.Mesh | None = None  # of devices that share out the picture's rows; None: one device draws all


def refresh(geometry: Geometry, neighbors: Neighbors, *, cutoff: float) -> tuple[Neighbors, Array]:
  """Neighbours with lists that are valid for this geometry, built anew only if outrun; whether they overflowed.

  A wider skin costs evaluations at every step, a narrow one more frequent builds; with v the speed at which the
  fastest Gaussian outruns it, the sum is least at skin = sqrt(SKIN_COST v).
  """
  built, skin, age = neighbors.lists, neighbors.skin, neighbors.age
  if built is None:
    return neighbors, jnp.array(False)
  # Lists are no function that has a derivative.
  geometry, lists, skin, age = jax.lax.stop_gradient((geometry, built, skin, age))
  outgrown = drift(geometry, lists, cutoff=cutoff)
  stale = ~jnp.all(outgrown <= lists.skins)  # a NaN counts as stale

  def rebuild() -> tuple[TileLists, Array, Array]:
    speed = jnp.max(outgrown / skin_unit(spread(geometry), cutoff=cutoff)) / jnp.maximum(age, 1)
    best = jnp.clip(jnp.sqrt(SKIN_COST * speed), MIN_SKIN, MAX_SKIN).astype(skin.dtype)
    return update(geometry, lists, best, cutoff=cutoff), best, jnp.zeros_like(age)

  alike = lambda tree: varying_like(tree, (geometry, lists, skin, age))
  lists, skin, age = jax.lax.cond(stale, lambda: alike(rebuild()), lambda: alike((lists, skin, age)))
  return dataclasses.replace(neighbors, lists=lists, skin=skin, age=age + 1), overflowed(lists)


def empty(
  geometry: Geometry,
  height: int,
  width: int,
  *,
  tile: tuple[int, int] = TILE,
  size: int | None = None,
  max_blocks: int = 0,
) -> TileLists:
  """Lists of nothing, for `allocate` to begin with."""
  num_gaussians, dtype = geometry.means.shape[0], geometry.means.dtype
  tiles = math.prod(num_tiles(height, width, tile))
  zeros: Any = lambda *shape: np.zeros(shape, dtype)
  integers: Any = lambda n: np.zeros(n, np.int32)
  return TileLists(
    ids=integers(size or capacity(2 * num_gaussians)),
    starts=integers(tiles + 1),
    order=integers(tiles),
    means=zeros(num_gaussians, 2),
    roots=zeros(num_gaussians, 3),
    skins=zeros(num_gaussians),
    required=integers(3),
    height=height,
    width=width,
    tile=tile,
    max_blocks=max_blocks,
  )
