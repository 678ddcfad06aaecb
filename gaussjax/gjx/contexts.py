"""Codes to bytes and back: what is coded after what, and under which context. The format is docs/format.md.

One function writes and reads: with an Encoder of range_coder it codes the numbers it is given, with a Decoder
those it finds, and either way it returns them.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gaussjax.errors import DamagedError
from gaussjax.gjx import grids, range_coder
from gaussjax.gjx.grids import Codes, Grid, Steps

MAX_CELL = 1 << 15  # of either coordinate
NEIGHBORS = 4  # already coded Gaussians that a prediction is made from
BEFORE = 16  # where they are looked for: so many before in the same layer
AROUND = 6  # and so many before and after its place in each earlier layer
FAR = 1 << 40  # the squared distance of a candidate that is not there
WEIGHT_ONE = 1 << 16

MAX_CLASS = 32  # bits of a gap
MAX_LOG_CODE = 1 << 13  # of log-scales: beyond is damage
MAX_COLOR_CODE = 1 << 20
SPREADS = 3  # contexts from how much the neighbours differ
OCTANTS = 8  # parts of half a turn with models of their own
MAX_CHANNELS = 32


class Predictor(NamedTuple):
  """How a field is predicted: center + (share (neighbours' mean - center) + slope minor) / 32, all integers."""

  center: int = 0
  share: int = 0
  slope: int = 0


SHIFT = 5  # predictors count in 1 / 2^SHIFT
CENTER_BITS, SHARE_BITS = 26, 8


class _Layout:
  """Where each field's models begin."""

  def __init__(self) -> None:
    self.gap = 0
    self.mantissa = self.gap + 16 * range_coder.UNARY
    self.minor = self.mantissa + MAX_CLASS + 1
    self.ratio = self.minor + SPREADS * range_coder.SIGNED_MODELS
    self.turn = self.ratio + SPREADS * range_coder.SIGNED_MODELS
    self.color = self.turn + 3 * OCTANTS
    self.per_channel = 4 * SPREADS * range_coder.SIGNED_MODELS
    self.total = self.color + MAX_CHANNELS * self.per_channel


LAYOUT = _Layout()
NUM_MODELS = LAYOUT.total


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


def code_predictors(coder, channels: int, predictors: list[Predictor] | None) -> list[Predictor]:
  """Codes the predictors of minor, ratio and each channel; None if they are read."""
  coded = []
  for predictor in predictors or [Predictor()] * (2 + channels):
    numbers = []
    for value, bits in zip(predictor, (CENTER_BITS, SHARE_BITS, SHARE_BITS), strict=True):
      half = 1 << (bits - 1)
      numbers.append(coder.even(bits, min(max(value, -half), half - 1) + half) - half)
    coded.append(Predictor(*numbers))
  return coded


def fitted_predictors(layers: list[Codes], grid: Grid) -> list[Predictor]:
  """The predictors that leave the least squared differences in these layers (ordered)."""
  found = [neighbors(layer.cells, [one.cells for one in layers[:index]]) for index, layer in enumerate(layers)]
  near, weights = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
  weights = weights / np.maximum(weights.sum(1, keepdims=True), 1)
  minor, ratio, colors = (np.concatenate([getattr(layer, name) for layer in layers]) for name in FIELDS)
  units = grids.color_unit(grids.level(minor, ratio, grid))
  one = np.ones(len(minor))
  predictors = [_fitted(minor, one, None, near, weights), _fitted(ratio, one, minor, near, weights)]
  return predictors + [_fitted(channel * units, units, None, near, weights) for channel in colors.T]


FIELDS = ("minor", "ratio", "colors")


def _fitted(values: NDArray, units: NDArray, minor: NDArray | None, near: NDArray, weights: NDArray) -> Predictor:
  """Least squares in units of each Gaussian's own step."""
  around = (weights * values[near]).sum(1)
  columns = [np.ones(len(values)), around, *([] if minor is None else [minor])]
  design = np.stack(columns, 1) / units[:, None]
  offset, share, *slope = np.linalg.lstsq(design, values / units, rcond=None)[0]
  share = min(max(share, -1.0), 0.95)
  whole = lambda value: int(np.round(value))
  return Predictor(whole(offset / (1 - share)), whole(share * 2**SHIFT), whole(slope[0] * 2**SHIFT) if slope else 0)


def code_layer(
  coder,
  count: int,
  channels: int,
  grid: Grid,
  predictors: list[Predictor],
  earlier: list[Codes],
  codes: Codes | None,
) -> Codes:
  """Codes a layer of `count` Gaussians after those of `earlier`; `codes` (ordered) if it is written, None if read.

  Raises DamagedError for numbers that no writer makes.
  """
  if codes is None:
    empty = np.zeros(count, np.int64)
    blank = np.zeros((count, channels), np.int64)
    codes = Codes(np.zeros((count, 2), np.int64), empty, empty, empty, empty, blank)
  coder.field = "position"
  morton = _code_positions(coder, interleave(codes.cells).tolist())
  cells = deinterleave(np.array(morton, np.int64))
  parts = [coder.even(2 * grids.SPLIT, value) for value in codes.parts.tolist()]
  near, weights = neighbors(cells, [layer.cells for layer in earlier])
  context = list(zip(near.tolist(), weights.tolist(), strict=True))

  def together(field: str) -> list:
    return [value for layer in earlier for value in getattr(layer, field).tolist()]

  still = [0] * count
  coder.field = "scale"
  minor = _code_logs(coder, LAYOUT.minor, predictors[0], codes.minor.tolist(), together("minor"), context, still)
  ratio = _code_logs(coder, LAYOUT.ratio, predictors[1], codes.ratio.tolist(), together("ratio"), context, minor)
  if min(ratio, default=0) < 0:
    raise DamagedError("a scale is out of range")
  counts = grids.bins(np.array(ratio, np.int64), grid)
  before = [turn for layer in earlier for turn in _angles(layer.turn, grids.bins(layer.ratio, grid))]
  coder.field = "turn"
  turn = _code_turns(coder, codes.turn.tolist(), counts.tolist(), before, context)
  levels = grids.level(np.array(minor, np.int64), np.array(ratio, np.int64), grid)
  units = grids.color_unit(levels).tolist()
  known = [
    (layer.colors * grids.color_unit(grids.level(layer.minor, layer.ratio, grid))[:, None]) for layer in earlier
  ]
  colors, classes = [], [0] * count
  coder.field = "color"
  for channel in range(channels):
    before = [value for layer in known for value in layer[:, channel].tolist()]
    base = LAYOUT.color + channel * LAYOUT.per_channel
    values, predictor = codes.colors[:, channel].tolist(), predictors[2 + channel]
    coded, classes = _code_colors(coder, base, predictor, values, units, before, context, classes)
    colors.append(coded)
  integers = lambda values: np.array(values, np.int64)
  stacked = np.stack([integers(channel) for channel in colors], 1)
  return Codes(cells, integers(parts), integers(minor), integers(ratio), integers(turn), stacked)


def field_bits(layers: list[Codes], channels: int, steps: Steps) -> dict[str, float]:
  """Bits that each field takes, all layers together."""
  grid, models, totals = grids.grid(steps), range_coder.Models(NUM_MODELS), dict[str, float]()
  predictors = fitted_predictors(layers, grid)
  for index, layer in enumerate(layers):
    meter = range_coder.Meter(models)
    code_layer(meter, len(layer.minor), channels, grid, predictors, layers[:index], layer)
    for field, bits in meter.bits.items():
      totals[field] = totals.get(field, 0.0) + bits
  return totals


def _code_positions(coder, morton: list[int]) -> list[int]:
  """Morton codes in ascending order, as gaps: their number of bits in unary, what is below the first in binary."""
  coded, last, context = [], 0, 8 * 16
  for value in morton:
    gap = value - last
    size = coder.magnitude(LAYOUT.gap + min(context >> 4, 15) * range_coder.UNARY, gap.bit_length())
    if size > MAX_CLASS:
      raise DamagedError("a position is out of range")
    gap = _code_below(coder, LAYOUT.mantissa + size, size, gap)
    last += gap
    if last >= MAX_CELL**2:
      raise DamagedError("a position is out of range")
    coded.append(last)
    context += ((size << 4) - context) >> 2
  return coded


def _code_below(coder, model: int, size: int, value: int) -> int:
  """A number of `size` bits, of which the first is 1: the second under a model, the others even."""
  if size < 2:
    return size
  second = coder.bit(model, value >> (size - 2) & 1)
  rest = coder.even(size - 2, value & (1 << (size - 2)) - 1)
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


def _predict(predictor: Predictor, known: list[int], near: list[int], weights: list[int]) -> tuple[int, int]:
  """(prediction without the slope's part, the neighbours' weighted mean absolute difference from their mean)."""
  # Written out for NEIGHBORS = 4: a reader is here for a third of its time.
  w0, w1, w2, w3 = weights
  total = w0 + w1 + w2 + w3
  if not total:
    return predictor.center, 0
  a, b, c, d = [known[i] for i in near]
  mean = (w0 * a + w1 * b + w2 * c + w3 * d + (total >> 1)) // total
  spread = (w0 * abs(a - mean) + w1 * abs(b - mean) + w2 * abs(c - mean) + w3 * abs(d - mean)) // total
  return predictor.center + (predictor.share * (mean - predictor.center) >> SHIFT), spread


def _code_logs(coder, base: int, predictor: Predictor, values: list[int], known: list[int], context: list, along):
  """A field of log-scales: what each differs from its prediction, under the context of its neighbours' spread."""
  known, first = list(known), len(known)
  for value, other, (near, weights) in zip(values, along, context, strict=True):
    mean, spread = _predict(predictor, known, near, weights)
    mean += predictor.slope * other >> SHIFT
    model = base + min(spread.bit_length(), SPREADS - 1) * range_coder.SIGNED_MODELS
    value = mean + coder.signed(model, value - mean)
    if abs(value) > MAX_LOG_CODE:
      raise DamagedError("a scale is out of range")
    known.append(value)
  return known[first:]


def _angles(turn: NDArray, counts: NDArray) -> list[int]:
  return (turn * WEIGHT_ONE // counts).tolist()


def _code_turns(coder, values: list[int], counts: list[int], known: list[int], context: list) -> list[int]:
  """Angles: how far round from the nearest neighbour's, the eighth of half a turn under models, the rest even."""
  known, coded = list(known), []
  for value, count, (near, weights) in zip(values, counts, context, strict=True):
    if count > 1:
      start = known[near[0]] * count // WEIGHT_ONE if weights[0] else 0
      value = (start + _code_apart(coder, (value - start) % count, count)) % count
    else:
      value = 0
    coded.append(value)
    known.append(value * WEIGHT_ONE // count)
  return coded


def _code_apart(coder, apart: int, count: int) -> int:
  """A number below `count`: which eighth it is in, then where in that."""
  if count < OCTANTS:
    return coder.uniform(count, apart)
  octant, node = apart * OCTANTS // count, 1
  for shift in (2, 1, 0):
    node = node << 1 | coder.bit(LAYOUT.turn + node, octant >> shift & 1)
  octant = node - OCTANTS
  first, end = -(-octant * count // OCTANTS), -(-(octant + 1) * count // OCTANTS)
  return first + coder.uniform(end - first, apart - first)


def _code_colors(coder, base: int, predictor: Predictor, values, units, known, context, classes):
  """A channel: (codes, for each the class of its surprise, which is a context of the next channel)."""
  known, coded, after = list(known), [], []
  for value, unit, (near, weights), kind in zip(values, units, context, classes, strict=True):
    mean, spread = _predict(predictor, known, near, weights)
    model = base + (4 * min((spread // unit).bit_length(), SPREADS - 1) + kind) * range_coder.SIGNED_MODELS
    mean = (mean + (unit >> 1)) // unit
    surprise = coder.signed(model, value - mean)
    value = mean + surprise
    if abs(value) > MAX_COLOR_CODE:
      raise DamagedError("a colour is out of range")
    coded.append(value)
    known.append(value * unit)
    after.append(min(abs(surprise).bit_length(), 3))
  return coded, after
