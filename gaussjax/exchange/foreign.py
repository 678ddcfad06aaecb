"""Fits of GaussianImage and Image-GS as sets of ours, from the tensors of their checkpoints.

Both put a pixel's centre at whole numbers, where ours is half a pixel further.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gaussjax.errors import FormatError
from gaussjax.rendering import blends
from gaussjax.types import Canvas, Cholesky, Euler, Gaussians, Shape

CUTOFF = 5.0  # standard deviations, where a Gaussian of GaussianImage that is left whole has nothing more to give
LEAST_FLOOR = 0.02  # pixels, the least that a file holds: theirs have none
EPSILON = 1e-4  # what Image-GS adds to the sum of weights, as our background's weight


def gaussians(tensors: dict[str, NDArray], height: int, width: int) -> Gaussians:
  """The set in the tensors of a checkpoint, of a picture of this size. Raises FormatError for those of neither.

  GaussianImage: `_xyz`, `_features_dc`, and `_cholesky` or `_scaling` and `_rotation`. Image-GS: `xy`, `scale`
  (inverse), `rot`, `feat`. Names may follow others and a dot.
  """
  short = {name.rsplit(".", 1)[-1]: array for name, array in tensors.items() if "optim" not in name}
  if {"_xyz", "_features_dc"} <= set(short):
    return _gaussian_image(short, height, width)
  if {"xy", "scale", "rot", "feat"} <= set(short):
    return _image_gs(short, height, width)
  raise FormatError(
    f"got tensors {', '.join(sorted(short))[:200] or 'none'}, expected those of GaussianImage (_xyz, _cholesky or "
    "_scaling and _rotation, _features_dc) or of Image-GS (xy, scale, rot, feat)"
  )


def _gaussian_image(tensors: dict[str, NDArray], height: int, width: int) -> Gaussians:
  """Sums of colours; centres are tanh of what is stored, lengths have 1/2 added (its `bound`)."""
  count = len(tensors["_xyz"])
  field = lambda name, channels: _field(tensors, name, count, channels)
  means = (np.tanh(field("_xyz", 2)) + 1) / 2 * [width, height] + 0.5
  shape: Shape
  if "_cholesky" in tensors:
    l11, l21, l22 = (field("_cholesky", 3) + [0.5, 0, 0.5]).T
    shape = Cholesky(_single(l11), _single(l21), _single(l22))
  else:
    scales = np.abs(field("_scaling", 2) + 0.5)
    thetas = 2 * math.pi / (1 + np.exp(-field("_rotation", 1)[:, 0]))
    shape = _euler(scales, thetas)
  colors = field("_features_dc", tensors["_features_dc"].shape[-1])
  if "_opacity" in tensors:
    colors = colors * field("_opacity", 1)
  return _set(means, shape, colors, height, width, blends.accumulated_sum, CUTOFF)


def _image_gs(tensors: dict[str, NDArray], height: int, width: int) -> Gaussians:
  """Averages of the ten of greatest weight at a pixel there, of all here; stored scales are inverse."""
  count = len(tensors["xy"])
  field = lambda name, channels: _field(tensors, name, count, channels)
  means = field("xy", 2) * [width, height] + 0.5
  with np.errstate(divide="ignore"):
    shape = _euler(np.abs(1 / field("scale", 2)), field("rot", 1)[:, 0])
  cutoff = math.sqrt(-2 * math.log(EPSILON))
  colors = field("feat", tensors["feat"].shape[-1])
  return _set(means, shape, colors, height, width, blends.weighted_average, cutoff)


def _field(tensors: dict[str, NDArray], name: str, count: int, channels: int) -> NDArray:
  """`[count, channels]` float64. Raises FormatError for another shape or numbers that are not finite."""
  array = np.asarray(tensors.get(name, np.zeros(0)))
  if array.size != count * channels or len(array) != count or count == 0:
    raise FormatError(f"got {name} of shape {array.shape}, expected ({count}, {channels})")
  array = array.astype(np.float64).reshape(count, channels)
  if not np.isfinite(array).all():
    raise FormatError(f"got {name} with numbers that are not finite")
  return array


def _euler(scales: NDArray, thetas: NDArray) -> Euler:
  return Euler(_single(np.log(np.clip(scales, 1e-4, 1e5))), _single(thetas))


def _set(
  means: NDArray, shape: Shape, colors: NDArray, height: int, width: int, blend: blends.Blend, cutoff: float
) -> Gaussians:
  background = jnp.zeros(colors.shape[1])
  canvas = Canvas(height, width, background, blend, cutoff=round(cutoff, 3), floor=LEAST_FLOOR)
  return Gaussians(_single(means), shape, _single(colors), None, canvas)


def _single(array: Any) -> Any:
  return jnp.asarray(array, jnp.float32)
