"""From an opened file to its samples, in full depth, upright: where Pillow by itself errs or drops bytes."""

import os
import sys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

from gaussjax.image_io import exif, opening, png

# Samples that libtiff has brought into the machine's order already, which Pillow would swap once more.
NATIVE = {"I;16S": "I;16NS", "I;16BS": "I;16NS", "I;32S": "I;32NS", "I;32BS": "I;32NS", "F;32F": "F;32NF"}
NATIVE |= {"F;32BF": "F;32NF"}


class Samples(NamedTuple):
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
  white: int | None  # as of Samples


def unpacked(data: bytes, lines: list[str]) -> tuple[ImageFile.ImageFile, Samples]:
  """(Pillow's image for what it says of itself, the picture's samples), upright."""
  image = opening.opened(data)
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
    second = opening.opened(data)
    second.tile = plan.low
    _load(second)
    samples = _deep_samples(image, np.asarray(image), np.asarray(second), plan.white)
  turn = exif.TURNS.get(exif.orientation(image, lines), lambda pixels: pixels)
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
  if unknown := sum(kind == 0 for kind in opening.tag(image, 338, ())):
    lines.append(f"{unknown} samples a pixel of unknown meaning left out")
  return lines


def _depth(image: ImageFile.ImageFile, data: bytes) -> int:
  """Bits a sample of the file, where Pillow may read fewer."""
  if image.format == "PNG":
    return data[24]
  if image.format == "TIFF":
    return max(opening.tag(image, 258, (1,)))
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
  if (
    image.mode == "F" or image.mode == "I" or max(opening.tag(image, 339, (1,))) > 1
  ):  # TIFF: 2 is signed, 3 floats
    white = None
  elif image.mode.startswith("I;16"):
    white = 2 ** opening.tag(image, 258, (16,))[0] - 1
  if image.format == "PPM":
    return _ppm_plan(image, white)
  if image.format not in ("PNG", "TIFF"):
    return _Plan(image.tile, None, white)
  tiles = [_renamed(tile, _mended(_rawmode(tile), tile[0], image)) for tile in image.tile]
  planes = opening.tag(image, 284, 1) == 2 and tiles[0][0] == "libtiff"
  if planes and image.mode in ("LA", "La", "PA"):  # Pillow mixes these up
    raise opening.RefusedError(
      "a compressed TIFF of gray and alpha in separate planes is not read here; save it as a PNG"
    )
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
  if (
    len(rawmode) == 1 and image.mode in ("RGB", "RGBA") and opening.tag(image, 258, (8,))[0] == 16
  ):  # a plane of a TIFF
    return f"{rawmode.upper()};16{order}"
  return rawmode.replace("RGBa;16", "RGBA;16")


def _other_order(rawmode: str) -> str:
  """The name of 16-bit colour packed in the other order of bytes, other names as they are."""
  base, _, order = rawmode.partition(";16")
  if not order or base not in ("RGB", "RGBA", "RGBX", "R", "G", "B", "A", "X"):
    return rawmode
  native = {"little": "L", "big": "B"}[sys.byteorder]
  return f"{base};16{ {'L': 'B', 'B': 'L'}[order.replace('N', native)] }"


def _deep_samples(image: ImageFile.ImageFile, high: NDArray, low: NDArray, white: int | None) -> Samples:
  """16-bit colour from its high and low bytes `[H, W, C]`."""
  pixels = high.astype(np.uint16) << 8 | low
  if pixels.shape[-1] == 3:
    return Samples(pixels, _keyed(pixels, image.info.get("transparency")), "RGB", white)
  color, alpha = pixels[..., :3], pixels[..., 3:] / np.float32(65535)
  if 1 in opening.tag(image, 338, ()):  # colours that are multiplied with alpha
    with np.errstate(divide="ignore", invalid="ignore"):
      color = np.where(alpha > 0, np.minimum(color / alpha, 65535), 0).round().astype(np.uint16)
  return Samples(color, alpha, "RGB", white)


def _plain_samples(image: Image.Image, white: int | None, data: bytes) -> Samples:
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
    return Samples(pixels[..., :1].astype(np.uint16), pixels[..., 1:] / np.float32(65535), "L", 65535)
  return _gray_or_color(image, pixels, key, white, data)


def _gray_or_color(image: Image.Image, pixels: NDArray, key: Any, white: int | None, data: bytes) -> Samples:
  """Samples of Pillow's modes without a palette; `key` is the colour that is transparent, if any."""
  if pixels.ndim == 2:
    if white is None and pixels.dtype == np.uint8:  # a TIFF of signed samples
      pixels = pixels.view(np.int8)
    elif image.mode == "I" and image.format == "TIFF" and opening.tag(image, 339, (1,))[0] == 1:
      pixels = pixels.view(np.uint32)
    if image.format == "PNG" and isinstance(key, int):  # Pillow does not scale it as it scales samples
      key = int.from_bytes(png.chunks(data)[b"tRNS"][:2], "big") * (255 // (2 ** min(data[24], 8) - 1))
    inverted = image.mode[0] in "IF" and opening.tag(image, 262, 1) == 0  # likewise for gray of 8 bits only
    return Samples(pixels[..., None], _keyed(pixels[..., None], key), "L", white, inverted)
  if image.mode in ("LA", "RGBA"):
    return Samples(pixels[..., :-1], pixels[..., -1:] / np.float32(255), image.mode[:-1])
  return Samples(pixels, _keyed(pixels, key) if image.mode == "RGB" else None, image.mode, white)


def _keyed(pixels: NDArray, key: Any) -> NDArray | None:
  """Alpha `[H, W, 1]` of an image in which one colour is transparent."""
  if not isinstance(key, int | tuple):
    return None
  return np.any(pixels != np.asarray(key), axis=-1, keepdims=True).astype(np.float32)
