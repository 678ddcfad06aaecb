"""Arrays as pictures, and pictures at 8 bits and at other sizes."""

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

MAX_PIXELS = 2**27  # 134 million: larger files are refused before they are decoded
MAX_CHANNELS = 32  # what a .gjx file holds

# How far outside [0, 1] an array may lie. A Lanczos filter overshoots an edge by a tenth and a corner by a fifth,
# and renders go somewhat further; a picture of 0 to 255, of -1 to 1 or of -0.5 to 0.5 goes beyond.
OVERSHOOT = 0.25

FloatImage = NDArray[np.float32]


def one_line(text: object) -> str:
  """A text's first line, or what it is if it has none."""
  lines = str(text).strip().splitlines()
  return lines[0] if lines else type(text).__name__


def as_image(pixels: ArrayLike) -> FloatImage:
  """An array `[H, W]` or `[H, W, C]` as float `[H, W, C]`: the one door for arrays.

  uint8 and uint16 are divided by their greatest value, bool becomes 0 and 1; float64 stays float64, other floats
  become float32. Floats are taken as they are and must lie in [0, 1], give or take OVERSHOOT, which leaves room for
  what resampling does. Raises ValueError for other dtypes, ranges, ranks and layouts, images of no pixels or more
  than MAX_CHANNELS, masked values and numbers that are not finite.
  """
  pixels = as_array(pixels)
  if pixels.dtype == bool:
    return pixels.astype(np.float32)
  if pixels.dtype.kind == "u":
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
  check_range(pixels, OVERSHOOT)
  return pixels if pixels.dtype == np.float64 else pixels.astype(np.float32, copy=False)


def as_array(pixels: Any) -> NDArray:
  """`[H, W, C]` of bool, uint8, uint16 or floats, in the machine's order of bytes."""
  if isinstance(pixels, Image.Image) and pixels.mode not in ("1", "L", "LA", "RGB", "RGBA", "I;16", "I;16B", "F"):
    raise ValueError(f"got a Pillow image of mode {pixels.mode}, expected RGB or L: call its .convert('RGB') first")
  if isinstance(pixels, str | bytes | os.PathLike):
    raise ValueError(f"got a {type(pixels).__name__}, expected an array [H, W, C]: read_image reads files")
  if np.ma.is_masked(pixels):
    raise ValueError(
      "got a masked array with values masked, expected all of them: fill them first, as by .filled(0)"
    )
  try:
    array = np.asarray(pixels)
  except Exception as error:  # ragged lists, tensors of other libraries that are elsewhere or in use
    raise ValueError(
      f"got {type(pixels).__name__} that is no array ({one_line(error)}), expected uint8, uint16 or floats"
    ) from error
  if "float" in array.dtype.name and array.dtype.kind != "f":  # bfloat16 and its like, which NumPy does not know
    array = array.astype(np.float32)
  kinds = array.dtype.newbyteorder("=")
  if kinds not in (np.uint8, np.uint16, np.bool_) and kinds.kind != "f":
    cast = ": if its values are 0 to 255, use .astype(np.uint8)" if kinds.kind in "iu" else ""
    raise ValueError(f"got an image of {kinds}, expected uint8, uint16 or floating point in [0, 1]{cast}")
  return _as_channels_last(array.astype(kinds, copy=False))


def _as_channels_last(array: NDArray) -> NDArray:
  """`[H, W]` or `[H, W, C]` as `[H, W, C]`."""
  shape = array.shape
  if array.ndim == 2:
    array = array[..., None]
  if array.ndim != 3 or 0 in shape:
    raise ValueError(f"got an image of shape {shape}, expected [H, W] or [H, W, C] with no dimension of 0")
  if shape[0] <= 4 < array.shape[2]:  # a picture's height is hardly ever below 5
    raise ValueError(f"got an image of shape {shape}, expected [H, W, C]: channels first? use .transpose(1, 2, 0)")
  if array.shape[2] > MAX_CHANNELS:
    raise ValueError(f"got an image of shape {shape}, expected [H, W, C] of at most {MAX_CHANNELS} channels C")
  return array


def check_range(pixels: NDArray, overshoot: float) -> None:
  """Raises ValueError unless floats are finite and in [0, 1], give or take `overshoot`."""
  bad = int(pixels.size - np.isfinite(pixels).sum())
  if bad:
    raise ValueError(f"got an image with {bad} values that are NaN or infinite, expected finite values in [0, 1]")
  low, high = float(pixels.min()), float(pixels.max())
  if -overshoot <= low and high <= 1 + overshoot:
    return
  if low < -overshoot:
    remedy = (
      "use (x + 1) / 2 if they are meant to span -1 to 1" if low >= -1.5 and high <= 1.5 else "scale or clip them"
    )
  else:
    remedy = f"divide by {255 if high <= 300 else 65535}" if 16 < high <= 70_000 else "scale or clip them"
  raise ValueError(f"got an image with values from {low:g} to {high:g}, expected [0, 1]: {remedy}")


def resize(image: FloatImage, height: int | None = None, width: int | None = None) -> FloatImage:
  """`[H, W, C]` -> `[height, width, C]` by area average; one size left out keeps the aspect ratio."""
  if height is None:
    height = image.shape[0] if width is None else max(1, round(image.shape[0] * width / image.shape[1]))
  if width is None:
    width = max(1, round(image.shape[1] * height / image.shape[0]))
  if height < 1 or width < 1 or height * width > MAX_PIXELS:
    raise ValueError(f"got a size of {height} x {width}, expected at least 1 x 1 and at most {MAX_PIXELS} pixels")
  planes = [
    Image.fromarray(plane).resize((width, height), Image.Resampling.BOX) for plane in np.moveaxis(image, -1, 0)
  ]
  return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def as_uint8(image: ArrayLike) -> NDArray[np.uint8]:
  """Floats clipped to [0, 1] and rounded to 8 bits, uint16 rounded, uint8 as it is, bool as 0 and 255.

  Raises ValueError for NaN and for other dtypes.
  """
  pixels = np.asarray(image)
  if pixels.dtype == np.uint8:
    return pixels
  if pixels.dtype == bool:
    return pixels.astype(np.uint8) * np.uint8(255)
  if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
  if "float" not in pixels.dtype.name and pixels.dtype.kind != "f":
    raise ValueError(f"got an image of {pixels.dtype}, expected uint8, uint16 or floating point in [0, 1]")
  if np.isnan(pixels).any():
    raise ValueError(f"got an image with {int(np.isnan(pixels).sum())} values that are NaN, expected [0, 1]")
  return np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
