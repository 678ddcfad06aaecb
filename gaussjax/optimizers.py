"""Optimisers for Gaussians: optax transformations with a rate for each field.

Their `update` takes one extra argument, `progress` in [0, 1], the share of the steps that are done: the schedule
then needs no number of steps, and one compiled program serves fits of any length.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from gaussjax.types import Array, Cholesky, Euler, Gaussians, LogCholesky

Schedule = Callable[[Array], Array]  # progress -> factor on every rate


class Rates(NamedTuple):
  """Learning rates a step."""

  means: float  # pixels
  log_scales: float  # of anything that is a logarithm of a length
  thetas: float  # radians
  lengths: float  # pixels: Cholesky entries
  colors: float
  log_weights: float = 0.01


def constant(progress: Array) -> Array:
  """1 throughout."""
  return jnp.ones_like(progress)


def cosine(progress: Array, *, final: float = 0.05) -> Array:
  """Half a cosine from 1 to `final`."""
  return final + (1 - final) * (1 + jnp.cos(jnp.pi * progress)) / 2


def scale_by_schedule(schedule: Schedule) -> optax.GradientTransformationExtraArgs:
  """Multiplies the updates by `schedule(progress)`, `progress` being an extra argument of `update`."""

  def update(updates, state, params=None, *, progress, **extra):
    del params, extra
    factor = schedule(progress)
    return optax.tree.scale(factor, updates), state

  return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def labels(gaussians: Gaussians) -> Any:
  """For each leaf the name of its rate in `Rates`; the canvas is `frozen`."""
  names: dict[type, tuple[str, ...]] = {
    Euler: ("log_scales", "thetas"),
    Cholesky: ("lengths", "lengths", "lengths"),
    LogCholesky: ("log_scales", "lengths", "log_scales"),
  }
  shape: Any = type(gaussians.shape)(*names[type(gaussians.shape)])  # type: ignore[arg-type]
  tree: Any = Gaussians
  log_weights = None if gaussians.log_weights is None else "log_weights"
  return tree("means", shape, "colors", log_weights, None if gaussians.canvas is None else "frozen")


def adam(rates: Rates, schedule: Schedule, *, b2: float = 0.99) -> optax.GradientTransformationExtraArgs:
  """Adam with a rate for each field. eps is far below any gradient of a mean over an image's pixels."""
  fields = {name: optax.adam(rate, b2=b2, eps=1e-15) for name, rate in rates._asdict().items()}
  return optax.chain(
    optax.partition({**fields, "frozen": optax.set_to_zero()}, labels), scale_by_schedule(schedule)
  )
