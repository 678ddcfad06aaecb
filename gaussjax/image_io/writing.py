"""Image files out."""

import io
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from gaussjax import files
from gaussjax.image_io import arrays, colors, png

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}

SAVE_OPTIONS: dict[str, dict[str, Any]] = {
  "PNG": {},
  "JPEG": {"quality": 95, "subsampling": 0},
  "WEBP": {"lossless": True, "exact": True},
  "TIFF": {"compression": "tiff_deflate"},
}

LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}  # the codecs' limits

# How far outside [0, 1] a render may lie: further than a picture (arrays.OVERSHOOT).
RENDER_OVERSHOOT = 0.5
MAX_BEYOND = 0.02  # of a render's numbers, which lie even further out where its Gaussians are few


def write_image(path: files.Place, image: ArrayLike, *, suffix: str | None = None) -> None:
  """Writes `[H, W]` or `[H, W, C]` in the format of the path's suffix, whole or not at all.

  The suffixes: .png, .jpg, .jpeg, .webp, .tif, .tiff. C is 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha).
  uint8 is written as it is, and uint16 where the format has 16 bits: PNG, and TIFF for gray. Floats in [0, 1]
  are clipped and rounded to 8 bits; all but MAX_BEYOND of them lie within RENDER_OVERSHOOT of that range. All
  formats keep these values but JPEG, which is
  written at quality 95 with colour in full resolution. WebP has no gray: it is written as RGB.

  `path` may be an open file, which needs a `suffix` if it has no name, or an address for fsspec. Raises ValueError
  for another suffix and for what the format cannot hold.
  """
  name = files.name_of(path)
  chosen = PurePath(name).suffix if suffix is None else suffix
  if chosen.lower() not in FORMATS:
    what = "a name that ends in" if suffix is None and not files.is_stream(path) else "a suffix that is"
    raise ValueError(f"got {name if suffix is None else suffix}, expected {what} one of {', '.join(FORMATS)}")
  try:
    data = image_bytes(image, chosen)
  except ValueError as error:
    raise ValueError(f"{name}: {error}") from error
  files.write_whole(path, data)


def image_bytes(image: ArrayLike, suffix: str, *, metadata: dict[str, bytes] | None = None) -> bytes:
  """The bytes that `write_image` writes for a `suffix`, with `metadata` as of `read_metadata`.

  A colour profile that is not for pixels of these channels is left out. Raises ValueError as `write_image` does.
  """
  format_name, pixels = FORMATS[suffix.lower()], _to_write(image)
  height, width, channels = pixels.shape
  _check_holds(format_name, pixels)
  kept = dict(metadata or {})
  if "icc" in kept and colors.profile_space(kept["icc"]) != ("L" if channels < 3 else "RGB"):
    del kept["icc"]
  if pixels.dtype == np.uint16 and format_name == "PNG":
    return png.of_16_bits(pixels, kept)
  names = {"exif": "exif", "icc": "icc_profile"}
  options: dict[str, Any] = {names[kind]: data for kind, data in kept.items() if kind in names}
  file = io.BytesIO()
  picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels))
  picture.save(file, format_name, **SAVE_OPTIONS[format_name], **options)
  return file.getvalue()


def _to_write(image: ArrayLike) -> NDArray:
  """uint8 or uint16 `[H, W, C]`, C in 1 to 4."""
  pixels = arrays.as_array(image)
  if pixels.shape[2] > 4:
    raise ValueError(f"got an image of shape {pixels.shape}, expected [H, W, C] of 1 to 4 channels C")
  if pixels.dtype.kind == "f":
    beyond = (pixels < -RENDER_OVERSHOOT) | (pixels > 1 + RENDER_OVERSHOOT)
    few = np.isfinite(pixels).all() and beyond.mean() <= MAX_BEYOND
    arrays.check_range(np.clip(pixels, 0, 1) if few else pixels, RENDER_OVERSHOOT)
  return pixels if pixels.dtype == np.uint16 else arrays.as_uint8(pixels)


def _check_holds(format_name: str, pixels: NDArray) -> None:
  """Raises ValueError if a format cannot hold the pixels `[H, W, C]`."""
  height, width, channels = pixels.shape
  longest = LONGEST_SIDE.get(format_name, 2**31 - 1)
  if max(height, width) > longest:
    raise ValueError(f"got {width} x {height} pixels, expected sides of at most {longest} in {format_name}")
  if format_name == "JPEG" and channels in (2, 4):
    raise ValueError(f"got {channels} channels, expected 1 or 3: JPEG has no alpha; .png and .webp keep it")
  if pixels.dtype == np.uint16 and format_name != "PNG" and (format_name, channels) != ("TIFF", 1):
    raise ValueError(
      f"got uint16 in {channels} channels, expected uint8 in {format_name}: as_uint8 rounds, .png keeps 16 bits"
    )
