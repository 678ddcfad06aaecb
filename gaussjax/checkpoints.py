"""Gaussians on disk: one .npz archive, written whole or not at all."""

import io
import json
import os
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from gaussjax import files, rendering, types

VERSION = 1
_SHAPES = {cls.__name__: cls for cls in (types.Euler, types.Cholesky, types.LogCholesky)}
_BLENDS = {
  fn.__name__: fn for fn in (rendering.weighted_average, rendering.accumulated_sum, rendering.alpha_composite)
}


def save(path: str | os.PathLike, gaussians: types.Gaussians) -> None:
  """Writes a set with its canvas. Raises ValueError for a set without canvas or with a blend of one's own."""
  canvas = gaussians.canvas
  if canvas is None:
    raise ValueError("got Gaussians without a canvas, expected a set from fit or load")
  if canvas.blend.__name__ not in _BLENDS:
    raise ValueError(f"got the blend {canvas.blend.__name__}, expected one of {', '.join(_BLENDS)}")
  header = {
    "version": VERSION,
    "shape": type(gaussians.shape).__name__,
    "blend": canvas.blend.__name__,
    **{name: getattr(canvas, name) for name in ("height", "width", "cutoff", "floor")},
  }
  arrays = {"means": gaussians.means, "colors": gaussians.colors, "background": canvas.background}
  arrays |= gaussians.shape._asdict()
  if gaussians.log_weights is not None:
    arrays["log_weights"] = gaussians.log_weights
  buffer = io.BytesIO()
  np.savez(buffer, header=np.array(json.dumps(header)), **{k: np.asarray(v) for k, v in arrays.items()})  # type: ignore[arg-type]
  files.write_whole(path, buffer.getvalue())


def load(path: str | os.PathLike) -> types.Gaussians:
  """Reads what `save` wrote. Raises ValueError for anything else."""
  path = Path(path)
  if not path.is_file():
    raise ValueError(f"got {path}, which is not a file; expected Gaussians written by save")
  try:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
    header = json.loads(str(arrays.pop("header")))
    if header["version"] != VERSION:
      raise ValueError(f"got version {header['version']}, expected {VERSION}")
    gaussians = _assemble(header, arrays)
  except (KeyError, OSError, EOFError, zipfile.BadZipFile, ValueError, TypeError) as error:
    raise ValueError(f"{path}: not Gaussians written by save ({error})") from error
  return gaussians


def _assemble(header: dict, arrays: dict[str, np.ndarray]) -> types.Gaussians:
  shape_type = _SHAPES[header["shape"]]
  num_gaussians, channels = arrays["colors"].shape
  per_gaussian = {"means": (num_gaussians, 2), "log_weights": (num_gaussians,), "background": (channels,)}
  per_gaussian |= {"log_scales": (num_gaussians, 2), "colors": (num_gaussians, channels)}
  for name, array in arrays.items():
    if array.shape != (expected := per_gaussian.get(name, (num_gaussians,))):
      raise ValueError(f"{name} of shape {array.shape}, expected {expected}")
    if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
      raise ValueError(f"{name} holds values that are not finite floating point numbers")
  fields = {name: jnp.asarray(array) for name, array in arrays.items()}
  canvas = types.Canvas(
    height=int(header["height"]),
    width=int(header["width"]),
    background=fields["background"],
    blend=_BLENDS[header["blend"]],
    cutoff=float(header["cutoff"]),
    floor=float(header["floor"]),
  )
  shape = shape_type(*[fields[name] for name in shape_type._fields])
  return types.Gaussians(fields["means"], shape, fields["colors"], fields.get("log_weights"), canvas)
