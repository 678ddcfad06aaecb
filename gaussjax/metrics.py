"""Metrics of two images `[H, W, C]` in [0, 1]: a scalar out. A prediction is clipped to [0, 1] first."""

import jax.numpy as jnp

from gaussjax import numerics, similarity
from gaussjax.lpips import lpips as _lpips
from gaussjax.types import Array


def mse(prediction: Array, target: Array) -> Array:
  """Mean squared error of the clipped prediction."""
  return jnp.mean(jnp.square(jnp.clip(prediction, 0, 1) - target))


def psnr(prediction: Array, target: Array) -> Array:
  """Peak signal-to-noise ratio in dB, peak 1: -10 log10(mse), at most 120."""
  return -10 * jnp.log10(jnp.maximum(mse(prediction, target), numerics.MIN_MSE))


def ssim(prediction: Array, target: Array) -> Array:
  """Structural similarity (similarity.ssim) of the clipped prediction. Raises ValueError below 11 x 11 pixels."""
  return similarity.ssim(jnp.clip(prediction, 0, 1), target)


def ms_ssim(prediction: Array, target: Array) -> Array:
  """The same over five scales (similarity.ms_ssim). Raises ValueError below 176 x 176 pixels."""
  return similarity.ms_ssim(jnp.clip(prediction, 0, 1), target)


def lpips(prediction: Array, target: Array) -> Array:
  """LPIPS (lpips.lpips) of the clipped prediction; raises what that raises."""
  return _lpips(jnp.clip(prediction, 0, 1), target)
