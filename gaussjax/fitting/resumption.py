"""How a fit is put into checkpoints, and goes on from them to the same bits."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from gaussjax.fitting import checkpoints, loop
from gaussjax.rendering import renderer


def saver(checkpoint: checkpoints.Checkpoint, about: dict, begun: loop.Run) -> Callable[..., None]:
  """What writes a checkpoint of a run as it is, when one is due or it is the `last`."""
  write = checkpoints.writer(checkpoint, about, int(begun.state.step))

  def save(run: loop.Run, *, last: bool = False) -> None:
    write(int(run.state.step), _stored(run), {"record": run.record, "history": run.history}, last)

  return save


def _stored(run: loop.Run) -> Any:
  """The arrays of a run that a checkpoint holds."""
  return run.state._replace(neighbors=storable(run.state.neighbors)), run.best


def storable(neighbors: renderer.Neighbors) -> renderer.Neighbors:
  """Neighbours as a checkpoint holds them.

  With their lists, since rounding depends on them, except those of an ordered blend, whose static size grows.
  """
  if neighbors.lists is not None and neighbors.lists.max_blocks:
    return dataclasses.replace(neighbors, lists=None)
  return neighbors


def resumed(checkpoint: checkpoints.Checkpoint, about: dict, begun: loop.Run) -> loop.Run:
  """The run that a checkpoint holds, or the one just begun. Raises ValueError if it is of another fit."""
  found = checkpoints.resume(checkpoint.folder, _stored(begun), about)
  if found is None:
    return begun
  (state, best), notes = found
  # Not of the neighbours, whose capacity grows as a fit goes on.
  sizes = lambda state: [leaf.shape for leaf in jax.tree.leaves(state._replace(neighbors=None))]
  if sizes(state) != sizes(begun.state):
    raise ValueError(f"{checkpoint.folder} is of {checkpoints.ANOTHER_RECIPE}")
  if state.neighbors.lists is None:
    state = state._replace(neighbors=renderer.allocate(state.params, like=begun.state.neighbors))
  return loop.Run(state, best, notes["record"], notes["history"])
