"""Colours in closed form: they are those of least squares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import LINEAR_BLENDS, densely, scene

from gaussjax.fitting import solvers
from gaussjax.rendering import blends


@pytest.mark.parametrize("blend", LINEAR_BLENDS)
def test_a_picture_of_the_same_shapes_is_met(blend):
  gaussians = scene(8, log_scale=(1.5, 0.3), blend=blend)
  placed = densely(gaussians)
  draw = lambda colors: blend(placed, colors, gaussians.canvas.background)
  target = draw(jnp.asarray(np.random.default_rng(3).uniform(size=(8, 3)), jnp.float32))
  error = lambda g: float(jnp.mean(jnp.square(draw(g.colors) - target)))
  solve = jax.jit(lambda g, n: solvers.solve_colors(g, placed, target, iterations=n), static_argnums=1)
  errors = [error(gaussians)] + [error(solve(gaussians, n)) for n in (2, 8, 40)]
  assert errors[3] < 1e-5 * errors[0]
  assert errors == sorted(errors, reverse=True)


def test_an_ordered_blend_is_refused():
  gaussians = scene(3, blend=blends.alpha_composite)
  with pytest.raises(ValueError, match="expected one that is linear"):
    solvers.solve_colors(gaussians, densely(gaussians), jnp.zeros((24, 31, 3)))
