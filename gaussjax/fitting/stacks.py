"""Many pictures of one size fitted at once, as one program under vmap: for devices that one fit does not fill."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from gaussjax import arguments, image_io, startup
from gaussjax.errors import FitError
from gaussjax.fitting import loop, recipes
from gaussjax.quality import metrics
from gaussjax.rendering import blends, renderer
from gaussjax.types import Array, Gaussians


def fit_stack(
  images: Sequence[ArrayLike] | np.ndarray,
  *,
  num_gaussians: int,
  seed: int = 0,
  preset: str | recipes.Recipe = "balanced",
  steps: int | None = None,
) -> tuple[Gaussians, Array]:
  """Fits `num_gaussians` Gaussians to each of B images of one size `[H, W, C]`, all in the same steps.

  Returns (the sets, every array with a first axis of B; PSNR `[B]`), as they are after the last step. One is
  `jax.tree.map(lambda leaf: leaf[i], sets)`. Steps, density control and start are those of `fit`, which fits one
  image at a time, keeps the best set that it saw and goes back where a step fails.

  Raises ValueError for arguments that make no sense, FitError where the numbers of an image diverge.
  """
  startup.release_programs()
  recipe = recipes.of(preset)
  pixels = [image_io.as_image(image) for image in images]
  if not pixels or len({image.shape for image in pixels}) > 1:
    sizes = ", ".join(sorted({str(image.shape) for image in pixels})) or "no images"
    raise ValueError(f"got {sizes}, expected images of one size [H, W, C]")
  num_gaussians = arguments.whole("num_gaussians", num_gaussians, least=1, most=arguments.MAX_GAUSSIANS)
  seed = arguments.whole("seed", seed, least=0, most=arguments.MAX_SEED)
  steps = arguments.whole("steps", recipe.steps if steps is None else steps, least=1, most=arguments.MAX_STEPS)
  key_start, key_run = jax.random.split(jax.random.key(seed))
  targets = jnp.stack(pixels)
  params = _stack([recipes.start(key_start, target, num_gaussians, recipe) for target in targets])
  states = _fitted(key_run, recipe, params, targets, steps, num_gaussians)
  drawn = _draw(states.params, _valid(states.params, states.neighbors))
  return states.params, _psnr(drawn, targets)


def _fitted(
  key: Array, recipe: recipes.Recipe, params: Gaussians, targets: Array, steps: int, budget: int
) -> loop.State:
  """The states after `steps` steps from `params`."""
  fitter, host = recipes.make_fitter(recipe, *targets.shape[1:3]), recipes.host(recipe, budget, float, None)
  states = _stack([fitter.init(one)._replace(neighbors=None) for one in _apart(params)])
  states, done = states._replace(neighbors=_allocated(params)), 0
  while done < steps:
    until = min((done // loop.CONTROL_EVERY + 1) * loop.CONTROL_EVERY, steps)
    states, info = _advance(fitter.step, states, targets, jnp.int32(until), jnp.float32(steps))
    failed = np.flatnonzero(~np.asarray(loop.succeeded(info)))
    if np.any(info.overflow):
      states = states._replace(neighbors=_allocated(states.params, states.neighbors))
    elif len(failed):
      step = int(states.step[failed[0]]) + 1
      raise FitError(f"step {step} of image {failed[0]} of the stack is not finite; fit it alone to see why")
    else:
      done = until
      if host.control is not None and done < steps and loop.controls_at(host, done, steps):
        states = _controlled(jax.random.fold_in(key, done), recipe, states, targets, done / steps, budget)
  return states


@functools.partial(jax.jit, static_argnames="step")
def _advance(step: Callable, states: loop.State, targets: Array, until: Array, total: Array) -> Any:
  """loop.advance of each, in as many trips as the one needs that is furthest behind."""
  return jax.vmap(lambda state, target: loop.advance(step, state, target, until, total))(states, targets)


def _controlled(
  key: Array, recipe: recipes.Recipe, states: loop.State, targets: Array, progress: float, budget: int
) -> loop.State:
  """One round of density control of each."""
  states = states._replace(neighbors=_valid(states.params, states.neighbors))
  states = _control(recipe, jnp.int32(budget), key, states, targets, jnp.float32(progress))
  return states._replace(neighbors=_valid(states.params, states.neighbors))


@functools.partial(jax.jit, static_argnums=0)
def _control(
  recipe: recipes.Recipe, budget: Array, key: Array, states: loop.State, targets: Array, progress: Array
) -> loop.State:
  one = lambda state, target: recipes.controlled(recipe, budget, key, state, target, progress)
  return jax.vmap(one)(states, targets)


def _allocated(params: Gaussians, like: renderer.Neighbors | None = None) -> Any:
  """Neighbours of each, of one capacity, no smaller than `like`. Host."""
  ones = _apart(params)
  found = None if like is None else jax.tree.map(lambda leaf: leaf[0], like)
  for one in ones:
    found = renderer.allocate(one, like=found)
  return _stack([renderer.allocate(one, like=found) for one in ones])


@jax.jit
def _rebuilt(params: Gaussians, neighbors: Any) -> tuple[Any, Array]:
  return jax.vmap(renderer.rebuild)(params, neighbors)


def _valid(params: Gaussians, neighbors: Any) -> Any:
  """Neighbours that are valid for sets that were changed. Host, for one number."""
  fresh, overflow = _rebuilt(params, neighbors)
  return _allocated(params, neighbors) if np.any(overflow) else fresh


@jax.jit
def _draw(params: Gaussians, neighbors: Any) -> Array:
  """The pictures, `[B, H, W, C]`."""
  return jax.vmap(lambda one, on: blends.picture(one, renderer.rasterizer(one, on)))(params, neighbors)


@jax.jit
def _psnr(drawn: Array, targets: Array) -> Array:
  """`[B]`, dB."""
  return jax.vmap(metrics.psnr)(drawn, targets)


def _apart(stack: Any) -> list[Any]:
  """The trees of a stack, in numpy: slices on a device would be a program each."""
  host = jax.tree.map(np.asarray, stack)
  return [jax.tree.map(lambda leaf, i=i: leaf[i], host) for i in range(len(host.means))]


def _stack(trees: Sequence[Any]) -> Any:
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
