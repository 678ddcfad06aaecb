"""The derivative of `splat` along a direction: products with its Jacobian, for second-order methods."""

import jax.numpy as jnp

from gaussjax.geometry import Geometry
from gaussjax.rendering import splat
from gaussjax.rendering.tiles import TileLists
from gaussjax.types import Array


def splat_jvp(
  geometry: Geometry, values: Array, geometry_dot: Geometry, values_dot: Array, lists: TileLists, tau: float
) -> Array:
  """The derivative `[H, W, D]` of `splat` along (`geometry_dot`, `values_dot`), linear in both."""
  pixels, num_values = splat.local_pixels(lists.tile, values.dtype), values.shape[1]
  both = jnp.concatenate([values, values_dot], 1) / (1 - tau)
  rows = jnp.concatenate([splat.table(geometry, both), splat.table(geometry_dot, values[:, :0])], 1)

  def draw(rows: Array, centers: Array) -> Array:
    direction = rows[..., 5 + 2 * num_values :]
    value, value_dot = jnp.split(rows[..., 5 : 5 + 2 * num_values], 2, axis=-1)
    e = splat.exponential(rows, centers, pixels)
    log_e_dot = log_exponential_dot(rows, direction, centers, pixels)
    changed = splat.weigh(jnp.where(e > tau, e, 0) * log_e_dot, value)
    return changed + splat.weigh(jnp.maximum(e - tau, 0), value_dot)

  return splat.sum_blocks(lists, rows, draw, num_values)


def log_exponential_dot(rows: Array, direction: Array, centers: Array, pixels: Array) -> Array:
  """The derivative `[C, B, P]` of -q / 2 along `direction` `[C, B, 5]`, whose means and whitenings are changes."""
  mx, my, a11, a21, a22 = (rows[..., i, None] for i in range(5))
  mx_dot, my_dot, a11_dot, a21_dot, a22_dot = (direction[..., i, None] for i in range(5))
  dx = pixels[0] - (mx - centers[:, None, :1])
  dy = pixels[1] - (my - centers[:, None, 1:])
  z1, z1_dot = a11 * dx, a11_dot * dx - a11 * mx_dot
  z2, z2_dot = a21 * dx + a22 * dy, a21_dot * dx - a21 * mx_dot + a22_dot * dy - a22 * my_dot
  return -(z1 * z1_dot + z2 * z2_dot)
