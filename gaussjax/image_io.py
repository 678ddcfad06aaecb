"""The only door for images: files and arrays come in here, and every file of pixels is written here.

A reader of this module's results may rely on it: float `[H, W, C]` in [0, 1], upright, in sRGB. What a conversion
changed of what is seen is said in a line each; what cannot be read right is refused with a ValueError of one line.
"""

import contextlib
import io
import logging
import os
import re
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin, UnidentifiedImageError

from gaussjax import files

MAX_PIXELS = 2**27  # 134 million: larger files are refused before they are decoded
MAX_BYTES = 2**30 + 2**20  # the largest picture with nothing compressed, at 8 bytes a pixel, and its metadata
MAX_CHANNELS = 32  # what a .gjx file holds

# How far outside [0, 1] an array may lie. A Lanczos filter overshoots an edge by a tenth and a corner by a fifth,
# and renders go somewhat further; a picture of 0 to 255, of -1 to 1 or of -0.5 to 0.5 goes beyond.
OVERSHOOT = 0.25
RENDER_OVERSHOOT = 0.5
MAX_BEYOND = 0.02  # of a render's numbers, which lie even further out where its Gaussians are few

ORIENTATION = 0x0112  # EXIF's tag

# Upright from each value of EXIF's tag of orientation.
TURNS: dict[int, Callable[[NDArray], NDArray]] = {
  2: lambda pixels: pixels[:, ::-1],
  3: lambda pixels: pixels[::-1, ::-1],
  4: lambda pixels: pixels[::-1],
  5: lambda pixels: pixels.swapaxes(0, 1),
  6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
  7: lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],
  8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}

# What files that are no images, or images of a kind that is not read here, begin with (after a number of bytes).
SIGNATURES = (
  (0, rb"%PDF", "a PDF document"),
  (0, rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript drawing"),
  (0, rb"\x8bGJX", "a .gjx file, which decode reads"),
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

# TIFF's tags that say how pixels lie in the file and what their colours are, which is no metadata to keep.
TIFF_LAYOUT = {*range(254, 260), 262, 266, 273, 277, 278, 279, 284, 301, *range(317, 326), 338, 339, 347}
TIFF_LAYOUT |= {*range(529, 533), 34675}

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
  "PNG": {},
  "JPEG": {"quality": 95, "subsampling": 0},
  "WEBP": {"lossless": True, "exact": True},
  "TIFF": {"compression": "tiff_deflate"},
}
LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}  # the codecs' limits

# Samples that libtiff has brought into the machine's order already, which Pillow would swap once more.
NATIVE = {"I;16S": "I;16NS", "I;16BS": "I;16NS", "I;32S": "I;32NS", "I;32BS": "I;32NS", "F;32F": "F;32NF"}
NATIVE |= {"F;32BF": "F;32NF"}

FloatImage = NDArray[np.float32]


class _Refused(ValueError):
  """What this module itself refuses, in words for the reader."""


class _Samples(NamedTuple):
  """A decoded picture, upright."""

  color: NDArray  # [H, W, C], of any dtype
  alpha: NDArray | None  # [H, W, 1] in [0, 1]
  space: str  # Pillow's mode of `color`: L, RGB, CMYK or LAB
  white: int | None = 255  # the sample that stands for 1; None: the greatest in the picture
  inverted: bool = False  # the least sample is white


class _Plan(NamedTuple):
  """How Pillow is told to unpack a file."""

  tiles: list  # its descriptors of where the pixels lie and how they are packed
  low: list | None  # those that give the low bytes where `tiles` gives the high bytes of 16-bit colour
  white: int | None  # as of _Samples


# --- Files in ---


def read_image(
  source: str | os.PathLike | bytes,
  *,
  name: str | None = None,
  keep_alpha: bool = False,
  background: float = 1.0,
  report_fn: Callable[[str], None] = lambda conversion: None,
) -> FloatImage:
  """Reads the first frame of an image file (or pipe), or of its bytes, as float32 `[H, W, C]` in [0, 1], in sRGB.

  C is 1 for gray and 3 for colour, plus 1 for alpha if `keep_alpha`; otherwise alpha is composited on a gray of
  `background` (1 is white). Unsigned samples of at most 16 bits are divided by their greatest value. Signed ones,
  those of 32 bits, and floats outside [0, 1] are scaled so that the least becomes 0 and the greatest 1; floats that
  overshoot [0, 1] by at most OVERSHOOT are clipped. Colours are converted to sRGB by the file's profile, and EXIF's
  rotation is applied.

  `report_fn` receives one line for each conversion that changes what is seen; errors speak of `name`. Raises
  ValueError, in one line, for what is not a readable and whole image of at most MAX_PIXELS.
  """
  data, name = _bytes_of(source, name)
  lines: list[str] = []
  with _decoding(name):
    image, samples = _samples(data, lines)
    lines += _unread_color_space(image, data)
    color = _to_srgb(samples, image.info.get("icc_profile"), lines)
    if samples.alpha is not None:
      color = _with_alpha(color, samples.alpha, keep_alpha, background, lines)
  for line in lines:
    report_fn(line)
  return color


def read_metadata(data: bytes) -> dict[str, bytes]:
  """EXIF and ICC profile of an image file's bytes, as far as they hold for the pixels that `read_image` returns.

  So EXIF comes without the rotation and without a TIFF's layout, and of profiles only sRGB's own. Metadata that is
  broken is left out. Raises ValueError for what is not an image.
  """
  with _decoding("the bytes given"):
    image = _opened(data)
    found = {"exif": _exif_to_keep(image)}
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "RGBA", "RGBX", "P") and _is_srgb(profile):
      found["icc"] = profile
  return {name: value for name, value in found.items() if value}


def _bytes_of(source: Any, name: str | None) -> tuple[bytes, str]:
  """(the file's bytes, what errors call it). Pipes can be read only once: whatever follows works on the bytes."""
  if isinstance(source, bytes | bytearray | memoryview):
    data, name = bytes(source), _one_line(name or "the bytes given")
  else:
    if not isinstance(source, str | os.PathLike):
      raise ValueError(f"got a source of type {type(source).__name__}, expected a path or an image file's bytes")
    name = _one_line(name or str(os.fspath(source)))
    try:
      with open(source, "rb") as file:
        data = bytes(_read_at_most(file, MAX_BYTES + 1))
    except FileNotFoundError:
      raise ValueError(f"got {name}, which does not exist; expected an image file") from None
    except IsADirectoryError:
      raise ValueError(f"got {name}, which is a folder, not a file; expected an image file") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
      reason = getattr(error, "strerror", None) or error
      raise ValueError(f"got {name}, which cannot be read ({_one_line(reason)}); expected an image file") from error
  if not data:
    raise ValueError(f"{name}: not a readable image: it is empty, 0 bytes long")
  if len(data) > MAX_BYTES:
    raise ValueError(f"{name}: got more than {MAX_BYTES} bytes, expected at most that many")
  return data, name


def _read_at_most(file: Any, count: int) -> bytearray:
  """The first `count` bytes, in pieces: `read(count)` would set the whole size aside at once."""
  data = bytearray()
  while len(data) < count and (piece := file.read(min(2**24, count - len(data)))):
    data += piece
  return data


@contextlib.contextmanager
def _decoding(name: str) -> Iterator[None]:
  """Turns whatever a decoder raises into a ValueError of one line with the file's `name`, and its warnings off."""
  silent, log = logging.NullHandler(), logging.getLogger("PIL")
  log.addHandler(silent)  # without any handler Python prints a library's log of errors
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      yield
  except MemoryError:
    raise
  except _Refused as error:
    raise ValueError(f"{name}: {error}") from error
  except Exception as error:  # Pillow's decoders raise SyntaxError, struct.error, OSError and others
    raise ValueError(f"{name}: not a readable image ({_one_line(error)})") from error
  finally:
    log.removeHandler(silent)


def _one_line(text: object) -> str:
  """A text's first line, or what it is if it has none."""
  lines = str(text).strip().splitlines()
  return lines[0] if lines else type(text).__name__


_bomb_limit = threading.Lock()


def _opened(data: bytes) -> ImageFile.ImageFile:
  """Pillow's image, its header read and its pixels not yet."""
  try:
    image = Image.open(io.BytesIO(data))
  except UnidentifiedImageError:
    raise _Refused(f"not a readable image: {_what_it_is(data)}") from None
  except Image.DecompressionBombError:  # its text lacks width and height
    with _bomb_limit:
      before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
      try:
        image = Image.open(io.BytesIO(data))
      finally:
        Image.MAX_IMAGE_PIXELS = before
  if image.format in ("EPS", "WMF"):  # drawn by other programs, if at all
    raise _Refused(f"not a readable image: a drawing in {image.format}")
  if image.width * image.height > MAX_PIXELS:
    raise _Refused(f"got {image.width} x {image.height} pixels, expected at most {MAX_PIXELS}")
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


# --- From a file to samples ---


def _samples(data: bytes, lines: list[str]) -> tuple[ImageFile.ImageFile, _Samples]:
  """(Pillow's image for what it says of itself, the picture's samples), upright."""
  image = _opened(data)
  lines += _left_out(image)
  depth = _depth(image, data)
  plan = _plan(image)
  image.tile = plan.tiles
  _load(image)
  if plan.low is None:
    samples = _plain_samples(image, plan.white, data)
    if depth > 8 and samples.color.dtype == np.uint8:
      lines.append(f"{depth} bits a sample read as 8 (the decoder's limit for images of this kind)")
  else:
    second = _opened(data)
    second.tile = plan.low
    _load(second)
    samples = _deep_samples(image, np.asarray(image), np.asarray(second), plan.white)
  turn = TURNS.get(_orientation(image, lines), lambda pixels: pixels)
  alpha = None if samples.alpha is None else turn(samples.alpha)
  return image, samples._replace(color=np.ascontiguousarray(turn(samples.color)), alpha=alpha)


def _load(image: ImageFile.ImageFile) -> None:
  """Decodes the pixels. Of compressed TIFFs libtiff prints what it does not like, past Python: kept off here."""
  try:
    stderr = os.dup(2) if image.tile and image.tile[0][0] == "libtiff" else None
  except OSError:  # there is none
    stderr = None
  if stderr is None:
    image.load()
    return
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, 2)
  try:
    image.load()
  finally:
    os.dup2(stderr, 2)
    os.close(stderr)
    os.close(nowhere)


def _left_out(image: ImageFile.ImageFile) -> list[str]:
  """What of the file is not read: other frames, sizes, samples."""
  lines, frames = [], getattr(image, "n_frames", 1)
  if image.format in ("ICO", "ICNS") and len(image.info["sizes"]) > 1:
    lines.append(f"largest of {len(image.info['sizes'])} sizes taken")
  elif frames > 1 and image.format != "PSD":  # whose frames are layers, and the first image all of them together
    lines.append(f"first of {frames} frames taken")
  if unknown := sum(kind == 0 for kind in _tag(image, 338, ())):
    lines.append(f"{unknown} samples a pixel of unknown meaning left out")
  return lines


def _tag(image: Image.Image, number: int, default: Any) -> Any:
  """A tag's value in a TIFF, `default` for other images."""
  return image.tag_v2.get(number, default) if isinstance(image, TiffImagePlugin.TiffImageFile) else default


def _depth(image: ImageFile.ImageFile, data: bytes) -> int:
  """Bits a sample of the file, where Pillow may read fewer."""
  if image.format == "PNG":
    return data[24]
  if image.format == "TIFF":
    return max(_tag(image, 258, (1,)))
  if image.format == "PPM" and image.mode == "RGB":
    return 16 if _maxval(image.tile[0]) > 255 else 8
  if image.format == "SGI":
    return 8 * data[3]
  if image.format == "JPEG2000" and (codestream := data.find(b"\xff\x4f\xff\x51")) >= 0:
    return (data[codestream + 42] & 0x7F) + 1
  if image.format == "AVIF" and (box := data.find(b"av1C")) >= 0:
    return {0x40: 10, 0x60: 12}.get(data[box + 6] & 0x60, 8)
  return 8


def _plan(image: ImageFile.ImageFile) -> _Plan:
  """How to unpack in full depth, and right, what Pillow by itself would not.

  Of 16-bit colour it keeps the high bytes. The same data unpacked in the other order of bytes gives the low ones.
  """
  white: int | None = 255
  if image.mode == "F" or image.mode == "I" or max(_tag(image, 339, (1,))) > 1:  # TIFF: 2 is signed, 3 floats
    white = None
  elif image.mode.startswith("I;16"):
    white = 2 ** _tag(image, 258, (16,))[0] - 1
  if image.format == "PPM":
    return _ppm_plan(image, white)
  if image.format not in ("PNG", "TIFF"):
    return _Plan(image.tile, None, white)
  tiles = [_renamed(tile, _mended(_rawmode(tile), tile[0], image)) for tile in image.tile]
  planes = _tag(image, 284, 1) == 2 and tiles[0][0] == "libtiff"
  if planes and image.mode in ("LA", "La", "PA"):  # Pillow mixes these up
    raise _Refused("a compressed TIFF of gray and alpha in separate planes is not read here; save it as a PNG")
  low = [_renamed(tile, _other_order(_rawmode(tile))) for tile in tiles]
  if low != tiles and not planes:  # of planes Pillow takes the high bytes, whatever it is told
    return _Plan(tiles, low, 65535)
  return _Plan(tiles, None, white)


def _ppm_plan(image: ImageFile.ImageFile, white: int | None) -> _Plan:
  """Binary samples as they are: Pillow's own scaling by the greatest is slow, and 8 bits deep for colour."""
  tile = image.tile[0]
  if tile[0] != "ppm":
    return _Plan(image.tile, None, 65535 if image.mode == "I" else white)
  white = _maxval(tile)
  rawmode = {"L": "L", "I": "I;16B"}.get(image.mode, "RGB;16B" if white > 255 else "RGB")
  tiles = [_repacked(tile, "raw", (name, 0, 1)) for name in (rawmode, _other_order(rawmode))]
  return _Plan(tiles[:1], tiles[1:] if tiles[0] != tiles[1] else None, white)


def _maxval(tile: Any) -> int:
  """The greatest sample of a PPM file, as its header says."""
  return 255 if tile[0] == "raw" else tile[3][-1]


def _rawmode(tile: Any) -> str:
  return tile[3] if isinstance(tile[3], str) else tile[3][0]


def _repacked(tile: Any, codec: str, arguments: Any) -> Any:
  """A tile that another decoder reads, or with other arguments: the first of them says how pixels are packed."""
  fields = (codec, *tile[1:3], arguments)
  return type(tile)(*fields) if hasattr(tile, "_fields") else fields


def _renamed(tile: Any, name: str) -> Any:
  """A tile whose pixels are packed as `name` says."""
  return _repacked(tile, tile[0], name if isinstance(tile[3], str) else (name, *tile[3][1:]))


def _mended(rawmode: str, codec: str, image: ImageFile.ImageFile) -> str:
  """Pillow's name for how samples are packed, where it errs or drops bytes."""
  if rawmode == "LA;16B":
    return "RGBA"  # all four bytes of gray and alpha
  order = "B" if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.prefix == b"MM" else "L"
  if codec == "libtiff":
    return NATIVE.get(rawmode, rawmode).replace("RGBa;16", "RGBA;16")
  if len(rawmode) == 1 and image.mode in ("RGB", "RGBA") and _tag(image, 258, (8,))[0] == 16:  # a plane of a TIFF
    return f"{rawmode.upper()};16{order}"
  return rawmode.replace("RGBa;16", "RGBA;16")


def _other_order(rawmode: str) -> str:
  """The name of 16-bit colour packed in the other order of bytes, other names as they are."""
  base, _, order = rawmode.partition(";16")
  if not order or base not in ("RGB", "RGBA", "RGBX", "R", "G", "B", "A", "X"):
    return rawmode
  native = {"little": "L", "big": "B"}[sys.byteorder]
  return f"{base};16{ {'L': 'B', 'B': 'L'}[order.replace('N', native)] }"


def _deep_samples(image: ImageFile.ImageFile, high: NDArray, low: NDArray, white: int | None) -> _Samples:
  """16-bit colour from its high and low bytes `[H, W, C]`."""
  pixels = high.astype(np.uint16) << 8 | low
  if pixels.shape[-1] == 3:
    return _Samples(pixels, _keyed(pixels, image.info.get("transparency")), "RGB", white)
  color, alpha = pixels[..., :3], pixels[..., 3:] / np.float32(65535)
  if 1 in _tag(image, 338, ()):  # colours that are multiplied with alpha
    with np.errstate(divide="ignore", invalid="ignore"):
      color = np.where(alpha > 0, np.minimum(color / alpha, 65535), 0).round().astype(np.uint16)
  return _Samples(color, alpha, "RGB", white)


def _plain_samples(image: Image.Image, white: int | None, data: bytes) -> _Samples:
  """A loaded image's samples, its palette looked up."""
  mode, key = image.mode, image.info.get("transparency")
  if mode == "P":
    has_alpha = key is not None or (image.palette is not None and image.palette.mode.endswith("A"))
    image = image.convert("RGBA" if has_alpha else "RGB")
  elif mode in ("La", "RGBa", "PA", "RGBX", "YCbCr", "HSV"):
    image = image.convert({"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}.get(mode, "RGB"))
  pixels = np.asarray(image)
  if pixels.dtype == bool:
    pixels = pixels.astype(np.uint8) * 255
  if image.format == "PNG" and data[24:26] == b"\x10\x04" and image.mode == "RGBA":  # gray and alpha, 16 bits each
    pixels = np.ascontiguousarray(pixels).view(">u2")
    return _Samples(pixels[..., :1].astype(np.uint16), pixels[..., 1:] / np.float32(65535), "L", 65535)
  return _gray_or_color(image, pixels, key, white, data)


def _gray_or_color(image: Image.Image, pixels: NDArray, key: Any, white: int | None, data: bytes) -> _Samples:
  """Samples of Pillow's modes without a palette; `key` is the colour that is transparent, if any."""
  if pixels.ndim == 2:
    if white is None and pixels.dtype == np.uint8:  # a TIFF of signed samples
      pixels = pixels.view(np.int8)
    elif image.mode == "I" and image.format == "TIFF" and _tag(image, 339, (1,))[0] == 1:
      pixels = pixels.view(np.uint32)
    if image.format == "PNG" and isinstance(key, int):  # Pillow does not scale it as it scales samples
      key = int.from_bytes(_png_chunks(data)[b"tRNS"][:2], "big") * (255 // (2 ** min(data[24], 8) - 1))
    inverted = image.mode[0] in "IF" and _tag(image, 262, 1) == 0  # likewise for gray of 8 bits only
    return _Samples(pixels[..., None], _keyed(pixels[..., None], key), "L", white, inverted)
  if image.mode in ("LA", "RGBA"):
    return _Samples(pixels[..., :-1], pixels[..., -1:] / np.float32(255), image.mode[:-1])
  return _Samples(pixels, _keyed(pixels, key) if image.mode == "RGB" else None, image.mode, white)


def _keyed(pixels: NDArray, key: Any) -> NDArray | None:
  """Alpha `[H, W, 1]` of an image in which one colour is transparent."""
  if not isinstance(key, int | tuple):
    return None
  return np.any(pixels != np.asarray(key), axis=-1, keepdims=True).astype(np.float32)


def _orientation(image: ImageFile.ImageFile, lines: list[str]) -> int:
  """EXIF's number for how the picture lies, 1 if it stands upright."""
  try:
    return image.getexif().get(ORIENTATION, 1)
  except Exception:  # whatever Pillow's parser runs into
    lines.append("EXIF data is damaged and left out: a rotation it may ask for is not applied")
    return 1


def _exif_to_keep(image: ImageFile.ImageFile) -> bytes:
  """EXIF data that still holds of upright pixels in another file."""
  try:
    exif = image.getexif()
    for tag in {ORIENTATION, *TIFF_LAYOUT} & set(exif):
      del exif[tag]
    return exif.tobytes() if exif else b""
  except Exception:  # whatever Pillow's parser runs into
    return b""


# --- From samples to sRGB ---


def _to_unit(samples: _Samples, lines: list[str]) -> FloatImage:
  """Samples of any type as float32 in [0, 1]."""
  color, white = samples.color, samples.white
  if white is not None:
    unit = np.minimum(color.astype(np.float32) / np.float32(white), 1)
  else:
    unit = _by_range(color, lines)
  return 1 - unit if samples.inverted else unit


def _by_range(color: NDArray, lines: list[str]) -> FloatImage:
  """Floats in [0, 1] as they are or clipped, other numbers by their range: the least becomes 0, the greatest 1."""
  bad = int(color.size - np.isfinite(color).sum())
  if bad:
    raise _Refused(f"got {bad} samples that are NaN or infinite, expected finite ones")
  low, high = float(color.min()), float(color.max())
  if color.dtype.kind == "f" and low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
    if low < 0 or high > 1:
      lines.append(f"samples from {low:g} to {high:g} clipped to 0 and 1")
    return np.clip(color, 0, 1).astype(np.float32)
  if low == high:
    raise _Refused(f"got samples that are all {low:g}, expected a range of them or floats in [0, 1]")
  lines.append(f"samples scaled by their range: {low:g} becomes 0, {high:g} becomes 1")
  return ((color.astype(np.float64) - low) / (high - low)).astype(np.float32)


def _to_srgb(samples: _Samples, icc: bytes | None, lines: list[str]) -> FloatImage:
  """The picture as `[H, W, 1]` or `[H, W, 3]` in sRGB, by the colour profile `icc` if it has one that fits."""
  color, space = _to_unit(samples, lines), samples.space
  transform = None
  if icc:
    try:
      if _profile_space(icc) in (space, "RGB" if space == "L" else space):
        if (transform := _srgb_transform(icc, space)) is None:
          return color
        said = f"colours converted to sRGB from the profile {_profile_name(icc)}"
      else:
        lines.append(f"colour profile for {_profile_space(icc)} left out: it does not fit pixels of {space}")
    except Exception:  # Pillow raises OSError, PyCMSError and others
      lines.append("colour profile is damaged and left out")
      transform = None
  if transform is None and space in ("L", "RGB"):
    return color
  if samples.color.dtype != np.uint8:
    lines.append("samples rounded to 8 bits for the conversion of colours")
  if transform is not None:
    lines.append(said)
  elif space == "LAB":
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    lines.append("LAB converted to sRGB")
  else:
    lines.append(f"{space} converted to RGB without a colour profile: colours are approximate")
  return _converted(as_uint8(color), space, transform)


def _converted(pixels: NDArray[np.uint8], space: str, transform: Any) -> FloatImage:
  """`pixels` through a transform of colours, Pillow's own if that is None; gray stays gray."""
  height, width, _ = pixels.shape
  image = Image.frombytes(space, (width, height), pixels.tobytes())
  if transform is None:
    image = image.convert("RGB")
  else:
    if transform.input_mode != space:  # gray with a profile for RGB
      image = image.convert(transform.input_mode)
    image = transform.apply(image)
  color = as_image(np.asarray(image))
  return color[..., 1:2] if space == "L" else color


def _profile_space(icc: bytes) -> str:
  """Pillow's mode of the pixels that a profile describes."""
  name = icc[16:20].decode("latin-1").strip()
  return {"GRAY": "L", "Lab": "LAB"}.get(name, name)


def _profile_name(icc: bytes | None) -> str:
  name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(icc or b"")))
  return " ".join(name.split()) or "without a name"


def _srgb_transform(icc: bytes, space: str) -> Any:
  """The transform to sRGB of pixels with a profile, None if it changes none by more than a level of 8 bits."""
  mode = _profile_space(icc)
  transform = ImageCms.buildTransform(
    ImageCms.ImageCmsProfile(io.BytesIO(icc)),
    ImageCms.createProfile("sRGB"),
    mode,
    "RGB",
    ImageCms.Intent.RELATIVE_COLORIMETRIC,
    ImageCms.Flags.BLACKPOINTCOMPENSATION,
  )
  if mode == "L" or (mode == "RGB" and space == "L"):
    probe = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
    probe, space = (probe, "L")
  elif mode == "RGB":
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    probe = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
  else:
    return transform
  change = np.abs(_converted(probe, space, transform) - as_image(probe)).max()
  return transform if change > 1.5 / 255 else None


def _is_srgb(icc: bytes) -> bool:
  """Whether a profile is for RGB and describes sRGB's colours."""
  try:
    return _profile_space(icc) == "RGB" and _srgb_transform(icc, "RGB") is None
  except Exception:  # Pillow raises OSError, PyCMSError and others
    return False


def _with_alpha(
  color: FloatImage, alpha: NDArray, keep_alpha: bool, background: float, lines: list[str]
) -> FloatImage:
  alpha = alpha.astype(np.float32)
  if keep_alpha:
    return np.concatenate([color, alpha], axis=-1)
  if alpha.min() == 1:
    return color
  lines.append(f"alpha composited on a background of {background:g}")
  return color * alpha + np.float32(background) * (1 - alpha)


def _unread_color_space(image: ImageFile.ImageFile, data: bytes) -> list[str]:
  """A line for what EXIF or a PNG's chunks say of colours and nothing here heeds."""
  with contextlib.suppress(Exception):  # damaged EXIF data
    if not image.info.get("icc_profile") and image.getexif().get_ifd(0xA005).get(1) == "R03":
      return ["EXIF says Adobe RGB, and there is no profile: colours taken as sRGB"]
  chunks = _png_chunks(data)
  if len(code := chunks.get(b"cICP", b"")) == 4 and code[:2] != b"\x01\x0d" and b"iCCP" not in chunks:
    return [f"colour space (cICP chunk: primaries {code[0]}, transfer {code[1]}) left out: colours taken as sRGB"]
  if {b"iCCP", b"sRGB", b"cICP"} & set(chunks):
    return []
  lines = []
  if len(gamma := chunks.get(b"gAMA", b"")) == 4:
    value = int.from_bytes(gamma, "big") / 100_000
    if abs(value - 1 / 2.2) > 0.01:
      lines.append(f"gamma of {value:g} (gAMA chunk) left out: colours taken as sRGB")
  if len(primaries := chunks.get(b"cHRM", b"")) == 32:
    found = np.frombuffer(primaries, ">u4") / 100_000
    if np.abs(found - [0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06]).max() > 0.005:
      lines.append("primaries (cHRM chunk) left out: colours taken as sRGB")
  return lines


def _png_chunks(data: bytes) -> dict[bytes, bytes]:
  """A PNG's chunks before its pixels, by name."""
  found: dict[bytes, bytes] = {}
  position = len(PNG_SIGNATURE)
  while data.startswith(PNG_SIGNATURE) and position + 8 <= len(data):
    length, kind = struct.unpack_from(">I4s", data, position)
    if kind in (b"IDAT", b"IEND"):
      break
    found[kind] = data[position + 8 : position + 8 + length]
    position += 12 + length
  return found


# --- Arrays in ---


def as_image(pixels: ArrayLike) -> FloatImage:
  """An array `[H, W]` or `[H, W, C]` as float `[H, W, C]`: the one door for arrays.

  uint8 and uint16 are divided by their greatest value, bool becomes 0 and 1; float64 stays float64, other floats
  become float32. Floats are taken as they are and must lie in [0, 1], give or take OVERSHOOT, which leaves room for
  what resampling does. Raises ValueError for other dtypes, ranges, ranks and layouts, images of no pixels or more
  than MAX_CHANNELS, masked values and numbers that are not finite.
  """
  pixels = _as_array(pixels)
  if pixels.dtype == bool:
    return pixels.astype(np.float32)
  if pixels.dtype.kind == "u":
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
  _check_range(pixels, OVERSHOOT)
  return pixels if pixels.dtype == np.float64 else pixels.astype(np.float32, copy=False)


def _as_array(pixels: Any) -> NDArray:
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
      f"got {type(pixels).__name__} that is no array ({_one_line(error)}), expected uint8, uint16 or floats"
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


def _check_range(pixels: NDArray, overshoot: float) -> None:
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


# --- Pictures out ---


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


def write_image(path: str | os.PathLike, image: ArrayLike) -> None:
  """Writes `[H, W]` or `[H, W, C]` in the format of the path's suffix, whole or not at all.

  The suffixes: .png, .jpg, .jpeg, .webp, .tif, .tiff. C is 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha).
  uint8 is written as it is, and uint16 where the format has 16 bits: PNG, and TIFF for gray. Floats in [0, 1]
  are clipped and rounded to 8 bits; all but MAX_BEYOND of them lie within RENDER_OVERSHOOT of that range. All
  formats keep these values but JPEG, which is
  written at quality 95 with colour in full resolution. WebP has no gray: it is written as RGB.

  Raises ValueError for another suffix and for what the format cannot hold.
  """
  path = Path(path)
  if path.suffix.lower() not in FORMATS:
    raise ValueError(f"got {path}, expected a name that ends in one of {', '.join(FORMATS)}")
  try:
    data = image_bytes(image, path.suffix)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error
  files.write_whole(path, data)


def image_bytes(image: ArrayLike, suffix: str, *, metadata: dict[str, bytes] | None = None) -> bytes:
  """The bytes that `write_image` writes for a `suffix`, with `metadata` as of `read_metadata`.

  A colour profile that is not for pixels of these channels is left out. Raises ValueError as `write_image` does.
  """
  format_name, pixels = FORMATS[suffix.lower()], _to_write(image)
  height, width, channels = pixels.shape
  _check_holds(format_name, pixels)
  kept = dict(metadata or {})
  if "icc" in kept and _profile_space(kept["icc"]) != ("L" if channels < 3 else "RGB"):
    del kept["icc"]
  if pixels.dtype == np.uint16 and format_name == "PNG":
    return _png_of_16_bits(pixels, kept)
  names = {"exif": "exif", "icc": "icc_profile"}
  options: dict[str, Any] = {names[kind]: data for kind, data in kept.items() if kind in names}
  file = io.BytesIO()
  picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels))
  picture.save(file, format_name, **SAVE_OPTIONS[format_name], **options)
  return file.getvalue()


def _to_write(image: ArrayLike) -> NDArray:
  """uint8 or uint16 `[H, W, C]`, C in 1 to 4."""
  pixels = _as_array(image)
  if pixels.shape[2] > 4:
    raise ValueError(f"got an image of shape {pixels.shape}, expected [H, W, C] of 1 to 4 channels C")
  if pixels.dtype.kind == "f":
    beyond = (pixels < -RENDER_OVERSHOOT) | (pixels > 1 + RENDER_OVERSHOOT)
    few = np.isfinite(pixels).all() and beyond.mean() <= MAX_BEYOND
    _check_range(np.clip(pixels, 0, 1) if few else pixels, RENDER_OVERSHOOT)
  return pixels if pixels.dtype == np.uint16 else as_uint8(pixels)


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


def _png_of_16_bits(pixels: NDArray[np.uint16], metadata: dict[str, bytes]) -> bytes:
  """A PNG of `[H, W, C]` by hand: Pillow writes colour at 8 bits only."""
  height, width, channels = pixels.shape
  color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
  rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
  filtered = rows.copy()
  filtered[:, 2 * channels :] -= rows[:, : -2 * channels]  # the filter "Sub", type 1: differences from the left
  body = np.insert(filtered, 0, 1, axis=1).tobytes()
  chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))]
  if "icc" in metadata:
    chunks.append((b"iCCP", b"ICC\0\0" + zlib.compress(metadata["icc"])))
  if "exif" in metadata:
    chunks.append((b"eXIf", metadata["exif"].removeprefix(b"Exif\0\0")))
  chunks += [(b"IDAT", zlib.compress(body)), (b"IEND", b"")]
  parts = [
    struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
  ]
  return PNG_SIGNATURE + b"".join(parts)
