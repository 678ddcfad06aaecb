"""Sets of Gaussians on disk: the suffix says how."""

import os
from pathlib import Path

from gaussjax import files
from gaussjax.errors import FormatError
from gaussjax.gjx import container, npz, packing, search
from gaussjax.types import Gaussians

SUFFIXES = (".npz", ".gjx")


def save(path: str | os.PathLike, gaussians: Gaussians) -> None:
  """Writes a set with its canvas, whole or not at all: `.npz` without loss, `.gjx` small, as `encode` does.

  Raises ValueError for another suffix, and for a set that the file could not hold as it is; OSError.
  """
  suffix = _suffix(path)
  files.check_writable(path)  # an encoding takes a while
  files.write_whole(path, npz.dumps(gaussians) if suffix == ".npz" else search.encode(gaussians))  # type: ignore[arg-type]


def load(path: str | os.PathLike) -> Gaussians:
  """The set in a file, `.npz` or `.gjx`. Raises ValueError if there is none, FormatError for other bytes."""
  suffix = _suffix(path)
  data = files.read_bytes(path, most=container.LIMITS.file_bytes if suffix == ".gjx" else files.MOST_BYTES)
  try:
    return npz.loads(data) if suffix == ".npz" else packing.decode(data)[0]
  except FormatError as error:
    what = "not Gaussians written by save" if suffix == ".npz" else "not a .gjx file that can be read"
    raise FormatError(f"{path}: {what} ({error})") from error


def _suffix(path: str | os.PathLike) -> str:
  suffix = Path(path).suffix.lower()
  if suffix not in SUFFIXES:
    raise ValueError(f"got {path}, expected a name that ends in {' or '.join(SUFFIXES)}")
  return suffix
