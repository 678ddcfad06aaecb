"""Small pictures of results for the pages of reports: an original, and what was made of it."""

from pathlib import Path
from typing import Any

LONGEST = 320  # pixels of the longer side
SUFFIX = ".jpg"


def folder_of(rows: Path) -> Path:
  """Where the pictures of a rows' file are."""
  return rows.parent / f"{rows.stem}-pictures"


def keep(folder: Path | None, name: str, image: Any, drawn: Any) -> None:
  """Writes an `image` and what was `drawn`, `[H, W, C]` in [0, 1], under a name; without a folder nothing."""
  from gaussjax import files

  if folder is None:
    return
  folder.mkdir(parents=True, exist_ok=True)
  for end, picture in (("original", image), ("drawn", drawn)):
    files.write_whole(folder / f"{name}-{end}{SUFFIX}", small(picture))


def small(picture: Any) -> bytes:
  """The JPEG of a picture, no longer than LONGEST."""
  import numpy as np

  from gaussjax import image_io

  pixels = np.clip(np.asarray(picture), 0, 1)[..., :3]
  height, width = pixels.shape[:2]
  by = min(1.0, LONGEST / max(height, width))
  size = max(1, round(height * by)), max(1, round(width * by))
  return image_io.image_bytes(
    image_io.as_uint8(image_io.resize(pixels[..., : 3 if pixels.shape[-1] == 3 else 1], *size)), SUFFIX
  )


def pair(folder: Path, name: str, words: str) -> Any:
  """The two pictures under a name for a page, None where there are none."""
  from gaussjax.web import pages, reports

  paths = [folder / f"{name}-{end}{SUFFIX}" for end in ("original", "drawn")]
  if not all(path.is_file() for path in paths):
    return None
  original, drawn = (pages.address(path.read_bytes(), "image/jpeg") for path in paths)
  return reports.Pair(original, drawn, words)
