"""Optimisers for Gaussians: optax transformations with a rate for each field, made by `(rates, schedule)`.

Their `update` takes extra arguments: `progress` in [0, 1], the share of the steps that are done, so that the
schedule needs no number of steps and one compiled program serves fits of any length; and for a line search `value`,
`grad` and `value_fn`, the loss.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
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
  return tree("means", shape, "colors", log_weights, None if gaussians.canvas is None else "frozen")


def adam(
  rates: Rates, schedule: Schedule, *, b2: float = 0.99, most_turn: float | None = None
) -> optax.GradientTransformationExtraArgs:
  """Adam with a rate for each field, with `most_turn` by `slow_turns`.

  eps is far below any gradient of a mean over an image's pixels.
  """
  return by_field(lambda rate: optax.adam(rate, b2=b2, eps=1e-15), rates, schedule, most_turn)


MOST_TURN = 3.0  # the aspect ratio, about, from which turns are slowed (measured, BUILD_NOTES.md)


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


def gradient_of_means(opt_state: Any) -> Array:
  """`[N]`, the root of the squared gradient by each mean, as `adam` or `adan` has averaged it over the last steps.

  Raises ValueError for the state of an optimiser that keeps no such average.
  """
  for name in ("nu", "n"):  # Adam's, Adan's
    for _, moment in optax.tree.get_all_with_path(opt_state, name):
      if isinstance(getattr(moment, "means", None), jax.Array):
        return jnp.sqrt(jnp.sum(moment.means, axis=1))
  raise ValueError("got an optimiser without second moments, expected adam or adan for a policy that splits")
