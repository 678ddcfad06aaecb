"""Files are read within bounds, and written whole or not at all.

A place is a path, a file that is open for bytes, or an address such as "s3://bucket/photo.gjx" or "memory://set.npz",
which fsspec (the extra of that name) reads and writes.
"""

import contextlib
import io
import json
import math
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussjax.errors import FormatError, one_line

Place = str | os.PathLike | IO[bytes]

MOST_BYTES = 1 << 30  # of a file, and of what an archive may hold when it is unpacked
MOST_MEMBERS = 1024
TEMPORARY = ".gaussjax-"  # begins the names of files that are being written
CENTRAL_ENTRY = b"PK\x01\x02"  # begins each member's entry in a zip archive's directory


def is_url(place: Any) -> bool:
  """Whether it is an address for fsspec; one letter before the colon is a drive of Windows."""
  return isinstance(place, str) and re.match(r"([a-z][a-z0-9+.-]+::)*[a-z][a-z0-9+.-]+://", place) is not None


def is_stream(place: Any) -> bool:
  """Whether it is an open file, or what reads or writes like one."""
  return hasattr(place, "read") or hasattr(place, "write")


def name_of(place: Any) -> str:
  """What messages call a place, and what ends in its suffix if it has one."""
  if is_stream(place):
    name = getattr(place, "name", None)
    return name if isinstance(name, str) else "the file given"
  if not isinstance(place, str | bytes | os.PathLike):
    raise ValueError(f"got a {type(place).__name__}, expected a path, an address or a file that is open for bytes")
  return os.fsdecode(place)


def read_bytes(place: Place, *, most: int = MOST_BYTES) -> bytes:
  """All of a file, pipe, device, address or, from where it stands, open file.

  Raises ValueError if it cannot be read or has more than `most` bytes.
  """
  parts, left, name = list[bytes](), most + 1, name_of(place)
  if not (is_stream(place) or is_url(place)) and os.path.isdir(place):  # type: ignore[arg-type]
    raise ValueError(f"got {name}, which is not a file that can be read (Is a directory)")
  try:
    with _opened(place) as file:
      while left and (part := file.read(min(left, 1 << 20))):
        if not isinstance(part, bytes):
          raise ValueError(f"got {name}, which is open for text, expected a file that is open for bytes ('rb')")
        parts.append(part)
        left -= len(part)
  except OSError as error:
    reason = error.strerror or one_line(error)
    raise ValueError(f"got {name}, which is not a file that can be read ({reason})") from error
  if not left:
    raise ValueError(f"got {name}, which has more than {most} bytes")
  return b"".join(parts)


@contextlib.contextmanager
def _opened(place: Any) -> Iterator[Any]:
  if is_stream(place):
    yield place  # whoever opened it closes it
  elif is_url(place):
    system, path = _system(place)
    with _as_os_error(place), system.open(path, "rb") as file:
      yield file
  else:
    with open(place, "rb") as file:
      yield file


def _system(url: str) -> tuple[Any, str]:
  """(fsspec's file system of an address, the path in it). Raises ValueError where there is none."""
  try:
    import fsspec
  except ImportError as error:
    raise ValueError(f"got {url}, which needs fsspec; pip install 'gaussjax[fsspec]' brings it") from error
  try:
    return fsspec.core.url_to_fs(url)
  except Exception as error:  # an unknown protocol, its package missing, no credentials
    raise ValueError(f"got {url}, which fsspec cannot serve ({one_line(error)})") from error


@contextlib.contextmanager
def _as_os_error(url: str) -> Iterator[None]:
  """Whatever a file system of fsspec's raises, as an OSError."""
  try:
    yield
  except (OSError, ValueError):
    raise
  except Exception as error:
    raise OSError(None, one_line(error), url) from error


def exists(place: str | os.PathLike) -> bool:
  """Whether there is something at a path or address. Raises ValueError, OSError for an address nobody serves."""
  if not is_url(place):
    return os.path.exists(place)
  system, path = _system(str(place))
  with _as_os_error(str(place)):
    return bool(system.exists(path))


def check_writable(place: Place) -> None:
  """Before long work: that `write_whole` may write `place`. Raises ValueError.

  It creates a file and removes it, since modes do not bind every user, nor tell of a disk that is read-only. Of an
  address only its file system is asked for.
  """
  name = name_of(place)
  try:
    if is_stream(place):
      if isinstance(place, io.TextIOBase) or not hasattr(place, "write"):
        raise ValueError(f"got {name}, which does not take bytes, expected a file that is open for them ('wb')")
    elif is_url(place):
      _system(name)
    elif os.path.isdir(name):
      raise ValueError(f"got {name}, which is a folder; expected the name of a file")
    elif is_regular(name):
      target = os.path.realpath(name)
      if not os.path.isdir(os.path.dirname(target)):
        raise ValueError(f"got {name}, whose folder does not exist")
      with contextlib.suppress(FileNotFoundError):
        os.lstat(target)  # too long a name
      with tempfile.TemporaryFile(dir=os.path.dirname(target)):
        pass
  except OSError as error:
    raise ValueError(f"got {name}, which cannot be written ({error.strerror})") from error


def is_regular(path: str | os.PathLike) -> bool:
  """Not an address, a folder, a pipe or a device, which are written to and never replaced; it need not be there."""
  return not is_url(path) and (os.path.isfile(path) or not os.path.exists(path))


def write_whole(place: Place, data: bytes) -> None:
  """Writes to a temporary name in the same folder, then renames over `place`: a crash leaves the old file.

  Where it is a link, what it leads to is replaced. A pipe, a device or an open file is written to. An address gets
  all bytes in one request: whether that is whole or not at all is up to what serves it. Raises OSError.
  """
  name = name_of(place)
  try:
    if is_stream(place):
      place.write(data)  # type: ignore[union-attr]
    elif is_url(place):
      _send(name, data)
    elif is_regular(name):
      _replace(os.path.realpath(name), data)
    else:
      with open(name, "wb") as file:
        file.write(data)
  except OSError as error:  # of a full disk it has no name, of a rename the temporary one
    raise OSError(error.errno, error.strerror or one_line(error), name) from error


def _send(url: str, data: bytes) -> None:
  system, path = _system(url)
  if "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,)):
    _replace(os.path.realpath(path), data)  # a path of this machine after all
    return
  with _as_os_error(url):
    system.pipe_file(path, data)


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
