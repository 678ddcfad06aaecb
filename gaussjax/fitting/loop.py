"""The fit: a pure step made of a loss and an optimiser, and a loop over it in jitted chunks.

Knows nothing of rendering: the loss, the optimiser and the neighbours arrive as functions. Between chunks the
loop is on the host, where it measures, reports and decides whether to go on.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax.experimental import checkify

from gaussjax.errors import FitError
from gaussjax.fitting import guards
from gaussjax.types import Array, Gaussians, Stop

LOG_EVERY = 10  # steps between records
CONTROL_EVERY = 3 * LOG_EVERY  # steps between rounds of density control, each after a record
GAIN_STEPS = 100  # steps over which Stop(min_gain) looks back

Record = dict[str, float]
Progress = Callable[[Record], None]


class State(NamedTuple):
  """What a step carries on."""

  params: Gaussians
  opt_state: Any
  step: Array  # [] int32, steps done
  rate: Array  # [] factor on every learning rate; a roll-back halves it
  neighbors: Any  # what the renderer keeps from step to step; None for nothing


class Info(NamedTuple):
  """What a step reports; it never feeds back."""

  loss: Array  # [] before the step
  health: guards.Health
  overflow: Array  # [] bool, the neighbours' capacity was too small: the step was not made


class NeighborFns(NamedTuple):
  """How a renderer keeps its neighbours; `NO_NEIGHBORS` for one that has none."""

  allocate: Callable[[Gaussians, Any], Any]  # host: (params, neighbours too small or None) -> neighbours
  refresh: Callable[[Gaussians, Any], tuple[Any, Array]]  # jit: (params, neighbours) -> (valid ones, overflow [])


NO_NEIGHBORS = NeighborFns(lambda params, like: None, lambda params, neighbors: (None, jnp.array(False)))


class Fitter(NamedTuple):
  """A fit's pure functions; `progress` is the share of the steps done, in [0, 1]."""

  init: Callable[[Gaussians], State]
  step: Callable[[State, Any, Array], tuple[State, Info]]  # (state, target, progress)
  explain: Callable[[State, Any, Array], str]  # what is wrong with the step from this state, in words


def fitter(
  loss_fn: Callable[[Gaussians, Any, Any], Array],  # (params, neighbours, target) -> []
  optimizer: optax.GradientTransformationExtraArgs,
  *,
  neighbors: NeighborFns = NO_NEIGHBORS,
  project: Callable[[Gaussians], Gaussians] = lambda params: params,
  check: Callable[[Array, Gaussians, Gaussians], None] | None = None,
) -> Fitter:
  """The gradient descent of `loss_fn`, each step followed by `project`.

  `check(loss, gradients, params)` may hold chex assertions.
  """

  def init(params: Gaussians) -> State:
    rate = jnp.ones((), params.means.dtype)
    return State(params, optimizer.init(params), jnp.zeros((), jnp.int32), rate, neighbors.allocate(params, None))

  def attempt(state: State, target: Any, progress: Array) -> tuple[State, Array, Gaussians, Array]:
    valid, overflow = neighbors.refresh(state.params, state.neighbors)
    loss, gradients = jax.value_and_grad(loss_fn)(state.params, valid, target)
    # A line search goes where the neighbours may no longer hold.
    value_fn = lambda params: loss_fn(params, neighbors.refresh(params, valid)[0], target)
    updates, opt_state = optimizer.update(
      gradients, state.opt_state, state.params, progress=progress, value=loss, grad=gradients, value_fn=value_fn
    )
    params = project(optax.apply_updates(state.params, optax.tree.scale(state.rate, updates)))
    return State(params, opt_state, state.step + 1, state.rate, valid), loss, gradients, overflow

  def step(state: State, target: Any, progress: Array) -> tuple[State, Info]:
    made, loss, gradients, overflow = attempt(state, target, progress)
    if check is not None:
      check(loss, gradients, made.params)
    info = Info(loss, guards.health(loss, gradients, made.params), overflow)
    # A step that failed is not made, so that the host finds the state that it failed from.
    keep = functools.partial(jnp.where, succeeded(info))
    kept = jax.tree.map(keep, made._replace(neighbors=None), state._replace(neighbors=None))
    return kept._replace(neighbors=made.neighbors), info

  def explain(state: State, target: Any, progress: Array) -> str:
    made, loss, gradients, _ = jax.jit(attempt)(state, target, progress)
    return guards.describe(int(made.step), loss, gradients, made.params)

  return Fitter(init, step, explain)


def succeeded(info: Info) -> Array:
  """Whether the step was made."""
  return functools.reduce(jnp.logical_and, info.health) & ~info.overflow


@functools.partial(jax.jit, static_argnames="step")
def advance(step: Callable, state: State, target: Any, until: Array, total: Array) -> tuple[State, Info]:
  """Steps to step number `until` of `total`, or to the first that fails. Both are traced."""

  def again(carry: tuple[State, Info]) -> Array:
    state, info = carry
    return (state.step < until) & succeeded(info)

  def body(carry: tuple[State, Info]) -> tuple[State, Info]:
    state, _ = carry
    return step(state, target, state.step / total)

  passed = jnp.array(True)
  start = Info(jnp.zeros((), state.params.means.dtype), guards.Health(*[passed] * 4), ~passed)
  return jax.lax.while_loop(again, body, (state, start))


def advance_checked(step: Callable, state: State, target: Any, until: Array, total: Array) -> tuple[State, Info]:
  """The same one step at a time, through `chex.chexify`: stops at the first failed assertion, and names it."""
  checked = chex.chexify(jax.jit(step), async_check=False)
  while True:
    try:
      state, info = checked(state, target, state.step / total)
    except (AssertionError, checkify.JaxRuntimeError) as error:
      message = str(error).strip().splitlines()
      raise FitError(f"step {int(state.step) + 1}: {' '.join(message)}") from error
    if state.step >= until or not succeeded(info):
      return state, info


class Run(NamedTuple):
  """All that a fit knows of itself: what it goes on from, and what a checkpoint holds."""

  state: State
  best: Gaussians  # of all that were measured
  record: Record  # of the best set; empty before the first
  history: list[Record]


def begin(state: State) -> Run:
  """A run of which nothing is measured yet."""
  return Run(state, state.params, {}, [])


class Host(NamedTuple):
  """What the loop does on the host, between chunks."""

  measure: Callable[[State, Any], Record]  # with at least `loss` and `psnr`
  clock: Callable[[], float]  # seconds since this sitting began
  neighbors: NeighborFns = NO_NEIGHBORS
  progress_fn: Progress | None = None
  advance: Callable = advance
  control: Callable[[Array, State, Any, float], State] | None = None
  # density control: (key, state, target, share of the steps done) -> state
  control_until: float = 0.9  # share of the steps after which the set is left to settle
  save: Callable[[Run], None] | None = None  # called at every record, and when the fit is asked to stop
  retries: int = 3  # roll-backs after which a step that is not finite is an error


def run(
  key: Array, fitter: Fitter, begun: Run, target: Any, *, stop: Stop, host: Host, total: int | None = None
) -> Run:
  """Fits until `stop`, a record every LOG_EVERY steps and at both ends. Raises FitError.

  Schedule and density control go by the share done of `total` steps, without it of those until `stop`.
  A step that is not finite takes the fit back to the last record, at half the rates, at most `host.retries` times.
  """
  if stop.max_steps is None:
    raise ValueError("got Stop(max_steps=None), expected a number of steps")
  max_steps, first = stop.max_steps, int(begun.state.step)
  total = total or max_steps
  begun = begun._replace(state=jax.tree.map(_placed, begun.state))
  before = begun.history[-1]["seconds"] if begun.history else 0.0
  now, rollbacks = begun, 0
  if begun.history:
    rollbacks = int(begun.history[-1]["rollbacks"])
  else:
    timing = {"seconds": host.clock(), "steps_per_second": 0.0, "eta_seconds": math.nan, "rollbacks": 0}
    now = _measured(begun, target, host, timing)
  state = now.state
  while int(now.state.step) < max_steps and not reached(stop, now.history):
    until = min((int(now.state.step) // LOG_EVERY + 1) * LOG_EVERY, max_steps)
    state, info = host.advance(fitter.step, state, target, jnp.int32(until), jnp.float32(total))
    if info.overflow:
      state = state._replace(neighbors=host.neighbors.allocate(state.params, state.neighbors))
    elif not succeeded(info):
      if rollbacks >= host.retries:
        raise FitError(fitter.explain(state, target, jnp.float32(int(state.step) / total)))
      state, rollbacks = now.state._replace(rate=state.rate / 2), rollbacks + 1
    elif state.step >= until:
      seconds = host.clock()
      rate = (until - first) / seconds if seconds > 0 else 0.0
      eta = (max_steps - until) / rate if rate > 0 else math.nan
      timing = {"seconds": before + seconds, "steps_per_second": rate, "eta_seconds": eta, "rollbacks": rollbacks}
      now = _measured(now._replace(state=state), target, host, timing)
      if host.control is not None and until < max_steps and controls_at(host, until, total):
        # Keyed by the step, so that a fit that goes on from here draws what it would have drawn.
        progress = until / total
        now = now._replace(state=host.control(jax.random.fold_in(key, until), state, target, progress))
      state = now.state
      if host.save is not None:
        host.save(now)
  return now


def _placed(leaf: Any) -> Any:
  """An array bound to the device that it is on, as all that a step returns is when the target is bound to one.

  JAX compiles a program for each mixture of arrays that are and are not: twice as many.
  """
  return leaf if not isinstance(leaf, jax.Array) or leaf.committed else jax.device_put(leaf, leaf.sharding)


def _measured(now: Run, target: Any, host: Host, timing: Record) -> Run:
  """`now` with a record of its state, which is reported, and its best set brought up to date."""
  state = now.state
  record = {"step": int(state.step), **host.measure(state, target), **timing}
  if host.progress_fn is not None:
    host.progress_fn(record)
  better = record["loss"] < now.record.get("loss", math.inf)
  best, of_best = (state.params, record) if better else (now.best, now.record)
  return Run(state, best, of_best, [*now.history, record])


def reached(stop: Stop, history: list[Record]) -> bool:
  """Whether the fit is to end before its last step."""
  last = history[-1]
  if stop.requested is not None and stop.requested():
    return True
  if stop.target_psnr is not None and last["psnr"] >= stop.target_psnr:
    return True
  if stop.time_limit is not None and last["seconds"] >= stop.time_limit:
    return True
  earlier = [record["psnr"] for record in history if record["step"] <= last["step"] - GAIN_STEPS]
  return stop.min_gain is not None and bool(earlier) and last["psnr"] - earlier[-1] < stop.min_gain


def controls_at(host: Host, step: int, total: int) -> bool:
  """Whether density control is due at this step."""
  return step % CONTROL_EVERY == 0 and step <= host.control_until * total


def forget(opt_state: Any, fresh: Any, moved: Array) -> Any:
  """`opt_state` with the moments of `fresh` for the Gaussians that `moved` `[N]`; the others keep theirs.

  Every array of the optimiser's state must be a moment of N Gaussians, its counters scalars: ValueError otherwise.
  """

  def one(old: Array, new: Array) -> Array:
    if old.ndim and len(old) != len(moved):
      raise ValueError(
        "got an optimiser whose memory is not by Gaussian, expected one that is, or no density control"
      )
    return old if old.ndim == 0 else jnp.where(moved.reshape(-1, *[1] * (old.ndim - 1)), new, old)

  return jax.tree.map(one, opt_state, fresh)
