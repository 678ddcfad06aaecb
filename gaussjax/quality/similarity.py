"""Structural similarity of two images `[H, W, C]`, also over scales: what losses and metrics share. No clipping.

Within, images are flat, `[H, W C]`: XLA vectorises along the last axis, and three channels are no length for that
(value and gradient of SSIM at 768 x 512: 44 ms, 192 with images `[H, W, C]`).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gaussjax import numerics
from gaussjax.types import Array

WINDOW = 11  # pixels, the side of the Gaussian window of sigma 1.5
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # finest first


def ssim(prediction: Array, target: Array) -> Array:
  """Structural similarity, mean over channels and over the pixels whose window lies inside.

  11 x 11 Gaussian window, sigma 1.5, K1 = 0.01, K2 = 0.03 (Wang, Bovik, Sheikh, Simoncelli, "Image quality
  assessment: from error visibility to structural similarity", 2004). Raises ValueError below 11 x 11 pixels.
  """
  _check_size(prediction, WINDOW, "SSIM")
  luminance, contrast = _terms(prediction, target)
  return jnp.mean(luminance * contrast)


def ms_ssim(prediction: Array, target: Array) -> Array:
  """Structural similarity over five scales, each a 2 x 2 mean of the one before; mean over channels.

  Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment", 2003. Terms below
  numerics.MIN_CONTRAST count as that, since their powers are not real. Raises ValueError below 176 x 176 pixels.
  """
  _check_size(prediction, WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1), "MS-SSIM")
  product = jnp.ones(prediction.shape[-1], prediction.dtype)
  for index, weight in enumerate(SCALE_WEIGHTS):
    luminance, contrast = _terms(prediction, target)
    last = index == len(SCALE_WEIGHTS) - 1
    rows = jnp.mean(luminance * contrast if last else contrast, axis=0)
    term = jnp.mean(rows.reshape(-1, len(product)), axis=0)
    product *= jnp.maximum(term, numerics.MIN_CONTRAST) ** weight
    if not last:
      prediction, target = halved(prediction), halved(target)
  return jnp.mean(product)


def _terms(prediction: Array, target: Array) -> tuple[Array, Array]:
  """Luminance, and contrast times structure, each `[H - 10, (W - 10) C]`."""
  channels = prediction.shape[-1]
  p, t = (image.reshape(image.shape[0], -1) for image in (prediction, target))
  mean_p, mean_t, square_p, square_t, product = window_means(channels, jnp.stack([p, t, p**2, t**2, p * t]))
  variance_p, variance_t = square_p - mean_p**2, square_t - mean_t**2
  covariance = product - mean_p * mean_t
  c1, c2 = 0.01**2, 0.03**2
  luminance = (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1)
  return luminance, (2 * covariance + c2) / (variance_p + variance_t + c2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def window_means(channels: int, images: Array) -> Array:
  """Weighted means over 11 x 11 windows of K flat images: `[K, H, W C]` -> `[K, H - 10, (W - 10) C]`."""
  taps = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * 1.5**2))
  taps = (taps / taps.sum()).tolist()
  height, width = images.shape[1] - WINDOW + 1, images.shape[2] - (WINDOW - 1) * channels
  # Shifted sums; the barrier keeps XLA from making each row's sum anew for each of its eleven shifts.
  rows = jax.lax.optimization_barrier(sum(tap * images[:, i : i + height] for i, tap in enumerate(taps)))
  return sum(tap * rows[:, :, i * channels : i * channels + width] for i, tap in enumerate(taps))


def _window_means_back(channels: int, _: None, gradients: Array) -> tuple[Array]:
  """The window is symmetric, so the adjoint is the same mean of the gradient with zeros around it."""
  down, across = WINDOW - 1, (WINDOW - 1) * channels
  return (window_means(channels, jnp.pad(gradients, ((0, 0), (down, down), (across, across)))),)


window_means.defvjp(lambda channels, images: (window_means(channels, images), None), _window_means_back)


def halved(image: Array) -> Array:
  """Means of 2 x 2 pixels; an odd last row or column is left out."""
  height, width = image.shape[0] // 2, image.shape[1] // 2
  # Rows first: a mean over both axes at once is no vector's work (a step of `losses.visual` 48 ms, 104 with that).
  rows = image[: 2 * height, : 2 * width].reshape(height, 2, -1)
  pairs = (rows[:, 0] + rows[:, 1]).reshape(height, width, 2, -1)
  return 0.25 * (pairs[:, :, 0] + pairs[:, :, 1])


def _check_size(image: Array, least: int, name: str) -> None:
  if min(image.shape[:2]) < least:
    raise ValueError(f"got an image of {image.shape[:2]} pixels, expected at least {least} x {least} for {name}")
