"""Sets of Gaussians on disk and elsewhere: the suffix says how, of open files the first bytes do."""

from pathlib import PurePath

from gaussjax import files
from gaussjax.errors import FormatError
from gaussjax.gjx import container, npz, packing, search
from gaussjax.types import Gaussians

SUFFIXES = (".npz", ".gjx")


def save(path: files.Place, gaussians: Gaussians, *, suffix: str | None = None) -> None:
  """Writes a set with its canvas, whole or not at all: `.npz` without loss, `.gjx` small, as `encode` does.

  `path` may be an open file, which needs a `suffix` if it has no name, or an address for fsspec. Raises ValueError
  for another suffix, and for a set that the file could not hold as it is; OSError.
  """
  suffix = _suffix(path, suffix)
  files.check_writable(path)  # an encoding takes a while
  files.write_whole(path, npz.dumps(gaussians) if suffix == ".npz" else search.encode(gaussians))  # type: ignore[arg-type]


def load(path: files.Place) -> Gaussians:
  """The set in a file, `.npz` or `.gjx`: by path, address for fsspec, or open for bytes.

  Raises ValueError if there is none, FormatError for other bytes.
  """
  name = files.name_of(path)
  known = None if files.is_stream(path) else _suffix(path)
  most = container.LIMITS.file_bytes if known == ".gjx" else files.MOST_BYTES
  data = files.read_bytes(path, most=most)
  suffix = known or (".gjx" if data.startswith(container.SIGNATURES) else ".npz")
  try:
    return npz.loads(data) if suffix == ".npz" else packing.decode(data)[0]
  except FormatError as error:
    what = "not Gaussians written by save" if suffix == ".npz" else "not a .gjx file that can be read"
    raise FormatError(f"{name}: {what} ({error})") from error


def _suffix(path: files.Place, given: str | None = None) -> str:
  name = files.name_of(path)
  suffix = (PurePath(name).suffix if given is None else given).lower()
  if suffix not in SUFFIXES:
    expected = " or ".join(SUFFIXES)
    if given is not None or files.is_stream(path):
      raise ValueError(f"got the suffix {suffix!r} for {name}, expected suffix={expected}")
    raise ValueError(f"got {name}, expected a name that ends in {expected}")
  return suffix
