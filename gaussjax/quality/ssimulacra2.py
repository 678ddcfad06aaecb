"""SSIMULACRA 2: structural similarity in a colour space of the eye, over six scales, weighted by what viewers said.

By Jon Sneyers (Cloudinary), version 2.1 of April 2023, published with its weights under a BSD licence
(github.com/cloudinary/ssimulacra2, also in libjxl). Written here from that definition; the tests hold it to scores
of the reference program. The score is made in numpy, on the host: as a program of XLA it took half a minute to
compile. What of it is to be seen in small is a program of JAX, with a gradient.
"""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussjax.quality import similarity
from gaussjax.types import Array

SCALES = 6
LEAST = 113  # pixels each way: below, the reference leaves scales out, and takes the weights of others for the rest
SIGMA = 1.5  # pixels, of the window at each scale
C2 = 0.0009
# Linear red, green and blue to what three kinds of cones answer, before the cube root.
CONES = np.array(
  [
    [0.30, 0.622, 0.078],
    [0.23, 0.692, 0.078],
    [0.24342268924547819, 0.20476744424496821, 1 - 0.24342268924547819 - 0.20476744424496821],
  ]
)
BIAS = 0.0037930732552754493
# How much an error weighs, where it weighs at all, by its place in an array [channel, scale, norm, kind]: channels
# X, Y and B; norms 1 and 4; dissimilarity, edges that came and edges that went.
_FILLED = {
  1: 0.0007376606707406586,
  4: 0.0007793481682867309,
  7: 0.0004371155730107379,
  9: 1.1041726426657346,
  10: 0.00066284834129271,
  11: 0.00015231632783718752,
  13: 0.0016406437456599754,
  15: 1.8422455520539298,
  16: 11.441172603757666,
  18: 0.0007989109436015163,
  19: 0.000176816438078653,
  21: 1.8787594979546387,
  22: 10.94906990605142,
  24: 0.0007289346991508072,
  25: 0.9677937080626833,
  27: 0.00014003424285435884,
  28: 0.9981766977854967,
  29: 0.00031949755934435053,
  30: 0.0004550992113792063,
  33: 0.0013648766163243398,
  39: 7.466890328078848,
  41: 17.445833984131262,
  42: 0.0006235601634041466,
  45: 6.683678146179332,
  46: 0.00037724407979611296,
  47: 1.027889937768264,
  48: 225.20515300849274,
  51: 19.213238186143016,
  52: 0.0011401524586618361,
  53: 0.001237755635509985,
  54: 176.39317598450694,
  57: 24.43300999870476,
  58: 0.28520802612117757,
  59: 0.0004485436923833408,
  63: 34.77906344483772,
  64: 44.835625328877896,
  73: 0.0008680556573291698,
  79: 0.0005313191874358747,
  81: 0.00016533814161379112,
  87: 0.0004179171803251336,
  88: 0.0017290828234722833,
  90: 0.0020827005846636437,
  93: 8.826982764996862,
  94: 23.19243343998926,
  96: 95.1080498811086,
  97: 0.9863978034400682,
  98: 0.9834382792465353,
  99: 0.0012286405048278493,
  100: 171.2667255897307,
  101: 0.9807858872435379,
  105: 0.0005130064588990679,
  107: 0.00010854057858411537,
}
WEIGHTS = np.array([_FILLED.get(i, 0.0) for i in range(108)]).reshape(3, SCALES, 2, 3)


def fits(image: NDArray) -> bool:
  """Whether an image is one that the score is defined for."""
  return image.shape[-1] == 3 and min(image.shape[:2]) >= LEAST


def ssimulacra2(prediction: ArrayLike, target: ArrayLike) -> float:
  """The score of `prediction` against `target`, both `[H, W, 3]`, sRGB in [0, 1]. No clipping.

  100 for the same picture, about 90 for one that is taken for it, 70 for high, 50 for medium and 30 for low
  quality, below 0 for very poor ones. Raises ValueError for another number of channels or under 113 x 113 pixels.
  """
  a, b = (np.asarray(image, np.float32) for image in (target, prediction))
  if not fits(b):
    raise ValueError(
      f"got an image of shape {b.shape}, expected 3 channels and {LEAST} x {LEAST} pixels for SSIMULACRA 2"
    )
  a, b = (_linear(np.moveaxis(image, -1, 0)) for image in (a, b))
  error = 0.0
  for scale in range(SCALES):
    if scale:
      a, b = _halved(a), _halved(b)
    error += np.sum(WEIGHTS[:, scale] * _norms(_perceived(a, np), _perceived(b, np)))
  error *= 0.9562382616834844
  error = 2.326765642916932 * error - 0.020884521182843837 * error**2 + 6.248496625763138e-05 * error**3
  return float(100 - 10 * max(error, 0.0) ** 0.6276336467831387)


COARSE = (2, 3, 4)  # scales: a quarter, an eighth and a sixteenth of the size
FLAT = 1e-24  # of a fourth power: below, a norm has no gradient to speak of


@jax.default_matmul_precision("highest")  # an accelerator's own would not tell small errors from none
def coarse_error(prediction: Array, target: Array) -> Array:
  """[] what the score sums up of the scales COARSE, 0 for the same picture: what of it is cheap, with a gradient.

  They have 96% of its weights and a twelfth of its pixels. Images are `[H, W, 3]`, sRGB, clipped here. Light is a
  cubic of sRGB's values, within 0.002. Rows and columns that do not fill a pixel of a scale are left out there, and
  scales that are smaller than the window.
  """
  error = jnp.zeros((), prediction.dtype)
  light = tuple(_quartered(_nearly_linear(jnp.clip(image, 0, 1))) for image in (target, prediction))
  for scale in COARSE:
    if min(light[0].shape[:2]) < len(WINDOW):
      break
    light = jax.lax.optimization_barrier(light)
    a, b = jax.lax.optimization_barrier(tuple(_perceived(jnp.moveaxis(image, -1, 0), jnp) for image in light))
    maps = _maps(a, b, _summed, jnp).reshape(3, 3, -1)
    # As products: XLA's reductions of nine maps together took twenty seconds to compile, at some sizes.
    mean = jnp.full(maps.shape[-1], 1 / maps.shape[-1], maps.dtype)
    norms = jnp.stack([maps @ mean, (jnp.square(jnp.square(maps)) @ mean + FLAT) ** 0.25 - FLAT**0.25], axis=1)
    error += jnp.sum(jnp.asarray(WEIGHTS[:, scale], prediction.dtype) * norms)
    light = tuple(similarity.halved(image) for image in light)
  return error


def _nearly_linear(encoded: Array) -> Array:
  """Light of sRGB's values, without powers."""
  return encoded * (0.012522878 + encoded * (0.682171111 + encoded * 0.305306011))


def _quartered(image: Array) -> Array:
  """Means of 4 x 4 pixels, in a quarter of the time that it takes to halve the image twice."""
  height, width, channels = image.shape[0] // 4, image.shape[1] // 4, image.shape[2]
  rows = image[: 4 * height, : 4 * width].reshape(height, 4, -1).sum(1)
  return rows.reshape(height, width, 4, channels).sum(2) / 16


@jax.custom_vjp
def _summed(planes: Array) -> Array:
  """Planes `[K, 3, H, W]` under the window, zero outside of the picture."""
  height, width = planes.shape[2:]
  reach, taps = len(WINDOW) // 2, WINDOW.tolist()
  padded = jnp.pad(planes.reshape(-1, height, width), ((0, 0), (reach, reach), (0, 0)))
  rows = jnp.pad(
    sum(tap * padded[:, i : i + height] for i, tap in enumerate(taps)), ((0, 0), (0, 0), (reach, reach))
  )
  # The barrier keeps XLA from making each row's sum anew for each of its shifts.
  rows = jax.lax.optimization_barrier(rows)
  return sum(tap * rows[:, :, i : i + width] for i, tap in enumerate(taps)).reshape(planes.shape)


# The window is symmetric, so the adjoint is the same sum. XLA's own takes seven times as long.
_summed.defvjp(lambda planes: (_summed(planes), None), lambda _, gradient: (_summed(gradient),))


def _linear(encoded: NDArray) -> NDArray:
  """Light of sRGB's values."""
  return np.where(encoded <= 0.04045, encoded / 12.92, ((np.maximum(encoded, 0) + 0.055) / 1.055) ** 2.4)


def _perceived(linear: Any, xp: ModuleType) -> Any:
  """XYB of linear light, `[3, H, W]`, with B less Y, each moved to about 0 to 1; `xp` is numpy or JAX's."""
  cones = xp.tensordot(xp.asarray(CONES, linear.dtype), linear, 1)
  long, medium, short = xp.cbrt(xp.maximum(cones + BIAS, 0)) - math.cbrt(BIAS)
  y = (long + medium) / 2
  return xp.stack([7 * (long - medium) + 0.42, y + 0.01, short - y + 0.55])


def _maps(a: Any, b: Any, blurred: Callable[[Any], Any], xp: ModuleType) -> Any:
  """The three error maps of each channel, `[3, 3, H, W]`, of planes `[3, H, W]`; `blurred` takes stacks of them."""
  mean_a, mean_b, square_a, square_b, product = blurred(xp.stack([a, b, a * a, b * b, a * b]))
  alike = 1 - (mean_a - mean_b) ** 2  # the usual quotient would weigh the dark more, and B and X are not light
  covariance = 2 * (product - mean_a * mean_b) + C2
  variances = (square_a - mean_a**2) + (square_b - mean_b**2) + C2
  unlike = xp.maximum(1 - alike * covariance / variances, 0)
  edges = (1 + xp.abs(b - mean_b)) / (1 + xp.abs(a - mean_a)) - 1
  return xp.stack([unlike, xp.maximum(edges, 0), xp.maximum(-edges, 0)], axis=1)


def _norms(a: NDArray, b: NDArray) -> NDArray:
  """Means and fourth norms of the three error maps of each channel: `[3, H, W]` -> `[3, 2, 3]`."""
  maps = _maps(a, b, _blurred, np)
  mean = lambda x: x.mean((-2, -1), dtype=np.float64)
  return np.stack([mean(maps), mean(np.square(np.square(maps))) ** 0.25], axis=1)


def _blurred(planes: NDArray) -> NDArray:
  """Planes `[K, 3, H, W]` under the window, zero outside of the picture."""
  from scipy import ndimage  # for the metric alone, and slow to import

  for axis in (2, 3):
    planes = ndimage.correlate1d(planes, WINDOW, axis, mode="constant")
  return planes


def _window(sigma: float) -> NDArray:
  """The taps of a sum of three cosines that is nearest to a Gaussian.

  Charalampidis, "Recursive implementation of the Gaussian filter using truncated cosine functions", 2016, whose
  equations are in brackets. The cosines end in a zero, so that the sum needs no recursion to be written down.
  """
  radius = round(3.2795 * sigma + 0.2546)  # (57)
  omega = np.array([1, 3, 5]) * np.pi / (2 * radius)
  p = np.array([1, -1, 1]) / np.tan(omega / 2)  # (37)
  r = np.array([1, -1, 1]) * p**2 / np.sin(omega)  # (44)
  rho = np.exp(-((sigma * omega) ** 2) / 2) / radius  # (50)
  minors = np.cross(p, r)  # (52)
  zeta = minors / minors[2]
  beta = np.linalg.solve([p, r, zeta], [1, radius**2 - sigma**2, zeta @ rho])  # (53) to (56)
  places = np.arange(-radius + 1, radius)
  return beta @ np.cos(omega[:, None] * places)


def _halved(planes: NDArray) -> NDArray:
  """Means of 2 x 2 pixels; an odd last row or column counts twice."""
  height, width = planes.shape[1:]
  planes = np.pad(planes, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
  return planes.reshape(3, planes.shape[1] // 2, 2, planes.shape[2] // 2, 2).mean((2, 4))


WINDOW = _window(SIGMA)
