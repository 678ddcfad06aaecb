"""Files are written whole or not at all."""

import os
import tempfile
from pathlib import Path


def write_whole(path: str | os.PathLike, data: bytes) -> None:
  """Writes to a temporary name in the same folder, then renames over `path`: a crash leaves the old file."""
  path = Path(path)
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
  try:
    with os.fdopen(handle, "wb") as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(temporary, 0o666 & ~current_umask())  # mkstemp's 0600 would surprise whoever shares the folder
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise


def current_umask() -> int:
  """The process's umask, which can only be read by setting it."""
  mask = os.umask(0)
  os.umask(mask)
  return mask
