"""SSIMULACRA 2: structural similarity in a colour space of the eye, over six scales, weighted by what viewers said.

By Jon Sneyers (Cloudinary), version 2.1 of April 2023, published with its weights under a BSD licence
(github.com/cloudinary/ssimulacra2, also in libjxl). Written here from that definition; the tests hold it to scores
of the reference program. In numpy, on the host: as a program of XLA it took half a minute to compile.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

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
    error += np.sum(WEIGHTS[:, scale] * _norms(_perceived(a), _perceived(b)))
  error *= 0.9562382616834844
  error = 2.326765642916932 * error - 0.020884521182843837 * error**2 + 6.248496625763138e-05 * error**3
  return float(100 - 10 * max(error, 0.0) ** 0.6276336467831387)


def _linear(encoded: NDArray) -> NDArray:
  """Light of sRGB's values."""
  return np.where(encoded <= 0.04045, encoded / 12.92, ((np.maximum(encoded, 0) + 0.055) / 1.055) ** 2.4)


def _perceived(linear: NDArray) -> NDArray:
  """XYB of linear light, `[3, H, W]`, with B less Y, each moved to about 0 to 1."""
  cones = np.tensordot(CONES.astype(linear.dtype), linear, 1)
  long, medium, short = np.cbrt(np.maximum(cones + BIAS, 0)) - math.cbrt(BIAS)
  y = (long + medium) / 2
  return np.stack([7 * (long - medium) + 0.42, y + 0.01, short - y + 0.55])


def _norms(a: NDArray, b: NDArray) -> NDArray:
  """Means and fourth norms of the three error maps of each channel: `[3, H, W]` -> `[3, 2, 3]`."""
  mean_a, mean_b, square_a, square_b, product = (_blurred(x) for x in (a, b, a * a, b * b, a * b))
  alike = 1 - (mean_a - mean_b) ** 2  # the usual quotient would weigh the dark more, and B and X are not light
  covariance = 2 * (product - mean_a * mean_b) + C2
  variances = (square_a - mean_a**2) + (square_b - mean_b**2) + C2
  unlike = np.maximum(1 - alike * covariance / variances, 0)
  edges = (1 + np.abs(b - mean_b)) / (1 + np.abs(a - mean_a)) - 1
  maps = np.stack([unlike, np.maximum(edges, 0), np.maximum(-edges, 0)], axis=1)
  mean = lambda x: x.mean((-2, -1), dtype=np.float64)
  return np.stack([mean(maps), mean(np.square(np.square(maps))) ** 0.25], axis=1)


def _blurred(planes: NDArray) -> NDArray:
  """Planes `[3, H, W]` under the window, zero outside of the picture."""
  for axis in (1, 2):
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
