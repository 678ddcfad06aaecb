"""A set of Gaussians as the bytes of an .npz archive, without loss; and back, whoever wrote it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gaussjax import files, geometry
from gaussjax.errors import FormatError
from gaussjax.gjx import container
from gaussjax.rendering import blends
from gaussjax.types import Canvas, Cholesky, Euler, Gaussians, LogCholesky

VERSION = 1
SHAPES: dict[str, Any] = {kind.__name__: kind for kind in (Euler, Cholesky, LogCholesky)}
CANVAS = ("height", "width", "cutoff", "floor")  # those of its fields that a header has
DTYPES = ("float16", "bfloat16", "float32", "float64")
# Pixels and colours, and the exponentials of what is a logarithm: a determinant is the product of four lengths,
# which float32 can hold.
LARGEST = 1e9


def dumps(gaussians: Gaussians) -> bytes:
  """The archive of a set with its canvas, in its own precision.

  Raises ValueError for what `loads` would not read: a set without a canvas, or with a blend or shape of one's own;
  numbers that are not finite or beyond LARGEST; sizes beyond those of geometry.check_canvas; 64-bit numbers while
  JAX's are switched off.
  """
  if gaussians.canvas is None:
    raise ValueError("got Gaussians without a canvas, expected a set from fit or load")
  gaussians = jax.tree.map(np.asarray, gaussians)
  canvas, kind = geometry.canvas_of(gaussians), type(gaussians.shape)
  blend = _blend_name(canvas.blend)
  if SHAPES.get(kind.__name__) is not kind:
    raise ValueError(f"got a shape of type {kind.__name__}, expected one of {', '.join(SHAPES)}")
  _check(gaussians)
  header = {"version": VERSION, "shape": kind.__name__, "blend": blend}
  header |= {"height": int(canvas.height), "width": int(canvas.width)}  # numpy's scalars are not JSON's
  header |= {"cutoff": float(canvas.cutoff), "floor": float(canvas.floor)}
  arrays = _arrays(gaussians)
  brief = [name for name, array in arrays.items() if array.dtype == jnp.bfloat16]
  if brief:  # which .npy files do not know
    header["bfloat16"] = brief
    arrays |= {name: arrays[name].view(np.uint16) for name in brief}
  return files.npz_bytes(header, arrays)


def loads(data: bytes) -> Gaussians:
  """The set that `dumps` wrote. Raises FormatError, in one line, for all other bytes."""
  header, arrays = files.read_npz(data)
  try:
    if header["version"] != VERSION or isinstance(header["version"], bool):
      raise ValueError(f"got version {str(header['version'])[:40]}, expected {VERSION}")
    for name in header.get("bfloat16", []):
      if arrays[name].dtype != np.uint16:
        raise ValueError(f"got {name} of {arrays[name].dtype}, expected the bits of bfloat16")
      arrays[name] = arrays[name].view(jnp.bfloat16)
    gaussians = _assembled(header, arrays)
    _check(gaussians)
  except (KeyError, TypeError) as error:
    raise FormatError(f"got a header that lacks something ({error})") from error
  except ValueError as error:
    raise FormatError(str(error)) from error
  return jax.device_put(gaussians)


def _assembled(header: dict[str, Any], arrays: dict[str, NDArray]) -> Gaussians:
  """The set, of numpy's arrays, unchecked. Raises ValueError, KeyError or TypeError if it has not these parts."""
  kind, blend = _known("shape", header, SHAPES), _known("blend", header, blends.BLENDS)
  expected = ("means", "colors", "background", *kind._fields)
  if arrays.keys() - {"log_weights", "slopes"} != set(expected):
    names = ", ".join(sorted(arrays))[:200]
    raise ValueError(
      f"got the arrays {names}, expected {', '.join(expected)}, with or without log_weights and slopes"
    )
  canvas = Canvas(background=arrays["background"], blend=blend, **{name: header[name] for name in CANVAS})  # type: ignore[arg-type]
  shape = kind(*[arrays[name] for name in kind._fields])
  optional = arrays.get("log_weights"), canvas, arrays.get("slopes")
  return Gaussians(arrays["means"], shape, arrays["colors"], *optional)  # type: ignore[arg-type]


def _known(field: str, header: dict[str, Any], table: dict[str, Any]) -> Any:
  name = header[field]
  if not isinstance(name, str) or name not in table:
    raise ValueError(f"got the {field} {str(name)[:40]}, expected one of {', '.join(table)}")
  return table[name]


def _blend_name(blend: Any) -> str:
  name = blends.checked(blend).name
  if blends.BLENDS.get(name) != blend:
    raise ValueError(
      f"got the blend {name}, expected one of {', '.join(blends.BLENDS)}: archives hold no functions"
    )
  return name


def _arrays(gaussians: Gaussians) -> dict[str, Any]:
  canvas = geometry.canvas_of(gaussians)
  arrays = {"means": gaussians.means, "colors": gaussians.colors, "background": canvas.background}
  arrays |= gaussians.shape._asdict()
  optional = {"log_weights": gaussians.log_weights, "slopes": gaussians.slopes}
  return arrays | {name: leaf for name, leaf in optional.items() if leaf is not None}


def _check(gaussians: Gaussians) -> None:
  """Raises ValueError for a set, of numpy's arrays, that is none or that cannot be drawn."""
  canvas, arrays = geometry.canvas_of(gaussians), _arrays(gaussians)
  if arrays["colors"].ndim != 2:
    raise ValueError(f"got colors of shape {arrays['colors'].shape}, expected [N, C]")
  count, channels = arrays["colors"].shape
  geometry.check_canvas(canvas.height, canvas.width, channels, canvas.cutoff, canvas.floor)
  if not 1 <= count <= geometry.MAX_GAUSSIANS:
    raise ValueError(f"got {count} Gaussians, expected 1 to {geometry.MAX_GAUSSIANS}")
  shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("means", "log_scales", "slopes"), (count, 2))
  shapes |= {"colors": (count, channels), "background": (channels,)}
  for name, array in arrays.items():
    _check_array(name, array, shapes.get(name, (count,)))
  container.check_drawable(canvas, _radii(gaussians), np.asarray(gaussians.means, np.float64))  # type: ignore[arg-type]


def _check_array(name: str, array: NDArray, shape: tuple[int, ...]) -> None:
  if array.shape != shape:
    raise ValueError(f"got {name} of shape {array.shape}, expected {shape}")
  if array.dtype.name not in DTYPES:
    raise ValueError(f"got {name} of {array.dtype}, expected one of {', '.join(DTYPES)}")
  if array.dtype != jax.dtypes.canonicalize_dtype(array.dtype):
    raise ValueError(f"got {name} of {array.dtype}, which JAX is not set to hold; set JAX_ENABLE_X64=1")
  with np.errstate(invalid="ignore"):  # a NaN that signals
    values = array.astype(np.float64)
  if not np.isfinite(values).all():
    raise ValueError(f"got {name} with values that are not finite numbers")
  if name.startswith("log_"):
    if values.max() > np.log(LARGEST):
      raise ValueError(f"got {name} up to {values.max():.4g}, expected at most {np.log(LARGEST):.4g}")
  elif np.abs(values).max() > LARGEST:
    raise ValueError(f"got {name} of {np.abs(values).max():.4g}, expected magnitudes of at most {LARGEST:g}")


def _radii(gaussians: Gaussians) -> NDArray:
  """`[N]` pixels: how far each reaches, or somewhat farther."""
  canvas = geometry.canvas_of(gaussians)
  squares = np.full(len(gaussians.means), float(canvas.floor)) ** 2
  for name, field in gaussians.shape._asdict().items():
    values = np.asarray(field, np.float64).reshape(len(squares), -1)
    if name != "thetas":
      squares += np.square(np.exp(values) if name.startswith("log_") else values).sum(axis=1)
  return float(canvas.cutoff) * np.sqrt(squares)
