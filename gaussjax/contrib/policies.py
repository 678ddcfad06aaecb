"""Policies of density control beside relocation: pruning, splitting, merging, and one after another."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gaussjax import geometry, numerics
from gaussjax.fitting import density
from gaussjax.fitting.density import Policy, Scene
from gaussjax.rendering import blends
from gaussjax.types import Array, Cholesky, Gaussians


def prune(
  key: Array, scene: Scene, *, until: float = 0.5, share: float = density.SHARE, fall: float = density.FALL
) -> tuple[Gaussians, Array]:
  """For a fit that begins with too many: parks those that cost least, and relocates others as `relocate` does.

  From all places the visible ones fall, by equal ratios, to the budget when the share `until` of the steps is done.
  """
  places = len(scene.gaussians.means)
  course = (scene.budget / places) ** jnp.minimum(scene.progress / until, 1)
  idle = places - jnp.round(places * course).astype(jnp.int32)
  return density.relocate(key, scene, share=share, fall=fall, idle=idle)


def split(key: Array, scene: Scene, *, share: float = 0.04) -> tuple[Gaussians, Array]:
  """The `share` with the greatest accumulated gradients become two each, in the places of those that cost least.

  One that is larger than the median splits along its major axis into two of 1 / 1.6 its scales; a smaller one is
  cloned, the clone drawn from its own distribution (Kerbl et al., "3D Gaussian Splatting", 2023).
  """
  gaussians, count = scene.gaussians, max(1, round(share * len(scene.gaussians.means)))
  prediction = blends.picture(gaussians, scene.rasterizer)
  cost = density.removal_cost(gaussians, scene.rasterizer, prediction, scene.target)
  leaving = jnp.argsort(cost)[:count]
  unrest = gradient_of_means(scene.opt_state).at[leaving].set(-jnp.inf)
  _, parents = jax.lax.top_k(jnp.where(jnp.isneginf(cost), -jnp.inf, unrest), count)
  whole = jax.tree.map(lambda leaf: leaf[parents], gaussians._replace(canvas=None))
  euler = geometry.to_euler(whole.shape)
  size = jnp.sum(euler.log_scales, axis=1)
  large = (size > jnp.median(jnp.sum(geometry.to_euler(gaussians.shape).log_scales, axis=1)))[:, None]
  axes = jnp.stack([jnp.cos(euler.thetas), jnp.sin(euler.thetas)], axis=1)
  across = jnp.stack([-axes[:, 1], axes[:, 0]], axis=1)
  scales = jnp.exp(euler.log_scales)
  drawn = jax.random.normal(key, (count, 2), whole.means.dtype) * scales
  half = 0.6 * scales[:, :1] * axes
  shape = euler._replace(log_scales=euler.log_scales - large * math.log(1.6))
  first = whole._replace(means=jnp.where(large, whole.means + half, whole.means), shape=shape)
  strewn = whole.means + drawn[:, :1] * axes + drawn[:, 1:] * across
  second = whole._replace(means=jnp.where(large, whole.means - half, strewn), shape=shape)
  halved, one = density.put(gaussians, parents, first)
  divided, other = density.put(halved, leaving, second)
  return divided, one | other


def gradient_of_means(opt_state: Any) -> Array:
  """`[N]`, the root of the squared gradient by each mean, as `adam` or `adan` has averaged it over the last steps.

  Raises ValueError for the state of an optimiser that keeps no such average.
  """
  for name in ("nu", "n"):  # Adam's, Adan's
    for _, moment in optax.tree.get_all_with_path(opt_state, name):
      if isinstance(getattr(moment, "means", None), jax.Array):
        return jnp.sqrt(jnp.sum(moment.means, axis=1))
  raise ValueError("got an optimiser without second moments, expected adam or adan for a policy that splits")


def merge(
  key: Array, scene: Scene, *, distance: float = 0.5, color: float = 0.03, ratio: float = 0.7
) -> tuple[Gaussians, Array]:
  """Near-duplicates become one, and their second place is parked.

  Two are duplicates if each is the other's nearest, their means are within `distance` standard deviations, their
  colours within `color` and their areas within e^`ratio`. The one keeps their mass (area times weight), mean and
  covariance together; without log-weights a mass is an area.
  """
  del key
  gaussians = scene.gaussians
  other = _nearest(gaussians.means)
  index = jnp.arange(len(other))
  s = jax.vmap(geometry.factor)(gaussians.shape)
  xx, xy, yy = jnp.sum(s[:, 0] ** 2, 1), jnp.sum(s[:, 0] * s[:, 1], 1), jnp.sum(s[:, 1] ** 2, 1)
  area = jnp.sqrt(jnp.maximum(xx * yy - xy**2, numerics.TINY_SCALE**4))
  mass = area if gaussians.log_weights is None else area * jnp.exp(gaussians.log_weights)
  apart = gaussians.means[other] - gaussians.means
  near = jnp.sum(apart**2, 1) < distance**2 * jnp.minimum(area, area[other])
  alike = jnp.max(jnp.abs(gaussians.colors[other] - gaussians.colors), 1) < color
  sized = jnp.abs(jnp.log(area[other] / area)) < ratio
  pair = (other[other] == index) & near & alike & sized & geometry.visible(gaussians)
  keeps, leaves = pair & (index < other), pair & (index > other)
  share = (mass[other] / (mass + mass[other]))[:, None]
  mix = lambda a: a + share.reshape(-1, *[1] * (a.ndim - 1)) * (a[other] - a)
  extra = share * (1 - share) * jnp.stack([apart[:, 0] ** 2, apart[:, 0] * apart[:, 1], apart[:, 1] ** 2], 1)
  xx, xy, yy = mix(xx) + extra[:, 0], mix(xy) + extra[:, 1], mix(yy) + extra[:, 2]
  l11 = jnp.sqrt(jnp.maximum(xx, numerics.TINY_SCALE**2))
  joint = Cholesky(l11, xy / l11, numerics.safe_sqrt(yy - (xy / l11) ** 2))
  shape = geometry.TO_SHAPE[type(gaussians.shape)](joint)
  slopes = jax.tree.map(mix, gaussians.slopes)
  merged = gaussians._replace(means=mix(gaussians.means), shape=shape, colors=mix(gaussians.colors), slopes=slopes)
  if gaussians.log_weights is not None:
    merged = merged._replace(log_weights=jnp.log((mass + mass[other]) / (joint.l11 * joint.l22)))
  choose = lambda new, old: jnp.where(keeps.reshape(-1, *[1] * (old.ndim - 1)), new, old)
  result = jax.tree.map(choose, merged._replace(canvas=None), gaussians._replace(canvas=None))
  return geometry.park(result._replace(canvas=gaussians.canvas), leaves), pair


def _nearest(means: Array) -> Array:
  """`[N]` int32, each Gaussian's nearest other one, by a k-d tree on the host; itself if there is no other."""

  def find(means: np.ndarray) -> np.ndarray:
    from scipy.spatial import cKDTree

    means = np.asarray(means)
    if len(means) < 2 or not np.isfinite(means).all():
      return np.arange(len(means), dtype=np.int32)
    index = np.arange(len(means))
    found = cKDTree(means).query(means, k=2)[1]
    return np.where(found[:, 0] == index, found[:, 1], found[:, 0]).astype(np.int32)

  return jax.pure_callback(find, jax.ShapeDtypeStruct(means.shape[:1], jnp.int32), means)


def sequence(key: Array, scene: Scene, *, policies: tuple[Policy, ...]) -> tuple[Gaussians, Array]:
  """One policy after the other, each on what the one before left, all by the costs of the set as it was drawn.

  Only the first may rely on the picture; the others must be content with Gaussians that were parked since.
  """
  fresh = jnp.zeros(len(scene.gaussians.means), bool)
  for index, policy in enumerate(policies):
    gaussians, changed = policy(jax.random.fold_in(key, index), scene)
    scene, fresh = scene._replace(gaussians=gaussians), fresh | changed
  return scene.gaussians, fresh
