"""Numbers that a caller hands over, as Python's own: numpy's scalars and arrays of no dimension are as good."""

import math
import operator
from typing import Any

import numpy as np

MAX_GAUSSIANS = 2**24
MAX_STEPS = 2**31 - 1  # steps are counted in 32 bits
MAX_SEED = 2**32 - 1  # JAX would drop the bits beyond, and two seeds would be one


def whole(name: str, value: Any, *, least: int, most: int | None = None) -> int:
  """The integer of an argument. Raises ValueError for anything but a whole number from `least` to `most`."""
  try:
    number = None if isinstance(value, bool | np.bool_) else operator.index(value)
  except TypeError:
    number = None
  if number is None:
    raise ValueError(f"got {name}={shown(value)}, expected a whole number")
  if number < least or (most is not None and number > most):
    bound = f"at least {least}" if number < least else f"at most {most}"
    raise ValueError(f"got {name}={shown(value)}, expected {bound}")
  return number


def real(name: str, value: Any, *, least: float = -math.inf) -> float:
  """The float of an argument. Raises ValueError for anything but a number of at least `least`, and for NaN."""
  number = math.nan
  if not isinstance(value, str | bytes | bool | np.bool_) and np.ndim(value) == 0:
    try:
      number = float(value)
    except (TypeError, ValueError, OverflowError):
      number = math.nan
  if math.isnan(number):
    raise ValueError(f"got {name}={shown(value)}, expected a number")
  if number < least:
    raise ValueError(f"got {name}={shown(value)}, expected at least {least:g}")
  return number


def shown(value: Any) -> str:
  """A value in one line of an error."""
  text = " ".join((repr(value) if isinstance(value, str) else str(value)).split())
  return text if len(text) <= 80 else text[:77] + "..."
