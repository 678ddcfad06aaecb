"""A set as SVG: an ellipse with a radial gradient for each Gaussian, their light added."""

import math

import numpy as np

from gaussjax import geometry
from gaussjax.exchange.ply import rgb
from gaussjax.rendering import blends, kernel
from gaussjax.types import Gaussians

# Where a gradient has its stops, in shares of the support's radius: denser where the kernel bends.
STOPS = (0, 0.08, 0.16, 0.24, 0.32, 0.4, 0.48, 0.56, 0.64, 0.72, 0.82, 1)
MAX_GAUSSIANS = 20_000  # about 1 kB each


def dumps(gaussians: Gaussians) -> str:
  """The SVG of an accumulated sum of 1 or 3 channels, over its background.

  SVG adds light within [0, 1] alone: what a negative colour takes away is lost, and sums are cut as they grow.
  Raises ValueError for other blends, whose quotients and orders SVG cannot say, slopes, an alpha channel, and more
  than MAX_GAUSSIANS.
  """
  canvas, colors = geometry.canvas_of(gaussians), np.asarray(gaussians.colors, np.float64)
  if canvas.blend != blends.accumulated_sum:
    raise ValueError(
      f"got the blend {canvas.blend.name}, which SVG cannot say, expected accumulated_sum; take PLY, or a picture"
    )
  if colors.shape[1] not in (1, 3):
    raise ValueError(f"got a set of {colors.shape[1]} channels, expected 1 or 3 for SVG")
  if len(colors) > MAX_GAUSSIANS:
    raise ValueError(f"got {len(colors)} Gaussians, expected at most {MAX_GAUSSIANS} for SVG")
  if gaussians.slopes is not None:
    raise ValueError("got a set with slopes, which SVG cannot say, expected one that was fitted without")
  tau = kernel.tail(canvas.cutoff)
  shares = [max(math.exp(-((t * canvas.cutoff) ** 2) / 2) - tau, 0) / (1 - tau) for t in STOPS]
  background = rgb(np.asarray(canvas.background, np.float64)[None])[0]
  size = f'width="{canvas.width}" height="{canvas.height}" viewBox="0 0 {canvas.width} {canvas.height}"'
  parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} style="isolation: isolate; overflow: hidden">']
  parts.append(f'<rect width="100%" height="100%" fill="{_hex(background)}"/>')
  parts.append("<style>ellipse { mix-blend-mode: plus-lighter }</style>")
  weights = 0.0 if gaussians.log_weights is None else np.asarray(gaussians.log_weights, np.float64)[:, None]
  parts += _ellipses(gaussians, rgb(colors * np.exp(weights)), shares)
  return "\n".join([*parts, "</svg>", ""])


def _ellipses(gaussians: Gaussians, colors: np.ndarray, shares: list[float]) -> list[str]:
  """A gradient and an ellipse for each Gaussian that has some light."""
  canvas, shape = geometry.canvas_of(gaussians), geometry.to_euler(gaussians.shape)
  radii = canvas.cutoff * np.hypot(np.exp(np.asarray(shape.log_scales, np.float64)), canvas.floor)
  parts = []
  for i, (mean, (rx, ry), theta) in enumerate(
    zip(np.asarray(gaussians.means), radii, np.asarray(shape.thetas), strict=True)
  ):
    light = np.maximum(colors[i], 0)
    most = light.max()
    if most < 1 / 512:  # no byte of it would be seen
      continue
    # The brightest channel is full and the gradient's opacity carries the rest, so that dim colours keep their hue.
    full, by = _hex(light / most), min(most, 1.0)
    stops = "".join(
      f'<stop offset="{t:g}" stop-color="{full}" stop-opacity="{by * share:.5g}"/>'
      for t, share in zip(STOPS, shares, strict=True)
    )
    turn = f"translate({mean[0]:.3f} {mean[1]:.3f}) rotate({math.degrees(theta):.3f})"
    parts.append(f'<radialGradient id="g{i}">{stops}</radialGradient>')
    parts.append(f'<ellipse rx="{rx:.4f}" ry="{ry:.4f}" transform="{turn}" fill="url(#g{i})"/>')
  return parts


def _hex(color: np.ndarray) -> str:
  return "#" + "".join(f"{round(255 * min(max(value, 0), 1)):02x}" for value in color.tolist())
