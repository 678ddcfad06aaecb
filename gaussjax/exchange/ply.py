"""A set as the PLY file that viewers of 3D Gaussians read: a flat picture in space."""

import numpy as np
from numpy.typing import NDArray

from gaussjax import geometry
from gaussjax.types import Gaussians

FIELDS = (
  *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
  *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
HARMONIC = 0.28209479177387814  # 1 / (2 sqrt(pi)): viewers add 1/2 to this times the colour's coefficient
OPACITY = 0.95  # of every Gaussian whose weight has no factor: nearly opaque, so that the nearer one counts
THICKNESS = 1e-4  # of the picture's longer half side: its standard deviation across
DEPTH = 0.02  # from the nearest Gaussian, the smallest, to the farthest, the largest


def dumps(gaussians: Gaussians) -> bytes:
  """The binary PLY of a set of 1 to 4 channels.

  The longer side of the picture is from -1 to 1, x to the right and y down, as cameras have it, and z away from
  the eye. Raises ValueError without a canvas, for slopes or for more channels.
  """
  canvas = geometry.canvas_of(gaussians)
  if gaussians.slopes is not None:
    raise ValueError("got a set with slopes, which PLY cannot say, expected one that was fitted without")
  shape = geometry.to_euler(gaussians.shape)
  log_scales, thetas = np.asarray(shape.log_scales, np.float64), np.asarray(shape.thetas, np.float64)
  half = max(canvas.height, canvas.width) / 2
  rows = np.zeros((len(thetas), len(FIELDS)), "<f4")
  rows[:, :2] = (np.asarray(gaussians.means) - [canvas.width / 2, canvas.height / 2]) / half
  size = log_scales.sum(axis=1)
  rank = np.argsort(np.argsort(size, kind="stable"), kind="stable")  # viewers draw what is nearer over the rest
  rows[:, 2] = DEPTH * rank / max(len(rank) - 1, 1)
  rows[:, 6:9] = (rgb(np.asarray(gaussians.colors, np.float64)) - 0.5) / HARMONIC
  weights = np.zeros(len(rows)) if gaussians.log_weights is None else np.asarray(gaussians.log_weights, np.float64)
  opacity = OPACITY * np.exp(np.minimum(weights, 0))
  rows[:, 9] = np.log(opacity / (1 - opacity))
  rows[:, 10:12] = np.log(np.hypot(np.exp(log_scales), canvas.floor) / half)
  rows[:, 12] = np.log(THICKNESS)
  rows[:, 13], rows[:, 16] = np.cos(thetas / 2), np.sin(thetas / 2)  # a quaternion (w, x, y, z) about z
  header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
  header += [*(f"property float {name}" for name in FIELDS), "end_header", ""]
  return "\n".join(header).encode() + rows.tobytes()


def rgb(colors: NDArray) -> NDArray:
  """Colours `[N, C]` of 1 to 4 channels as red, green and blue `[N, 3]`. Raises ValueError for more."""
  channels = colors.shape[1]
  if channels > 4:
    raise ValueError(f"got a set of {channels} channels, expected 1 to 4 for a picture")
  return colors[:, :3] if channels > 2 else np.repeat(colors[:, :1], 3, axis=1)
