"""Each epsilon at its bad point: a right value and a finite gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gaussjax import numerics
from gaussjax.quality import losses, metrics


@pytest.mark.parametrize("x", [-1.0, 0.0, 1e-30, 4.0])
def test_safe_sqrt(x):
  value, slope = jax.value_and_grad(numerics.safe_sqrt)(x)
  np.testing.assert_allclose(value, np.sqrt(max(x, 0)), rtol=1e-6)
  assert np.isfinite(slope)


def test_safe_divide():
  value, slopes = jax.value_and_grad(numerics.safe_divide, argnums=(0, 1))(3.0, 0.0)
  assert value == 0 and slopes == (0, 0)
  np.testing.assert_allclose(numerics.safe_divide(3.0, 2.0), 1.5)


def test_psnr_of_equal_images_is_finite_with_a_finite_gradient():
  image = jnp.full((4, 4, 1), 0.5)
  value, slope = jax.jit(jax.value_and_grad(metrics.psnr))(image, image)
  np.testing.assert_allclose(value, 120, rtol=1e-6)
  assert np.isfinite(slope).all()


def test_ms_ssim_of_opposites_is_finite_with_a_finite_gradient():
  image = np.random.default_rng(0).uniform(size=(176, 176, 1)).astype(np.float32)
  value, slope = jax.jit(jax.value_and_grad(losses.ms_dssim))(1 - image, image)
  assert 0.9 < value <= 1
  assert np.isfinite(slope).all()
