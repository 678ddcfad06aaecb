"""The renderer again, in float64 numpy, one Gaussian at a time and from the textbook formulas."""

import numpy as np


def factors(shape):
  """S `[N, 2, 2]` of Euler, Cholesky and LogCholesky shapes."""
  fields = [np.asarray(field, np.float64) for field in shape]
  kind = type(shape).__name__
  if kind == "Euler":
    (s1, s2), (c, s) = np.exp(fields[0]).T, (np.cos(fields[1]), np.sin(fields[1]))
    return np.stack([np.stack([c * s1, -s * s2], -1), np.stack([s * s1, c * s2], -1)], -2)
  l11, l21, l22 = fields
  if kind == "LogCholesky":
    l11, l22 = np.exp(l11), np.exp(l22)
  return np.stack([np.stack([l11, 0 * l11], -1), np.stack([l21, l22], -1)], -2)


def weights(gaussians, *, kernel=None):
  """w_i(p) `[N, H, W]` at the fitted size; `kernel(q)` replaces the one with compact support."""
  canvas = gaussians.canvas
  tau = np.exp(-(canvas.cutoff**2) / 2)
  kernel = kernel or (lambda q: np.maximum(np.exp(-q / 2) - tau, 0) / (1 - tau))
  s = factors(gaussians.shape)
  conics = np.linalg.inv(s @ s.transpose(0, 2, 1) + canvas.floor**2 * np.eye(2))
  y, x = np.mgrid[: canvas.height, : canvas.width] + 0.5
  drawn = []
  for (mx, my), ((a, b), (_, c)) in zip(np.asarray(gaussians.means, np.float64), conics, strict=True):
    dx, dy = x - mx, y - my
    drawn.append(kernel(a * dx**2 + 2 * b * dx * dy + c * dy**2))
  return np.stack(drawn)


def rises(gaussians):
  """By how much each Gaussian is brighter at each pixel than at its mean, `[N, H, W]`."""
  canvas = gaussians.canvas
  y, x = np.mgrid[: canvas.height, : canvas.width] + 0.5
  if gaussians.slopes is None:
    return np.zeros((len(gaussians.means), *x.shape))
  s = factors(gaussians.shape)
  variances, axes = np.linalg.eigh(s @ s.transpose(0, 2, 1) + canvas.floor**2 * np.eye(2))
  along = np.einsum("nij,ni->nj", axes, np.asarray(gaussians.slopes, np.float64)) / np.sqrt(variances)
  gradients = np.einsum("nij,nj->ni", axes, along)
  means = np.asarray(gaussians.means, np.float64)
  return np.stack([gx * (x - mx) + gy * (y - my) for (gx, gy), (mx, my) in zip(gradients, means, strict=True)])


def render(gaussians, *, kernel=None):
  """`[H, W, C]` at the fitted size, with the set's own blend."""
  canvas = gaussians.canvas
  w = weights(gaussians, kernel=kernel)
  colors, background = np.asarray(gaussians.colors, np.float64), np.asarray(canvas.background, np.float64)
  log_weights = np.zeros(len(w)) if gaussians.log_weights is None else np.asarray(gaussians.log_weights, np.float64)
  colors = colors[:, None, None] + rises(gaussians)[..., None]  # at each pixel
  if canvas.blend.name == "alpha_composite":
    picture, transmittance = np.zeros(colors.shape[1:]), np.ones((*w.shape[1:], 1))
    for weight, opacity, color in zip(w, np.exp(np.minimum(log_weights, 0)), colors, strict=True):
      alpha = (opacity * weight)[..., None]
      picture += transmittance * alpha * color
      transmittance *= 1 - alpha
    return picture + transmittance * background
  w = w * np.exp(log_weights)[:, None, None]
  sums = np.einsum("nhw,nhwc->hwc", w, colors)
  if canvas.blend.name == "accumulated_sum":
    return sums + background
  tau = np.exp(-(canvas.cutoff**2) / 2)
  return (sums + tau * background) / (w.sum(0)[..., None] + tau)
