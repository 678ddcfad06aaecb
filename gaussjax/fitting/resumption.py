"""How a fit is put into checkpoints, and goes on from them to the same bits."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax

from gaussjax.fitting import checkpoints, loop
from gaussjax.rendering import renderer


def saver(checkpoint: checkpoints.Checkpoint, about: dict, begun: loop.Run) -> Callable[[loop.Run], None]:
  """What writes a checkpoint when one is due."""
  last_step, last_time = int(begun.state.step), time.monotonic()

  def save(run: loop.Run) -> None:
    nonlocal last_step, last_time
    step, now = int(run.state.step), time.monotonic()
    if step - last_step >= checkpoint.every_steps or now - last_time >= checkpoint.every_seconds:
      keep(checkpoint, about, run)
      last_step, last_time = step, now

  return save


def keep(checkpoint: checkpoints.Checkpoint, about: dict, run: loop.Run) -> None:
  """Writes a checkpoint of the run as it is."""
  notes = {"record": run.record, "history": run.history}
  checkpoints.keep(checkpoint.folder, int(run.state.step), _stored(run), about, notes)


def _stored(run: loop.Run) -> Any:
  """The arrays of a run that a checkpoint holds.

  Lists are among them since rounding depends on them, except those of an ordered blend, whose static size grows.
  """
  neighbors = run.state.neighbors
  if neighbors.lists is not None and neighbors.lists.max_blocks:
    neighbors = dataclasses.replace(neighbors, lists=None)
  return run.state._replace(neighbors=neighbors), run.best


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
