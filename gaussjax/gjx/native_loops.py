"""The loops of contexts over a layer's Gaussians in native code, where it was built: the same numbers and bytes.

Those of contexts are what the format is, are read beside docs/format.md, and serve where there is no compiler.
"""

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussjax.errors import DamagedError
from gaussjax.gjx import range_coder

try:
  _native: Any = importlib.import_module("gaussjax.gjx._loops")
except ImportError:
  _native = None


def available() -> bool:
  """Whether the native code was built."""
  return _native is not None


def serves(coder: range_coder.Encoder | range_coder.Decoder) -> bool:
  """Whether it codes for this one: a Meter counts by itself."""
  return available() and type(coder) in (range_coder.Encoder, range_coder.Decoder)


def positions(coder, models: slice, morton: NDArray) -> NDArray:
  """As contexts.code_positions, its rest without models."""
  coded = _owned(morton)
  _run("positions", coder, models, coded)
  return coded


def numbers(
  coder, models: slice, number, values: NDArray, units: NDArray, known: NDArray, context, stretch: NDArray
) -> tuple[NDArray, NDArray]:
  """As contexts._code_numbers."""
  state = np.array([*number.state(), -1 if number.least is None else number.least], np.int64)
  coded, away = _owned(values), np.zeros(len(values), np.int64)
  known = np.concatenate([known, np.zeros_like(coded)])
  given = state, coded, _owned(units), _owned(stretch), context.near, context.shares, known, away
  _run("numbers", coder, models, *given)
  number.go_on(*state[:-1].tolist())
  return coded, away


def turns(coder, models: slice, values: NDArray, counts: NDArray, known: NDArray, context) -> NDArray:
  """As contexts.code_turns."""
  coded = _owned(values)
  known = np.concatenate([known, np.zeros_like(coded)])
  _run("turns", coder, models, coded, _owned(counts), context.near, context.shares, known)
  return coded


def parts(coder, values: NDArray, sizes: NDArray) -> NDArray:
  """Each of its size in bits, without models."""
  coded = _owned(values)
  _run("parts", coder, slice(0, 0), coded, _owned(sizes))
  return coded


def _owned(values: NDArray) -> NDArray:
  return np.array(values, np.int64, order="C")


def _run(loop: str, coder, models: slice, *arrays: NDArray) -> None:
  """A loop under some of the coder's models, which learn, from where the coder is. Raises DamagedError."""
  learnt = coder.models.probability, coder.models.seen
  probability, seen = (np.array(values[models], np.int32) for values in learnt)
  reads = isinstance(coder, range_coder.Decoder)
  at = (coder.code, coder.position) if reads else (0, 0)
  bounds = np.array([coder.low, coder.high, *at, reads], np.int64)
  damage, written = getattr(_native, loop)(bounds, coder.data if reads else b"", probability, seen, *arrays)
  if damage is not None:
    raise DamagedError(damage)
  for values, after in zip(learnt, (probability, seen), strict=True):
    values[models] = after.tolist()
  coder.low, coder.high, *at = bounds[:-1].tolist()
  if reads:
    coder.code, coder.position = at
  else:
    coder.out += written
