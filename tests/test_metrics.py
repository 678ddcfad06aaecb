"""Metrics against independent implementations."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from gaussjax import losses, metrics


def images(channels=3):
  rng = np.random.default_rng(0)
  target = ndimage.gaussian_filter(rng.uniform(size=(40, 50, channels)), (2, 2, 0)).astype(np.float32)
  return np.clip(target + rng.normal(scale=0.05, size=target.shape), 0, 1).astype(np.float32), target


def scipy_ssim(a, b):
  blur = lambda x: ndimage.gaussian_filter(x, 1.5, truncate=3.5)[5:-5, 5:-5]
  a, b = a.astype(np.float64), b.astype(np.float64)
  ma, mb = blur(a), blur(b)
  va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
  return np.mean((2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))


def test_psnr_and_mse():
  prediction, target = images()
  expected = np.mean((prediction.astype(np.float64) - target) ** 2)
  np.testing.assert_allclose(metrics.mse(prediction, target), expected, rtol=1e-5)
  np.testing.assert_allclose(metrics.psnr(prediction, target), -10 * np.log10(expected), rtol=1e-5)
  np.testing.assert_allclose(metrics.psnr(target + 5.0, np.ones_like(target)), 120)  # clipped, and bounded


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_scipys(channels):
  prediction, target = images(channels)
  expected = np.mean([scipy_ssim(prediction[..., c], target[..., c]) for c in range(channels)])
  np.testing.assert_allclose(metrics.ssim(prediction, target), expected, atol=1e-5)
  np.testing.assert_allclose(metrics.ssim(target, target), 1, atol=1e-6)


def test_ssim_refuses_what_no_window_fits():
  with pytest.raises(ValueError, match="at least 11 x 11"):
    metrics.ssim(jnp.zeros((10, 40, 3)), jnp.zeros((10, 40, 3)))


def test_losses():
  a, b = jnp.array([[[0.0, 2.0]]]), jnp.array([[[1.0, -1.0]]])
  np.testing.assert_allclose(losses.l1(a, b), 2)
  np.testing.assert_allclose(losses.l2(a, b), 5)
