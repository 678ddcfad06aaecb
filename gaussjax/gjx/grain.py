"""Grain: texture that a reader draws by itself, from how strong it is in each region of a picture.

A file of few Gaussians has none of what is fine and of low contrast, and what is left looks painted. Texture of the
right strength, whatever its pattern, looks more like the picture than none. So a file may tell how strong it is, as
AV1 does (Norkin and Birkbeck, "Film grain synthesis for AV1 video codec", DCC 2018). All is integers up to the
pattern; docs/format.md specifies it.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gaussjax.errors import DamagedError
from gaussjax.gjx import range_coder

PATTERN = 256  # pixels each way, after which the pattern repeats
DEVIATION = 32  # of the pattern's integers
LEVELS = 16  # of strength: none, then 2^(level / 2 - 1) / 255
MOST_REGIONS = 1 << 12
SIDES = range(4, 16)  # logarithms of a region's side in pixels
LEAST_SIDE = 6  # of those that are written
BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)
REACH = 6  # pixels beyond a region that its measure looks at
TO_DEVIATION = 1.4826  # a normal distribution's deviation over its median magnitude

# Models: of a difference's magnitude and sign, by part and by what is known of the place.
EACH = range_coder.SIGNED_MODELS
PLACES = 3


class Grain(NamedTuple):
  """How strong texture is in each region of a picture."""

  side: int  # log2 of a region's side in pixels
  fine: bytes  # a level of 0 to 15 for each region, row by row
  coarse: bytes  # the same of texture of some pixels' size


def regions(height: int, width: int, side: int) -> tuple[int, int]:
  """(rows, columns) of regions of 2^`side` pixels each way, the last ones of what is left."""
  return -(-height >> side), -(-width >> side)


def measured(image: NDArray, drawn: NDArray, share: float) -> Grain | None:
  """The texture that a picture `drawn` `[H, W, C]` lacks of its `image`, times `share`; None if there is none.

  By the median magnitude within each region, since contours that are a little off are no texture.
  """
  height, width = image.shape[:2]
  side = _side(height, width)
  rows, columns = regions(height, width, side)
  levels = np.zeros((2, rows, columns), np.uint8)
  for row in range(rows):
    begin, end = row << side, min((row + 1) << side, height)
    low, high = max(begin - REACH, 0), min(end + REACH, height)
    lost = _brightness(image[low:high]) - _brightness(np.clip(drawn[low:high], 0, 1))
    for part, band in enumerate(_bands(lost)):
      for column in range(columns):
        region = band[begin - low : end - low, column << side : (column + 1) << side]
        strength = share * 255 * TO_DEVIATION * float(np.median(np.abs(region)))
        levels[part, row, column] = _level(strength)
  return Grain(side, levels[0].tobytes(), levels[1].tobytes()) if levels.any() else None


def _side(height: int, width: int) -> int:
  """log2 of the side of regions that are neither too small nor too many."""
  written = (side for side in SIDES if side >= LEAST_SIDE)
  return next(side for side in written if math.prod(regions(height, width, side)) <= MOST_REGIONS)


def typical_bytes(height: int, width: int) -> int:
  """Of a picture's chunk: two bits for each strength and its frame."""
  return 8 + math.prod(regions(height, width, _side(height, width))) // 2


def _level(strength: float) -> int:
  """The level next to a strength in 1/255."""
  return min(max(round(2 * math.log2(strength) + 2), 0), LEVELS - 1) if strength > 0 else 0


def _brightness(picture: NDArray) -> NDArray:
  """`[H, W]`, of the channels but alpha."""
  return picture[..., :3] @ BRIGHTNESS if picture.shape[-1] > 2 else picture[..., 0]


def _bands(values: NDArray) -> tuple[NDArray, NDArray]:
  """(fine, coarse) parts of `[H, W]`, as those of the pattern; the borders go on."""
  fine = values - _smooth(values, (1, 2, 1)) / 16
  return fine, _boxes(values, 3) / 81 - _boxes(values, 7) / 2401


def _boxes(values: NDArray, size: int, *, wrapped: bool = False) -> NDArray:
  return _smooth(_smooth(values, (1,) * size, wrapped=wrapped), (1,) * size, wrapped=wrapped)


def _smooth(values: NDArray, weights: tuple[int, ...], *, wrapped: bool = False) -> NDArray:
  """Sums over neighbours along both axes, `weights` each; the borders go on, or are `wrapped`."""
  for axis, size in enumerate(values.shape):
    total = np.zeros_like(values)
    for index, weight in enumerate(weights):
      place = np.arange(size) + index - len(weights) // 2
      total += weight * values.take(place % size if wrapped else place.clip(0, size - 1), axis)
    values = total
  return values


@functools.cache
def pattern() -> NDArray:
  """`[2, 256, 256]` int64, fine and coarse: noise whose bands are those that `measured` looks at."""
  row, column = np.mgrid[:PATTERN, :PATTERN]
  one, other = (_noise(column + PATTERN * row + (part << 16)) for part in range(2))
  fine = 16 * one - _smooth(one, (1, 2, 1), wrapped=True)
  coarse = 2401 * _boxes(other, 3, wrapped=True) - 81 * _boxes(other, 7, wrapped=True)
  return np.stack([_held(1103 * fine, 16), _held(25854 * coarse, 32)])


def _held(values: NDArray, shift: int) -> NDArray:
  return np.clip((values + (1 << (shift - 1))) >> shift, -128, 127)


def _noise(index: NDArray) -> NDArray:
  """Integers that look like drawn by lot, the sum of a hash's four bytes less 510."""
  bits = index.astype(np.uint64)
  for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
    bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor) & np.uint64(0xFFFFFFFF)
  bits = (bits ^ (bits >> np.uint64(16))).astype(np.int64)
  return (bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24) - 510


def to_bytes(grain: Grain, height: int, width: int) -> bytes:
  """The chunk of a picture's grain."""
  coder = range_coder.Encoder(_models())
  _code(coder, *regions(height, width, grain.side), list(grain.fine + grain.coarse))
  return bytes([grain.side]) + coder.finish()


def from_bytes(data: bytes, height: int, width: int) -> Grain:
  """The grain that a chunk holds. Raises DamagedError."""
  side = data[0] if data else 0
  if side not in SIDES or math.prod(regions(height, width, side)) > MOST_REGIONS:
    raise DamagedError("a size of regions is out of range")
  rows, columns = regions(height, width, side)
  levels = [0] * (2 * rows * columns)
  _code(range_coder.Decoder(_models(), data[1:]), rows, columns, levels)
  return Grain(side, bytes(levels[: rows * columns]), bytes(levels[rows * columns :]))


def _models() -> range_coder.Models:
  return range_coder.Models([range_coder.HALF] * (2 * PLACES * EACH))


def _code(coder: range_coder.Encoder | range_coder.Decoder, rows: int, columns: int, levels: list[int]) -> None:
  """Codes levels in place: by the mean of the left and upper one, coarse ones by how far fine ones were off too."""
  count = rows * columns
  off = [0] * count
  for at in range(2 * count):
    place = at % count
    above = levels[at - columns] if place >= columns else None
    left = levels[at - 1] if place % columns else above or 0
    above = left if above is None else above
    fine = min(abs(left - above), PLACES - 1)
    context = fine if at < count else PLACES + 1 + (off[place] > 0) - (off[place] < 0)
    expected = (left + above + 1) >> 1
    off[place] = coder.signed(EACH * context, levels[at] - expected)
    levels[at] = expected + off[place]
    if not 0 <= levels[at] < LEVELS:
      raise DamagedError("a strength of grain is out of range")


def added(
  picture: NDArray, grain: Grain, height: int, width: int, viewport: tuple[float, float, float, float] | None = None
) -> NDArray:
  """A render `[h, w, C]` of a picture of `height` x `width` pixels, or of the part `viewport` of it, with grain.

  Both in [0, 1]. The pattern belongs to the picture's pixels: it is interpolated where they are enlarged, and
  averaged where they are made smaller. It is of brightness: all channels but alpha have the same.
  """
  left, top, right, bottom = viewport or (0, 0, width, height)
  (ys, rise), (xs, run) = _centres(top, bottom, picture.shape[0]), _centres(left, right, picture.shape[1])
  shape = regions(height, width, grain.side)
  total = np.zeros(picture.shape[:2], np.float32)
  for levels, part in zip((grain.fine, grain.coarse), pattern(), strict=True):
    known = np.frombuffer(levels, np.uint8).reshape(shape).astype(np.float32)
    strengths = np.where(known > 0, 2 ** (known / 2 - 1), 0) / (255 * DEVIATION)
    noise = _repeated(ys, rise) @ part.astype(np.float32) @ _repeated(xs, run).T
    total += noise * (_between(ys, grain.side, shape[0]) @ strengths @ _between(xs, grain.side, shape[1]).T)
  colors = picture.shape[-1] - (picture.shape[-1] in (2, 4))
  grained = np.array(picture, np.float32)
  grained[..., :colors] += total[..., None]
  return np.clip(grained, 0, 1)


def _centres(begin: float, end: float, count: int) -> tuple[NDArray, float]:
  """(where the centres of `count` pixels from `begin` to `end` are in the picture's pixels, their side)."""
  step = (end - begin) / count
  return begin + (np.arange(count) + 0.5) * step, step


def _repeated(places: NDArray, step: float) -> NDArray:
  """`[count, PATTERN]` weights of the pattern's pixels: a triangle of a pixel to each side, or of one output's."""
  reach = max(step, 1.0)
  apart = (places[:, None] - 0.5 - np.arange(PATTERN) + PATTERN / 2) % PATTERN - PATTERN / 2
  weights = np.maximum(1 - np.abs(apart) / reach, 0)
  return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _between(places: NDArray, side: int, count: int) -> NDArray:
  """`[places, count]` weights of regions: linear between their centres."""
  at = np.clip(places / (1 << side) - 0.5, 0, count - 1)
  return np.maximum(1 - np.abs(at[:, None] - np.arange(count)), 0).astype(np.float32)
