"""Codes to bytes and back: what is coded after what, and under which context. The format is docs/format.md.

One function writes and reads: with an Encoder of range_coder it codes the numbers it is given, with a Decoder
those it finds, and either way it returns them. A number is coded as its distance from what its neighbours let
expect, in units of its own step, under models that are chosen by how large that distance is expected to be.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gaussjax.errors import DamagedError
from gaussjax.gjx import grids, initial, native_loops, range_coder
from gaussjax.gjx.grids import Codes, Grid

MAX_CELL = 1 << 15  # of either coordinate
NEIGHBORS = 4  # already coded Gaussians that a prediction is made from
BEFORE = 16  # where they are looked for: so many before in the same layer
AROUND = 6  # and so many before and after its place in each earlier layer
FAR = 1 << 40  # the squared distance of a candidate that is not there
WEIGHT_ONE = 1 << 16

MAX_CLASS = 32  # bits of a gap
MAX_COLOR_CODE = 1 << 20
MAX_NUMBER = 1 << 26  # of a number in 1 / grids.ONE: beyond is damage
OCTANTS = 8  # parts of half a turn with models of their own
MAX_CHANNELS = 32
FIELDS = 3  # before the colours: weights, minor, ratio

# How large a distance is expected to be, in sixteenths of a step: half octaves, up to KNOWN of them under models of
# their own; of larger distances only the part above the lowest bits has a model.
KNOWN = 12
FINE = 6  # octaves of KNOWN
SHARE_BITS, MOST_SHARE = 6, 62  # of the share that a prediction takes from neighbours
FARTHEST = 2047  # sixteenths of a step that the share learns from
SHARE_PRIOR = 1 << 12  # counts of one half, and how fast they are forgotten
FORGETTING = 7


class _Layout:
  """Where each field's models begin, and those of a field."""

  def __init__(self) -> None:
    self.gap = 0
    self.mantissa = self.gap + 16 * range_coder.UNARY
    self.turn = self.mantissa + MAX_CLASS + 1
    self.number = self.turn + OCTANTS
    # Within a number's models:
    self.zero = 0
    self.sign = self.zero + 2 * KNOWN
    self.side = self.sign + 4 * 7
    self.least = self.side + 2
    self.small = self.least + 1
    self.sides = self.small + KNOWN * range_coder.UNARY
    self.per_number = self.sides + 2 * KNOWN * range_coder.UNARY


LAYOUT = _Layout()


@functools.lru_cache(maxsize=MAX_CHANNELS)
def _first(channels: int) -> range_coder.Models:
  return range_coder.Models(initial.probabilities(FIELDS + channels), initial.SEEN)


def models(channels: int) -> range_coder.Models:
  """The models of a file of so many channels, as its first Gaussian finds them."""
  return _first(channels).copy()


def interleave(cells: Any) -> Any:
  """Morton codes `[N]` of cells `[N, 2]`, of numpy or JAX: bits of x at even places, of y at odd ones."""
  x, y = (_spread_bits(cells[:, i]) for i in (0, 1))
  return x | y << 1


def _spread_bits(values: Any) -> Any:
  for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
    values = (values | values << shift) & mask
  return values


def _gather_bits(values: NDArray) -> NDArray:
  values = values & 0x55555555
  for shift, mask in ((1, 0x33333333), (2, 0x0F0F0F0F), (4, 0x00FF00FF), (8, 0x0000FFFF)):
    values = (values | values >> shift) & mask
  return values


def deinterleave(morton: NDArray) -> NDArray:
  """Cells `[N, 2]` of Morton codes `[N]`."""
  return np.stack([_gather_bits(morton), _gather_bits(morton >> 1)], 1)


def ordered(codes: Codes) -> Codes:
  """A layer in the order in which it is coded."""
  keys = [codes.parts, interleave(codes.cells)]
  order = np.lexsort(keys)
  return Codes(*[field[order] for field in codes])


def _bucket(size: int) -> tuple[int, int]:
  """(which models, how many low bits have none) for an expected distance in sixteenths of a step."""
  size = min(max(size, 1), 1 << 20)
  length = size.bit_length() - 1
  half = 2 * length + (size * size >> (2 * length + 1))
  if length < FINE:
    return max(half - 2, 0), 0
  return KNOWN - 2 + (half & 1), length - FINE + 1


TABULATED = 1 << 12
BUCKETS = [_bucket(size) for size in range(TABULATED)]


class Number:
  """What is known of a field so far: the middle of its values, how far they were from what was expected, and how
  much of the neighbours' distance from the middle they share. All in 1 / grids.ONE, of integers."""

  __slots__ = ("apart", "base", "count", "least", "middle", "sides", "shared", "square")

  def __init__(self, index: int, middle: int, apart: int, least: int | None = None) -> None:
    self.base = LAYOUT.number + index * LAYOUT.per_number
    self.middle = middle << 4
    self.apart, self.sides = apart, [apart, apart]
    self.shared, self.square = SHARE_PRIOR >> 1, SHARE_PRIOR
    self.count = 0
    self.least = least  # the value that many have and none is below, if there is one

  def state(self) -> tuple[int, ...]:
    """What changes from number to number, as `go_on` takes it."""
    return self.middle, self.apart, *self.sides, self.shared, self.square, self.count

  def go_on(self, middle: int, apart: int, above: int, below: int, shared: int, square: int, count: int) -> None:
    """Takes up the state of another."""
    self.middle, self.apart, self.sides = middle, apart, [above, below]
    self.shared, self.square, self.count = shared, square, count

  def code(self, coder, near: tuple[int, int] | None, unit: int, stretch: int, value: int) -> tuple[int, int]:
    """(the code, its distance from what was expected) of a number on a grid of `unit`.

    `near` is (the neighbours' mean, their spread about it). `stretch`, in quarters, is how much larger than usual
    the distance may be. Raises DamagedError.
    """
    # One function, and comparisons instead of min and max: a reader is here for most of its time.
    middle, apart = self.middle >> 4, self.apart
    mean, spread = (middle, apart) if near is None else near
    share = (self.shared << SHARE_BITS) // self.square
    share = 0 if share < 0 else MOST_SHARE if share > MOST_SHARE else share
    expected = middle + (share * (mean - middle) >> SHARE_BITS)
    place, rest = divmod(expected + (unit >> 1), unit)
    size = (stretch * (spread + apart) << 1) // unit
    bucket, low = BUCKETS[size] if size < TABULATED else _bucket(size)
    if low:
      value = self._far(coder, place, unit, spread, bucket & 1, value)
    else:
      value = self._near(coder, place, 4 * rest // unit, bucket, value)
    number = value * unit
    if not -MAX_NUMBER <= number <= MAX_NUMBER:
      raise DamagedError("a number is out of range")
    count = self.count
    rate = range_coder.RATES[count if count < range_coder.SLOWEST else range_coder.SLOWEST]
    self.count = count + 1
    self.middle += ((number << 4) - self.middle) * rate >> 16
    size = number - expected if number > expected else expected - number
    self.apart = apart + ((size - apart) * rate >> 16)
    side = value < place
    self.sides[side] += (size - self.sides[side]) * rate >> 16
    if near is not None:
      x, y = 16 * (mean - middle) // unit, 16 * (number - middle) // unit
      x = -FARTHEST if x < -FARTHEST else FARTHEST if x > FARTHEST else x
      y = -FARTHEST if y < -FARTHEST else FARTHEST if y > FARTHEST else y
      self.shared += x * y - (self.shared - (SHARE_PRIOR >> 1) >> FORGETTING)
      self.square += x * x - (self.square - SHARE_PRIOR >> FORGETTING)
    return value, value - place

  def _near(self, coder, place: int, quarter: int, bucket: int, value: int) -> int:
    """A number whose distance is expected to be of few steps: whether there is one, its sign, how many."""
    base = self.base
    if not coder.bit(base + LAYOUT.zero + 2 * bucket + (quarter == 0 or quarter == 3), int(value != place)):
      return place
    sign = coder.bit(base + LAYOUT.sign + 4 * (bucket if bucket < 6 else 6) + quarter, int(value < place))
    beyond = coder.magnitude(base + LAYOUT.small + bucket * range_coder.UNARY, abs(value - place) - 1) + 1
    return place - beyond if sign else place + beyond

  def _far(self, coder, place: int, unit: int, spread: int, odd: int, value: int) -> int:
    """A number whose distance is expected to be of many steps: its sign, then how far on that side."""
    base = self.base
    sign = coder.bit(base + LAYOUT.side + odd, int(value < place))
    if sign and self.least is not None:
      floor = max((self.least + (unit >> 1)) // unit, 1)
      if coder.bit(base + LAYOUT.least, int(value <= floor)):
        return floor
    side = self.sides[sign]
    size = (4 * (spread * side // (self.apart or 1) + side) << 1) // unit
    bucket, low = BUCKETS[size] if size < TABULATED else _bucket(size)
    beyond = abs(value - place) - sign
    above = coder.magnitude(base + LAYOUT.sides + (sign * KNOWN + bucket) * range_coder.UNARY, beyond >> low)
    beyond = above << low | coder.raw(low, beyond & (1 << low) - 1)
    return place - beyond - 1 if sign else place + beyond


class Numbers(NamedTuple):
  """The fields of a file."""

  weight: Number | None  # None where all are 0
  minor: Number
  ratio: Number
  colors: list[Number]  # [C]


def first_numbers(count: int, pixels: int, background: list[int], *, weighted: bool) -> Numbers:
  """The fields of a file before its first Gaussian.

  `count` Gaussians share the picture's `pixels`; its `background` is in 1 / grids.ONE.
  """
  root = math.isqrt(math.isqrt((pixels << 64) // count)) * ROOT_OF_SPACING >> 8
  gray = sum(background) * math.isqrt((1 << 32) // len(background)) >> 16
  apart = [COLORS_APART[min(channel, len(COLORS_APART) - 1)] for channel in range(len(background))]
  return Numbers(
    Number(0, *WEIGHTS) if weighted else None,
    Number(1, root, max(root * ROOTS_APART >> 8, 1), LEAST_ROOT),
    Number(2, *RATIOS),
    [Number(FIELDS + channel, 0 if channel else gray, away) for channel, away in enumerate(apart)],
  )


# Middles, and mean distances from what is expected, in 1 / grids.ONE, in photographs.
WEIGHTS, RATIOS = (131072, 87000), (91000, 40000)
ROOT_OF_SPACING, ROOTS_APART = 79, 76  # of roots of the spacing, and of that, in 1 / 2^8
COLORS_APART = (26000, 5600, 2600)
LEAST_ROOT = round(math.exp(grids.LEAST_LOG_SCALE / 2) * grids.ONE)


def code_layer(
  coder, count: int, channels: int, grid: Grid, numbers: Numbers, earlier: list[Codes], codes: Codes | None
) -> Codes:
  """Codes a layer of `count` Gaussians after those of `earlier`; `codes` (ordered) if it is written, None if read.

  Raises DamagedError for numbers that no writer makes.
  """
  if codes is None:
    empty = np.zeros(count, np.int64)
    blank = np.zeros((count, channels), np.int64)
    codes = Codes(np.zeros((count, 2), np.int64), empty, empty, empty, empty, blank, empty)
  coder.field = "position"
  cells = deinterleave(_positions(coder, interleave(codes.cells)))
  context = Context(*neighbors(cells, [layer.cells for layer in earlier]))
  before = [grids.known(layer, grid) for layer in earlier]
  known = lambda field: np.concatenate([codes.weights[:0], *(getattr(layer, field) for layer in before)])
  still = np.full(count, 4)

  coder.field = "weight"
  if numbers.weight is None:
    weights = np.zeros(count, np.int64)
  else:
    unit = np.full(count, int(grid.weight))
    weights = _numbers(coder, numbers.weight, codes.weights, unit, known("weights"), context, still)[0]
  coder.field = "scale"
  units = grid.minor[grids.level(grids.MINOR, grids.weight_feature(weights * int(grid.weight)))]
  minor = _numbers(coder, numbers.minor, codes.minor, units, known("roots"), context, still)[0]
  if minor.min() < 1:
    raise DamagedError("a scale is out of range")
  roots = minor * units.astype(np.int64)
  feature = grids.features_of(roots, np.zeros_like(roots), weights * int(grid.weight))
  units = grid.ratio[grids.level(grids.RATIO, feature)]
  ratio = _numbers(coder, numbers.ratio, codes.ratio, units, known("ratios"), context, still)[0]
  if ratio.min() < 0:
    raise DamagedError("a scale is out of range")
  feature = grids.features_of(roots, ratio * units.astype(np.int64), weights * int(grid.weight))
  coder.field = "turn"
  angles = [_angles(layer, found, grid) for layer, found in zip(earlier, before, strict=True)]
  turn = _turns(coder, codes.turn, grids.bins(grid, feature), np.concatenate([codes.turn[:0], *angles]), context)
  coder.field = "color"
  lengths = [grid.color[grids.level(grids.COLOR, found.features)] for found in before]
  colors = _code_colors(
    coder, numbers.colors, grid.color[grids.level(grids.COLOR, feature)], lengths, earlier, codes, context
  )
  coder.field = "position"
  parts = _parts(coder, codes.parts, grids.part_bits(feature))
  return Codes(cells, weights, minor, ratio, turn, colors, parts)


class Context(NamedTuple):
  """Each Gaussian's neighbours, as `neighbors` finds them."""

  near: NDArray  # [N, NEIGHBORS] int64 indices, from the first of the earliest layer
  shares: NDArray  # [N, NEIGHBORS] int64 weights

  def pairs(self) -> list[tuple[list[int], list[int]]]:
    """The same in Python's own numbers."""
    return list(zip(self.near.tolist(), self.shares.tolist(), strict=True))


# Each loop in native code or else by the function of this module that says what it does.


def _positions(coder, morton: NDArray) -> NDArray:
  if native_loops.serves(coder):
    return native_loops.positions(coder, slice(LAYOUT.gap, LAYOUT.turn), morton)
  return np.array(code_positions(coder, morton.tolist(), coder.raw), np.int64)


def _numbers(
  coder, number: Number, values: NDArray, units: NDArray, known: NDArray, context: Context, stretch: NDArray
) -> tuple[NDArray, NDArray]:
  if native_loops.serves(coder):
    models = slice(number.base, number.base + LAYOUT.per_number)
    return native_loops.numbers(coder, models, number, values, units, known, context, stretch)
  lists = values.tolist(), units.tolist(), known.tolist(), context.pairs(), stretch.tolist()
  coded, away = _code_numbers(coder, number, *lists)
  return np.array(coded, np.int64), np.array(away, np.int64)


def _turns(coder, values: NDArray, counts: NDArray, known: NDArray, context: Context) -> NDArray:
  if native_loops.serves(coder):
    models = slice(LAYOUT.turn, LAYOUT.turn + OCTANTS)
    return native_loops.turns(coder, models, values, counts, known, context)
  lists = values.tolist(), counts.tolist(), known.tolist(), context.pairs()
  return np.array(code_turns(coder, LAYOUT.turn, *lists), np.int64)


def _parts(coder, values: NDArray, sizes: NDArray) -> NDArray:
  if native_loops.serves(coder):
    return native_loops.parts(coder, values, sizes)
  parts = [coder.raw(size, part) for size, part in zip(sizes.tolist(), values.tolist(), strict=True)]
  return np.array(parts, np.int64)


def _code_colors(
  coder,
  numbers: list[Number],
  units: NDArray,
  lengths: list[NDArray],
  earlier: list[Codes],
  codes: Codes,
  context: Context,
) -> NDArray:
  """Channel after channel, `[N, C]`, on grids of `units`; those of layers before are of `lengths`."""
  colors, stretch = [], np.full(len(units), 4)
  for channel, number in enumerate(numbers):
    ours = codes.colors[:, channel]
    before = [
      layer.colors[:, channel] * length.astype(np.int64) for layer, length in zip(earlier, lengths, strict=True)
    ]
    coded, away = _numbers(coder, number, ours, units, np.concatenate([ours[:0], *before]), context, stretch)
    colors.append(coded)
    stretch = STRETCH[np.searchsorted((1, 2, 4), np.abs(away), side="right")]
  return np.stack(colors, 1)


STRETCH = np.array((3, 4, 4, 5))  # quarters, by the bits of the distance in the channel before


def code_positions(coder, morton: list[int], lowest: Callable[[int, int], int]) -> list[int]:
  """Morton codes in ascending order, as gaps: their number of bits in unary, what is below the first in binary.

  `lowest` codes the bits below the second, which have no models.
  """
  coded, last, context = [], 0, 8 * 16
  for value in morton:
    gap = value - last
    size = coder.magnitude(LAYOUT.gap + min(context >> 4, 15) * range_coder.UNARY, gap.bit_length())
    if size > MAX_CLASS:
      raise DamagedError("a position is out of range")
    gap = _code_below(coder, LAYOUT.mantissa + size, size, gap, lowest)
    last += gap
    if last >= MAX_CELL**2:
      raise DamagedError("a position is out of range")
    coded.append(last)
    context += ((size << 4) - context) >> 2
  return coded


def _code_below(coder, model: int, size: int, value: int, lowest: Callable[[int, int], int]) -> int:
  """A number of `size` bits, of which the first is 1: the second under a model, the others by `lowest`."""
  if size < 2:
    return size
  second = coder.bit(model, value >> (size - 2) & 1)
  rest = lowest(size - 2, value & (1 << (size - 2)) - 1)
  return (2 | second) << (size - 2) | rest


def neighbors(cells: NDArray, earlier: list[NDArray]) -> tuple[NDArray, NDArray]:
  """For each Gaussian of a layer up to NEIGHBORS that are coded before: indices and weights `[N, NEIGHBORS]`.

  Indices count from the first of the earliest layer. Weights are 2^16 / (1 + squared distance of cells), or 0.
  """
  count, offset = len(cells), sum(len(layer) for layer in earlier)
  everything = np.concatenate([*earlier, cells])
  candidates = [np.arange(count)[:, None] - np.arange(1, BEFORE + 1) + offset]
  valid = [candidates[0] >= offset]
  morton, first = interleave(cells), 0
  for layer in earlier:
    place = np.searchsorted(interleave(layer), morton)[:, None] + np.arange(-AROUND, AROUND)
    candidates.append(place + first)
    valid.append((place >= 0) & (place < len(layer)))
    first += len(layer)
  index = np.where(np.concatenate(valid, 1), np.concatenate(candidates, 1), 0)
  apart = everything[index] - cells[:, None]
  distance = np.where(np.concatenate(valid, 1), np.sum(apart * apart, -1), FAR)
  nearest = np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBORS]
  distance = np.take_along_axis(distance, nearest, 1)
  return np.take_along_axis(index, nearest, 1), np.where(distance < FAR, WEIGHT_ONE // (1 + distance), 0)


def around(known: list[int], near: list[int], shares: list[int]) -> tuple[int, int] | None:
  """(the neighbours' weighted mean, their mean distance from it), or None where there are none."""
  # Written out for NEIGHBORS = 4: a reader is here for a good part of its time.
  w0, w1, w2, w3 = shares
  total = w0 + w1 + w2 + w3
  if not total:
    return None
  a, b, c, d = [known[i] for i in near]
  mean = (w0 * a + w1 * b + w2 * c + w3 * d + (total >> 1)) // total
  return mean, (w0 * abs(a - mean) + w1 * abs(b - mean) + w2 * abs(c - mean) + w3 * abs(d - mean)) // total


def _code_numbers(
  coder, number: Number, values: list[int], units: list[int], known: list[int], context: list, stretch: list[int]
) -> tuple[list[int], list[int]]:
  """(codes, how far each was from what was expected)."""
  known, coded, apart = list(known), [], []
  for value, unit, (near, shares), wide in zip(values, units, context, stretch, strict=True):
    found, distance = number.code(coder, around(known, near, shares), unit, wide, value)
    coded.append(found)
    apart.append(distance)
    known.append(found * unit)
  return coded, apart


def _angles(layer: Codes, found: grids.Known, grid: Grid) -> NDArray:
  """Turns of a layer, half a turn being WEIGHT_ONE."""
  return layer.turn * WEIGHT_ONE // grids.bins(grid, found.features)


def code_turns(
  coder, models: int, values: list[int], counts: list[int], known: list[int], context: list
) -> list[int]:
  """Angles: how far round from the nearest neighbour's, the eighth of half a turn under `models`, the rest even."""
  known, coded = list(known), []
  for value, count, (near, shares) in zip(values, counts, context, strict=True):
    if count > 1:
      start = known[near[0]] * count // WEIGHT_ONE if shares[0] else 0
      value = (start + _code_apart(coder, models, (value - start) % count, count)) % count
    else:
      value = 0
    coded.append(value)
    known.append(value * WEIGHT_ONE // count)
  return coded


def _code_apart(coder, models: int, apart: int, count: int) -> int:
  """A number below `count`: which eighth it is in, under `models`, then where in that."""
  if count < OCTANTS:
    return coder.uniform(count, apart)
  octant, node = apart * OCTANTS // count, 1
  for shift in (2, 1, 0):
    node = node << 1 | coder.bit(models + node, octant >> shift & 1)
  octant = node - OCTANTS
  first, end = -(-octant * count // OCTANTS), -(-(octant + 1) * count // OCTANTS)
  return first + coder.uniform(end - first, apart - first)
