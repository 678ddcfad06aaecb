"""Gaussians, and fits that are under way, on disk: .npz archives, written whole or not at all."""

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gaussjax import files, types
from gaussjax.rendering import blends

VERSION = 1
KEPT = 2  # checkpoints of a fit: if the newest is damaged, the one before it serves
_SHAPES = {cls.__name__: cls for cls in (types.Euler, types.Cholesky, types.LogCholesky)}


class Checkpoint(NamedTuple):
  """Where a fit keeps what it needs to go on after an interruption, and how often it writes that."""

  folder: str | os.PathLike
  every_steps: int = 100  # at the first record after so many
  every_seconds: float = 60.0  # or so long, whichever is first


def save(path: str | os.PathLike, gaussians: types.Gaussians) -> None:
  """Writes a set with its canvas. Raises ValueError for a set without canvas or with a blend of one's own."""
  canvas = gaussians.canvas
  if canvas is None:
    raise ValueError("got Gaussians without a canvas, expected a set from fit or load")
  if canvas.blend != blends.BLENDS.get(canvas.blend.name):
    raise ValueError(f"got the blend {canvas.blend.name}, expected one of {', '.join(blends.BLENDS)}")
  header = {
    "version": VERSION,
    "shape": type(gaussians.shape).__name__,
    "blend": canvas.blend.name,
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
    blend=blends.BLENDS[header["blend"]],
    cutoff=float(header["cutoff"]),
    floor=float(header["floor"]),
  )
  shape = shape_type(*[fields[name] for name in shape_type._fields])
  return types.Gaussians(fields["means"], shape, fields["colors"], fields.get("log_weights"), canvas)


def keep(folder: str | os.PathLike, step: int, tree: Any, about: dict, history: list[dict]) -> None:
  """Writes a pytree of arrays as the checkpoint of a step of the fit `about`; the newest KEPT stay."""
  folder = Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  leaves = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
  header = {"version": VERSION, "about": about, "names": _names(tree), "history": history}
  buffer = io.BytesIO()
  np.savez(buffer, header=np.array(json.dumps(header)), **leaves)  # type: ignore[arg-type]
  files.write_whole(folder / f"step-{step:08d}.npz", buffer.getvalue())
  for old in kept(folder)[KEPT:]:
    old.unlink()


def _names(tree: Any) -> list[str]:
  """Where each leaf of a tree is, and its type: the same in every process."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return [f"{jax.tree_util.keystr(path)} {np.asarray(leaf).dtype}" for path, leaf in leaves]


def kept(folder: str | os.PathLike) -> list[Path]:
  """The checkpoints in a folder, the newest first."""
  return sorted(Path(folder).glob("step-*.npz"), reverse=True)


def discard(folder: str | os.PathLike) -> None:
  """Removes the checkpoints in a folder, and the folder if nothing else is in it."""
  for old in kept(folder):
    old.unlink()
  if Path(folder).is_dir() and not any(Path(folder).iterdir()):
    Path(folder).rmdir()


def resume(folder: str | os.PathLike, template: Any, about: dict) -> tuple[Any, list[dict]] | None:
  """The newest checkpoint that is whole, as (tree like `template`, history); None if there is none.

  Raises ValueError if it is of another fit than `about`, naming what differs, or if all are damaged.
  """
  damage = None
  for path in kept(folder):
    try:
      with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
        header = json.loads(str(archive["header"]))
        leaves = [jnp.asarray(archive[f"leaf{i}"]) for i in range(len(archive.files) - 1)]
        theirs, history, names = header["about"], header["history"], header["names"]
    except (KeyError, OSError, EOFError, zipfile.BadZipFile, ValueError, TypeError) as error:
      damage = damage or f"{path}: damaged ({error})"
      continue
    for name in about:
      if theirs.get(name) != about[name]:
        raise ValueError(
          f"{path} is of another fit: got {name} {theirs.get(name)}, expected {about[name]}; "
          "give what it was begun with, or another folder"
        )
    if names != _names(template):
      raise ValueError(f"{path} was written by another version, expected one of this version; begin anew")
    return jax.tree.unflatten(jax.tree.structure(template), leaves), history
  if damage:
    raise ValueError(damage)
  return None
