"""Good defaults: the one module that knows all parts and puts them together."""

import functools
import hashlib
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from gaussjax import arguments, geometry, image_io, startup
from gaussjax.fitting import (
  checkpoints,
  clock,
  density,
  guards,
  initializers,
  loop,
  optimizers,
  resumption,
)
from gaussjax.quality import losses, metrics
from gaussjax.rendering import bands, blends, buckets, kernel, renderer
from gaussjax.types import Array, Canvas, FitResult, Gaussians, Shape, Stop


class Recipe(NamedTuple):
  """All that a fit is made of, apart from the image and N: functions, or any callables that can be hashed."""

  initialize: Callable[[Array, Array, int], Gaussians] = initializers.structure_tensor
  parameterize: Callable[[Shape], Shape] = geometry.to_euler
  blend: blends.Blend = blends.weighted_average
  weighted: bool = False  # whether each Gaussian has a log-weight
  sloped: bool = False  # whether its brightness changes with the place, for blends that draw that (`Blend.sloped`)
  loss: Callable[[Array, Array], Array] = losses.l2
  objective: Callable[[Array, Gaussians], Array] | None = None  # (loss, set) -> what is minimised; None: the loss
  learning_rate: float = 0.03  # of the colours; the other fields' rates keep their ratio to it
  ratios: optimizers.Rates = optimizers.Rates(
    means=50, log_scales=3, thetas=5, lengths=10, colors=1, log_weights=10
  )
  schedule: optimizers.Schedule = optimizers.cosine
  lengths_in: Callable[[int, int], float] = lambda height, width: 1.0  # the unit of the lengths' rates, in pixels
  optimizer: Callable[..., optax.GradientTransformationExtraArgs] = optimizers.adam
  project: Callable[[Gaussians], Gaussians] = geometry.contain  # after each step: the nearest set that may be
  policy: density.Policy | None = density.relocate  # density control, for the weighted average; None: the set stays
  steps: int = 1600
  checked: bool = False


NEIGHBORS = loop.NeighborFns(lambda params, like: renderer.allocate(params, like=like), renderer.refresh)

NEVER_EARLY = Stop()  # the preset's number of steps


def fit(
  image: ArrayLike,
  *,
  num_gaussians: int,
  seed: int = 0,
  preset: str | Recipe = "balanced",
  stop: Stop = NEVER_EARLY,
  checkpoint: checkpoints.Checkpoint | None = None,
  progress_fn: loop.Progress | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> FitResult:
  """Fits `num_gaussians` Gaussians to an image `[H, W, C]` (float in [0, 1], uint8 or uint16).

  The result is the best of all sets that were measured, and `metrics` is of it. With `checkpoint` the fit goes on
  from what it finds there, to the same result as without the interruption. `seed` is 0 to 2^32 - 1. The devices of
  a `mesh` (jax.make_mesh), of several processes too, share out the picture's rows.

  `progress_fn` receives a record every loop.LOG_EVERY steps: step, loss, psnr, min_scale_px, min_scale (of the
  longer side), mse, w_median, covered, seconds (XLA's compilation apart), steps_per_second, eta_seconds, rollbacks.

  Raises ValueError for arguments that make no sense and for the checkpoint of another fit, FitError when the
  numbers diverge again and again.
  """
  with clock.stepping_clock() as seconds:
    asked = Asked(num_gaussians, seed, preset, stop, checkpoint, progress_fn, mesh)
    return result(*_ended(image, asked, seconds), seconds)


class Asked(NamedTuple):
  """The arguments of `fit`, but for the image."""

  num_gaussians: int
  seed: int = 0
  preset: str | Recipe = "balanced"
  stop: Stop = NEVER_EARLY
  checkpoint: checkpoints.Checkpoint | None = None
  progress_fn: loop.Progress | None = None
  mesh: jax.sharding.Mesh | None = None
  places: int | None = None  # that programs are for, if not N; a round of density control parks those beyond


def fitted(image: ArrayLike, asked: Asked) -> Gaussians:
  """The set of `fit` alone: its metrics have programs of their own, which take an eighth of a first encoding.

  The fit is of the picture in its bucket, where all parts of the recipe know what that is. Parked Gaussians are
  left in if more places were asked for.
  """
  with clock.stepping_clock() as seconds:
    ended = _ended(image, asked, seconds, bucketed=_knows_buckets(of(asked.preset)))[1]
  found = geometry.live(ended.best) if asked.places is None else _within(asked.num_gaussians, ended)
  return buckets.on(found, *np.shape(image)[:2])


def _within(budget: int, ended: loop.Run) -> Gaussians:
  """The best set of a run, or the last one if the best is of before those beyond the `budget` were parked."""
  return ended.best if len(geometry.shown(ended.best)) <= budget else ended.state.params


IN_BUCKETS = (losses.l2, losses.visual)  # losses that hardly change by pixels that are alike


def _knows_buckets(recipe: Recipe) -> bool:
  known = (initializers.structure_tensor, initializers.gradient_sampled)
  return (
    recipe.loss in IN_BUCKETS
    and recipe.initialize in known
    and (recipe.policy is None or density.relocates(recipe.policy))
  )


def _ended(
  image: ArrayLike, asked: Asked, seconds: Callable[[], float], *, bucketed: bool = False
) -> tuple[Recipe, loop.Run, Array]:
  """The recipe, the run at its end, and the target of a fit."""
  startup.release_programs()
  recipe, checkpoint, mesh = of(asked.preset), asked.checkpoint, asked.mesh
  pixels = image_io.as_image(image)
  num_gaussians = arguments.whole("num_gaussians", asked.num_gaussians, least=1, most=arguments.MAX_GAUSSIANS)
  seed = arguments.whole("seed", asked.seed, least=0, most=arguments.MAX_SEED)
  stop = checked_stop(asked.stop, recipe)
  target = renderer.target(buckets.padded(pixels) if bucketed else pixels)
  key_start, key_run = jax.random.split(jax.random.key(seed))
  fitter = make_fitter(recipe, *target.shape[:2])
  state = fitter.init(start(key_start, target, asked.places or num_gaussians, recipe))
  if mesh is not None:
    target, key_run, state = renderer.target(pixels, mesh), *_on_mesh((key_run, state), recipe, mesh)
  begun = loop.begin(state)
  on = host(recipe, num_gaussians, seconds, asked.progress_fn)
  if checkpoint is None:
    return recipe, loop.run(key_run, fitter, begun, target, stop=stop, host=on), target
  about = _about(pixels, num_gaussians, seed, stop, checkpoint.label)
  begun = resumption.resumed(checkpoint, about, begun)
  save = resumption.saver(checkpoint, about, begun)
  ended = loop.run(key_run, fitter, begun, target, stop=stop, host=on._replace(save=save))
  save(ended, last=True)
  return recipe, ended, target


def _on_mesh(begun: tuple[Array, loop.State], recipe: Recipe, mesh: jax.sharding.Mesh) -> tuple[Array, loop.State]:
  """A key and a state on each device of a mesh, which is to share out the rows. Raises ValueError."""
  if recipe.loss not in losses.PIXELWISE:
    raise ValueError("got a mesh with a loss that does not go by pixels, expected one of losses.PIXELWISE")
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  # By way of the host, which is where devices of other processes take arrays from.
  put = lambda tree: jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf), everywhere), tree)
  key, state = jax.random.wrap_key_data(put(jax.random.key_data(begun[0]))), put(begun[1])
  return key, state._replace(neighbors=renderer.on_mesh(state.neighbors, mesh))


def _about(pixels: np.ndarray, num_gaussians: int, seed: int, stop: Stop, label: str) -> dict:
  """What a checkpoint knows of its fit."""
  return {
    "image": hashlib.sha256(pixels.tobytes()).hexdigest(),
    "size": list(pixels.shape),
    "num_gaussians": num_gaussians,
    "seed": seed,
    "max_steps": stop.max_steps,
    "label": str(label),
  }


def host(recipe: Recipe, budget: int, seconds: Callable[[], float], progress_fn: loop.Progress | None) -> loop.Host:
  """What the loop of a recipe's fit to at most `budget` Gaussians does between chunks."""
  return loop.Host(
    measure=functools.partial(_measure, recipe.loss),
    clock=seconds,
    neighbors=NEIGHBORS,
    progress_fn=progress_fn,
    advance=loop.advance_checked if recipe.checked else loop.advance,
    control=functools.partial(control, recipe, budget) if controls_density(recipe) else None,
  )


def result(recipe: Recipe, ended: loop.Run, target: Array, seconds: Callable[[], float]) -> FitResult:
  """The best set of a run, with its record and all other metrics."""
  best = ended.best
  timing = {name: ended.history[-1][name] for name in ("seconds", "steps_per_second", "rollbacks")}
  # On the fit's own neighbours: a render's would be of another capacity, and compile a program for it.
  neighbors = renderer.allocate(best, like=ended.state.neighbors)
  measured = _measured(recipe.loss, best, neighbors, target)
  final = {**ended.record, **{name: float(value) for name, value in measured.items()}, **timing}
  if target.shape[0] * target.shape[1] <= metrics.MOST_PIXELS:
    final |= metrics.evaluate(_picture(best, neighbors), target)
  del final["eta_seconds"]
  return FitResult(geometry.live(best), ended.state, ended.history, final)


def start(key: Array, target: Array, num_gaussians: int, recipe: Recipe) -> Gaussians:
  """The set that a fit starts from, on its canvas; the background is the target's mean."""
  gaussians = recipe.initialize(key, target, num_gaussians)
  if len(gaussians.means) != num_gaussians:
    raise ValueError(f"got {len(gaussians.means)} Gaussians from the recipe's initialize, expected {num_gaussians}")
  return on_canvas(gaussians, target, recipe)


@functools.partial(jax.jit, static_argnums=2)
def on_canvas(gaussians: Gaussians, target: Array, recipe: Recipe) -> Gaussians:
  """What an initializer gave, as the recipe wants it, on the canvas of a target."""
  height, width, _ = target.shape
  background = jnp.mean(target, axis=(0, 1), where=buckets.counted(target)[..., None])
  canvas = Canvas(height, width, background, recipe.blend)
  log_weights = jnp.zeros(len(gaussians.means), target.dtype) if recipe.weighted else gaussians.log_weights
  slopes = jnp.zeros_like(gaussians.means) if recipe.sloped else gaussians.slopes
  return Gaussians(
    gaussians.means, recipe.parameterize(gaussians.shape), gaussians.colors, log_weights, canvas, slopes
  )


# Weights let a small Gaussian cover a large one: 0.4 dB, with rates and moments to suit 0.55. Slow turns: 0.1.
_GOOD = Recipe(
  weighted=True,
  ratios=Recipe().ratios._replace(log_scales=6),
  optimizer=functools.partial(optimizers.adam, b2=0.97, most_turn=optimizers.MOST_TURN),
)
PRESETS = {"fast": _GOOD._replace(steps=400), "balanced": _GOOD, "best": _GOOD._replace(steps=5000)}


@functools.lru_cache(maxsize=64)  # the same functions for the same recipe, so that jit finds its programs again
def make_fitter(recipe: Recipe, height: int, width: int) -> loop.Fitter:
  """The pure functions of a recipe's fit to images of one size, targets `[H, W, C]`."""

  def loss_fn(params: Gaussians, neighbors: renderer.Neighbors, target: Array) -> Array:
    loss = distortion(recipe.loss, params, neighbors, target)
    return loss if recipe.objective is None else recipe.objective(loss, params)

  check = guards.check if recipe.checked else None
  optimizer = _optimizer(recipe, height, width)
  return loop.fitter(loss_fn, optimizer, neighbors=NEIGHBORS, project=recipe.project, check=check)


def distortion(
  loss: Callable[[Array, Array], Array], params: Gaussians, neighbors: renderer.Neighbors, target: Array
) -> Array:
  """The `loss` [] of a set's picture; of a large one band by band, where the loss goes by pixels.

  Pixels of the target that are no picture's count as alike; only the losses IN_BUCKETS know any.
  """
  if loss is losses.l2:
    return bands.mean(blends.mean_square, params, neighbors, target)
  if loss in losses.PIXELWISE:
    return bands.mean(bands.of_pixels(loss), params, neighbors, target)
  drawn = blends.picture(params, renderer.rasterizer(params, neighbors))
  return loss(*blends.compared(drawn, target, 0)) if loss in IN_BUCKETS else loss(drawn, target)


def rates(recipe: Recipe, height: int, width: int) -> optimizers.Rates:
  """Rates a step: the recipe's ratios times its learning rate, those of lengths in its unit of length."""
  scaled = optimizers.Rates(*[recipe.learning_rate * ratio for ratio in recipe.ratios])
  unit = recipe.lengths_in(height, width)
  return scaled._replace(means=scaled.means * unit, lengths=scaled.lengths * unit)


def _optimizer(recipe: Recipe, height: int, width: int) -> optax.GradientTransformationExtraArgs:
  return recipe.optimizer(rates(recipe, height, width), recipe.schedule)


def controls_density(recipe: Recipe) -> bool:
  """Whether a recipe's fit moves Gaussians."""
  return recipe.policy is not None


def control(
  recipe: Recipe, budget: int, key: Array, state: loop.State, target: Array, progress: float
) -> loop.State:
  """One round of the recipe's density control: changed Gaussians get fresh moments, the others keep theirs."""
  state = state._replace(neighbors=renderer.allocate(state.params, like=state.neighbors))
  state = controlled(recipe, jnp.int32(budget), key, state, target, jnp.float32(progress))
  return state._replace(neighbors=renderer.allocate(state.params, like=state.neighbors))


@functools.partial(jax.jit, static_argnums=0)
def controlled(
  recipe: Recipe, budget: Array, key: Array, state: loop.State, target: Array, progress: Array
) -> loop.State:
  """The part of `control` within jit, on neighbours that are valid; those of the state it returns are not."""
  height, width, _ = target.shape
  rasterizer = renderer.rasterizer(state.params, state.neighbors)
  scene = density.Scene(state.params, rasterizer, target, state.opt_state, budget, progress)
  params, fresh = recipe.policy(key, scene)  # type: ignore[misc]
  moments = _optimizer(recipe, height, width).init(params)
  return state._replace(params=params, opt_state=loop.forget(state.opt_state, moments, fresh))


def _measure(loss: Callable[[Array, Array], Array], state: loop.State, target: Array) -> loop.Record:
  neighbors = renderer.allocate(state.params, like=state.neighbors)
  measured = _measured(loss, state.params, neighbors, target)
  return {name: float(value) for name, value in measured.items()}


@functools.partial(jax.jit, static_argnums=0)
def _measured(loss: Callable, params: Gaussians, neighbors: renderer.Neighbors, target: Array) -> dict[str, Array]:
  """What a record holds."""
  by_pixels = loss in losses.PIXELWISE

  def visit(on: kernel.Rasterizer, seen: Array, first: Array) -> tuple[Array, ...]:
    new = jnp.arange(len(seen)) >= first
    (drawn, weights), pixels = blends.with_coverage(params, on), target.shape[0] * target.shape[1]
    drawn, wanted = blends.compared(drawn, seen, first)
    error = jnp.mean(jnp.square(jnp.clip(drawn, 0, 1) - wanted), axis=-1)
    covered = jnp.sum((weights > guards.COVERED) & buckets.counted(seen), axis=1)
    share = len(seen) / target.shape[0]
    return (
      loss(drawn, wanted) * share if by_pixels else jnp.zeros(()),
      jnp.sum(error.sum(1)) / pixels,
      jnp.sum(covered, where=new) / pixels,
      guards.sample(weights),
    )

  found, errors, covered, sampled = bands.each(visit, params, neighbors, target)
  share = buckets.share(target)
  error = jnp.sum(errors) / share
  return {
    "loss": jnp.sum(found) / share if by_pixels else distortion(loss, params, neighbors, target),
    "psnr": metrics.psnr_of(error),
    "mse": error,
    **guards.diagnostics(params, sampled.ravel(), jnp.sum(covered) / share),
  }


@jax.jit
def _picture(params: Gaussians, neighbors: renderer.Neighbors) -> Array:
  return blends.picture(params, renderer.rasterizer(params, neighbors))


def of(preset: str | Recipe) -> Recipe:
  """The recipe of a preset's name, or the recipe itself, its numbers Python's own.

  Raises ValueError for a name that is not in PRESETS, and for a recipe that makes no sense.
  """
  if isinstance(preset, Recipe):
    return _checked_recipe(preset)
  if not isinstance(preset, str) or preset not in PRESETS:
    raise ValueError(f"got preset {arguments.shown(preset)}, expected one of {', '.join(PRESETS)} or a Recipe")
  return PRESETS[preset]


_MAY_BE_NONE = ("objective", "policy")
_NUMBERS = ("weighted", "sloped", "learning_rate", "ratios", "steps", "checked")


def _checked_recipe(recipe: Recipe) -> Recipe:
  for name, part in recipe._asdict().items():
    if name in _NUMBERS or (part is None and name in _MAY_BE_NONE):
      continue
    if not callable(part):
      raise ValueError(f"got a recipe with {name}={arguments.shown(part)}, expected a function")
    try:
      hash(part)
    except TypeError as error:
      raise ValueError(
        f"got a recipe whose {name} cannot be hashed ({error}), expected a function or an object with __hash__, "
        "such as one of a frozen dataclass"
      ) from error
  _check_blend(recipe)
  rate = arguments.real("learning_rate", recipe.learning_rate)
  if not 0 < rate < math.inf:
    raise ValueError(f"got a learning rate of {rate}, expected a finite number above 0")
  ratios = [arguments.real(f"ratios.{name}", ratio, least=0) for name, ratio in recipe.ratios._asdict().items()]
  steps = arguments.whole("steps", recipe.steps, least=1, most=arguments.MAX_STEPS)
  return recipe._replace(learning_rate=rate, ratios=optimizers.Rates(*ratios), steps=steps)


def _check_blend(recipe: Recipe) -> None:
  """Raises ValueError for a blend that the recipe's other parts do not know."""
  name = blends.checked(recipe.blend).name
  if density.relocates(recipe.policy) and not recipe.blend.density:
    raise ValueError(f"got the blend {name}, whose removal costs density control does not know; give policy=None")
  if recipe.sloped and not recipe.blend.sloped:
    raise ValueError(f"got sloped=True with the blend {name}, which draws no slopes; give sloped=False")


def checked_stop(stop: Stop, recipe: Recipe) -> Stop:
  """The same with the recipe's steps where it has none. Raises ValueError."""
  max_steps = recipe.steps if stop.max_steps is None else stop.max_steps
  if stop.requested is not None and not callable(stop.requested):
    raise ValueError(f"got requested={arguments.shown(stop.requested)}, expected a function")
  real = lambda name, value, **least: None if value is None else arguments.real(name, value, **least)
  return Stop(
    arguments.whole("max_steps", max_steps, least=1, most=arguments.MAX_STEPS),
    real("target_psnr", stop.target_psnr),
    real("time_limit", stop.time_limit, least=0),
    real("min_gain", stop.min_gain),
    stop.requested,
  )
