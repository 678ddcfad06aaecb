"""How much an error counts to the eye at each place of a picture: less where there is texture that hides it.

Contrast masking as SSIM has it, where errors are divided by the variance around them (Wang, Bovik, Sheikh,
Simoncelli, "Image quality assessment: from error visibility to structural similarity", 2004).
"""

import jax.numpy as jnp

from gaussjax.quality import similarity
from gaussjax.types import Array

HALVINGS = 3  # variances are of cells of 2^HALVINGS pixels and of those around them
LEAST_CONTRAST = 0.06  # of brightness in [0, 1]: what is fainter hides nothing


def brightness(image: Array) -> Array:
  """`[H, W, 1]`, the mean of the first three channels; of fewer than three the first."""
  return jnp.mean(image[..., : 3 if image.shape[-1] >= 3 else 1], axis=-1, keepdims=True)


def visibility(image: Array) -> Array:
  """`[H, W]`, of mean 1: how much a squared error counts to the eye at each pixel of a picture `[H, W, C]`.

  It goes with 1 / (variance of brightness around it + LEAST_CONTRAST^2), in cells. Cells that are 0 all over, as
  what is beyond a picture may be, do not count in the mean.
  """
  seen = brightness(image)
  moments, cell = jnp.concatenate([seen, jnp.square(seen)], axis=-1), 1
  while cell < 2**HALVINGS and min(moments.shape[:2]) > 1:
    moments, cell = similarity.halved(moments), 2 * cell
  wide = jnp.pad(moments, ((1, 1), (1, 1), (0, 0)), mode="edge")
  tall = wide[:-2] + 2 * wide[1:-1] + wide[2:]
  mean, square = jnp.moveaxis((tall[:, :-2] + 2 * tall[:, 1:-1] + tall[:, 2:]) / 16, -1, 0)
  weights = 1 / (jnp.maximum(square - jnp.square(mean), 0) + LEAST_CONTRAST**2)
  there = moments[..., 1] > 0
  weights *= jnp.sum(there) / jnp.maximum(jnp.sum(weights, where=there), 1)  # each is 1 at least
  each = jnp.repeat(jnp.repeat(weights, cell, axis=0), cell, axis=1)
  beyond = [(0, side - covered) for side, covered in zip(image.shape[:2], each.shape, strict=True)]
  return jnp.pad(each, beyond, mode="edge")  # the last odd rows and columns, which halving leaves out
