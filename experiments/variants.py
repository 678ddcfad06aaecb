"""Recipes by name, for the runners: the presets, and each lever of a preset put back to what it replaces."""

from collections.abc import Callable
from typing import Any

PRESETS = ("fast", "balanced", "best")
LEVERS = (
  *("random", "gradient_sampled", "structure_tensor", "superpixels", "start_solve", "final_solve"),
  *("fixed", "random_fixed", "split", "merge", "prune", "unweighted"),
  *("constant", "full_turns", "adan", "lbfgs", "perceptual", "cholesky", "log_cholesky", "v1"),
)
NAMES = PRESETS + LEVERS


def recipe(name: str) -> Any:
  """The gaussjax.Recipe of a name. A lever's is the balanced preset but for that lever.

  random, gradient_sampled, structure_tensor, superpixels: the start; start_solve, final_solve: closed-form colours
  there, at the end; fixed: no density control; random_fixed: a random start without it; split, merge: those
  policies before relocation; prune: half as many Gaussians again at first, pruned to N; unweighted: no log-weights;
  constant: constant rates; full_turns: long Gaussians turn as fast as round ones; adan, lbfgs (without density
  control): the optimiser; perceptual: the loss; cholesky, log_cholesky: the shape; v1: the first version's recipe.
  """
  import functools

  import gaussjax
  from gaussjax import geometry
  from gaussjax.fitting import density, initializers, optimizers, recipes
  from gaussjax.quality import losses

  if name in recipes.PRESETS:
    return recipes.PRESETS[name]
  before_relocation = lambda policy: functools.partial(density.sequence, policies=(policy, recipes.RELOCATE))
  levers: dict[str, Callable[[gaussjax.Recipe], gaussjax.Recipe]] = {
    "random": lambda r: r._replace(initialize=initializers.random),
    "structure_tensor": lambda r: r._replace(initialize=initializers.structure_tensor),
    "superpixels": lambda r: r._replace(initialize=initializers.superpixels),
    "start_solve": lambda r: r._replace(start_solve=20),
    "final_solve": lambda r: r._replace(final_solve=20),
    "perceptual": lambda r: r._replace(loss=losses.perceptual),
    "gradient_sampled": lambda r: r._replace(initialize=initializers.gradient_sampled),
    "random_fixed": lambda r: r._replace(initialize=initializers.random, policy=None),
    "fixed": lambda r: r._replace(policy=None),
    "split": lambda r: r._replace(policy=before_relocation(density.split)),
    "merge": lambda r: r._replace(policy=before_relocation(density.merge)),
    "prune": lambda r: r._replace(policy=density.prune, provision=1.5),
    "unweighted": lambda r: r._replace(weighted=False),
    "full_turns": lambda r: r._replace(optimizer=functools.partial(r.optimizer, most_turn=None)),
    "adan": lambda r: r._replace(optimizer=functools.partial(optimizers.adan, most_turn=optimizers.MOST_TURN)),
    "lbfgs": lambda r: r._replace(optimizer=optimizers.lbfgs, policy=None),
    "constant": lambda r: r._replace(schedule=optimizers.constant),
    "cholesky": lambda r: r._replace(parameterize=geometry.to_cholesky),
    "log_cholesky": lambda r: r._replace(parameterize=geometry.to_log_cholesky),
    "v1": lambda r: recipes.V1,
  }
  return levers[name](recipes.PRESETS["balanced"])
