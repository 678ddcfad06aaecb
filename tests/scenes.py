"""Random sets of Gaussians for the tests."""

import jax
import jax.numpy as jnp
import numpy as np

import gaussjax
from gaussjax import Canvas, Euler, Gaussians, geometry
from gaussjax.fitting import density, optimizers, recipes
from gaussjax.rendering import blends, dense, kernel

BLENDS = (blends.weighted_average, blends.accumulated_sum, blends.alpha_composite)
LINEAR_BLENDS = BLENDS[:2]
PARAMETERIZATIONS = (geometry.to_euler, geometry.to_cholesky, geometry.to_log_cholesky)


def scene(
  num_gaussians=20,
  height=24,
  width=31,
  *,
  channels=3,
  blend=blends.weighted_average,
  parameterize=geometry.to_euler,
  log_scale=(1.0, 0.5),  # mean and spread
  seed=0,
  dtype=np.float32,
  **canvas,
):
  """Means up to a quarter outside of the image, scales log-normal per axis, random log-weights."""
  rng = np.random.default_rng(seed)
  array = lambda values: jnp.asarray(np.asarray(values, dtype))
  means = array(rng.uniform(-0.25, 1.25, (num_gaussians, 2)) * [width, height])
  shape = Euler(array(rng.normal(*log_scale, (num_gaussians, 2))), array(rng.uniform(-1.5, 1.5, num_gaussians)))
  return Gaussians(
    means,
    parameterize(shape),
    array(rng.uniform(size=(num_gaussians, channels))),
    array(rng.normal(size=num_gaussians) * 0.3),
    Canvas(height, width, array(rng.uniform(size=channels)), blend, **canvas),
  )


def densely(gaussians):
  """The dense rasterizer of a set at its fitted size."""
  canvas = gaussians.canvas
  return dense.dense(geometry.geometry(gaussians), canvas.height, canvas.width, tau=kernel.tail(canvas.cutoff))


def picture(height=20, width=26, channels=3, seed=0):
  """A smooth image `[H, W, C]` in [0, 1]: what six large Gaussians make."""
  gaussians = scene(6, height, width, channels=channels, log_scale=(1.8, 0.3), seed=seed)
  return np.clip(np.asarray(gaussjax.render(gaussians)), 0, 1)


def seen_by_policies(gaussians, target, *, budget=None, progress=0.0, placed=None):
  """What a policy sees of a set, after one step of Adam on gradients that rise with the index."""
  optimizer = optimizers.adam(recipes.rates(recipes.Recipe(), 24, 31), optimizers.cosine)
  rise = lambda leaf: jnp.ones_like(leaf) * jnp.arange(len(leaf)).reshape(-1, *[1] * (leaf.ndim - 1))
  gradients = jax.tree.map(rise, gaussians._replace(canvas=None))._replace(canvas=gaussians.canvas)
  _, state = optimizer.update(gradients, optimizer.init(gaussians), gaussians, progress=0.0)
  placed = placed or densely(gaussians)
  return density.Scene(gaussians, placed, target, state, budget or len(gaussians.means), jnp.float32(progress))
