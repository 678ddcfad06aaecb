"""Kernels in NVIDIA Warp, which compiles them for a GPU, or for a CPU, when they are first called.

`draw` has a block of threads for each tile, which add up its list. `gradient` and `removal` have a block of
threads for each Gaussian, which walks the pixels of its support and reduces once: no lists, no atomics, the same
bits at each run. All take a stack of pictures as one, since vmap puts its axis before the first. Only warp.py
imports this, where Warp is installed.
"""

import functools
from typing import Any, NamedTuple

import warp as wp

MARGIN = 0.5  # pixels by which rows and columns are walked beyond the support, since its ends are rounded

Points = wp.array(dtype=wp.vec2)
Factors = wp.array(dtype=wp.vec3)
Integers = wp.array(dtype=wp.int32)
Numbers = wp.array(dtype=wp.float32)
Moments = wp.types.vector(length=6, dtype=wp.float32)  # sums of s * (1, dx, dy, dx^2, dx dy, dy^2) over a support


class Kernels(NamedTuple):
  """The kernels for values of one length."""

  draw: wp.Kernel
  gradient: wp.Kernel
  removal: wp.Kernel  # the values are colours, without the factor on the weight


@wp.func
def half_square(whitening: wp.vec3, dx: wp.float32, dy: wp.float32) -> wp.float32:
  """q / 2 of a pixel at (dx, dy) from the mean."""
  u = whitening[0] * dx
  v = whitening[1] * dx + whitening[2] * dy
  return 0.5 * (u * u + v * v)


@wp.func
def clipped(x: wp.float32, most: wp.int32) -> wp.int32:
  """A number as an index of 0 to `most`."""
  return wp.int32(wp.clamp(x, 0.0, wp.float32(most)))


@wp.func
def met(low: wp.float32, high: wp.float32, size: wp.int32) -> wp.vec2i:
  """(first, end) of the pixels whose centres lie between two places, of `size`."""
  return wp.vec2i(clipped(wp.ceil(low - 0.5 - MARGIN), size), clipped(wp.floor(high + 0.5 + MARGIN), size))


@wp.func
def is_ellipse(mean: wp.vec2, a: wp.vec3) -> wp.bool:
  """Whether a Gaussian is one, and not a number gone bad."""
  good = wp.isfinite(mean[0]) and wp.isfinite(mean[1]) and wp.isfinite(a[0]) and wp.isfinite(a[1])
  return good and wp.isfinite(a[2]) and a[0] != 0.0 and a[2] != 0.0


@wp.func
def rows_met(mean: wp.vec2, a: wp.vec3, limit: wp.float32, height: wp.int32) -> wp.vec2i:
  """(first, end) of the rows of pixels that a support meets: sqrt(2 limit Sigma_yy) either way; none if bad."""
  if not is_ellipse(mean, a):
    return wp.vec2i(0, 0)
  slant = a[1] / a[0]
  reach = wp.sqrt(2.0 * limit * (1.0 + slant * slant)) / wp.abs(a[2])
  return met(mean[1] - reach, mean[1] + reach, height)


@wp.func
def across(a: wp.vec3) -> wp.vec3:
  """What `columns_met` needs of a whitening, by which nothing is divided again in each row."""
  inverse = 1.0 / (a[0] * a[0] + a[1] * a[1])
  part = a[0] * a[2]
  return wp.vec3(a[1] * a[2] * inverse, part * part * inverse, inverse)


@wp.func
def columns_met(mean: wp.vec2, b: wp.vec3, limit: wp.float32, dy: wp.float32, width: wp.int32) -> wp.vec2i:
  """(first, end) of a row's pixels that a support meets, where |A (dx, dy)|^2 <= 2 limit; `b` is of `across`."""
  half = wp.sqrt(wp.max(2.0 * limit - b[1] * dy * dy, 0.0) * b[2])
  middle = mean[0] - b[0] * dy
  return met(middle - half, middle + half, width)


@wp.func
def mean_gradient(a: wp.vec3, t: Moments) -> wp.vec2:
  """The gradient by the mean, from the moments of s, the gradient by -q / 2 (as in splat.moment_gradient)."""
  z1 = a[0] * t[1]
  z2 = a[1] * t[1] + a[2] * t[2]
  return wp.vec2(a[0] * z1 + a[1] * z2, a[2] * z2)


@wp.func
def whitening_gradient(a: wp.vec3, t: Moments) -> wp.vec3:
  """The gradient by the whitening, from the same."""
  return wp.vec3(-a[0] * t[3], -(a[1] * t[3] + a[2] * t[4]), -(a[1] * t[4] + a[2] * t[5]))


@wp.func
def picture_of(i: wp.int32, gaussians: wp.int32, rows: wp.int32, height: wp.int32) -> wp.int32:
  """Which picture of a stack a Gaussian is of; `gaussians` and `rows` are those of all pictures."""
  return i // (gaussians // (rows // height))


@functools.cache
def of_length(count: int) -> Kernels:
  """The kernels for `count` values a Gaussian, each in a module of Warp's of its own, for its size of blocks."""

  def compiled(function: Any) -> wp.Kernel:
    # By this name XLA knows the kernel, also in its programs on disk.
    name = function.__qualname__ = f"gaussjax_{function.__name__}_{count}"
    return wp.kernel(function, module=name, enable_backward=False, grid_stride=False)

  return Kernels(compiled(_draw(count)), compiled(_gradient(count)), compiled(_removal(count)))


def pixels_each(count: int) -> int:
  """How many pixels a thread of `draw` has: what it reads of a Gaussian, and where that lies, serves all of them.

  Their sums are in registers, so of long values it has one.
  """
  return 4 if count <= 8 else 1


def _draw(count: int):
  """sum_i w_i(p) values_i over the list of each tile of 16 x 16; `rows` are mean, whitening, values / (1 - tau)."""
  each = pixels_each(count)
  Row = wp.types.vector(length=5 + count, dtype=wp.float32)
  Sums = wp.types.matrix(shape=(each, count), dtype=wp.float32)
  Values = wp.types.vector(length=count, dtype=wp.float32)

  def draw(
    rows: wp.array(dtype=Row),
    ids: Integers,
    starts: Integers,
    order: Integers,
    height: wp.int32,
    width: wp.int32,
    tau: wp.float32,
    drawn: wp.array2d(dtype=Values),
  ):
    block, lane = wp.tid()
    batch = drawn.shape[0] // height
    picture = block // (order.shape[0] // batch)
    tile = order[block]
    columns = (width + 15) // 16
    # The 32 threads of a warp have 8 x 4 pixels next to each other, and `each` such patches one below the other, so
    # that most patches are within a support or outside of it as one.
    group = lane // 32
    x = (tile % columns) * 16 + (group % 2) * 8 + lane % 8
    y = (tile // columns) * 16 + (group // 2) * 4 * each + (lane % 32) // 8
    if x >= width or y >= height:
      return
    limit = -wp.log(tau)
    px = wp.float32(x) + 0.5
    py = wp.float32(y) + 0.5
    first_id = picture * (ids.shape[0] // batch)
    first = picture * (rows.shape[0] // batch)
    at = picture * (starts.shape[0] // batch) + tile
    sums = Sums()
    for slot in range(starts[at], starts[at + 1]):
      row = rows[first + ids[first_id + slot]]
      a = wp.vec3(row[2], row[3], row[4])
      dx = px - row[0]
      dy = py - row[1]
      for k in range(each):
        half_q = half_square(a, dx, dy + wp.float32(4 * k))
        if not half_q > limit:  # what is not a number is drawn, and so seen
          weight = wp.exp(-half_q) - tau
          if weight < 0.0:
            weight = 0.0
          for c in range(count):
            sums[k, c] += weight * row[5 + c]
    for k in range(each):
      if y + 4 * k < height:
        drawn[picture * height + y + 4 * k, x] = sums[k]

  return draw


def _gradient(count: int):
  """The gradients by mean, whitening and values, a block of threads for each Gaussian."""
  Values = wp.types.vector(length=count, dtype=wp.float32)

  def gradient(
    means: Points,
    whitening: Factors,
    values: wp.array(dtype=Values),
    cotangent: wp.array2d(dtype=Values),
    height: wp.int32,
    width: wp.int32,
    tau: wp.float32,
    d_means: Points,
    d_whitening: Factors,
    d_values: wp.array(dtype=Values),
  ):
    i, lane = wp.tid()
    wide = wp.min(wp.block_dim(), 8)
    tall = wp.block_dim() // wide
    if lane >= wp.block_dim():  # on a CPU whose blocks are of one thread
      return
    top = picture_of(i, means.shape[0], cotangent.shape[0], height) * height
    mean = means[i]
    a = whitening[i]
    value = values[i]
    limit = -wp.log(tau)
    moments = Moments()
    pulled = Values()
    b = across(a)
    rows = rows_met(mean, a, limit, height)
    for y in range(rows[0] + lane // wide, rows[1], tall):
      dy = wp.float32(y) + 0.5 - mean[1]
      columns = columns_met(mean, b, limit, dy, width)
      for x in range(columns[0] + lane % wide, columns[1], wide):
        dx = wp.float32(x) + 0.5 - mean[0]
        e = wp.exp(-half_square(a, dx, dy))
        if e > tau:
          g = cotangent[top + y, x]
          pulled += (e - tau) * g
          s = e * wp.dot(g, value)
          sx = s * dx
          sy = s * dy
          moments += Moments(s, sx, sy, sx * dx, sx * dy, sy * dy)
    of_moments = wp.tile_sum(wp.tile(moments, preserve_type=True))
    of_values = wp.tile_sum(wp.tile(pulled, preserve_type=True))
    if lane == 0:
      scale = 1.0 / (1.0 - tau)
      if not is_ellipse(mean, a):  # a bad number spreads
        scale = wp.nan
      d_means[i] = mean_gradient(a, of_moments[0] * scale)
      d_whitening[i] = whitening_gradient(a, of_moments[0] * scale)
      d_values[i] = of_values[0] * scale

  return gradient


def _removal(count: int):
  """What kernel.without says, summed over each Gaussian's support: `count` colours."""
  Colors = wp.types.vector(length=count, dtype=wp.float32)

  def removal(
    means: Points,
    whitening: Factors,
    colors: wp.array(dtype=Colors),
    gradients: Points,
    factors: Numbers,
    total: wp.array2d(dtype=wp.float32),
    drawn: wp.array2d(dtype=Colors),
    target: wp.array2d(dtype=Colors),
    height: wp.int32,
    width: wp.int32,
    tau: wp.float32,
    rise: Numbers,
    seen: Numbers,
  ):
    i, lane = wp.tid()
    wide = wp.min(wp.block_dim(), 8)
    tall = wp.block_dim() // wide
    if lane >= wp.block_dim():
      return
    top = picture_of(i, means.shape[0], total.shape[0], height) * height
    mean = means[i]
    a = whitening[i]
    limit = -wp.log(tau)
    mine = wp.vec2(0.0, 0.0)
    b = across(a)
    rows = rows_met(mean, a, limit, height)
    if not is_ellipse(mean, a):
      mine = wp.vec2(wp.nan, wp.nan)
    for y in range(rows[0] + lane // wide, rows[1], tall):
      dy = wp.float32(y) + 0.5 - mean[1]
      columns = columns_met(mean, b, limit, dy, width)
      for x in range(columns[0] + lane % wide, columns[1], wide):
        e = wp.exp(-half_square(a, wp.float32(x) + 0.5 - mean[0], dy))
        if e > tau:
          weight = (e - tau) / (1.0 - tau) * factors[i]
          change = weight / wp.max(total[top + y, x] - weight, tau)
          is_drawn = drawn[top + y, x]
          rises = gradients[i][0] * (wp.float32(x) + 0.5 - mean[0]) + gradients[i][1] * dy
          moved = change * (is_drawn - colors[i] - Colors(rises))
          mine += wp.vec2(wp.dot(moved, 2.0 * (is_drawn - target[top + y, x]) + moved), weight)
    sums = wp.tile_sum(wp.tile(mine, preserve_type=True))
    if lane == 0:
      t = sums[0]
      rise[i] = t[0]
      seen[i] = t[1]

  return removal
