"""Files of version 2, which are read and no longer written: header, contexts and grids (docs/format_2.md).

The container's chunks, the coder, the order and the neighbours of Gaussians are those of today.
"""

import math
import struct
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from gaussjax import geometry
from gaussjax.errors import DamagedError, FormatError
from gaussjax.gjx import contexts, grids, range_coder
from gaussjax.gjx.contexts import MAX_COLOR_CODE, WEIGHT_ONE
from gaussjax.gjx.grids import MAX_BINS, MAX_EIGHTHS, SPLIT, fixed, power
from gaussjax.rendering import blends
from gaussjax.types import Canvas, Euler, Gaussians

HEADER = ord("H")
HEADER_FORMAT = ">BBIIBBBHH4B"
FIXED = 1000
MAX_LAYERS = 4

EIGHTHS = round(2**16 * 8 / math.log(2))  # of an octave, in a unit of a logarithm, in 1 / 2^16
# The step of a colour is 2^(level / 4) times the file's, level = -round(3 log2 of the geometric mean scale).
COLOR_EXPONENT = round(2**16 * 3 / (2 * math.log(2)))  # 3 / (2 ln 2) in 1 / 2^16: a scale is exp of half the sum
MIN_LEVEL, MAX_LEVEL = -24, 12
COLOR_UNIT = 1 << 10  # colours are predicted in this fraction of the file's colour step

MAX_LOG_CODE = 1 << 13  # of log-scales: beyond is damage
SPREADS = 3  # contexts from how much the neighbours differ


class Steps(NamedTuple):
  """Codes of the four steps, each standing for 2^(code / 8 - 16)."""

  position: int
  log_scale: int
  turn: int
  color: int


class Grid(NamedTuple):
  """What steps amount to: sizes, and integers that decide how many codes there are (factors in 1 / 2^16)."""

  position: float  # pixels
  log_scale: float
  color: float
  eighths: int  # of an octave in the aspect ratio, for each unit of `ratio`
  bins: NDArray  # [MAX_EIGHTHS + 1] int64, of half a turn, by eighths of an octave in the aspect ratio
  level: int  # of a colour, for each unit of twice the mean log-scale


class Codes(NamedTuple):
  """N Gaussians as integers."""

  cells: NDArray  # [N, 2] (x, y) from the upper left corner of the margin
  parts: NDArray  # [N] of the cell
  minor: NDArray  # [N] logarithm of the lesser scale
  ratio: NDArray  # [N] at least 0: of the greater one, less that
  turn: NDArray  # [N] in 0 .. bins - 1
  colors: NDArray  # [N, C] decorrelated


def header(body: bytes, most_pixels: int) -> dict[str, Any]:
  """The fields of a container.Header. Raises FormatError."""
  fixed_part = struct.calcsize(HEADER_FORMAT)
  if len(body) < fixed_part:
    raise FormatError("damaged: the header is too short")
  version, least, height, width, channels, layers, blend, cutoff, floor, *steps = struct.unpack_from(
    HEADER_FORMAT, body
  )
  if least > 2:
    raise FormatError(f"got a file for readers of version {least} and later, expected 2 at most")
  if version < 2:
    raise FormatError(f"got a file of version {version}, which is no longer read; encode it anew")
  in_range = (("layers", layers, 1, MAX_LAYERS), ("blend", blend, 0, len(blends.BY_CODE) - 1))
  for name, value, low, high in in_range:
    if not low <= value <= high:
      raise FormatError(f"got a header with {name} {value}, expected {low} to {high}")
  try:
    geometry.check_canvas(height, width, channels, cutoff / FIXED, floor / FIXED, most_pixels=most_pixels)
  except ValueError as error:
    raise FormatError(f"a header that no file has: {error}") from None
  if len(body) != fixed_part + 2 * channels:
    raise FormatError(f"damaged: a header of {len(body)} bytes, expected {fixed_part + 2 * channels}")
  background = struct.unpack_from(f">{channels}h", body, fixed_part)
  return {
    "height": height,
    "width": width,
    "channels": channels,
    "blend": blend,
    "cutoff": cutoff,
    "floor": floor,
    "background": background,
    "steps": Steps(*steps),
    "layers": layers,
  }


def layers(steps: Steps, channels: int, counts: list[int], streams: list[bytes]) -> list[Codes]:
  """The layers of a file. Raises FormatError."""
  sizes = grid(steps)
  models, found, predictors = range_coder.Models([range_coder.HALF] * NUM_MODELS), list[Codes](), list[Predictor]()
  for count, stream in zip(counts, streams, strict=True):
    coder = range_coder.Decoder(models, stream)
    try:
      if not found:
        predictors = _read_predictors(coder, channels)
      found.append(_read_layer(coder, count, channels, sizes, predictors, found))
    except DamagedError as error:
      raise FormatError(f"damaged: {error}") from None
  return found


class Predictor(NamedTuple):
  """How a field is predicted: center + (share (neighbours' mean - center) + slope minor) / 32, all integers."""

  center: int = 0
  share: int = 0
  slope: int = 0


SHIFT = 5  # predictors count in 1 / 2^SHIFT
CENTER_BITS, SHARE_BITS = 26, 8


class _Layout:
  """Where each field's models begin, after those of positions, which are where they are today."""

  def __init__(self) -> None:
    self.minor = contexts.LAYOUT.turn
    self.ratio = self.minor + SPREADS * range_coder.SIGNED_MODELS
    self.turn = self.ratio + SPREADS * range_coder.SIGNED_MODELS
    self.color = self.turn + 3 * contexts.OCTANTS
    self.per_channel = 4 * SPREADS * range_coder.SIGNED_MODELS
    self.total = self.color + contexts.MAX_CHANNELS * self.per_channel


LAYOUT = _Layout()
NUM_MODELS = LAYOUT.total


def _read_predictors(coder: range_coder.Decoder, channels: int) -> list[Predictor]:
  """The predictors of minor, ratio and each channel."""
  read = lambda bits: coder.even(bits) - (1 << (bits - 1))
  return [Predictor(*[read(bits) for bits in (CENTER_BITS, SHARE_BITS, SHARE_BITS)]) for _ in range(2 + channels)]


def _read_layer(
  coder: range_coder.Decoder,
  count: int,
  channels: int,
  sizes: Grid,
  predictors: list[Predictor],
  earlier: list[Codes],
) -> Codes:
  """A layer of `count` Gaussians after those of `earlier`. Raises DamagedError."""
  still = [0] * count
  cells = contexts.deinterleave(np.array(contexts.code_positions(coder, still, coder.even), np.int64))
  parts = [coder.even(2 * SPLIT) for _ in range(count)]
  near, weights = contexts.neighbors(cells, [layer.cells for layer in earlier])
  context = list(zip(near.tolist(), weights.tolist(), strict=True))

  def together(field: str) -> list:
    return [value for layer in earlier for value in getattr(layer, field).tolist()]

  minor = _read_logs(coder, LAYOUT.minor, predictors[0], together("minor"), context, still)
  ratio = _read_logs(coder, LAYOUT.ratio, predictors[1], together("ratio"), context, minor)
  if min(ratio, default=0) < 0:
    raise DamagedError("a scale is out of range")
  counts = bins(np.array(ratio, np.int64), sizes)
  before = [angle for layer in earlier for angle in (layer.turn * WEIGHT_ONE // bins(layer.ratio, sizes)).tolist()]
  turn = contexts.code_turns(coder, LAYOUT.turn, still, counts.tolist(), before, context)
  units = color_unit(level(np.array(minor, np.int64), np.array(ratio, np.int64), sizes)).tolist()
  known = [layer.colors * color_unit(level(layer.minor, layer.ratio, sizes))[:, None] for layer in earlier]
  colors, classes = [], still
  for channel in range(channels):
    before = [value for layer in known for value in layer[:, channel].tolist()]
    base = LAYOUT.color + channel * LAYOUT.per_channel
    coded, classes = _read_colors(coder, base, predictors[2 + channel], units, before, context, classes)
    colors.append(coded)
  integers = lambda values: np.array(values, np.int64)
  stacked = np.stack([integers(channel) for channel in colors], 1)
  return Codes(cells, integers(parts), integers(minor), integers(ratio), integers(turn), stacked)


def _predict(predictor: Predictor, known: list[int], near: list[int], weights: list[int]) -> tuple[int, int]:
  """(prediction without the slope's part, the neighbours' weighted mean absolute difference from their mean)."""
  found = contexts.around(known, near, weights)
  if found is None:
    return predictor.center, 0
  mean, spread = found
  return predictor.center + (predictor.share * (mean - predictor.center) >> SHIFT), spread


def _read_logs(
  coder: range_coder.Decoder, base: int, predictor: Predictor, known: list[int], context: list, along: list[int]
) -> list[int]:
  """A field of log-scales: what each differs from its prediction, under the context of its neighbours' spread."""
  known, first = list(known), len(known)
  for other, (near, weights) in zip(along, context, strict=True):
    mean, spread = _predict(predictor, known, near, weights)
    mean += predictor.slope * other >> SHIFT
    value = mean + coder.signed(base + min(spread.bit_length(), SPREADS - 1) * range_coder.SIGNED_MODELS)
    if abs(value) > MAX_LOG_CODE:
      raise DamagedError("a scale is out of range")
    known.append(value)
  return known[first:]


def _read_colors(
  coder: range_coder.Decoder, base: int, predictor: Predictor, units: list[int], known, context, classes
) -> tuple[list[int], list[int]]:
  """A channel: (codes, for each the class of its surprise, which is a context of the next channel)."""
  known, found, after = list(known), [], []
  for unit, (near, weights), kind in zip(units, context, classes, strict=True):
    mean, spread = _predict(predictor, known, near, weights)
    model = base + (4 * min((spread // unit).bit_length(), SPREADS - 1) + kind) * range_coder.SIGNED_MODELS
    surprise = coder.signed(model)
    value = (mean + (unit >> 1)) // unit + surprise
    if abs(value) > MAX_COLOR_CODE:
      raise DamagedError("a colour is out of range")
    found.append(value)
    known.append(value * unit)
    after.append(min(abs(surprise).bit_length(), 3))
  return found, after


def grid(steps: Steps) -> Grid:
  """What a file's steps amount to."""
  position, log_scale, _, color = map(grids.step, steps)
  scale = fixed(steps.log_scale)
  # A turn by t moves an ellipse by t (a - 1 / a) in the Fisher metric: no angle is coarser than another.
  sizes = [power(n) - power(-n) for n in range(MAX_EIGHTHS + 1)]
  counts = [(fixed(steps.turn) * size + (1 << 31)) >> 32 for size in sizes]
  turns = np.clip(np.array(counts), 1, MAX_BINS).astype(np.int64)
  return Grid(position, log_scale, color, EIGHTHS * scale >> 16, turns, COLOR_EXPONENT * scale >> 16)


def bins(ratio: NDArray, sizes: Grid) -> NDArray:
  """How many angles a Gaussian of this `ratio` may have."""
  return sizes.bins[np.clip(ratio * sizes.eighths + (1 << 15) >> 16, 0, MAX_EIGHTHS)]


def level(minor: NDArray, ratio: NDArray, sizes: Grid) -> NDArray:
  """The colour level of a Gaussian: quarters of an octave on the colour step."""
  return np.clip(-((2 * minor + ratio) * sizes.level + (1 << 15) >> 16), MIN_LEVEL, MAX_LEVEL)


def color_unit(levels: NDArray) -> NDArray:
  """2^(level / 4) in 1 / COLOR_UNIT, in integers."""
  whole, quarter = np.divmod(levels, 4)
  mantissas = np.array([grids.FRACTIONS[2 * i] for i in range(4)])[quarter]
  return mantissas * COLOR_UNIT >> (16 - whole)


def dequantize(codes: Codes, sizes: Grid, canvas: Canvas) -> Gaussians:
  """The set that codes stand for, computed in float64 numpy and rounded to float32. Raises FormatError."""
  log_scales = np.stack([codes.minor + codes.ratio, codes.minor], 1) * sizes.log_scale
  grids.check_scales(log_scales)
  thetas = codes.turn * math.pi / bins(codes.ratio, sizes)
  columns, rows, slope = grids.frame(log_scales, thetas, np.full(len(thetas), 2 * SPLIT), np)
  means = grids.means_of(codes.cells, codes.parts, (columns, rows, slope), sizes.position, canvas)
  unit = sizes.color * 2.0 ** (level(codes.minor, codes.ratio, sizes) / 4)[:, None]
  colors = codes.colors * unit @ grids.decorrelation(codes.colors.shape[1])
  single = lambda array: jax.device_put(np.asarray(array, np.float32))
  return Gaussians(single(means), Euler(single(log_scales), single(thetas)), single(colors), None, canvas)
