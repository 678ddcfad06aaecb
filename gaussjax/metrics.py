"""Metrics of two images `[H, W, C]` in [0, 1]: a scalar out. A prediction is clipped to [0, 1] first."""

import jax.numpy as jnp
import numpy as np

from gaussjax import numerics
from gaussjax.types import Array


def mse(prediction: Array, target: Array) -> Array:
  """Mean squared error of the clipped prediction."""
  return jnp.mean(jnp.square(jnp.clip(prediction, 0, 1) - target))


def psnr(prediction: Array, target: Array) -> Array:
  """Peak signal-to-noise ratio in dB, peak 1: -10 log10(mse), at most 120."""
  return -10 * jnp.log10(jnp.maximum(mse(prediction, target), numerics.MIN_MSE))


def ssim(prediction: Array, target: Array) -> Array:
  """Structural similarity, mean over channels and over the pixels whose window lies inside.

  11 x 11 Gaussian window, sigma 1.5, K1 = 0.01, K2 = 0.03 (Wang, Bovik, Sheikh, Simoncelli, "Image quality
  assessment: from error visibility to structural similarity", 2004). Raises ValueError below 11 x 11 pixels.
  """
  if min(prediction.shape[:2]) < 11:
    raise ValueError(f"got an image of {prediction.shape[:2]} pixels, expected at least 11 x 11 for SSIM")
  prediction = jnp.clip(prediction, 0, 1)
  mean_p, mean_t = gaussian_window(prediction), gaussian_window(target)
  variance_p = gaussian_window(prediction**2) - mean_p**2
  variance_t = gaussian_window(target**2) - mean_t**2
  covariance = gaussian_window(prediction * target) - mean_p * mean_t
  c1, c2 = 0.01**2, 0.03**2
  luminance = (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1)
  return jnp.mean(luminance * (2 * covariance + c2) / (variance_p + variance_t + c2))


def gaussian_window(image: Array) -> Array:
  """Weighted means over 11 x 11 windows, sigma 1.5: `[H, W, C]` -> `[H - 10, W - 10, C]`."""
  taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
  taps = (taps / taps.sum()).tolist()
  height, width = image.shape[:2]
  # Shifted sums fuse into one pass; a convolution primitive is slower on CPU for so few channels.
  rows = sum(tap * image[i : i + height - 10] for i, tap in enumerate(taps))
  return sum(tap * rows[:, i : i + width - 10] for i, tap in enumerate(taps))
