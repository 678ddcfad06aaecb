"""Metrics of two images `[H, W, C]` in [0, 1]: a scalar out. A prediction is clipped to [0, 1] first."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np

from gaussjax import numerics
from gaussjax.quality import lpips as _lpips, similarity, ssimulacra2 as _ssimulacra2
from gaussjax.types import Array


def mse(prediction: Array, target: Array) -> Array:
  """Mean squared error of the clipped prediction."""
  return jnp.mean(jnp.square(jnp.clip(prediction, 0, 1) - target))


def psnr(prediction: Array, target: Array) -> Array:
  """Peak signal-to-noise ratio in dB, peak 1: -10 log10(mse), at most 120."""
  return psnr_of(mse(prediction, target))


def psnr_of(error: Array) -> Array:
  """The same of a mean squared `error`."""
  return -10 * jnp.log10(jnp.maximum(error, numerics.MIN_MSE))


def ssim(prediction: Array, target: Array) -> Array:
  """Structural similarity (similarity.ssim) of the clipped prediction. Raises ValueError below 11 x 11 pixels."""
  return similarity.ssim(jnp.clip(prediction, 0, 1), target)


def ms_ssim(prediction: Array, target: Array) -> Array:
  """The same over five scales (similarity.ms_ssim). Raises ValueError below 176 x 176 pixels."""
  return similarity.ms_ssim(jnp.clip(prediction, 0, 1), target)


def lpips(prediction: Array, target: Array) -> Array:
  """LPIPS (lpips.lpips) of the clipped prediction; raises what that raises."""
  return _lpips.lpips(jnp.clip(prediction, 0, 1), target)


def ssimulacra2(prediction: Array, target: Array) -> float:
  """SSIMULACRA 2 (ssimulacra2.ssimulacra2) of the clipped prediction, on the host; raises what that raises."""
  return _ssimulacra2.ssimulacra2(np.clip(np.asarray(prediction), 0, 1), target)


def flip(prediction: Array, target: Array) -> float:
  """Mean FLIP of colour images on the host: 0 for the same, 1 at most, seen at 67 pixels a degree.

  Andersson et al., "FLIP: a difference evaluator for alternating images", 2020, by their package flip-evaluator.
  Raises ModuleNotFoundError without it, ValueError for other than 3 channels.
  """
  if target.shape[-1] != 3:
    raise ValueError(f"got an image of shape {target.shape}, expected 3 channels for FLIP")
  try:
    import flip_evaluator
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError("FLIP needs the package flip-evaluator (pip install 'gaussjax[flip]')") from error
  reference, test = (np.array(image, np.float32) for image in (target, jnp.clip(prediction, 0, 1)))
  return float(flip_evaluator.evaluate(reference, test, "LDR", applyMagma=False)[1])


MOST_PIXELS = 2**24  # of pictures that `evaluate` takes ssim and ms_ssim of, whose windows take much memory


def evaluate(prediction: Array, target: Array) -> dict[str, float]:
  """The metrics that need nothing else: mse, psnr in dB, from 11 x 11 pixels on ssim, from 176 x 176 on ms_ssim.

  The latter two of pictures of up to MOST_PIXELS.
  """
  return {name: float(value) for name, value in _evaluated(prediction, target).items()}


@jax.jit
def _evaluated(prediction: Array, target: Array) -> dict[str, Array]:
  values = {"mse": mse(prediction, target), "psnr": psnr(prediction, target)}
  if target.shape[0] * target.shape[1] > MOST_PIXELS:
    return values
  if min(target.shape[:2]) >= 11:
    values["ssim"] = ssim(prediction, target)
  if min(target.shape[:2]) >= 176:
    values["ms_ssim"] = ms_ssim(prediction, target)
  return values


def perceptual(prediction: Array, target: Array) -> dict[str, float]:
  """Those of lpips and flip whose package is installed, for images that they are defined for."""
  values = {}
  if _lpips.available() and _lpips.fits(target):
    values["lpips"] = float(_jitted_lpips(prediction, target))
  if importlib.util.find_spec("flip_evaluator") and target.shape[-1] == 3:
    values["flip"] = flip(prediction, target)
  return values


_jitted_lpips = jax.jit(lpips)
