"""Adan, and L-BFGS with a line search: made by `(rates, schedule)` like those of fitting/optimizers.py."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gaussjax.fitting.optimizers import Rates, Schedule, by_field, labels
from gaussjax.types import Array, Gaussians


def adan(
  rates: Rates, schedule: Schedule, *, most_turn: float | None = None
) -> optax.GradientTransformationExtraArgs:
  """Adan with a rate for each field, with `most_turn` by `slow_turns`.

  Xie et al., "Adan: adaptive Nesterov momentum algorithm for faster optimizing deep models", 2022.
  """
  return by_field(lambda rate: optax.chain(scale_by_adan(), optax.scale(-rate)), rates, schedule, most_turn)


class AdanState(NamedTuple):
  """What Adan remembers: the number of steps, the last gradient, and three moments like the parameters."""

  steps: Array
  last: Any
  mean: Any  # of the gradients
  change: Any  # of what each differs by from the one before
  square: Any  # of the gradient looked ahead to


def scale_by_adan(b1: float = 0.9, b2: float = 0.95, b3: float = 0.99) -> optax.GradientTransformation:
  """Adan's direction, b1 to b3 being what is kept of each moment: algorithm 1 of the paper, moments without bias.

  The defaults are for fits of some hundred steps; the paper's are 0.98, 0.92, 0.99. Not optax's, which weighs the
  change by 1 - b2 where the authors' code has b2 (optax 0.2.8). Where the last gradient is nought, as for a
  Gaussian with fresh moments, nothing has changed.
  """

  def init(params: Any) -> AdanState:
    zeros = jax.tree.map(jnp.zeros_like, params)
    return AdanState(jnp.zeros((), jnp.int32), zeros, zeros, zeros, zeros)

  def update(gradients: Any, state: AdanState, params: Any = None) -> tuple[Any, AdanState]:
    del params
    steps = state.steps + 1
    changes = jax.tree.map(lambda g, last: jnp.where(last == 0, 0, g - last), gradients, state.last)
    squares = jax.tree.map(lambda g, change: jnp.square(g + b2 * change), gradients, changes)
    average = lambda kept, old, new: jax.tree.map(lambda o, n: kept * o + (1 - kept) * n, old, new)
    mean, change, square = (
      average(b1, state.mean, gradients),
      average(b2, state.change, changes),
      average(b3, state.square, squares),
    )
    unbiased = lambda kept, moment: jax.tree.map(lambda m: m / (1 - kept**steps), moment)
    direction = jax.tree.map(
      lambda m, v, n: (m + b2 * v) / (jnp.sqrt(n) + 1e-15),
      unbiased(b1, mean),
      unbiased(b2, change),
      unbiased(b3, square),
    )
    return direction, AdanState(steps, gradients, mean, change, square)

  return optax.GradientTransformation(init, update)


def lbfgs(
  rates: Rates, schedule: Schedule, *, memory: int = 10, searches: int = 10
) -> optax.GradientTransformationExtraArgs:
  """L-BFGS with a zoom line search of at most `searches` losses, in units of each field's rate; no schedule.

  Its memory is of the whole set: without density control. Nocedal, Wright, "Numerical Optimization", 2006, 7.2.
  """
  del schedule
  search = optax.scale_by_zoom_linesearch(searches, initial_guess_strategy="one")
  inner = optax.lbfgs(memory_size=memory, linesearch=search)

  def scaled(tree: Any, like: Gaussians, power: int) -> Any:
    unit = {**rates._asdict(), "frozen": 1.0}
    return jax.tree.map(lambda leaf, name: leaf * unit[name] ** power, tree, _leaf_labels(like))

  def init(params: Gaussians) -> Any:
    return inner.init(scaled(params, params, -1))

  def update(updates, state, params=None, *, value, value_fn, **extra):
    del extra
    gradient = scaled(updates, params, 1)
    if params.canvas is not None:
      gradient = gradient._replace(canvas=jax.tree.map(jnp.zeros_like, gradient.canvas))
    loss = lambda units: value_fn(scaled(units, params, 1))
    steps, state = inner.update(
      gradient, state, scaled(params, params, -1), value=value, grad=gradient, value_fn=loss
    )
    return scaled(steps, params, 1), state

  return optax.GradientTransformationExtraArgs(init, update)


def _leaf_labels(gaussians: Gaussians) -> Any:
  """`labels` with one for each leaf of the canvas too."""
  return labels(gaussians)._replace(canvas=jax.tree.map(lambda leaf: "frozen", gaussians.canvas))
