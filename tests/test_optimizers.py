"""What optimisers do besides descending: turns are slowed, scales and weights contained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import PARAMETERIZATIONS, scene

from gaussjax import geometry
from gaussjax.contrib import optimizers as more
from gaussjax.fitting import optimizers, recipes
from gaussjax.rendering import kernel


@pytest.mark.parametrize("parameterize", PARAMETERIZATIONS)
def test_a_scale_beyond_the_picture_is_projected_back_and_no_other(parameterize):
  gaussians = scene(9, parameterize=geometry.to_euler)
  log_scales = np.array(gaussians.shape.log_scales)
  log_scales[3] = 9, 4
  shape = jax.jit(parameterize)(gaussians.shape._replace(log_scales=log_scales))
  gaussians = gaussians._replace(shape=shape)
  contained = jax.jit(geometry.contain)(gaussians)
  scales = jax.jit(geometry.scales)
  before, after = np.asarray(scales(gaussians)), np.asarray(scales(contained))
  limit = geometry.CONTAINED * 31
  np.testing.assert_allclose(after[3, 0], limit, rtol=1e-3)
  ratio = before[3, 1] / before[3, 0]
  np.testing.assert_allclose(after[3, 1], np.hypot(ratio * limit, gaussians.canvas.floor), rtol=1e-3)
  np.testing.assert_allclose(np.delete(after, 3, 0), np.delete(before, 3, 0), rtol=1e-6)


def test_log_weights_are_held_to_what_float32_can_add():
  gaussians = scene(3)._replace(log_weights=jnp.array([-30.0, 0.5, 30.0]))
  most = geometry.MAX_LOG_WEIGHT
  np.testing.assert_array_equal(geometry.contain(gaussians).log_weights, [-most, 0.5, most])
  tail = kernel.tail(gaussians.canvas.cutoff)
  assert np.float32(np.exp(most)) + np.float32(tail) > np.float32(np.exp(most))


def test_turns_move_a_long_gaussian_no_more_than_a_round_one():
  gaussians = scene(40, log_scale=(1.0, 2.0))
  turned = lambda by: gaussians._replace(shape=gaussians.shape._replace(thetas=gaussians.shape.thetas + by))
  full = turned(1.0)._replace(canvas=None)  # a step of 1 in each number
  slow = jax.jit(lambda full, g: optimizers.slow_turns(2.0).update(full, None, g)[0])(full, gaussians)
  np.testing.assert_array_equal(slow.means, full.means)
  np.testing.assert_array_equal(slow.shape.log_scales, full.shape.log_scales)
  # Fisher's distance of a small turn, from the covariances: the root of half the trace of (Sigma^-1 dSigma)^2.
  covariances = lambda by: _covariances(turned(by).shape)
  relative = np.linalg.solve(covariances(0.0), (covariances(1e-4) - covariances(-1e-4)) / 2e-4)
  distance = np.sqrt(np.trace(relative @ relative, axis1=1, axis2=2) / 2)
  factor = np.asarray(slow.shape.thetas) / np.asarray(full.shape.thetas)
  np.testing.assert_allclose(factor, np.minimum(1, 2 / distance), rtol=2e-3)
  assert 0.2 < np.mean(factor == 1) < 0.8
  lower = full._replace(shape=geometry.to_cholesky(full.shape))
  assert optimizers.slow_turns(2.0).update(lower, None, gaussians._replace(shape=lower.shape))[0] is lower


@pytest.mark.parametrize("optimizer", [optimizers.adam, more.adan])
def test_slow_turns_follow_the_optimiser(optimizer):
  gaussians = scene(40, log_scale=(1.0, 2.0))
  rates = recipes.rates(recipes.Recipe(), 24, 31)

  def turns(**most):
    made = optimizer(rates, optimizers.constant, **most)
    step = jax.jit(lambda g: made.update(g, made.init(g), g, progress=jnp.float32(0))[0])
    steps = step(gaussians)
    return np.asarray(steps.shape.thetas)

  given = gaussians._replace(shape=gaussians.shape._replace(thetas=turns()))
  slowed = jax.jit(lambda given, g: optimizers.slow_turns(2.0).update(given, None, g)[0])(given, gaussians)
  np.testing.assert_allclose(turns(most_turn=2.0), slowed.shape.thetas, rtol=1e-6)
  assert np.any(turns(most_turn=2.0) != turns())


def _covariances(euler):
  cos, sin = np.cos(np.float64(euler.thetas)), np.sin(np.float64(euler.thetas))
  turn = np.stack([cos, -sin, sin, cos], 1).reshape(-1, 2, 2)
  return np.einsum("nij,nj,nkj->nik", turn, np.exp(2 * np.float64(euler.log_scales)), turn)
