"""Files are read within bounds, and written whole or not at all."""

import contextlib
import io
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussjax.errors import FormatError

MOST_BYTES = 1 << 30  # of a file, and of what an archive may hold when it is unpacked
MOST_MEMBERS = 1024
TEMPORARY = ".gaussjax-"  # begins the names of files that are being written
CENTRAL_ENTRY = b"PK\x01\x02"  # begins each member's entry in a zip archive's directory


def read_bytes(path: str | os.PathLike, *, most: int = MOST_BYTES) -> bytes:
  """All of a file, pipe or device. Raises ValueError if it cannot be read or has more than `most` bytes."""
  parts, left = list[bytes](), most + 1
  try:
    with open(path, "rb") as file:
      while left and (part := file.read(min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
  except OSError as error:
    raise ValueError(f"got {path}, which is not a file that can be read ({error.strerror})") from error
  if not left:
    raise ValueError(f"got {path}, which has more than {most} bytes")
  return b"".join(parts)


def check_writable(path: str | os.PathLike) -> None:
  """Before long work: that `write_whole` may write `path`. Raises ValueError.

  It creates a file and removes it, since modes do not bind every user, nor tell of a disk that is read-only.
  """
  try:
    if os.path.isdir(path):
      raise ValueError(f"got {path}, which is a folder; expected the name of a file")
    if is_regular(path):
      target = os.path.realpath(path)
      if not os.path.isdir(os.path.dirname(target)):
        raise ValueError(f"got {path}, whose folder does not exist")
      with contextlib.suppress(FileNotFoundError):
        os.lstat(target)  # too long a name
      with tempfile.TemporaryFile(dir=os.path.dirname(target)):
        pass
  except OSError as error:
    raise ValueError(f"got {path}, which cannot be written ({error.strerror})") from error


def is_regular(path: str | os.PathLike) -> bool:
  """Not a folder, not a pipe or a device, which are written to and never replaced; it need not be there."""
  return os.path.isfile(path) or not os.path.exists(path)


def write_whole(path: str | os.PathLike, data: bytes) -> None:
  """Writes to a temporary name in the same folder, then renames over `path`: a crash leaves the old file.

  Where `path` is a link, what it leads to is replaced. A pipe or a device is written to. Raises OSError.
  """
  try:
    if is_regular(path):
      _replace(os.path.realpath(path), data)
    else:
      with open(path, "wb") as file:
        file.write(data)
  except OSError as error:  # of a full disk it has no name, of a rename the temporary one
    raise OSError(error.errno, error.strerror, str(path)) from error


def _replace(target: str, data: bytes) -> None:
  handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=TEMPORARY)
  try:
    with os.fdopen(handle, "wb") as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(temporary, 0o666 & ~current_umask())  # mkstemp's 0600 would surprise whoever shares the folder
    os.replace(temporary, target)
  except BaseException:
    os.unlink(temporary)
    raise


def current_umask() -> int:
  """The process's umask, which can only be read by setting it."""
  mask = os.umask(0)
  os.umask(mask)
  return mask


def npz_bytes(header: dict[str, Any], arrays: Mapping[str, ArrayLike]) -> bytes:
  """An archive of arrays by name, with a `header` that JSON can hold."""
  buffer = io.BytesIO()
  np.savez(buffer, header=np.array(json.dumps(header)), **{name: np.asarray(a) for name, a in arrays.items()})  # type: ignore[arg-type]
  return buffer.getvalue()


def opened_zip(data: bytes) -> zipfile.ZipFile:
  """A stranger's archive, of which nothing is unpacked yet.

  Raises FormatError for more than MOST_MEMBERS members, and whatever zipfile does for what is no archive.
  """
  if data.count(CENTRAL_ENTRY) > MOST_MEMBERS:  # zipfile makes an object of each
    raise FormatError(f"got an archive of more than {MOST_MEMBERS} members")
  return zipfile.ZipFile(io.BytesIO(data))


def check_unpacked(archive: zipfile.ZipFile, most: int = MOST_BYTES) -> None:
  """Raises FormatError for an archive that holds more than `most` bytes when it is unpacked."""
  size = sum(member.file_size for member in archive.infolist())
  if size > most:
    raise FormatError(f"got an archive of {size} bytes when unpacked, expected at most {most}")


def read_npz(data: bytes, *, most: int = MOST_BYTES) -> tuple[dict[str, Any], dict[str, NDArray]]:
  """(header, arrays by name) of what `npz_bytes` wrote, or of what a stranger made up.

  Names, sizes and types are checked before anything is unpacked, of which there are at most `most` bytes. Raises
  FormatError for all else: arrays that would need pickle, two of one name, shapes that do not fit their bytes.
  """
  try:
    with opened_zip(data) as archive:
      members = archive.infolist()
      _check_members(members)
      check_unpacked(archive, most)
      arrays = {member.filename[: -len(".npy")]: _array(archive.read(member)) for member in members}
    text = arrays.pop("header", None)
    if text is None or text.shape or text.dtype.kind != "U":
      raise FormatError("got an archive without a text named header")
    header = json.loads(text.item())
  except FormatError:
    raise
  except (
    Exception
  ) as error:  # zipfile and numpy raise zlib.error, struct.error, NotImplementedError and many others
    words = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise FormatError(f"not a whole archive ({words[:200]})") from error
  if not isinstance(header, dict):
    raise FormatError(f"got a header that is {type(header).__name__}, expected a JSON object")
  return header, arrays


def _check_members(members: list[zipfile.ZipInfo]) -> None:
  names = [member.filename for member in members]
  if len(set(names)) < len(names):
    raise FormatError("got an archive with two members of one name")
  for member in members:
    name, ending = member.filename[:-4], member.filename[-4:]
    if ending != ".npy" or not name.isidentifier() or not name.isascii():
      raise FormatError(f"got the member {member.filename[:80]!r}, expected arrays NAME.npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise FormatError(f"got {member.filename} packed by method {member.compress_type}, expected 0 or 8")


def _array(content: bytes) -> NDArray:
  """The array in the bytes of a .npy file, native, of numbers or text. Raises whatever numpy does."""
  stream = io.BytesIO(content)
  version = np.lib.format.read_magic(stream)
  if version != (1, 0):
    raise FormatError(f"got an array in version {version} of its format, expected 1.0")
  shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
  if dtype.kind not in "fiubU" or dtype.itemsize == 0:
    raise FormatError(f"got an array of {dtype}, expected numbers or text")
  begin = stream.tell()
  if math.prod(shape) * dtype.itemsize != len(content) - begin:
    raise FormatError(f"got an array of shape {shape} and {dtype} in {len(content) - begin} bytes")
  array = np.ndarray(shape, dtype, content, begin, order="F" if fortran else "C")
  return array.astype(dtype.newbyteorder("="), order="C")
