"""EXIF: how a picture lies, and what may be kept of it."""

from collections.abc import Callable

from numpy.typing import NDArray
from PIL import ImageFile

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

# TIFF's tags that say how pixels lie in the file and what their colours are, which is no metadata to keep.
TIFF_LAYOUT = {*range(254, 260), 262, 266, 273, 277, 278, 279, 284, 301, *range(317, 326), 338, 339, 347}
TIFF_LAYOUT |= {*range(529, 533), 34675}


def orientation(image: ImageFile.ImageFile, lines: list[str]) -> int:
  """EXIF's number for how the picture lies, 1 if it stands upright."""
  try:
    return image.getexif().get(ORIENTATION, 1)
  except Exception:  # whatever Pillow's parser runs into
    lines.append("EXIF data is damaged and left out: a rotation it may ask for is not applied")
    return 1


def to_keep(image: ImageFile.ImageFile) -> bytes:
  """EXIF data that still holds of upright pixels in another file."""
  try:
    exif = image.getexif()
    for tag in {ORIENTATION, *TIFF_LAYOUT} & set(exif):
      del exif[tag]
    return exif.tobytes() if exif else b""
  except Exception:  # whatever Pillow's parser runs into
    return b""
