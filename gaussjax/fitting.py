"""The fit: a pure step made of a loss and an optimiser, and a loop over it in jitted chunks.

Knows nothing of rendering: the loss, the optimiser and the neighbour lists arrive as functions. Between chunks the
loop is on the host, where it measures, reports and decides whether to go on.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax.experimental import checkify

from gaussjax import guards
from gaussjax.types import Array, Gaussians, Stop

LOG_EVERY = 10  # steps between records

Record = dict[str, float]
Progress = Callable[[Record], None]


class State(NamedTuple):
  """What a step carries on."""

  params: Gaussians
  opt_state: Any
  step: Array  # [] int32, steps done
  lists: Any  # what the renderer keeps from step to step; () for none


class Info(NamedTuple):
  """What a step reports; it never feeds back."""

  loss: Array  # [] before the step
  health: guards.Health
  overflow: Array  # [] bool, the lists' capacity was too small: the step was not made


class Lists(NamedTuple):
  """How a renderer keeps neighbour lists; `NO_LISTS` for one that has none."""

  allocate: Callable[[Gaussians, Any], Any]  # host: (params, lists too small or None) -> lists
  refresh: Callable[[Gaussians, Any], tuple[Any, Array]]  # jit: (params, lists) -> (valid lists, overflow [])


NO_LISTS = Lists(lambda params, lists: (), lambda params, lists: ((), jnp.array(False)))


class Fitter(NamedTuple):
  """A fit's pure functions; `progress` is the share of the steps done, in [0, 1]."""

  init: Callable[[Gaussians], State]
  step: Callable[[State, Any, Array], tuple[State, Info]]  # (state, target, progress)
  explain: Callable[[State, Any, Array], str]  # what is wrong with the step from this state, in words


def fitter(
  loss_fn: Callable[[Gaussians, Any, Any], Array],  # (params, lists, target) -> []
  optimizer: optax.GradientTransformationExtraArgs,
  *,
  lists: Lists = NO_LISTS,
  check: Callable[[Array, Gaussians, Gaussians], None] | None = None,
) -> Fitter:
  """The gradient descent of `loss_fn`; `check(loss, gradients, params)` may hold chex assertions."""

  def init(params: Gaussians) -> State:
    return State(params, optimizer.init(params), jnp.zeros((), jnp.int32), lists.allocate(params, None))

  def attempt(state: State, target: Any, progress: Array) -> tuple[State, Array, Gaussians, Array]:
    valid, overflow = lists.refresh(state.params, state.lists)
    loss, gradients = jax.value_and_grad(loss_fn)(state.params, valid, target)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, progress=progress)
    params = optax.apply_updates(state.params, updates)
    return State(params, opt_state, state.step + 1, valid), loss, gradients, overflow

  def step(state: State, target: Any, progress: Array) -> tuple[State, Info]:
    made, loss, gradients, overflow = attempt(state, target, progress)
    if check is not None:
      check(loss, gradients, made.params)
    info = Info(loss, guards.health(loss, gradients, made.params), overflow)
    # A step that failed is not made, so that the host finds the state that it failed from.
    keep = functools.partial(jnp.where, succeeded(info))
    kept = jax.tree.map(keep, made._replace(lists=()), state._replace(lists=()))
    return kept._replace(lists=made.lists), info

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
      raise guards.FitError(f"step {int(state.step) + 1}: {' '.join(message)}") from error
    if state.step >= until or not succeeded(info):
      return state, info


class Host(NamedTuple):
  """What the loop does on the host, between chunks."""

  measure: Callable[[State, Any], Record]
  clock: Callable[[], float]
  lists: Lists = NO_LISTS
  progress_fn: Progress | None = None
  advance: Callable = advance
  control: Callable[[Array, State, Any], State] | None = None  # (key, state, target) -> state: density control
  control_every: int = 3 * LOG_EVERY  # steps, a multiple of LOG_EVERY
  control_until: float = 0.6  # share of the steps after which the set is left to settle


def run(
  key: Array, fitter: Fitter, state: State, target: Any, *, stop: Stop, host: Host
) -> tuple[State, list[Record]]:
  """Fits until `stop`, a record every LOG_EVERY steps and at both ends. Raises guards.FitError."""
  if stop.max_steps is None:
    raise ValueError("got Stop(max_steps=None), expected a number of steps")
  max_steps, history = stop.max_steps, list[Record]()
  start = host.clock()
  first = int(state.step)

  def record() -> None:
    seconds, done = host.clock() - start, int(state.step)
    rate = (done - first) / seconds if seconds > 0 else 0.0
    eta = (max_steps - done) / rate if rate > 0 else float("nan")
    timing = {"seconds": seconds, "steps_per_second": rate, "eta_seconds": eta}
    history.append({"step": done, **host.measure(state, target), **timing})
    if host.progress_fn is not None:
      host.progress_fn(history[-1])

  record()
  while int(state.step) < max_steps and not reached(stop, history[-1]):
    until = min((int(state.step) // LOG_EVERY + 1) * LOG_EVERY, max_steps)
    state, info = host.advance(fitter.step, state, target, jnp.int32(until), jnp.float32(max_steps))
    if info.overflow:
      state = state._replace(lists=host.lists.allocate(state.params, state.lists))
    elif not succeeded(info):
      raise guards.FitError(fitter.explain(state, target, jnp.float32(int(state.step) / max_steps)))
    elif state.step >= until:
      record()
      if host.control is not None and controls_at(host, until, max_steps):
        # Keyed by the step, so that a fit that goes on from here draws what it would have drawn.
        state = host.control(jax.random.fold_in(key, until), state, target)
  return state, history


def reached(stop: Stop, record: Record) -> bool:
  """Whether the target PSNR or the time limit is met."""
  enough = stop.target_psnr is not None and record["psnr"] >= stop.target_psnr
  return enough or (stop.time_limit is not None and record["seconds"] >= stop.time_limit)


def controls_at(host: Host, step: int, max_steps: int) -> bool:
  """Whether density control is due at this step."""
  return step % host.control_every == 0 and step <= host.control_until * max_steps


def forget(opt_state: Any, fresh: Any, moved: Array) -> Any:
  """`opt_state` with the moments of `fresh` for the Gaussians that `moved` `[N]`; the others keep theirs.

  Every array of an optimiser's state is a moment of N Gaussians; its counters are scalars.
  """

  def one(old: Array, new: Array) -> Array:
    return old if old.ndim == 0 else jnp.where(moved.reshape(-1, *[1] * (old.ndim - 1)), new, old)

  return jax.tree.map(one, opt_state, fresh)
