"""Density control at a fixed number of Gaussians: those that matter least move to where the error is.

The set keeps its size, so a compiled step serves the whole fit and the budget is never exceeded.
"""

import jax
import jax.numpy as jnp

from gaussjax import geometry, rendering
from gaussjax.initializers import color_under
from gaussjax.types import Array, Euler, Gaussians


def relocate(
  key: Array,
  gaussians: Gaussians,
  rasterizer: rendering.Rasterizer,
  target: Array,
  *,
  share: float = 0.05,
  shrink: float = 0.9,
) -> tuple[Gaussians, Array]:
  """Moves the least important `share` to pixels drawn by their squared error: (set, moved `[N]` bool).

  For the weighted average. A moved Gaussian takes the colour of its pixel, a scale exp(-shrink) times that of the
  Gaussians around it and a random angle: it starts as a detail within what is there.
  """
  count = round(share * gaussians.means.shape[0])
  log_scales = jnp.mean(jnp.log(geometry.scales(gaussians)), axis=1, keepdims=True)
  drawn = rendering.weighted_average(
    rasterizer,
    jnp.concatenate([gaussians.colors, log_scales], 1),
    jnp.append(geometry.canvas_of(gaussians).background, jnp.mean(log_scales)),
  )
  prediction, around = drawn[..., :-1], drawn[..., -1]
  least = jnp.argsort(importance(gaussians.colors, prediction, rasterizer))[:count]
  key_pixels, key_offsets, key_thetas = jax.random.split(key, 3)
  error = jnp.sum(jnp.square(prediction - target), axis=-1).ravel() + jnp.finfo(target.dtype).tiny
  pixels = jax.random.choice(key_pixels, error.size, (count,), replace=count > error.size, p=error / jnp.sum(error))
  corners = jnp.stack([pixels % target.shape[1], pixels // target.shape[1]], -1)
  means = corners + jax.random.uniform(key_offsets, (count, 2), target.dtype)
  euler = Euler(
    jnp.broadcast_to(around.ravel()[pixels][:, None] - shrink, (count, 2)),
    jax.random.uniform(key_thetas, (count,), target.dtype, maxval=jnp.pi),
  )
  shape = geometry.TO_SHAPE[type(gaussians.shape)](euler)
  log_weights = None if gaussians.log_weights is None else jnp.zeros(count, target.dtype)
  moved = Gaussians(means, shape, color_under(target, means), log_weights)
  put = jax.tree.map(lambda old, new: old.at[least].set(new), gaussians._replace(canvas=None), moved)
  return put._replace(canvas=gaussians.canvas), jnp.zeros(len(gaussians.means), bool).at[least].set(True)


def importance(colors: Array, prediction: Array, rasterizer: rendering.Rasterizer) -> Array:
  """`[N]`, sum_p (w_i / W) |c_i - prediction|^2: about how much the picture changes without Gaussian i.

  By expanding the square it is one adjoint of `splat`. A Gaussian among others of its own colour counts for
  nothing, however much of the picture it covers; one that no pixel sees counts for less, -inf.
  """
  total = rendering.coverage(rasterizer)[..., None] + rasterizer.tail
  square = jnp.sum(jnp.square(prediction), axis=-1, keepdims=True)
  image = jnp.concatenate([jnp.ones_like(total), prediction, square], axis=-1) / total
  _, adjoint = jax.vjp(rasterizer.splat, jnp.zeros((colors.shape[0], image.shape[-1]), colors.dtype))
  pulled = jnp.exp(rasterizer.log_weights)[:, None] * adjoint(image)[0]
  cross = jnp.sum(colors * pulled[:, 1:-1], axis=1)
  squares = jnp.sum(jnp.square(colors), axis=1) * pulled[:, 0] - 2 * cross + pulled[:, -1]
  return jnp.where(pulled[:, 0] > 0, squares, -jnp.inf)
