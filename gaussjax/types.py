"""The data of the library: Gaussians, their shapes, and the canvas they were fitted on. No mathematics here.

Lengths are pixels of the fitted image. Pixel (row i, column j) has its centre at (x, y) = (j + 0.5, i + 0.5).
All parameters are raw and unconstrained; geometry.py alone turns them into covariances.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array


class Euler(NamedTuple):
  """Covariance R diag(exp(2 log_scales)) R^T, R a rotation by theta: the default shape."""

  log_scales: Array  # [N, 2] log of pixels
  thetas: Array  # [N] radians, from x towards y


class Cholesky(NamedTuple):
  """Covariance L L^T, L = [[l11, 0], [l21, l22]]."""

  l11: Array  # [N] pixels, any sign
  l21: Array  # [N] pixels
  l22: Array  # [N] pixels, any sign


class LogCholesky(NamedTuple):
  """Cholesky with the logarithms of the diagonal: a one-to-one map onto the covariances."""

  log_l11: Array  # [N] log of pixels
  l21: Array  # [N] pixels
  log_l22: Array  # [N] log of pixels


Shape = Euler | Cholesky | LogCholesky


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("background",),
  meta_fields=("height", "width", "blend", "cutoff", "floor"),
)
@dataclasses.dataclass(frozen=True)
class Canvas:
  """What a set of Gaussians was fitted on, and how it is to be drawn. Only `background` is an array.

  `blend` is one of rendering.blends, or one's own. `cutoff` bounds each Gaussian's support, in standard
  deviations; `floor` is the smooth lower bound of every scale, in pixels.
  """

  height: int
  width: int
  background: Array  # [C] the colour where no Gaussian reaches
  blend: Any  # a rendering.blends.Blend
  cutoff: float = 3.5
  floor: float = 0.3


class Gaussians(NamedTuple):
  """N Gaussians of C channels."""

  means: Array  # [N, 2] (x, y) pixels
  shape: Shape
  colors: Array  # [N, C], nominally in [0, 1], not clipped
  log_weights: Array | None = None  # [N] logarithm of a factor on the weight; None: all zero
  canvas: Canvas | None = None  # None only before the set meets an image
  slopes: Array | None = None  # [N, 2] by how much all colours rise along (x, y), a standard deviation; None: not


class Stop(NamedTuple):
  """When a fit ends: at the first of these."""

  max_steps: int | None = None  # None: the preset's
  target_psnr: float | None = None  # dB
  time_limit: float | None = None  # seconds of stepping, XLA's compilation apart
  min_gain: float | None = None  # dB over the last 100 steps: less counts as converged
  requested: Callable[[], bool] | None = None  # asked every few steps: whether to end now


class FitResult(NamedTuple):
  """What `fit` returns."""

  gaussians: Gaussians
  state: Any  # fitting.State: parameters, optimiser state, step
  history: list[dict[str, float]]  # one record per logged step, those before a resumption included
  metrics: dict[str, float]  # of the returned set
