"""Fits that are under way, on disk: .npz archives, written whole or not at all."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gaussjax import errors, files

VERSION = 2
KEPT = 2  # checkpoints of a fit: if the newest is damaged, the one before it serves
ANOTHER_RECIPE = "a fit by another recipe: its arrays differ; give what it was begun with, or another folder"


class Checkpoint(NamedTuple):
  """Where a fit or an encoding keeps what it needs to go on after an interruption, and how often it writes that.

  A checkpoint knows the image, N, the seed, the steps, which arrays the fit has, and `label`, and is refused for a
  fit in which any of these differs. It does not know the recipe's functions: to tell fits from each other that
  differ in, say, the loss, give each a label of its own.
  """

  folder: str | os.PathLike
  every_steps: int = 100  # at the first record after so many
  every_seconds: float = 60.0  # or so long, whichever is first
  label: str = ""
  after_seconds: float = 0.0  # before which nothing is written: what is done sooner leaves no trace


def writer(
  checkpoint: Checkpoint, about: dict, begun_step: int
) -> Callable[[int, Any, dict, bool], None]:  # (step, tree, notes, whether it is the last one)
  """What calls `keep` when a checkpoint is due of a fit that goes on from `begun_step`; the last one always is."""
  began = last_time = time.monotonic()
  last_step = begun_step

  def write(step: int, tree: Any, notes: dict, last: bool) -> None:
    nonlocal last_step, last_time
    now = time.monotonic()
    due = last or step - last_step >= checkpoint.every_steps or now - last_time >= checkpoint.every_seconds
    if due and now - began >= checkpoint.after_seconds:
      keep(checkpoint.folder, step, tree, about, notes)
      last_step, last_time = step, now

  return write


def keep(folder: str | os.PathLike, step: int, tree: Any, about: dict, notes: dict) -> None:
  """Writes arrays and notes (JSON) as the checkpoint of a step of the fit `about`; the newest KEPT stay."""
  folder = Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  leaves = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
  header = {"version": VERSION, "about": about, "names": _names(tree), "notes": notes}
  files.write_whole(folder / f"step-{step:08d}.npz", files.npz_bytes(header, leaves))
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
  """Removes the checkpoints in a folder, half written ones too, and the folder if nothing else is in it."""
  for old in [*kept(folder), *Path(folder).glob(f"{files.TEMPORARY}*")]:
    old.unlink()
  _remove_empty(Path(folder))


def _remove_empty(folder: Path) -> None:
  if folder.is_dir() and not any(folder.iterdir()):
    folder.rmdir()


def parts(checkpoint: Checkpoint, work: str) -> Callable[[str], Checkpoint]:
  """For a `work` of several fits: each one's checkpoint, by a name that is always its own, in a folder below.

  Their labels say what the work is, a list with commas. Raises ValueError if the folder holds parts of another
  work, naming what differs.
  """
  began, label = time.monotonic(), f"{work}, {checkpoint.label}" if checkpoint.label else work
  for path in kept_parts(checkpoint.folder):
    _check_part(path, label)

  def part(name: str) -> Checkpoint:
    left = max(0.0, checkpoint.after_seconds - (time.monotonic() - began))
    return checkpoint._replace(folder=Path(checkpoint.folder) / name, label=label, after_seconds=left)

  return part


def _check_part(path: Path, label: str) -> None:
  """Raises ValueError for a checkpoint with another label; a damaged one is left to whoever goes on from it."""
  try:
    about = files.read_npz(files.read_bytes(path))[0].get("about")
  except ValueError:
    return
  theirs = set(str(about["label"] if isinstance(about, dict) and "label" in about else about).split(", "))
  mine = set(label.split(", "))
  if theirs != mine:
    raise ValueError(
      f"{path} is of another encoding: got {', '.join(sorted(theirs - mine)) or 'less'}, "
      f"expected {', '.join(sorted(mine - theirs)) or 'less'}; give what it was begun with, or another folder"
    )


def kept_parts(folder: str | os.PathLike) -> list[Path]:
  """The checkpoints of all parts of a work."""
  return sorted(Path(folder).glob("*/step-*.npz"))


def discard_parts(folder: str | os.PathLike) -> None:
  """Removes the checkpoints of all parts of a work, and the folder if nothing else is in it."""
  for part in Path(folder).glob("*/"):
    discard(part)
  _remove_empty(Path(folder))


def resume(folder: str | os.PathLike, template: Any, about: dict) -> tuple[Any, dict] | None:
  """The newest checkpoint that is whole, as (tree like `template`, notes); None if there is none.

  Raises ValueError if it is of another fit than `about`, naming what differs, or if all are damaged.
  """
  damage = None
  for path in kept(folder):
    try:
      header, leaves = _read(path, template)
    except (OSError, ValueError) as error:
      damage = damage or f"{path}: damaged ({error})"
      continue
    theirs = header["about"]
    if header["version"] != VERSION:
      raise ValueError(f"{path} was written by another version, expected one of this version; begin anew")
    for name in about:
      if theirs.get(name) != about[name]:
        raise ValueError(
          f"{path} is of another fit: got {name} {theirs.get(name)}, expected {about[name]}; "
          "give what it was begun with, or another folder"
        )
    if header["names"] != _names(template):
      raise ValueError(f"{path} is of {ANOTHER_RECIPE}")
    return jax.tree.unflatten(jax.tree.structure(template), leaves), header["notes"]
  if damage:
    raise ValueError(damage)
  return None


def _read(path: Path, template: Any) -> tuple[dict, list[Any]]:
  """(header, leaves) of a checkpoint.

  Raises OSError, and ValueError unless it has a leaf of the type and rank of each of the template's, whose sizes
  alone may differ: a set grows and shrinks. Of another version or fit it may have any.
  """
  header, arrays = files.read_npz(files.read_bytes(path))
  kinds = {"version": int, "about": dict, "names": list, "notes": dict}
  for name, kind in kinds.items():
    if header.get("version") == VERSION and not isinstance(header.get(name), kind):
      raise errors.FormatError(f"got a header without {name}")
  expected = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(template))}
  if header.get("version") != VERSION or header["names"] != _names(template):
    return {"version": None, "about": {}, "names": [], **header}, []
  if arrays.keys() != expected.keys():
    raise errors.FormatError(f"got {len(arrays)} arrays, expected {len(expected)}")
  for name, leaf in expected.items():
    if (arrays[name].dtype, arrays[name].ndim) != (leaf.dtype, leaf.ndim):
      raise errors.FormatError(f"got {name} of {arrays[name].dtype} and shape {arrays[name].shape}")
  return header, [jnp.asarray(arrays[name]) for name in expected]
