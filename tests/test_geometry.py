"""Shapes and where they land, against numpy's linear algebra."""

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from scenes import PARAMETERIZATIONS, scene

from gaussjax import Cholesky, Euler, geometry

FLOOR = 0.3


def covariances(shape):
  s = oracle.factors(shape)
  return s @ s.transpose(0, 2, 1) + FLOOR**2 * np.eye(2)


@pytest.mark.parametrize("parameterize", PARAMETERIZATIONS)
class TestEveryShape:
  def test_whitening_is_the_inverse_root_of_the_covariance(self, parameterize):
    gaussians = scene(50, parameterize=parameterize)
    a11, a21, a22 = np.asarray(geometry.geometry(gaussians).whitening, np.float64).T
    a = np.stack([np.stack([a11, 0 * a11], -1), np.stack([a21, a22], -1)], -2)
    np.testing.assert_allclose(a @ covariances(gaussians.shape) @ a.transpose(0, 2, 1), [np.eye(2)] * 50, atol=1e-5)

  def test_scales_are_the_roots_of_the_eigenvalues(self, parameterize):
    gaussians = scene(50, parameterize=parameterize)
    expected = np.sqrt(np.linalg.eigvalsh(covariances(gaussians.shape)))[:, ::-1]
    np.testing.assert_allclose(geometry.scales(gaussians), expected, rtol=1e-5)

  @pytest.mark.parametrize("target", PARAMETERIZATIONS)
  def test_conversions_keep_the_covariance(self, parameterize, target):
    shape = scene(50, parameterize=parameterize).shape
    converted = target(shape)
    np.testing.assert_allclose(covariances(converted), covariances(shape), rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_close(target(converted), converted, rtol=1e-4, atol=1e-4)

  def test_gradients_are_finite_and_alive_from_the_floor_to_far_beyond_the_image(self, parameterize):
    for log_scale in (-6.0, -3.0, 0.0, 3.0, 8.0):
      gaussians = scene(10, parameterize=parameterize, log_scale=(log_scale, 0.1))
      total = lambda shape, g=gaussians: jnp.sum(geometry.geometry(g._replace(shape=shape)).whitening)
      for leaf in jax.tree.leaves(jax.grad(total)(gaussians.shape)):
        assert np.isfinite(leaf).all()
        assert log_scale > 0 or np.any(leaf != 0)


def test_precision_holds_at_extreme_aspect_ratios():
  """A 1:200 ellipse at 45 degrees: the determinant by subtraction would be off by 1e-3."""
  shape = Euler(jnp.log(jnp.array([[100.0, 0.5]])), jnp.array([np.pi / 4]))
  gaussians = scene(1)._replace(shape=shape)
  _, minor = np.sqrt(np.linalg.eigvalsh(covariances(shape)))[0, ::-1]
  np.testing.assert_allclose(geometry.scales(gaussians)[0, 1], minor, rtol=1e-5)


def test_a_circle_and_a_line_convert_with_finite_gradients():
  for shape in (Cholesky(*jnp.array([[2.0], [0.0], [2.0]])), Cholesky(*jnp.array([[0.0], [3.0], [0.0]]))):
    for convert in PARAMETERIZATIONS:
      gradient = jax.grad(lambda s, c=convert: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(c(s))))(shape)
      assert all(np.isfinite(leaf).all() for leaf in gradient)
      np.testing.assert_allclose(covariances(convert(shape)), covariances(shape), atol=1e-5)


@hypothesis.given(st.floats(-4, 4), st.floats(-1, 3), st.floats(-1, 3))
def test_a_turn_by_pi_and_a_swap_with_a_quarter_turn_change_nothing(theta, log1, log2):
  shapes = [
    Euler(jnp.array([[log1, log2]]), jnp.array([theta])),
    Euler(jnp.array([[log1, log2]]), jnp.array([theta + np.pi])),
    Euler(jnp.array([[log2, log1]]), jnp.array([theta + np.pi / 2])),
  ]
  first, *others = [geometry.geometry(scene(1)._replace(shape=s)).whitening for s in shapes]
  for other in others:
    np.testing.assert_allclose(other, first, rtol=2e-4, atol=1e-5)


def test_a_set_without_canvas_is_refused():
  with pytest.raises(ValueError, match="without a canvas"):
    geometry.scales(scene(3)._replace(canvas=None))
