"""The only door for images: one strict loader that says every conversion it made, and a writer of PNG."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from gaussjax import files

MAX_PIXELS = 2**27  # 134 million: larger files are refused before they are decoded

ORIENTATION = 0x0112  # EXIF's tag

FloatImage = NDArray[np.float32]


def read_image(
  source: str | os.PathLike | bytes,
  *,
  name: str | None = None,
  keep_alpha: bool = False,
  background: float = 1.0,
  report_fn: Callable[[str], None] = lambda conversion: None,
) -> FloatImage:
  """Reads the first frame of an image file, or of its bytes, as float32 `[H, W, C]` in [0, 1].

  C is 1 for gray and 3 for colour, plus 1 for alpha if `keep_alpha`; otherwise alpha is composited on a gray of
  `background` (1 is white). EXIF rotation is applied. `report_fn` receives one line for each conversion made;
  errors speak of `name`. Raises ValueError, in one line, for what is not a readable image of at most MAX_PIXELS.
  """
  if not isinstance(source, bytes):
    source = Path(source)
    if not source.exists():
      raise ValueError(f"got {source}, which does not exist; expected an image file")
    if not source.is_file():
      raise ValueError(f"got {source}, which is not a file; expected an image file")
  name = name or ("the bytes given" if isinstance(source, bytes) else str(source))
  try:
    pixels = _decode(source, report_fn)
  except ValueError as error:
    raise ValueError(f"{name}: {error}") from error
  except Exception as error:  # Pillow's decoders raise SyntaxError, struct.error, OSError and others
    raise ValueError(f"{name}: not a readable image ({_first_line(error)})") from error
  image = as_image(pixels)
  if image.shape[2] in (2, 4) and not keep_alpha:
    report_fn(f"alpha composited on a background of {background:g}")
    color, alpha = image[..., :-1], image[..., -1:]
    image = color * alpha + np.float32(background) * (1 - alpha)
  return image


def _decode(source: Path | bytes, report_fn: Callable[[str], None]) -> NDArray:
  """Integers `[H, W]` or `[H, W, C]`, upright, of gray, gray and alpha, RGB, or RGB and alpha."""
  file: Any
  with iio.imopen(source, "r", plugin="pillow") as file:
    metadata = file.metadata(index=0, exclude_applied=False)
    width, height = metadata["shape"]
    if width * height > MAX_PIXELS:
      raise ValueError(f"got {width} x {height} pixels, expected at most {MAX_PIXELS}")
    frames = file.properties(index=...).n_images or 1
    if frames > 1:
      report_fn(f"first of {frames} frames taken")
    mode_found = metadata["mode"]
    transparent = "transparency" in metadata
    mode = _target_mode(mode_found, transparent)
    if mode != mode_found:
      report_fn(f"{mode_found}{' with a transparent colour' if transparent else ''} converted to {mode}")
    if _is_16_bit_color_png(source):
      report_fn("16 bits a sample read as 8 (the decoder's limit for colour and for gray with alpha)")
    if metadata.get("Orientation", 1) != 1 or metadata.get("orientation", 1) != 1:
      report_fn("EXIF rotation applied")
    pixels = file.read(index=0, mode=mode if mode != mode_found else None, rotate=True)
  if pixels.dtype == np.int32:  # Pillow's mode I, which holds 16-bit samples
    if pixels.min() < 0 or pixels.max() > 65535:
      raise ValueError("got samples outside 16 bits, expected 8 or 16 bits")
    pixels = pixels.astype(np.uint16)
  if pixels.dtype == bool:
    pixels = pixels.astype(np.uint8) * 255
  return pixels


def _target_mode(source: str, transparent: bool) -> str:
  """The Pillow mode in which a file of mode `source` is read."""
  if source in ("L", "LA", "RGB", "RGBA", "I;16", "I;16B", "I;16L", "I", "F") and not transparent:
    return source
  if source in ("L", "1"):
    return "LA" if transparent else "L"
  if source == "PA" or transparent:
    return "RGBA"
  return "RGB"  # palettes, CMYK, YCbCr, LAB, HSV


def _is_16_bit_color_png(source: Path | bytes) -> bool:
  """Whether the IHDR chunk says 16 bits a sample of gray and alpha, RGB or RGBA: Pillow drops the low bytes."""
  if isinstance(source, bytes):
    head = source[:26]
  else:
    with source.open("rb") as file:
      head = file.read(26)
  return head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 26 and head[24] == 16 and head[25] in (2, 4, 6)


def as_image(pixels: ArrayLike) -> FloatImage:
  """An array `[H, W]` or `[H, W, C]` as float `[H, W, C]`: uint8 and uint16 are divided by their greatest value.

  float64 stays float64, other floats become float32. Raises ValueError for other dtypes or ranks, images of no
  pixels, and numbers that are not finite.
  """
  pixels = np.asarray(pixels)
  if pixels.ndim == 2:
    pixels = pixels[..., None]
  if pixels.ndim != 3 or 0 in pixels.shape:
    raise ValueError(f"got an image of shape {pixels.shape}, expected [H, W] or [H, W, C] with no dimension of 0")
  if pixels.dtype in (np.uint8, np.uint16):
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
  if not np.issubdtype(pixels.dtype, np.floating):
    raise ValueError(f"got an image of {pixels.dtype}, expected uint8, uint16 or floating point in [0, 1]")
  bad = int(pixels.size - np.isfinite(pixels).sum())
  if bad:
    raise ValueError(f"got an image with {bad} values that are NaN or infinite, expected finite values in [0, 1]")
  return pixels if pixels.dtype == np.float64 else pixels.astype(np.float32)


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
  """Clipped to [0, 1] and rounded to 8 bits."""
  return np.round(np.clip(np.asarray(image), 0, 1) * 255).astype(np.uint8)


def write_png(path: str | os.PathLike, image: ArrayLike) -> None:
  """Writes `[H, W, C]` in [0, 1] as an 8-bit PNG, C in 1 to 4; whole or not at all."""
  files.write_whole(path, encode_png(image))


def encode_png(image: ArrayLike, *, metadata: dict[str, bytes] | None = None) -> bytes:
  """`[H, W, C]` in [0, 1] as the bytes of an 8-bit PNG, C in 1 to 4, with `metadata` as of `read_metadata`."""
  pixels = as_uint8(image)
  if pixels.shape[-1] == 1:
    pixels = pixels[..., 0]
  names = {"exif": "exif", "icc": "icc_profile"}
  kept: dict[str, Any] = {names[kind]: data for kind, data in (metadata or {}).items() if kind in names}
  return iio.imwrite("<bytes>", pixels, extension=".png", plugin="pillow", **kept)


def read_metadata(data: bytes) -> dict[str, bytes]:
  """EXIF (without the rotation, which `read_image` applies) and ICC profile of an image file's bytes, if any."""
  with Image.open(io.BytesIO(data)) as image:
    exif, profile = image.getexif(), image.info.get("icc_profile")
  exif.pop(ORIENTATION, None)
  found = {"exif": exif.tobytes() if exif else b"", "icc": profile or b""}
  return {name: value for name, value in found.items() if value}


def _first_line(error: BaseException) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0]
