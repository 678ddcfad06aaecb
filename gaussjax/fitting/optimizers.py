"""Optimisers for Gaussians: optax transformations with a rate for each field, made by `(rates, schedule)`.

Their `update` takes extra arguments: `progress` in [0, 1], the share of the steps that are done, so that the
schedule needs no number of steps and one compiled program serves fits of any length; and for a line search `value`,
`grad` and `value_fn`, the loss.
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
  colors: float  # and of slopes
  log_weights: float


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
  slopes = None if gaussians.slopes is None else "colors"
  return tree("means", shape, "colors", log_weights, None if gaussians.canvas is None else "frozen", slopes)


def adam(
  rates: Rates, schedule: Schedule, *, b2: float = 0.99, most_turn: float | None = None
) -> optax.GradientTransformationExtraArgs:
  """Adam with a rate for each field, with `most_turn` by `slow_turns`.

  eps is far below any gradient of a mean over an image's pixels.
  """
  return by_field(lambda rate: optax.adam(rate, b2=b2, eps=1e-15), rates, schedule, most_turn)


MOST_TURN = 3.0  # the aspect ratio, about, from which turns are slowed (measured: docs/decisions.md)


def slow_turns(most: float) -> optax.GradientTransformationExtraArgs:
  """Shortens the steps of the angles of long Gaussians, whose ends they carry far; other shapes have no angles.

  A turn by t changes an ellipse of the aspect ratio a, in the Fisher metric of Gaussians, by t (a - 1/a): steps are
  shortened to what they do where that factor is `most`.
  """

  def update(updates, state, params=None, **extra):
    del extra
    if not isinstance(params.shape, Euler):
      return updates, state
    log_aspect = jnp.abs(params.shape.log_scales[:, 0] - params.shape.log_scales[:, 1])
    factor = most / jnp.maximum(2 * jnp.sinh(log_aspect), most)
    return updates._replace(shape=updates.shape._replace(thetas=updates.shape.thetas * factor)), state

  return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def by_field(
  optimizer: Callable[[float], optax.GradientTransformation],
  rates: Rates,
  schedule: Schedule,
  most_turn: float | None = None,
) -> optax.GradientTransformationExtraArgs:
  """`optimizer(rate)` for each field, all slowed by the schedule, with `most_turn` turns by `slow_turns`."""
  fields = {name: optimizer(rate) for name, rate in rates._asdict().items()}
  descent = optax.chain(
    optax.partition({**fields, "frozen": optax.set_to_zero()}, labels), scale_by_schedule(schedule)
  )
  return descent if most_turn is None else optax.chain(descent, slow_turns(most_turn))
