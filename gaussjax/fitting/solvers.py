"""The colours in closed form: for a blend that is linear in them the best ones solve a linear system."""

import jax
import jax.numpy as jnp

from gaussjax import geometry
from gaussjax.rendering import blends, kernel
from gaussjax.types import Array, Gaussians

DAMPING = 1e-4  # times the mean diagonal: holds colours that no pixel determines near where they are


def solve_colors(
  gaussians: Gaussians, rasterizer: kernel.Rasterizer, target: Array, *, iterations: int = 20
) -> Gaussians:
  """The set with colours that bring the squared error to the `target` `[H, W, C]` near its least.

  Conjugate gradients from the colours as they are, on A^T A + DAMPING, A the blend's linear map from colours to
  picture (variable projection: Golub, Pereyra, 1973). Raises ValueError for a blend that is not linear.
  """
  canvas = geometry.canvas_of(gaussians)
  if canvas.blend.ordered:
    raise ValueError(f"got the blend {canvas.blend.name}, expected one that is linear in the colours")
  picture = lambda colors: blends.picture(gaussians._replace(colors=colors), rasterizer)
  drawn, adjoint = jax.vjp(picture, gaussians.colors)
  nothing = picture(jnp.zeros_like(gaussians.colors))
  diagonal = jnp.sum(adjoint(jnp.ones_like(drawn))[0]) / gaussians.colors.size
  damping = DAMPING * jnp.maximum(diagonal, jnp.finfo(drawn.dtype).tiny)

  def normal(colors: Array) -> Array:
    return adjoint(picture(colors) - nothing)[0] + damping * colors

  change, _ = jax.scipy.sparse.linalg.cg(normal, adjoint(target - drawn)[0], maxiter=iterations)
  return gaussians._replace(colors=gaussians.colors + change)
