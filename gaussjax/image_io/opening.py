"""Files of images up to their header: bytes, whatever they come from, and what they are if no image."""

import contextlib
import io
import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from gaussjax import files
from gaussjax.image_io import arrays

MAX_BYTES = 2**30 + 2**20  # the largest picture with nothing compressed, at 8 bytes a pixel, and its metadata

GJX = b"\x8bG"

# What files that are no images, or images of a kind that is not read here, begin with (after a number of bytes).
SIGNATURES = (
  (0, rb"%PDF", "a PDF document"),
  (0, rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript drawing"),
  (0, GJX, "a .gjx file, which decode reads"),
  (4, rb"ftyp(hei|hev|mif1|msf1)", "a HEIC image"),
  (4, rb"ftypavi", "an AVIF image, which this build of Pillow does not read"),
  (4, rb"ftypcrx|JXL ", "a raw or JPEG XL image"),
  (4, rb"ftyp", "a video"),
  (0, rb"\xff\x0a", "a JPEG XL image"),
  (0, rb"MM\0\+", "a BigTIFF of big-endian numbers"),
  (0, rb"v/1\x01", "an OpenEXR image"),
  (0, rb"#\?R", "a Radiance HDR image"),
  (0, rb"\x1aE\xdf\xa3|RIFF....AVI ", "a video"),
  (0, rb"PK\x03\x04|\x1f\x8b|BZh|7z\xbc\xaf|\xfd7zXZ|Rar!", "an archive or a compressed file"),
  (0, rb"\x93NUMPY", "a NumPy array; hand over the array itself"),
  (0, rb"(?s)\s*(\xef\xbb\xbf)?\s*<.{0,2000}?<svg|\s*<svg", "an SVG drawing"),
  (0, rb"(?i)\s*<(!doctype )?html", "an HTML page"),
)


class RefusedError(ValueError):
  """What this module itself refuses, in words for the reader."""


def bytes_of(source: Any, name: str | None) -> tuple[bytes, str]:
  """(the file's bytes, what errors call it). Pipes can be read only once: whatever follows works on the bytes."""
  if isinstance(source, bytes | bytearray | memoryview):
    data, name = bytes(source), arrays.one_line(name or "the bytes given")
  elif files.is_stream(source) or files.is_url(source):
    name = arrays.one_line(name or files.name_of(source))
    data = files.read_bytes(source, most=MAX_BYTES)
  else:
    data, name = _bytes_of_path(source, name)
  if not data:
    raise ValueError(f"{name}: not a readable image: it is empty, 0 bytes long")
  if len(data) > MAX_BYTES:
    raise ValueError(f"{name}: got more than {MAX_BYTES} bytes, expected at most that many")
  return data, name


def _bytes_of_path(source: Any, name: str | None) -> tuple[bytes, str]:
  if not isinstance(source, str | os.PathLike):
    raise ValueError(
      f"got a source of type {type(source).__name__}, expected a path, an open file or an image file's bytes"
    )
  name = arrays.one_line(name or str(os.fspath(source)))
  try:
    if os.path.isdir(source):  # which Windows calls a permission that is denied
      raise IsADirectoryError
    with open(source, "rb") as file:
      return bytes(_read_at_most(file, MAX_BYTES + 1)), name
  except FileNotFoundError:
    raise ValueError(f"got {name}, which does not exist; expected an image file") from None
  except IsADirectoryError:
    raise ValueError(f"got {name}, which is a folder, not a file; expected an image file") from None
  except (OSError, ValueError) as error:  # ValueError: a null character in the path
    reason = getattr(error, "strerror", None) or error
    raise ValueError(
      f"got {name}, which cannot be read ({arrays.one_line(reason)}); expected an image file"
    ) from error


def _read_at_most(file: Any, count: int) -> bytearray:
  """The first `count` bytes, in pieces: `read(count)` would set the whole size aside at once."""
  data = bytearray()
  while len(data) < count and (piece := file.read(min(2**24, count - len(data)))):
    data += piece
  return data


@contextlib.contextmanager
def decoding(name: str) -> Iterator[None]:
  """Turns whatever a decoder raises into a ValueError of one line with the file's `name`, and its warnings off."""
  silent, log = logging.NullHandler(), logging.getLogger("PIL")
  log.addHandler(silent)  # without any handler Python prints a library's log of errors
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      yield
  except MemoryError:
    raise
  except RefusedError as error:
    raise ValueError(f"{name}: {error}") from error
  except Exception as error:  # Pillow's decoders raise SyntaxError, struct.error, OSError and others
    raise ValueError(f"{name}: not a readable image ({arrays.one_line(error)})") from error
  finally:
    log.removeHandler(silent)


_bomb_limit = threading.Lock()


def opened(data: bytes) -> ImageFile.ImageFile:
  """Pillow's image, its header read and its pixels not yet."""
  if data.startswith(GJX):  # which Pillow opens after register_pillow
    raise RefusedError(f"not a readable image: {_what_it_is(data)}")
  try:
    image = Image.open(io.BytesIO(data))
  except UnidentifiedImageError:
    raise RefusedError(f"not a readable image: {_what_it_is(data)}") from None
  except Image.DecompressionBombError:  # its text lacks width and height
    with _bomb_limit:
      before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
      try:
        image = Image.open(io.BytesIO(data))
      finally:
        Image.MAX_IMAGE_PIXELS = before
  if image.format in ("EPS", "WMF"):  # drawn by other programs, if at all
    raise RefusedError(f"not a readable image: a drawing in {image.format}")
  if image.width * image.height > arrays.MAX_PIXELS:
    raise RefusedError(f"got {image.width} x {image.height} pixels, expected at most {arrays.MAX_PIXELS}")
  return image


def _what_it_is(data: bytes) -> str:
  for offset, pattern, kind in SIGNATURES:
    if re.match(pattern, data[offset : offset + 2**12]):
      return kind
  if data[:4] in (b"II*\0", b"MM\0*"):
    return _tiff_kind(data)
  return "no format that Pillow knows (such as PNG, JPEG, WebP, TIFF, GIF or BMP)"


def _tiff_kind(data: bytes) -> str:
  """What samples a TIFF holds, for one that Pillow cannot open."""
  try:
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
    stream = io.BytesIO(data)
    stream.seek(tags.next)
    tags.load(stream)
    bits, form = tags.get(258, (1,))[0], tags.get(339, (1,))[0]
    samples = {1: "unsigned integers", 2: "signed integers", 3: "floats"}.get(form, "samples")
    kind = f"a TIFF of {bits}-bit {samples}, {tags.get(277, 1)} a pixel"
  except Exception:  # a directory that is broken in any way
    return "a damaged TIFF"
  return f"{kind}; save it as gray or RGB, 8 or 16 bits a sample, 0 for black"


def tag(image: Image.Image, number: int, default: Any) -> Any:
  """A tag's value in a TIFF, `default` for other images."""
  return image.tag_v2.get(number, default) if isinstance(image, TiffImagePlugin.TiffImageFile) else default
