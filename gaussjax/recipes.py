"""Good defaults: the one module that knows all parts and puts them together."""

import contextlib
import functools
import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from gaussjax import (
  checkpoints,
  density,
  drawing,
  fitting,
  geometry,
  guards,
  image_io,
  initializers,
  losses,
  metrics,
  optimizers,
  rendering,
  solvers,
)
from gaussjax.types import Array, Canvas, FitResult, Gaussians, Shape, Stop


class Recipe(NamedTuple):
  """All that a fit is made of, apart from the image and N: functions, not names. Hashable."""

  initialize: Callable[[Array, Array, int], Gaussians] = initializers.gradient_sampled
  parameterize: Callable[[Shape], Shape] = geometry.to_euler
  blend: rendering.Blend = rendering.weighted_average
  loss: Callable[[Array, Array], Array] = losses.l2
  learning_rate: float = 0.03  # of the colours; the other fields' rates keep their ratio to it
  ratios: optimizers.Rates = optimizers.Rates(means=50, log_scales=3, thetas=5, lengths=10, colors=1)
  schedule: optimizers.Schedule = optimizers.cosine
  lengths_in: Callable[[int, int], float] = lambda height, width: 1.0  # the unit of the lengths' rates, in pixels
  relocate: Callable | None = density.relocate  # density control, for the weighted average; None: the set stays
  start_solve: int = 0  # iterations of the closed-form colours before the first step
  final_solve: int = 0  # and after the last, kept if the loss is less
  steps: int = 2000
  checked: bool = False


# The seed's: one constant rate 0.01, lengths in units of the longer side, 100 steps.
V1 = Recipe(
  initialize=initializers.random,
  learning_rate=0.01,
  ratios=optimizers.Rates(means=1, log_scales=1, thetas=1, lengths=1, colors=1, log_weights=1),
  schedule=optimizers.constant,
  lengths_in=max,
  relocate=None,
  steps=100,
)

LISTS = fitting.Lists(drawing.allocate, drawing.refresh)

NEVER_EARLY = Stop()  # the preset's number of steps

PRESETS = {
  "fast": Recipe(learning_rate=0.04, steps=400),
  "balanced": Recipe(),
  "best": Recipe(learning_rate=0.02, steps=6000),
}


def fit(
  image: ArrayLike,
  *,
  num_gaussians: int,
  seed: int = 0,
  preset: str | Recipe = "balanced",
  stop: Stop = NEVER_EARLY,
  checkpoint: checkpoints.Checkpoint | None = None,
  progress_fn: fitting.Progress | None = None,
) -> FitResult:
  """Fits `num_gaussians` Gaussians to an image `[H, W, C]` (float in [0, 1], uint8 or uint16).

  The result is the best of all sets that were measured, and `metrics` is of it. With `checkpoint` the fit goes on
  from what it finds there, to the same result as without the interruption.

  `progress_fn` receives a record every fitting.LOG_EVERY steps: step, loss, psnr, min_scale_px, min_scale (of the
  longer side), w_median, covered, seconds (XLA's compilation apart), steps_per_second, eta_seconds, rollbacks.

  Raises ValueError for arguments that make no sense and for the checkpoint of another fit, guards.FitError when the
  numbers diverge again and again.
  """
  recipe = of(preset)
  pixels = image_io.as_image(image)
  _check_arguments(pixels, num_gaussians, recipe, stop)
  stop = stop._replace(max_steps=recipe.steps if stop.max_steps is None else stop.max_steps)
  target = jnp.asarray(pixels)
  about = {
    "image": hashlib.sha256(pixels.tobytes()).hexdigest(),
    "size": list(pixels.shape),
    "num_gaussians": num_gaussians,
    "seed": seed,
    "max_steps": stop.max_steps,
    "recipe": describe(recipe),
  }
  with stepping_clock() as clock:
    key_start, key_run = jax.random.split(jax.random.key(seed))
    fitter = make_fitter(recipe, *target.shape[:2])
    params = start(key_start, target, num_gaussians, recipe)
    if recipe.start_solve:
      params = _solved(params, drawing.allocate(params), target, recipe.start_solve)
    begun = fitting.begin(fitter.init(params))
    if checkpoint is not None:
      begun = _resumed(checkpoint, about, begun)
    save = None if checkpoint is None else _saver(checkpoint, about, begun)
    on = host(recipe, clock, progress_fn)._replace(save=save)
    ended = fitting.run(key_run, fitter, begun, target, stop=stop, host=on)
    if checkpoint is not None:
      _keep(checkpoint, about, ended)
    return result(recipe, ended, target, clock)


def host(recipe: Recipe, clock: Callable[[], float], progress_fn: fitting.Progress | None) -> fitting.Host:
  """What the loop of a recipe's fit does between chunks."""
  return fitting.Host(
    measure=functools.partial(_measure, recipe.loss),
    clock=clock,
    lists=LISTS,
    progress_fn=progress_fn,
    advance=fitting.advance_checked if recipe.checked else fitting.advance,
    control=functools.partial(control, recipe) if controls_density(recipe) else None,
  )


def result(recipe: Recipe, ended: fitting.Run, target: Array, clock: Callable[[], float]) -> FitResult:
  """The best set of a run, its colours solved for if that lowers the loss, with all metrics."""
  best, record = ended.best, min(ended.history, key=lambda record: record["loss"])
  timing = {name: ended.history[-1][name] for name in ("seconds", "steps_per_second", "rollbacks")}
  # On the fit's own lists: a render's would be of another capacity, and compile a program for it.
  lists = drawing.allocate(best, ended.state.lists)
  measured, prediction = _measurements(recipe.loss, best, lists, target)
  if recipe.final_solve and geometry.canvas_of(best).blend in rendering.LINEAR_BLENDS:
    before = clock()
    solved = _solved(best, lists, target, recipe.final_solve)
    solved_measured, solved_prediction = _measurements(recipe.loss, solved, lists, target)
    if solved_measured["loss"] < measured["loss"]:
      best, measured, prediction = solved, solved_measured, solved_prediction
    timing["seconds"] += clock() - before
  final = {**record, **{name: float(value) for name, value in measured.items()}, **timing}
  final |= evaluate(prediction, target)
  del final["eta_seconds"]
  return FitResult(best, ended.state, ended.history, final)


@functools.partial(jax.jit, static_argnums=3)
def _solved(params: Gaussians, lists: drawing.Lists, target: Array, iterations: int) -> Gaussians:
  rasterizer = drawing.rasterizer(params, lists, target.shape[0], target.shape[1])
  return solvers.solve_colors(params, rasterizer, target, iterations=iterations)


@contextlib.contextmanager
def stepping_clock() -> Iterator[Callable[[], float]]:
  """Seconds since the block began; the clock stands still while XLA compiles for this thread."""
  thread, began, compiling = threading.get_ident(), time.monotonic(), 0.0

  def listen(event: str, duration_secs: float, **_: Any) -> None:
    nonlocal compiling
    if event.endswith("backend_compile_duration") and threading.get_ident() == thread:
      compiling += duration_secs

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield lambda: time.monotonic() - began - compiling
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


def describe(recipe: Recipe) -> str:
  """A recipe in words that are the same in every process: functions by name, with what they are given."""

  def name(part: Any) -> str:
    if isinstance(part, functools.partial):
      given = [repr(value) for value in part.args] + [f"{key}={value!r}" for key, value in part.keywords.items()]
      return f"{name(part.func)}({', '.join(given)})"
    return f"{part.__module__}.{part.__qualname__}" if callable(part) else repr(part)

  return ", ".join(f"{field}={name(part)}" for field, part in recipe._asdict().items())


def _saver(checkpoint: checkpoints.Checkpoint, about: dict, begun: fitting.Run) -> Callable[[fitting.Run], None]:
  """What writes a checkpoint when one is due."""
  last_step, last_time = int(begun.state.step), time.monotonic()

  def save(run: fitting.Run) -> None:
    nonlocal last_step, last_time
    step, now = int(run.state.step), time.monotonic()
    if step - last_step >= checkpoint.every_steps or now - last_time >= checkpoint.every_seconds:
      _keep(checkpoint, about, run)
      last_step, last_time = step, now

  return save


def _keep(checkpoint: checkpoints.Checkpoint, about: dict, run: fitting.Run) -> None:
  checkpoints.keep(checkpoint.folder, int(run.state.step), _stored(run), about, run.history)


def _stored(run: fitting.Run) -> Any:
  """The arrays of a run that a checkpoint holds.

  Lists are among them since rounding depends on them, except those of an ordered blend, whose static size grows.
  """
  lists = run.state.lists
  lists = lists if lists and not lists.lists.max_blocks else ()
  return run.state._replace(lists=lists), run.best, np.float64(run.best_loss)


def _resumed(checkpoint: checkpoints.Checkpoint, about: dict, begun: fitting.Run) -> fitting.Run:
  """The run that a checkpoint holds, or the one just begun."""
  found = checkpoints.resume(checkpoint.folder, _stored(begun), about)
  if found is None:
    return begun
  (state, best, best_loss), history = found
  if not state.lists:
    state = state._replace(lists=drawing.allocate(state.params, begun.state.lists))
  return fitting.Run(state, best, float(best_loss), history)


@functools.partial(jax.jit, static_argnames=("num_gaussians", "recipe"))
def start(key: Array, target: Array, num_gaussians: int, recipe: Recipe) -> Gaussians:
  """The set that a fit starts from, on its canvas; the background is the target's mean."""
  height, width, _ = target.shape
  gaussians = recipe.initialize(key, target, num_gaussians)
  canvas = Canvas(height, width, jnp.mean(target, axis=(0, 1)), recipe.blend)
  return gaussians._replace(shape=recipe.parameterize(gaussians.shape), canvas=canvas)


@jax.jit
def _metrics(prediction: Array, target: Array) -> dict[str, Array]:
  values = {"mse": metrics.mse(prediction, target), "psnr": metrics.psnr(prediction, target)}
  if min(target.shape[:2]) >= 11:
    values["ssim"] = metrics.ssim(prediction, target)
  if min(target.shape[:2]) >= 176:
    values["ms_ssim"] = metrics.ms_ssim(prediction, target)
  return values


def evaluate(prediction: Array, target: Array) -> dict[str, float]:
  """All metrics of a render: mse, psnr in dB, from 11 x 11 pixels on ssim, from 176 x 176 on ms_ssim."""
  return {name: float(value) for name, value in _metrics(prediction, target).items()}


@functools.lru_cache(maxsize=64)  # the same functions for the same recipe, so that jit finds its programs again
def make_fitter(recipe: Recipe, height: int, width: int) -> fitting.Fitter:
  """The pure functions of a recipe's fit to images of one size, targets `[H, W, C]`."""

  def loss_fn(params: Gaussians, lists: drawing.Lists, target: Array) -> Array:
    return recipe.loss(drawing.picture(params, drawing.rasterizer(params, lists, height, width)), target)

  optimizer = _optimizer(recipe, height, width)
  return fitting.fitter(loss_fn, optimizer, lists=LISTS, check=guards.check if recipe.checked else None)


def rates(recipe: Recipe, height: int, width: int) -> optimizers.Rates:
  """Rates a step: the recipe's ratios times its learning rate, those of lengths in its unit of length."""
  scaled = optimizers.Rates(*[recipe.learning_rate * ratio for ratio in recipe.ratios])
  unit = recipe.lengths_in(height, width)
  return scaled._replace(means=scaled.means * unit, lengths=scaled.lengths * unit)


def _optimizer(recipe: Recipe, height: int, width: int) -> optax.GradientTransformationExtraArgs:
  return optimizers.adam(rates(recipe, height, width), recipe.schedule)


def controls_density(recipe: Recipe) -> bool:
  """Whether a recipe's fit moves Gaussians: its policy knows the weighted average only."""
  return recipe.relocate is not None and recipe.blend is rendering.weighted_average


def control(recipe: Recipe, key: Array, state: fitting.State, target: Array) -> fitting.State:
  """One round of the recipe's density control: moved Gaussians get fresh moments, the others keep theirs."""
  state = _relocated(recipe, key, state._replace(lists=drawing.allocate(state.params, state.lists)), target)
  return state._replace(lists=drawing.allocate(state.params, state.lists))


@functools.partial(jax.jit, static_argnums=0)
def _relocated(recipe: Recipe, key: Array, state: fitting.State, target: Array) -> fitting.State:
  height, width, _ = target.shape
  rasterizer = drawing.rasterizer(state.params, state.lists, height, width)
  params, moved = recipe.relocate(key, state.params, rasterizer, target)  # type: ignore[misc]
  fresh = _optimizer(recipe, height, width).init(params)
  return state._replace(params=params, opt_state=fitting.forget(state.opt_state, fresh, moved))


def _measure(loss: Callable[[Array, Array], Array], state: fitting.State, target: Array) -> fitting.Record:
  lists = drawing.allocate(state.params, state.lists)
  measured, _ = _measurements(loss, state.params, lists, target)
  return {name: float(value) for name, value in measured.items()}


@functools.partial(jax.jit, static_argnums=0)
def _measurements(
  loss: Callable, params: Gaussians, lists: drawing.Lists, target: Array
) -> tuple[dict[str, Array], Array]:
  """What a record holds, and the picture."""
  rasterizer = drawing.rasterizer(params, lists, target.shape[0], target.shape[1])
  prediction = drawing.picture(params, rasterizer)
  measured = {
    "loss": loss(prediction, target),
    "psnr": metrics.psnr(prediction, target),
    **guards.diagnostics(params, rendering.coverage(rasterizer)),
  }
  return measured, prediction


def of(preset: str | Recipe) -> Recipe:
  """The recipe of a preset's name, or the recipe itself. Raises ValueError for a name that is not in PRESETS."""
  if isinstance(preset, Recipe):
    return preset
  if preset not in PRESETS:
    raise ValueError(f"got preset {preset!r}, expected one of {', '.join(PRESETS)} or a Recipe")
  return PRESETS[preset]


def _check_arguments(image: np.ndarray, num_gaussians: int, recipe: Recipe, stop: Stop) -> None:
  if num_gaussians < 1:
    raise ValueError(f"got num_gaussians={num_gaussians}, expected at least 1")
  if not (math.isfinite(recipe.learning_rate) and recipe.learning_rate > 0):
    raise ValueError(f"got a learning rate of {recipe.learning_rate}, expected a finite number above 0")
  if stop.max_steps is not None and stop.max_steps < 1:
    raise ValueError(f"got max_steps={stop.max_steps}, expected at least 1")
