"""A start from superpixels, which is found on the host: an initializer like those of fitting/initializers.py."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from gaussjax.fitting import initializers
from gaussjax.types import Array, Euler, Gaussians


def superpixels(
  key: Array, image: Array, num_gaussians: int, *, compactness: float = 10.0, gamma: float = 0.8
) -> Gaussians:
  """A Gaussian for each SLIC superpixel: its centroid, its covariance times `gamma` squared, its mean colour.

  Where SLIC finds fewer than N, the rest are those of `gradient_sampled`; where more, the smallest are left out.
  Needs scikit-image, the extra `superpixels`; raises ImportError without it. Superpixels: Achanta et al., "SLIC
  superpixels compared to state-of-the-art superpixel methods", 2012.
  """
  from skimage import segmentation

  pixels = np.asarray(image, np.float64)
  labels = segmentation.slic(
    pixels, num_gaussians, compactness, start_label=0, channel_axis=-1, convert2lab=pixels.shape[-1] == 3
  ).ravel()
  counts = np.bincount(labels)
  kept = np.argsort(-counts, kind="stable")[:num_gaussians]
  rows, columns = np.indices(pixels.shape[:2]).reshape(2, -1) + 0.5
  mean = lambda values: (np.bincount(labels, values) / counts)[kept]
  x, y = mean(columns), mean(rows)
  # A pixel is a square, not a point: a twelfth of its area is its own variance.
  xx, xy, yy = mean(columns**2) - x * x + 1 / 12, mean(columns * rows) - x * y, mean(rows**2) - y * y + 1 / 12
  difference = np.hypot((xx - yy) / 2, xy)
  variances = np.stack([(xx + yy) / 2 + difference, (xx + yy) / 2 - difference], -1)
  log_scales = math.log(gamma) + np.log(np.maximum(variances, 1 / 12)) / 2
  colors = np.stack([mean(channel) for channel in pixels.reshape(-1, pixels.shape[-1]).T], -1)
  single = lambda values: jnp.asarray(values, image.dtype)
  shape = Euler(single(log_scales), single(np.arctan2(2 * xy, xx - yy) / 2))
  mine = Gaussians(single(np.stack([x, y], -1)), shape, single(colors))
  filler = initializers.gradient_sampled(key, image, num_gaussians)
  return jax.tree.map(lambda a, b: jnp.concatenate([a, b[len(kept) :]]), mine, filler)
