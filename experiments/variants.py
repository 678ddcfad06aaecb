"""Recipes by name, for the runners: the presets, and each lever of a preset put back to what it replaces."""

import functools
from collections.abc import Callable
from typing import Any

PRESETS = ("fast", "balanced", "best")
LEVERS = (
  *("random", "gradient_sampled", "structure_tensor", "superpixels", "start_solve", "final_solve"),
  *("fixed", "random_fixed", "split", "merge", "prune", "unweighted", "sloped"),
  *("constant", "full_turns", "adan", "lbfgs", "perceptual", "cholesky", "log_cholesky", "v1"),
)
NAMES = PRESETS + LEVERS


@functools.cache  # the same functions each time, so that jit finds its programs again
def recipe(name: str) -> Any:
  """The gaussjax.Recipe of a name. A lever's is the balanced preset but for that lever.

  random, gradient_sampled, structure_tensor, superpixels: the start; start_solve, final_solve: closed-form colours
  there, at the end (`fit`); fixed: no density control; random_fixed: a random start without it; split, merge: those
  policies before relocation; prune: half as many Gaussians again at first, pruned to N (`fit`); unweighted: no
  log-weights; sloped: brightness that changes with the place; constant: constant rates; full_turns: long Gaussians
  turn as fast as round ones; adan, lbfgs (without density control): the optimiser; perceptual: the loss; cholesky,
  log_cholesky: the shape; v1: the first version's.
  """
  import gaussjax
  from gaussjax import geometry
  from gaussjax.contrib import colors, initializers as more_initializers, optimizers as more_optimizers, policies
  from gaussjax.fitting import density, initializers, optimizers, recipes
  from gaussjax.quality import losses

  if name in recipes.PRESETS:
    return recipes.PRESETS[name]
  before_relocation = lambda policy: functools.partial(policies.sequence, policies=(policy, density.relocate))
  adan = functools.partial(more_optimizers.adan, most_turn=optimizers.MOST_TURN)
  levers: dict[str, Callable[[gaussjax.Recipe], gaussjax.Recipe]] = {
    "random": lambda r: r._replace(initialize=initializers.random),
    "structure_tensor": lambda r: r._replace(initialize=initializers.structure_tensor),
    "superpixels": lambda r: r._replace(initialize=more_initializers.superpixels),
    "start_solve": lambda r: r._replace(initialize=functools.partial(colors.solved, initialize=r.initialize)),
    "final_solve": lambda r: r,
    "perceptual": lambda r: r._replace(loss=losses.perceptual),
    "gradient_sampled": lambda r: r._replace(initialize=initializers.gradient_sampled),
    "random_fixed": lambda r: r._replace(initialize=initializers.random, policy=None),
    "fixed": lambda r: r._replace(policy=None),
    "split": lambda r: r._replace(policy=before_relocation(policies.split)),
    "merge": lambda r: r._replace(policy=before_relocation(policies.merge)),
    "prune": lambda r: r,
    "unweighted": lambda r: r._replace(weighted=False),
    "sloped": lambda r: r._replace(sloped=True),
    "full_turns": lambda r: r._replace(optimizer=functools.partial(r.optimizer, most_turn=None)),
    "adan": lambda r: r._replace(optimizer=adan),
    "lbfgs": lambda r: r._replace(optimizer=more_optimizers.lbfgs, policy=None),
    "constant": lambda r: r._replace(schedule=optimizers.constant),
    "cholesky": lambda r: r._replace(parameterize=geometry.to_cholesky),
    "log_cholesky": lambda r: r._replace(parameterize=geometry.to_log_cholesky),
    "v1": lambda r: first_version(),
  }
  return levers[name](recipes.PRESETS["balanced"])


def first_version() -> Any:
  """The first version's recipe: one constant rate 0.01, lengths in units of the longer side, 100 steps."""
  from gaussjax.fitting import initializers, optimizers, recipes

  return recipes.Recipe(
    initialize=initializers.random,
    learning_rate=0.01,
    ratios=optimizers.Rates(means=1, log_scales=1, thetas=1, lengths=1, colors=1, log_weights=1),
    schedule=optimizers.constant,
    lengths_in=max,
    policy=None,
    steps=100,
  )


def fit(name: str, image, **arguments) -> Any:
  """The gaussjax.FitResult of an image by the recipe of a name, and by what that name does besides.

  `arguments` are those of gaussjax.fit but for the preset. A fit by `prune` keeps no checkpoints.
  """
  import jax.numpy as jnp

  import gaussjax
  from gaussjax.contrib import colors, pruning
  from gaussjax.quality import metrics

  arguments["preset"] = recipe(name)
  if name == "prune":
    arguments.pop("checkpoint", None)
    return pruning.fit_pruned(image, **arguments)
  result = gaussjax.fit(image, **arguments)
  if name != "final_solve":
    return result
  refined, target = colors.refine_colors(result.gaussians, image), jnp.asarray(image)
  picture = gaussjax.render(refined)
  measured = {"loss": float(arguments["preset"].loss(picture, target)), **metrics.evaluate(picture, target)}
  return result._replace(gaussians=refined, metrics=result.metrics | measured)
