"""Fitting with more Gaussians than there will be, and pruning them on the way."""

import functools

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from gaussjax import arguments, image_io
from gaussjax.contrib import policies
from gaussjax.fitting import clock, loop, recipes
from gaussjax.types import FitResult, Stop


def fit_pruned(
  image: ArrayLike,
  *,
  num_gaussians: int,
  provision: float = 1.5,
  until: float = 0.5,
  seed: int = 0,
  preset: str | recipes.Recipe = "balanced",
  stop: Stop = recipes.NEVER_EARLY,
  progress_fn: loop.Progress | None = None,
) -> FitResult:
  """`fit`, which begins with `provision` times as many Gaussians and prunes them (`policies.prune`) to N.

  At the share `until` of the steps, or where `stop` ends the fit before, the set has its N; the result is the best
  of the sets measured from then on. There are no checkpoints. Density control is relocation, whatever the preset's
  policy. For the weighted average; raises ValueError for other blends and for arguments that make no sense.
  """
  recipe = recipes.of(preset)._replace(policy=functools.partial(policies.prune, until=until))
  if not recipe.blend.density:
    raise ValueError(f"got the blend {recipe.blend.name}, expected weighted_average, which density control knows")
  provision, until = arguments.real("provision", provision, least=1), arguments.real("until", until)
  if not 0 < until < 1:
    raise ValueError(f"got until={until}, expected a share between 0 and 1")
  num_gaussians = arguments.whole("num_gaussians", num_gaussians, least=1, most=arguments.MAX_GAUSSIANS)
  places = round(num_gaussians * min(provision, arguments.MAX_GAUSSIANS))
  arguments.whole("num_gaussians times provision", places, least=1, most=arguments.MAX_GAUSSIANS)
  seed = arguments.whole("seed", seed, least=0, most=arguments.MAX_SEED)
  stop = recipes.checked_stop(stop, recipe)
  total = stop.max_steps or recipe.steps
  middle = max(1, round(until * total))
  target = jnp.asarray(image_io.as_image(image))
  with clock.stepping_clock() as seconds:
    key_start, key_run = jax.random.split(jax.random.key(seed))
    fitter = recipes.make_fitter(recipe, *target.shape[:2])
    run = functools.partial(
      loop.run, key_run, fitter, host=recipes.host(recipe, num_gaussians, seconds, progress_fn), total=total
    )
    begun = loop.begin(fitter.init(recipes.start(key_start, target, places, recipe)))
    many = run(begun, target, stop=stop._replace(max_steps=middle))
    state = recipes.control(recipe, num_gaussians, key_run, many.state, target, max(until, middle / total))
    few = run(loop.begin(state), target, stop=stop)
    return recipes.result(recipe, few._replace(history=[*many.history[:-1], *few.history]), target, seconds)
