"""Differentiable losses: prediction and target, both `[..., H, W, C]`, in; a scalar out."""

import jax.numpy as jnp

from gaussjax.types import Array


def l1(prediction: Array, target: Array) -> Array:
  """Mean absolute error."""
  return jnp.mean(jnp.abs(prediction - target))


def l2(prediction: Array, target: Array) -> Array:
  """Mean squared error. The prediction is not clipped, so that colours out of range are drawn back."""
  return jnp.mean(jnp.square(prediction - target))
