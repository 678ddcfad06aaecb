"""Differentiable losses: prediction and target, both `[..., H, W, C]`, in; a scalar out."""

from collections.abc import Callable

import jax.numpy as jnp

from gaussjax import similarity
from gaussjax.lpips import lpips as lpips  # the distance is a loss as it is
from gaussjax.types import Array

Loss = Callable[[Array, Array], Array]


def l1(prediction: Array, target: Array) -> Array:
  """Mean absolute error."""
  return jnp.mean(jnp.abs(prediction - target))


def l2(prediction: Array, target: Array) -> Array:
  """Mean squared error. The prediction is not clipped, so that colours out of range are drawn back."""
  return jnp.mean(jnp.square(prediction - target))


def dssim(prediction: Array, target: Array) -> Array:
  """1 - SSIM. Raises ValueError below 11 x 11 pixels."""
  return 1 - similarity.ssim(prediction, target)


def ms_dssim(prediction: Array, target: Array) -> Array:
  """1 - MS-SSIM. Raises ValueError below 176 x 176 pixels."""
  return 1 - similarity.ms_ssim(prediction, target)


def mix(prediction: Array, target: Array, *, parts: tuple[tuple[float, Loss], ...]) -> Array:
  """The sum of weight times loss over `parts`; functools.partial(mix, parts=...) is a loss of its own."""
  return sum((weight * loss(prediction, target) for weight, loss in parts), jnp.zeros((), prediction.dtype))


def perceptual(prediction: Array, target: Array) -> Array:
  """0.2 L1 + 0.8 L2 + 0.1 (1 - SSIM): sharper than L2 alone at nearly its PSNR. At least 11 x 11 pixels."""
  return mix(prediction, target, parts=((0.2, l1), (0.8, l2), (0.1, dssim)))
