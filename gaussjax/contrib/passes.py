"""Fitting in passes: each adds Gaussians to the best set so far, where the error is, and is kept if it improves.

The set has its final size from the start, so one compiled step serves all passes: Gaussians whose turn has not come
are parked where no pixel sees them, and density control's births take those first.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from gaussjax import arguments, geometry, image_io
from gaussjax.contrib import policies
from gaussjax.fitting import clock, density, loop, recipes
from gaussjax.rendering import blends
from gaussjax.types import FitResult, Stop

# Relocation among as many Gaussians as a pass may show: the rest stay parked, and new ones take such places first.
_GROW: density.Policy = functools.partial(policies.prune, until=1e-6)


class Pass(NamedTuple):
  """What a pass brought."""

  num_gaussians: int  # visible ones, with this pass's
  psnr_before: float  # dB, of the best set before it
  psnr: float  # dB, of its own best set
  kept: bool


def fit_passes(
  image: ArrayLike,
  *,
  num_gaussians: int,
  passes: int = 10,
  first: float = 0.95,
  steps: int = 2000,
  seed: int = 0,
  preset: str | recipes.Recipe = "balanced",
  progress_fn: loop.Progress | None = None,
) -> tuple[FitResult, list[Pass]]:
  """Fits `image` `[H, W, C]` in `passes` of nearly equal numbers of steps, `steps` together.

  The first pass fits the share `first` of the Gaussians from the preset's own start. Each other one begins with a
  round of density control for a larger set: the new ones are `density.births`, at the error, with its size and
  colour, and fresh moments. What is still to come falls with the power by which relocation does. Within a pass
  density control relocates as in one fit, if the preset has it. A pass that does not raise the PSNR is taken back;
  its steps count. The passes go through the preset's schedule once, all together. For the weighted average; raises
  ValueError for other blends and for arguments that make no sense.
  """
  recipe = recipes.of(preset)
  num_gaussians = arguments.whole("num_gaussians", num_gaussians, least=1, most=arguments.MAX_GAUSSIANS)
  steps = arguments.whole("steps", steps, least=1, most=arguments.MAX_STEPS)
  passes = arguments.whole("passes", passes, least=1, most=min(num_gaussians, steps))
  seed = arguments.whole("seed", seed, least=0, most=arguments.MAX_SEED)
  if not 0 < arguments.real("first", first) <= 1:
    raise ValueError(f"got first={first}, expected a share above 0, at most 1")
  if recipe.blend != blends.weighted_average:
    raise ValueError(f"got the blend {recipe.blend.name}, expected weighted_average")
  target = jnp.asarray(image_io.as_image(image))
  key_start, key_births = jax.random.split(jax.random.key(seed))
  fitter = recipes.make_fitter(recipe, *target.shape[:2])
  to_come = lambda later: (1 - first) * (later / max(1, passes - 1)) ** density.FALL
  shown = [max(1, round(num_gaussians * (1 - to_come(later)))) for later in reversed(range(passes))]
  params = geometry.padded(recipes.start(key_start, target, shown[0], recipe), num_gaussians)
  # Passes meet where density control would be due in one fit, so that their own rounds come in its stead.
  unit = loop.CONTROL_EVERY if steps >= passes * loop.CONTROL_EVERY else 1
  bounds = [*(steps * index // (passes * unit) * unit for index in range(passes)), steps]
  growing = recipe._replace(policy=_GROW)
  history, report = list[loop.Record](), list[Pass]()
  with clock.stepping_clock() as seconds:
    kept = loop.begin(fitter.init(params))
    for index, (done, until) in enumerate(itertools.pairwise(bounds)):
      state = kept.state._replace(params=kept.best)
      if index:
        key = jax.random.fold_in(key_births, index)
        state = recipes.control(growing, shown[index], key, state, target, done / steps)
      begun = loop.begin(state._replace(step=jnp.full_like(state.step, done)))
      host = recipes.host(growing if recipe.policy else recipe, shown[index], seconds, progress_fn)
      stop = Stop(max_steps=until)
      ended = loop.run(key_births, fitter, begun, target, stop=stop, host=host, total=steps)
      kept = kept if kept.record else kept._replace(record=ended.history[0])  # the start, first measured here
      before, best = kept.record["psnr"], ended.record["psnr"]
      improved = best > before
      report.append(Pass(int(jnp.sum(geometry.visible(state.params))), before, best, improved))
      history += ended.history[bool(index) :]
      kept = ended if improved else kept
    ended = kept._replace(state=kept.state._replace(params=kept.best), history=history)
    result = recipes.result(recipe, ended, target, seconds)
  return result, report
