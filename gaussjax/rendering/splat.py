"""Sums over neighbour lists, C tiles of P pixels at a time, a block of B Gaussians each, D values.

With A the N x (H W) matrix of weights: `splat` is A^T v (custom_vjp), `splat_adjoint` A g. Weights are made in one
elementwise pass and reduced by matrix products, in chunks that stay in the cache.

On a CPU tiles of like length are drawn together, in as many trips as the longest list has blocks. An accelerator
would ask the host before each trip whether there is another, so there all blocks of all tiles are one flat list of
pairs (tile, block), of a length that is known when the program is compiled (`flat`).
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gaussjax.geometry import Geometry
from gaussjax.rendering import kernel
from gaussjax.rendering.sharding import varying_like
from gaussjax.rendering.tiles import BLOCK, TileLists, in_blocks, num_tiles
from gaussjax.types import Array

CHUNK_EVALUATIONS = {"cpu": 2**18}  # weights held at once: 1 MB of float32 stays in a core's L2
CHUNK_EVALUATIONS_ELSEWHERE = 2**24  # enough to fill an accelerator

# Reductions in full float32 where a device would default to less.
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def flat() -> bool:
  """Whether blocks are drawn as one flat list, as accelerators want them."""
  return jax.default_backend() != "cpu"


def chunk_tiles(tile: tuple[int, int], tiles: int) -> int:
  """C, the tiles drawn together: as many as keep one block's weights in the cache, or fill the accelerator."""
  evaluations = CHUNK_EVALUATIONS.get(jax.default_backend(), CHUNK_EVALUATIONS_ELSEWHERE)
  return max(1, min(tiles, evaluations // (BLOCK * math.prod(tile))))


def flat_chunks(lists: TileLists) -> tuple[Array, Array]:
  """(tiles, blocks) of the flat list, `[chunks, C]` each; T, 0 where there are no more.

  Tile t has the places from starts[t] // BLOCK + t on. Those are enough for its blocks and at most one too many,
  which draws nothing, and to find them no sum over tiles is needed.
  """
  tiles = lists.order.shape[0]
  first = lists.starts[:-1] // BLOCK + jnp.arange(tiles, dtype=jnp.int32)
  size = lists.ids.shape[0] // BLOCK + tiles
  chunk = chunk_tiles(lists.tile, size)
  places = jnp.arange(-(-size // chunk) * chunk, dtype=jnp.int32)
  # Unrolled it is one pass; as a loop it would be a launch for each of its trips.
  tile = jnp.searchsorted(first, places, side="right", method="scan_unrolled").astype(jnp.int32) - 1
  block = places - first[tile]
  used = block * BLOCK < lists.starts[tile + 1] - lists.starts[tile]
  of_chunks = lambda numbers: numbers.reshape(-1, chunk)
  return of_chunks(jnp.where(used, tile, tiles)), of_chunks(jnp.where(used, block, 0))


def local_pixels(tile: tuple[int, int], dtype) -> Array:
  """Pixel centres from the tile's centre, `[2, P]` (x, y)."""
  y, x = jnp.meshgrid(*[jnp.arange(side, dtype=dtype) - (side - 1) / 2 for side in tile], indexing="ij")
  return jnp.stack([x.ravel(), y.ravel()])


def tile_centers(lists: TileLists, tiles: Array) -> Array:
  """`[C, 2]` (x, y) pixels."""
  _, columns = num_tiles(lists.height, lists.width, lists.tile)
  row = jax.lax.div(tiles, jnp.full_like(tiles, columns))
  column = tiles - row * columns
  high, wide = lists.tile
  return jnp.stack([column * wide + wide / 2, row * high + high / 2], -1).astype(lists.means.dtype)


def table(geometry: Geometry, values: Array) -> Array:
  """What a pair needs of its Gaussian in one row: mean, whitening, values; `[N + 1, 5 + D]`, the last 0."""
  return jnp.pad(jnp.concatenate([geometry.means, geometry.whitening, values], 1), ((0, 1), (0, 0)))


def exponential(rows: Array, centers: Array, pixels: Array) -> Array:
  """exp(-q / 2) `[C, B, P]` of `rows` `[C, B, 5 + D]` on tiles at `centers` `[C, 2]`.

  In whitened coordinates, so nothing cancels at any aspect ratio, and in one elementwise pass, which XLA fuses.
  """
  mx, my, a11, a21, a22 = (rows[..., i, None] for i in range(5))
  dx = pixels[0] - (mx - centers[:, None, :1])
  dy = pixels[1] - (my - centers[:, None, 1:])
  return jnp.exp(-(jnp.square(a11 * dx) + jnp.square(a21 * dx + a22 * dy)) / 2)


def blocks_of(lists: TileLists, tiles: Array, block: Array) -> Array:
  """`[C, B]` Gaussians of a `block` [] or [C, 1] of each tile; N where a list has ended (or the tile is none)."""
  slot = lists.starts[tiles][:, None] + block * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32)
  end = lists.starts[jnp.minimum(tiles + 1, lists.starts.shape[0] - 1)]
  last = lists.ids.shape[0] - 1
  return jnp.where(slot < end[:, None], lists.ids[jnp.minimum(slot, last)], lists.means.shape[0])


def tile_chunks(lists: TileLists) -> Array:
  """`[chunks, C]` tiles, those of like length together; T where there are no more."""
  tiles = lists.order.shape[0]
  chunk = chunk_tiles(lists.tile, tiles)
  return jnp.pad(lists.order, (0, -tiles % chunk), constant_values=tiles).reshape(-1, chunk)


def num_blocks(lists: TileLists, tiles: Array) -> Array:
  """The number of blocks of the longest list among `tiles` `[C]`."""
  end = lists.starts[jnp.minimum(tiles + 1, lists.starts.shape[0] - 1)]
  return in_blocks(jnp.max(end - lists.starts[tiles]))


def to_tiles(image: Array, lists: TileLists) -> Array:
  """`[H, W, D]` -> `[T, D, P]`, zeros beyond the image."""
  rows, columns = num_tiles(lists.height, lists.width, lists.tile)
  high, wide = lists.tile
  image = jnp.pad(image, ((0, rows * high - lists.height), (0, columns * wide - lists.width), (0, 0)))
  image = image.reshape(rows, high, columns, wide, -1).transpose(0, 2, 4, 1, 3)
  return image.reshape(rows * columns, -1, high * wide)


def to_image(tiles: Array, lists: TileLists) -> Array:
  """`[T, D, P]` -> `[H, W, D]`."""
  rows, columns = num_tiles(lists.height, lists.width, lists.tile)
  high, wide = lists.tile
  image = tiles.reshape(rows, columns, -1, high, wide).transpose(0, 3, 1, 4, 2)
  return image.reshape(rows * high, columns * wide, -1)[: lists.height, : lists.width]


def map_tiles(lists: TileLists, draw: Callable[[Array, Array], Array]) -> Array:
  """The image `[H, W, D]` of draw(tiles `[C]`, centers `[C, 2]`) `[C, D, P]`, chunk by chunk."""
  drawn = jax.lax.map(lambda tiles: draw(tiles, tile_centers(lists, tiles)), tile_chunks(lists))
  tiles = lists.order.shape[0]
  place = jnp.zeros(tiles, jnp.int32).at[lists.order].set(jnp.arange(tiles, dtype=jnp.int32), unique_indices=True)
  return to_image(drawn.reshape(-1, *drawn.shape[2:])[place], lists)


def sum_blocks(lists: TileLists, rows: Array, draw: Callable[[Array, Array], Array], num_values: int) -> Array:
  """`[H, W, D]`, the sum over blocks of draw(rows `[C, B, F]`, centers `[C, 2]`) `[C, D, P]`."""
  if flat():
    return _sum_flat(lists, rows, draw, num_values)

  def chunk(tiles: Array, centers: Array) -> Array:
    add = lambda block, total: total + draw(rows[blocks_of(lists, tiles, block)], centers)
    start = jnp.zeros((tiles.shape[0], num_values, math.prod(lists.tile)), rows.dtype)
    start = varying_like(start, (rows, lists))
    return jax.lax.fori_loop(0, num_blocks(lists, tiles), add, start)

  return map_tiles(lists, chunk)


def _sum_flat(lists: TileLists, rows: Array, draw: Callable[[Array, Array], Array], num_values: int) -> Array:
  """The same over the flat list."""

  def chunk(total: Array, places: tuple[Array, Array]) -> tuple[Array, None]:
    tiles, blocks = places
    drawn = draw(rows[blocks_of(lists, tiles, blocks[:, None])], tile_centers(lists, tiles))
    return total.at[tiles].add(drawn, mode="drop"), None

  start = jnp.zeros((lists.order.shape[0], num_values, math.prod(lists.tile)), rows.dtype)
  return to_image(jax.lax.scan(chunk, varying_like(start, (rows, lists)), flat_chunks(lists))[0], lists)


def gather_tiles(
  lists: TileLists, rows: Array, image: Array, pull: Callable[[Array, Array, Array], Array], num_values: int
) -> Array:
  """`[N, G]`, each Gaussian's sum over tiles of pull(rows `[C, B, F]`, centers, image `[C, D, P]`) `[C, B, G]`."""
  targets = jnp.pad(to_tiles(image, lists), ((0, 1), (0, 0), (0, 0)))

  def flat_chunk(totals: Array, places: tuple[Array, Array]) -> tuple[Array, None]:
    tiles, blocks = places
    ids = blocks_of(lists, tiles, blocks[:, None])
    return totals.at[ids].add(pull(rows[ids], tile_centers(lists, tiles), targets[tiles])), None

  def chunk(totals: Array, tiles: Array) -> tuple[Array, None]:
    centers, target = tile_centers(lists, tiles), targets[tiles]

    def add(block: Array, totals: Array) -> Array:
      ids = blocks_of(lists, tiles, block)
      return totals.at[ids].add(pull(rows[ids], centers, target))

    return jax.lax.fori_loop(0, num_blocks(lists, tiles), add, totals), None

  totals = varying_like(jnp.zeros((rows.shape[0], num_values), rows.dtype), (rows, image, lists))
  if flat():
    return jax.lax.scan(flat_chunk, totals, flat_chunks(lists))[0][:-1]
  return jax.lax.scan(chunk, totals, tile_chunks(lists))[0][:-1]


def weigh(weights: Array, values: Array) -> Array:
  """`[C, B, P]`, `[C, B, D]` -> `[C, D, P]`, summed over a block.

  The values come first and transposed, which leaves the large operand as it lies: four times faster on CPU.
  """
  return _einsum("cdb,cbp->cdp", jax.lax.optimization_barrier(values.swapaxes(1, 2)), weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def splat(geometry: Geometry, values: Array, lists: TileLists, tau: float) -> Array:
  """sum_i w_i(p) values_i: `values` `[N, D]` -> `[H, W, D]`."""
  pixels = local_pixels(lists.tile, values.dtype)

  def draw(rows: Array, centers: Array) -> Array:
    return weigh(jnp.maximum(exponential(rows, centers, pixels) - tau, 0), rows[..., 5:])

  return sum_blocks(lists, table(geometry, values / (1 - tau)), draw, values.shape[1])


def splat_adjoint(geometry: Geometry, image: Array, lists: TileLists, tau: float) -> Array:
  """sum_p w_i(p) image(p): `[H, W, D]` -> `[N, D]`, the adjoint of `splat` in its values."""
  pixels = local_pixels(lists.tile, image.dtype)

  def pull(rows: Array, centers: Array, g: Array) -> Array:
    return _einsum("cbp,cdp->cbd", jnp.maximum(exponential(rows, centers, pixels) - tau, 0), g)

  rows = table(geometry, jnp.zeros((geometry.means.shape[0], 0), image.dtype))
  return gather_tiles(lists, rows, image, pull, image.shape[-1]) / (1 - tau)


def _splat_forward(geometry: Geometry, values: Array, lists: TileLists, tau: float):
  return splat(geometry, values, lists, tau), (geometry, values, lists)


def _splat_backward(tau: float, residuals, cotangent: Array):
  geometry, values, lists = residuals
  pixels = local_pixels(lists.tile, values.dtype)
  x, y = pixels
  monomials = jnp.stack([jnp.ones_like(x), x, y, x * x, x * y, y * y], 1)

  def pull(rows: Array, centers: Array, g: Array) -> Array:
    e = exponential(rows, centers, pixels)
    d_values = _einsum("cbp,cdp->cbd", jnp.maximum(e - tau, 0), g)
    d_weight = _einsum("cbd,cdp->cbp", rows[..., 5:], g)
    d_half_q = (jnp.where(e > tau, e, 0) * d_weight).reshape(-1, x.shape[0])
    moments = _einsum("rp,pm->rm", d_half_q, monomials).reshape(*e.shape[:2], 6)
    return jnp.concatenate([moment_gradient(rows, centers, moments), d_values], -1)

  pulled = gather_tiles(lists, table(geometry, values / (1 - tau)), cotangent, pull, 5 + values.shape[1])
  d_geometry = kernel.cotangent(geometry, pulled[:, :2], pulled[:, 2:5])
  return d_geometry, pulled[:, 5:] / (1 - tau), jax.tree.map(no_gradient, lists)


def no_gradient(leaf: Array):
  """What has no derivative has one of zeros."""
  is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
  return jnp.zeros_like(leaf) if is_float else np.zeros(leaf.shape, jax.dtypes.float0)


splat.defvjp(_splat_forward, _splat_backward)


def composite(
  geometry: Geometry, values: Array, opacities: Array, lists: TileLists, tau: float
) -> tuple[Array, Array]:
  """Front to back in array order: (`[H, W, D]`, transmittance `[H, W, 1]`). Lists with max_blocks only.

  Differentiated by JAX, a block's weights recomputed in the backward pass.
  """
  if not lists.max_blocks:
    raise ValueError("got lists with max_blocks=0, expected lists made for ordered blends (empty(max_blocks=1))")
  pixels, num_values = local_pixels(lists.tile, values.dtype), values.shape[1]
  rows = table(geometry, jnp.concatenate([values, opacities[:, None]], 1))

  def draw(rows: Array, centers: Array, drawn: Array) -> Array:
    sums, before = drawn[:, :-1], drawn[:, -1:]
    w = jnp.maximum(exponential(rows, centers, pixels) - tau, 0) / (1 - tau)
    alphas = rows[..., -1:] * w
    after = before * jnp.cumprod(1 - alphas, axis=1)
    reaching = jnp.concatenate([before, after[:, :-1]], axis=1)
    sums = sums + weigh(alphas * reaching, rows[..., 5:-1])
    return jnp.concatenate([sums, after[:, -1:]], axis=1)

  def chunk(tiles: Array, centers: Array) -> Array:
    start = jnp.zeros((tiles.shape[0], num_values + 1, pixels.shape[1]), values.dtype).at[:, -1].set(1)
    start = varying_like(start, (rows, lists))
    draw_block = jax.checkpoint(lambda drawn, block: draw(rows[blocks_of(lists, tiles, block)], centers, drawn))

    def step(drawn: Array, block: Array) -> tuple[Array, None]:
      if flat():  # where a list has ended nothing is drawn, and no branch is worth asking the host
        return draw_block(drawn, block), None
      more = block < num_blocks(lists, tiles)
      return jax.lax.cond(more, draw_block, lambda drawn, block: drawn, drawn, block), None

    return jax.lax.scan(step, start, jnp.arange(lists.max_blocks, dtype=jnp.int32))[0]

  drawn = map_tiles(lists, chunk)
  return drawn[..., :-1], drawn[..., -1:]


def removal(
  geometry: Geometry,
  colors: Array,
  total: Array,
  drawn: Array,
  target: Array,
  lists: TileLists,
  tau: float,
) -> tuple[Array, Array]:
  """Each Gaussian's sums of `kernel.without` over the pixels, `[N]` and `[N]`; the images are `[H, W, 1 or C]`."""
  pixels = local_pixels(lists.tile, colors.dtype)

  def pull(rows: Array, centers: Array, of_tile: Array) -> Array:
    w = jnp.maximum(exponential(rows, centers, pixels) - tau, 0) / (1 - tau) * of_tile[:, None, 0]
    values = [rows[..., i, None] for i in range(5, 5 + colors.shape[1] + 1)]
    if geometry.gradients is not None:
      along, down = rows[..., -2, None], rows[..., -1, None]
      dx, dy = (pixels[i] - (rows[..., i, None] - centers[:, None, i, None]) for i in range(2))
      values[:-1] = [color + along * dx + down * dy for color in values[:-1]]
    found = kernel.without(w, tuple(values), tuple(of_tile[:, None, i] for i in range(1, of_tile.shape[1])), tau)
    return jnp.stack([jnp.sum(numbers, axis=-1) for numbers in found], axis=-1)

  # Tiles at the border have pixels outside of the image, where nothing is to be collected.
  inside = jnp.concatenate([jnp.ones_like(total), total, drawn, target], axis=-1)
  gradients = () if geometry.gradients is None else (geometry.gradients,)
  values = jnp.concatenate([colors, jnp.exp(geometry.log_weights)[:, None], *gradients], axis=1)
  rise, weight = gather_tiles(lists, table(geometry, values), inside, pull, 2).T
  return rise, weight


def tiled(geometry: Geometry, lists: TileLists, *, tau: float) -> kernel.Rasterizer:
  """The rasterizer over neighbour lists that are valid for `geometry`."""
  return kernel.Rasterizer(
    lambda values: splat(geometry, values, lists, tau),
    lambda values, opacities: composite(geometry, values, opacities, lists, tau),
    lambda colors, total, drawn, target: removal(geometry, colors, total, drawn, target, lists, tau),
    geometry,
    tau,
  )


def moment_gradient(rows: Array, centers: Array, moments: Array) -> Array:
  """The gradient by mean and whitening `[C, B, 5]`, from the sums over a tile of s * (1, x, y, x^2, x y, y^2).

  s is the gradient by -q / 2 = -|A (p - mean)|^2 / 2 at each pixel p; x, y are counted from the tile's centre.
  """
  mx, my = rows[..., 0] - centers[:, None, 0], rows[..., 1] - centers[:, None, 1]
  a11, a21, a22 = (rows[..., i] for i in range(2, 5))
  s, sx, sy, sxx, sxy, syy = (moments[..., i] for i in range(6))
  # About the mean instead of the centre.
  sxx, sxy, syy = sxx - mx * (2 * sx - mx * s), sxy - mx * sy - my * (sx - mx * s), syy - my * (2 * sy - my * s)
  sx, sy = sx - mx * s, sy - my * s
  z1, z2 = a11 * sx, a21 * sx + a22 * sy  # sum of s * A (p - mean)
  return jnp.stack(
    [a11 * z1 + a21 * z2, a22 * z2, -a11 * sxx, -(a21 * sxx + a22 * sxy), -(a21 * sxy + a22 * syy)], -1
  )
