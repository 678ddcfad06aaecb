"""Differentiable losses: prediction and target, both `[..., H, W, C]`, in; a scalar out."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gaussjax.quality import similarity, ssimulacra2, visibility
from gaussjax.quality.lpips import lpips as lpips  # the distance is a loss as it is
from gaussjax.types import Array

Loss = Callable[[Array, Array], Array]


def l1(prediction: Array, target: Array) -> Array:
  """Mean absolute error."""
  return jnp.mean(jnp.abs(prediction - target))


def l2(prediction: Array, target: Array) -> Array:
  """Mean squared error. The prediction is not clipped, so that colours out of range are drawn back."""
  return jnp.mean(jnp.square(prediction - target))


# Means of what each pixel gives by itself: a picture can be drawn band by band for them.
PIXELWISE = frozenset({l1, l2})


def dssim(prediction: Array, target: Array) -> Array:
  """1 - SSIM. Raises ValueError below 11 x 11 pixels."""
  return 1 - similarity.ssim(prediction, target)


def ms_dssim(prediction: Array, target: Array) -> Array:
  """1 - MS-SSIM. Raises ValueError below 176 x 176 pixels."""
  return 1 - similarity.ms_ssim(prediction, target)


USUAL = ((0.2, l1), (0.8, l2), (0.1, dssim))  # the usual weights


def mix(prediction: Array, target: Array, *, parts: tuple[tuple[float, Loss], ...] = USUAL) -> Array:
  """The sum of weight times loss over `parts`; functools.partial(mix, parts=...) is a loss of its own."""
  return sum((weight * loss(prediction, target) for weight, loss in parts), jnp.zeros((), prediction.dtype))


# Sharper than L2 alone at nearly its PSNR. More of L2 than usual: squares of the small errors of a good fit count
# for next to nothing beside the others. At least 11 x 11 pixels. A partial, so that it is in a recipe's text.
perceptual: Loss = functools.partial(mix, parts=((0.2, l1), (3.0, l2), (0.1, dssim)))


SEEN = 7.5e-5  # worth of ssimulacra2.coarse_error, whose values are tens
STRUCTURE = (0.01, 0.01, 0.01)  # worth of 1 - SSIM at a half, a quarter and an eighth of the size


def visual(prediction: Array, target: Array) -> Array:
  """Squared errors, counted half by how visible they are, and what is missing at smaller sizes, for the eye.

  L2 alone lets texture of low contrast go, since it is cheap there; the eye misses it, at smaller sizes most. So
  what SSIMULACRA 2 counts at a quarter of the size and less (`ssimulacra2.coarse_error`) is added, and what SSIM
  misses in brightness at a half, a quarter and an eighth. Images are `[H, W, C]`. Of three channels and more the
  first three are sRGB; of fewer the first is grey. A size at which less than 11 pixels are left does not count.
  """
  weights = (1 + visibility.visibility(jax.lax.stop_gradient(target))[..., None]) / 2
  colors = [image[..., :3] if image.shape[-1] >= 3 else image[..., [0, 0, 0]] for image in (prediction, target)]
  total = jnp.mean(weights * jnp.square(prediction - target)) + SEEN * ssimulacra2.coarse_error(*colors)
  pair = [visibility.brightness(image) for image in (prediction, target)]
  for worth in STRUCTURE:
    pair = [similarity.halved(image) for image in pair]
    if min(pair[0].shape[:2]) < similarity.WINDOW:
      break
    total += worth * dssim(*pair)
  return total
