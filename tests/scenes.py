"""Random sets of Gaussians for the tests.

What tests do with a set they do within jit where they can: without it each operation is a program of its own for
each size, and compiling those took most of the tests' time.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import gaussjax
from gaussjax import Canvas, Euler, Gaussians, geometry
from gaussjax.fitting import density, optimizers, recipes
from gaussjax.gjx import encoding, grids
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
  sloped=False,
  **canvas,
):
  """Means up to a quarter outside of the image, scales log-normal per axis, random log-weights, slopes if asked."""
  rng = np.random.default_rng(seed)
  array = lambda values: jnp.asarray(np.asarray(values, dtype))
  means = array(rng.uniform(-0.25, 1.25, (num_gaussians, 2)) * [width, height])
  shape = Euler(array(rng.normal(*log_scale, (num_gaussians, 2))), array(rng.uniform(-1.5, 1.5, num_gaussians)))
  return Gaussians(
    means,
    jax.jit(parameterize)(shape),
    array(rng.uniform(size=(num_gaussians, channels))),
    array(rng.normal(size=num_gaussians) * 0.3),
    Canvas(height, width, array(rng.uniform(size=channels)), blend, **canvas),
    array(rng.normal(size=(num_gaussians, 2)) * 0.3) if sloped else None,
  )


def densely(gaussians):
  """The dense rasterizer of a set at its fitted size."""
  canvas = gaussians.canvas
  return dense.dense(geometry.geometry(gaussians), canvas.height, canvas.width, tau=kernel.tail(canvas.cutoff))


@jax.jit
def draw_densely(gaussians):
  """The dense renderer's picture of a set at its fitted size."""
  return blends.picture(gaussians, densely(gaussians))


@functools.partial(jax.jit, static_argnums=0)
def removal_cost(rasterizer_of, gaussians, target):
  """What removals cost by the rasterizer that `rasterizer_of(gaussians)` is."""
  rasterizer = rasterizer_of(gaussians)
  return density.removal_cost(gaussians, rasterizer, blends.picture(gaussians, rasterizer), target)


def picture(height=20, width=26, channels=3, seed=0):
  """A smooth image `[H, W, C]` in [0, 1]: what six large Gaussians make."""
  gaussians = scene(6, height, width, channels=channels, log_scale=(1.8, 0.3), seed=seed)
  return np.clip(np.asarray(gaussjax.render(gaussians)), 0, 1)


def seen_by_policies(gaussians, target, progress=0.0):
  """What a policy sees of a set, after one step of Adam on gradients that rise with the index."""
  optimizer = optimizers.adam(recipes.rates(recipes.Recipe(), 24, 31), optimizers.cosine)
  rise = lambda leaf: jnp.ones_like(leaf) * jnp.arange(len(leaf)).reshape(-1, *[1] * (leaf.ndim - 1))
  gradients = jax.tree.map(rise, gaussians._replace(canvas=None))._replace(canvas=gaussians.canvas)
  _, state = optimizer.update(gradients, optimizer.init(gaussians), gaussians, progress=0.0)
  return density.Scene(gaussians, densely(gaussians), target, state, len(gaussians.means), jnp.float32(progress))


@functools.partial(jax.jit, static_argnums=0)
def controlled(policy, gaussians, target, progress=0.0):
  """(the set that a policy makes of one, which Gaussians are fresh), within jit as in a fit."""
  return policy(jax.random.key(0), seen_by_policies(gaussians, target, progress))


def _to_nearest(fitted, target, steps, *, progress_fn, **options):
  """A quantizer as a user may write one: every number at the nearest code, and that is it."""
  del target, options
  progress_fn(1, 1)
  return grids.nearest(fitted, steps)


def quick_effort(steps):
  """An Effort of `steps` whose parts compile in little time: no rate in the loss, no stages of quantisation."""
  start = recipes.Recipe().initialize
  return encoding.Effort(steps, 1, encoding.RECIPE._replace(initialize=start, objective=None), _to_nearest)
