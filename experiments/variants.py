"""Recipes by name, for the runners: the presets, and each lever of a preset put back to what it replaces."""

from collections.abc import Callable
from typing import Any

PRESETS = ("fast", "balanced", "best")
LEVERS = ("random", "fixed", "constant", "cholesky", "log_cholesky", "v1")
NAMES = PRESETS + LEVERS


def recipe(name: str) -> Any:
  """The gaussjax.Recipe of a name. A lever's is the balanced preset but for that lever.

  random: random start; fixed: no density control; constant: constant rates; cholesky, log_cholesky: the shape;
  v1: the first version's recipe.
  """
  import gaussjax
  from gaussjax import geometry, initializers, optimizers, recipes

  if name in recipes.PRESETS:
    return recipes.PRESETS[name]
  levers: dict[str, Callable[[gaussjax.Recipe], gaussjax.Recipe]] = {
    "random": lambda r: r._replace(initialize=initializers.random),
    "fixed": lambda r: r._replace(relocate=None),
    "constant": lambda r: r._replace(schedule=optimizers.constant),
    "cholesky": lambda r: r._replace(parameterize=geometry.to_cholesky),
    "log_cholesky": lambda r: r._replace(parameterize=geometry.to_log_cholesky),
    "v1": lambda r: recipes.V1,
  }
  return levers[name](recipes.PRESETS["balanced"])
