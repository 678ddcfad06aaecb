"""Every epsilon of the library, each with its reason; tests/test_numerics.py visits each one's bad point."""

import jax.numpy as jnp

from gaussjax.types import Array

# A scale under 1e-6 px is invisible: the floor of 0.3 px swamps it by 11 decimal orders, past float32. It
# bounds logarithms when a shape with an exact zero (a line) is converted to one that stores logarithms.
TINY_SCALE = 1e-6

# Two principal scales closer than this (relative to their sum, squared) define no direction; the angle of
# such a circle is taken as 0 and its gradient as 0.
CIRCLE = 1e-12

# The mean squared error below which PSNR stops rising: 120 dB, beyond what float32 renders resolve.
MIN_MSE = 1e-12

# The least contrast term of MS-SSIM, which may be negative and is raised to a power below 1: there the power's
# slope is bounded, and two images that differ so much are told apart by their other scales.
MIN_CONTRAST = 1e-4

# Added to a network's squared features before their root: a pixel where none is active has no direction, and the
# gradient there is 0.
TINY_FEATURE = 1e-10


def safe_sqrt(x: Array) -> Array:
  """sqrt(max(x, 0)) with gradient 0, not inf, where x <= 0."""
  positive = x > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def safe_divide(numerator: Array, denominator: Array) -> Array:
  """numerator / denominator, and 0 with gradient 0 where the denominator is 0."""
  nonzero = denominator != 0
  return jnp.where(nonzero, numerator / jnp.where(nonzero, denominator, 1), 0)
