"""The colours in closed form: for a blend that is linear in them the best ones solve a linear system.

`solved` is a start with such colours, `refine_colors` is for the set that a fit has ended with.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from gaussjax import geometry, image_io
from gaussjax.quality import losses
from gaussjax.rendering import blends, kernel, renderer
from gaussjax.types import Array, Canvas, Gaussians

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


def solved(
  key: Array,
  image: Array,
  num_gaussians: int,
  *,
  initialize: Callable[[Array, Array, int], Gaussians],
  blend: blends.Blend = blends.weighted_average,
  iterations: int = 20,
) -> Gaussians:
  """An initializer, by functools.partial: `initialize` with the colours that `solve_colors` finds."""
  gaussians = initialize(key, image, num_gaussians)
  canvas = Canvas(image.shape[0], image.shape[1], jnp.mean(image, axis=(0, 1)), blend)
  on_canvas = gaussians._replace(canvas=canvas)
  return _solved(on_canvas, renderer.allocate(on_canvas), image, iterations)._replace(canvas=gaussians.canvas)


def refine_colors(gaussians: Gaussians, image: ArrayLike, *, iterations: int = 20) -> Gaussians:
  """The set with the colours that `solve_colors` finds for the `image` `[H, W, C]` that it was fitted to.

  As it was, if that would not lower the squared error. Raises ValueError for a blend that is not linear.
  """
  target, neighbors = jnp.asarray(image_io.as_image(image)), renderer.allocate(gaussians)
  found = _solved(gaussians, neighbors, target, iterations)
  better = _squared_error(found, neighbors, target) < _squared_error(gaussians, neighbors, target)
  return found if better else gaussians


@functools.partial(jax.jit, static_argnums=3)
def _solved(gaussians: Gaussians, neighbors: renderer.Neighbors, target: Array, iterations: int) -> Gaussians:
  rasterizer = renderer.rasterizer(gaussians, neighbors)
  return solve_colors(gaussians, rasterizer, target, iterations=iterations)


@jax.jit
def _squared_error(gaussians: Gaussians, neighbors: renderer.Neighbors, target: Array) -> Array:
  rasterizer = renderer.rasterizer(gaussians, neighbors)
  return losses.l2(blends.picture(gaussians, rasterizer), target)
