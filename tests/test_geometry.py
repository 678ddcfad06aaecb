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

from gaussjax import Cholesky, Euler, geometry, numerics

FLOOR = 0.3
ONE = scene(1)
PLACE, SCALES = jax.jit(geometry.geometry), jax.jit(geometry.scales)


def covariances(shape):
  s = oracle.factors(shape)
  return s @ s.transpose(0, 2, 1) + FLOOR**2 * np.eye(2)


@pytest.mark.parametrize("parameterize", PARAMETERIZATIONS)
class TestEveryShape:
  def test_whitening_is_the_inverse_root_of_the_covariance(self, parameterize):
    gaussians = scene(50, parameterize=parameterize)
    a11, a21, a22 = np.asarray(PLACE(gaussians).whitening, np.float64).T
    a = np.stack([np.stack([a11, 0 * a11], -1), np.stack([a21, a22], -1)], -2)
    np.testing.assert_allclose(a @ covariances(gaussians.shape) @ a.transpose(0, 2, 1), [np.eye(2)] * 50, atol=1e-5)

  def test_scales_are_the_roots_of_the_eigenvalues(self, parameterize):
    gaussians = scene(50, parameterize=parameterize)
    expected = np.sqrt(np.linalg.eigvalsh(covariances(gaussians.shape)))[:, ::-1]
    np.testing.assert_allclose(SCALES(gaussians), expected, rtol=1e-5)

  @pytest.mark.parametrize("target", PARAMETERIZATIONS)
  def test_conversions_keep_the_covariance(self, parameterize, target):
    shape = scene(50, parameterize=parameterize).shape
    convert = jax.jit(target)
    converted = convert(shape)
    np.testing.assert_allclose(covariances(converted), covariances(shape), rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_close(convert(converted), converted, rtol=1e-4, atol=1e-4)

  def test_gradients_are_finite_and_alive_from_the_floor_to_far_beyond_the_image(self, parameterize):
    total = lambda shape, gaussians: jnp.sum(geometry.geometry(gaussians._replace(shape=shape)).whitening)
    gradient = jax.jit(jax.grad(total))
    for log_scale in (-6.0, -3.0, 0.0, 3.0, 8.0):
      gaussians = scene(10, parameterize=parameterize, log_scale=(log_scale, 0.1))
      for leaf in jax.tree.leaves(gradient(gaussians.shape, gaussians)):
        assert np.isfinite(leaf).all()
        assert log_scale > 0 or np.any(leaf != 0)


def test_precision_holds_at_extreme_aspect_ratios():
  """A 1:200 ellipse at 45 degrees: the determinant by subtraction would be off by 1e-3."""
  shape = Euler(jnp.log(jnp.array([[100.0, 0.5]])), jnp.array([np.pi / 4]))
  gaussians = ONE._replace(shape=shape)
  _, minor = np.sqrt(np.linalg.eigvalsh(covariances(shape)))[0, ::-1]
  np.testing.assert_allclose(SCALES(gaussians)[0, 1], minor, rtol=1e-5)


def test_a_circle_and_a_line_convert_with_finite_gradients():
  for convert in map(jax.jit, PARAMETERIZATIONS):
    total = lambda shape, convert=convert: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(convert(shape)))
    gradient_of = jax.jit(jax.grad(total))
    for lengths in ([2, 0, 2], [0, 3, 0]):
      shape = Cholesky(*np.float32(lengths).reshape(3, 1))
      assert all(np.isfinite(leaf).all() for leaf in gradient_of(shape))
      np.testing.assert_allclose(covariances(convert(shape)), covariances(shape), atol=1e-5)


@hypothesis.given(st.floats(-4, 4), st.floats(-1, 3), st.floats(-1, 3))
def test_a_turn_by_pi_and_a_swap_with_a_quarter_turn_change_nothing(theta, log1, log2):
  shapes = [
    Euler(np.float32([[log1, log2]]), np.float32([theta])),
    Euler(np.float32([[log1, log2]]), np.float32([theta + np.pi])),
    Euler(np.float32([[log2, log1]]), np.float32([theta + np.pi / 2])),
  ]
  first, *others = [PLACE(ONE._replace(shape=shape)).whitening for shape in shapes]
  for other in others:
    np.testing.assert_allclose(other, first, rtol=2e-4, atol=1e-5)


@hypothesis.given(st.floats(-40, 40), st.floats(-20, 3), st.floats(-20, 3))
def test_scales_and_angles_in_any_order_become_major_first_and_less_than_half_a_turn(theta, log1, log2):
  shape = Euler(np.float32([[log1, log2]]), np.float32([theta]))
  log_scales, thetas = geometry.to_euler(shape)
  assert log_scales[0, 0] >= log_scales[0, 1] >= np.float32(np.log(numerics.TINY_SCALE))
  assert -np.pi / 2 - 1e-6 <= thetas[0] <= np.pi / 2 + 1e-6
  np.testing.assert_allclose(covariances(Euler(log_scales, thetas)), covariances(shape), rtol=1e-4, atol=2e-4)


def test_a_circle_has_no_angle():
  _, thetas = geometry.to_euler(Euler(np.float32([[1, 1], [1, 1.5]]), np.float32([0.7, 0.7])))
  assert thetas[0] == 0 and thetas[1] == pytest.approx(0.7 - np.pi / 2)


def test_a_set_without_canvas_is_refused():
  with pytest.raises(ValueError, match="without a canvas"):
    geometry.scales(scene(3)._replace(canvas=None))
