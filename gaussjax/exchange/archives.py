"""Arrays by name in the files of other projects: .npz, .safetensors, and PyTorch's, which are not executed."""

import io
import json
import math
import pickle
import struct
import zipfile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gaussjax import files
from gaussjax.errors import FormatError

MOST_DEPTH = 11  # of dictionaries within dictionaries
MOST_HEADER = 1 << 24  # of a .safetensors file
NUMBERS = {
  "F64": "<f8",
  "F32": "<f4",
  "F16": "<f2",
  "I64": "<i8",
  "I32": "<i4",
  "I16": "<i2",
  "I8": "i1",
  "U8": "u1",
}
STORAGES = {
  "Double": "<f8",
  "Float": "<f4",
  "Half": "<f2",
  "Long": "<i8",
  "Int": "<i4",
  "Short": "<i2",
  "Byte": "u1",
}

Arrays = dict[str, NDArray]


def read(data: bytes) -> Arrays:
  """The arrays of a file, whichever of the three it is. Raises FormatError for all other bytes."""
  if not data.startswith(b"PK"):
    return _safetensors(data)
  try:
    archive = files.opened_zip(data)
  except FormatError:
    raise
  except Exception as error:
    raise FormatError(f"not a whole archive ({str(error)[:200]})") from error
  with archive:
    files.check_unpacked(archive)
    is_torch = any(name.endswith("/data.pkl") for name in archive.namelist())
    return _torch(archive) if is_torch else _npz(data)


def _npz(data: bytes) -> Arrays:
  """Plain arrays of numbers, as numpy.savez writes them: without a header of ours."""
  try:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
      return {name: archive[name] for name in archive.files}
  except Exception as error:  # numpy and zipfile raise many
    raise FormatError(f"not an archive of arrays ({str(error)[:200]})") from error


def _safetensors(data: bytes) -> Arrays:
  """Eight bytes of length, a header in JSON, then the arrays' bytes."""
  try:
    size = struct.unpack_from("<Q", data)[0]
    if size > min(MOST_HEADER, len(data) - 8):
      raise ValueError("its header is longer than the file")
    header, found = json.loads(data[8 : 8 + size]), {}
    for name, entry in header.items():
      if name == "__metadata__":
        continue
      begin, end = (8 + size + int(at) for at in entry["data_offsets"])
      shape = tuple(int(side) for side in entry["shape"])
      dtype = np.dtype(NUMBERS[entry["dtype"]])
      if not 8 + size <= begin <= end <= len(data) or math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError(f"the array {str(name)[:80]} does not fit its bytes")
      found[str(name)] = np.frombuffer(data[begin:end], dtype).reshape(shape)
  except Exception as error:
    raise FormatError(
      f"neither .npz, PyTorch's nor .safetensors ({str(error)[:200] or type(error).__name__})"
    ) from error
  return found


class _Storage(NamedTuple):
  dtype: str
  key: str


class _Tensor(NamedTuple):
  storage: Any
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class _Dictionary(dict):
  """What stands for collections.OrderedDict; PyTorch's have attributes."""


class _Rebuild:
  """What stands for PyTorch's own way to put a tensor together. Without attributes: a file could set them."""

  __slots__ = ()

  def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


class _Same:
  """What stands for the making of a parameter of a tensor."""

  __slots__ = ()

  def __call__(self, tensor: Any, *_: Any) -> Any:
    return tensor


ALLOWED = {
  ("collections", "OrderedDict"): _Dictionary,
  ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
  ("torch._utils", "_rebuild_parameter"): _Same(),
  **{("torch", f"{kind}Storage"): dtype for kind, dtype in STORAGES.items()},
}


class _Unpickler(pickle._Unpickler):
  """Knows the few names that a checkpoint of tensors needs, and refuses every other: it executes nothing.

  It is the one in Python, since the one in C allots as much memory as a file's numbers ask for.
  """

  dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]}

  def find_class(self, module: str, name: str) -> Any:
    """The stand-in of a name. Raises FormatError for one that is not known."""
    if (module, name) not in ALLOWED:
      raise FormatError(
        f"got a PyTorch file that wants {module[:60]}.{name[:60]}, which is not run here; save its tensors alone, "
        "or as .safetensors or .npz"
      )
    return ALLOWED[module, name]

  def persistent_load(self, pid: Any) -> _Storage:
    """A storage by its key."""
    return _Storage(str(pid[1]), str(pid[2]))


def _torch(archive: zipfile.ZipFile) -> Arrays:
  """The tensors of a file of torch.save, by their names in it, those of dictionaries within joined by dots."""
  try:
    place = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
    tree = _Unpickler(archive.open(place)).load()
    found: Arrays = {}
    _gather(tree, "", lambda key: archive.read(f"{place[: -len('data.pkl')]}data/{key}"), found, 0)
  except FormatError:
    raise
  except Exception as error:  # pickle raises nearly everything
    raise FormatError(
      f"not a PyTorch file that can be read ({str(error)[:200] or type(error).__name__})"
    ) from error
  return found


def _gather(tree: Any, name: str, read_bytes: Any, found: Arrays, depth: int) -> None:
  if isinstance(tree, _Tensor):
    found[name] = _array(tree, read_bytes(tree.storage.key))
  elif isinstance(tree, dict) and depth < MOST_DEPTH:
    for key, value in tree.items():
      _gather(value, f"{name}.{key}" if name else str(key), read_bytes, found, depth + 1)


def _array(tensor: _Tensor, data: bytes) -> NDArray:
  """A tensor's numbers. Raises ValueError for one that is not contiguous, or beyond its storage."""
  if tensor.storage.dtype not in STORAGES.values():
    raise ValueError("a tensor is not of numbers")
  flat = np.frombuffer(data, np.dtype(tensor.storage.dtype))
  count, stride = math.prod(tensor.shape), 1
  for side, step in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
    if side > 1 and step != stride:
      raise ValueError("a tensor is not contiguous")
    stride *= side
  if min(tensor.shape, default=0) < 0 or tensor.offset < 0 or tensor.offset + count > len(flat):
    raise ValueError("a tensor is beyond its storage")
  return flat[tensor.offset : tensor.offset + count].reshape(tensor.shape)
