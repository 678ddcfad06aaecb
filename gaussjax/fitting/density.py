"""Density control at a fixed number of places: which Gaussians leave, and where new ones begin.

A policy is a function `(key, scene) -> (gaussians, fresh [N] bool)`: the set keeps its size, so that one compiled
step serves the whole fit, and the `fresh` ones get new moments. A Gaussian that is not in use is parked where no
pixel sees it (`geometry.park`); whoever needs a place takes those first. All are for the weighted average.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gaussjax import geometry, numerics
from gaussjax.fitting import optimizers
from gaussjax.rendering import blends, kernel
from gaussjax.types import Array, Cholesky, Euler, Gaussians

# Sizes of new Gaussians, standard deviations in units of the spacing sqrt(W H / N): the residual picks one of them.
BIRTH_SCALES = (0.09, 0.14, 0.22, 0.35, 0.56)
LEAST_BIRTH = 0.7  # pixels: finer than that a residual is noise
APART = 2  # pixels: of births nearer to each other than this, only the one that promises most
# Of the Gaussians, what a round moves at first, and the power by which that falls to nothing.
SHARE, FALL = 0.6, 3.0


class Scene(NamedTuple):
  """What a policy sees of a fit."""

  gaussians: Gaussians
  rasterizer: kernel.Rasterizer  # of the set, at the size of the target
  target: Array  # [H, W, C]
  opt_state: Any  # the optimiser's, which knows the accumulated gradients
  budget: Array  # [] int32, visible Gaussians that the set may have in the end
  progress: Array  # [] share of the steps done


Policy = Callable[[Array, Scene], tuple[Gaussians, Array]]


def relocate(key: Array, scene: Scene, *, share: float = SHARE, fall: float = FALL) -> tuple[Gaussians, Array]:
  """Those that cost least to remove move to where new Gaussians take most from the squared error.

  They are the `share` times (1 - progress)^`fall` of all: many while the set takes shape, few that then settle.
  """
  return _relocated(key, scene, share, fall, jnp.zeros((), jnp.int32))


def prune(
  key: Array, scene: Scene, *, until: float = 0.5, share: float = SHARE, fall: float = FALL
) -> tuple[Gaussians, Array]:
  """For a fit that begins with too many: parks those that cost least, and relocates others as `relocate` does.

  From all places the visible ones fall, by equal ratios, to the budget when the share `until` of the steps is done.
  """
  places = len(scene.gaussians.means)
  course = (scene.budget / places) ** jnp.minimum(scene.progress / until, 1)
  return _relocated(key, scene, share, fall, places - jnp.round(places * course).astype(jnp.int32))


def _relocated(key: Array, scene: Scene, share: float, fall: float, idle: Array) -> tuple[Gaussians, Array]:
  """Parks the `idle` [] that cost least, and relocates those that come after them."""
  gaussians, places = scene.gaussians, len(scene.gaussians.means)
  count, prediction = max(1, round(share * places)), blends.picture(scene.gaussians, scene.rasterizer)
  # Of those that count for nothing the parked ones first: not to be confused with others that no pixel sees.
  order = jnp.lexsort((_costs(scene, prediction), geometry.visible(gaussians)))
  leaving = jax.lax.dynamic_slice(order, (idle,), (count,))
  moving = jnp.round(count * (1 - scene.progress) ** fall)
  born = births(key, prediction, scene.target, count, budget=scene.budget)
  moved, fresh = _put(gaussians, jnp.where(jnp.arange(count) < moving, leaving, places), born)
  return geometry.park(moved, jnp.argsort(order) < idle), fresh


def split(key: Array, scene: Scene, *, share: float = 0.04) -> tuple[Gaussians, Array]:
  """The `share` with the greatest accumulated gradients become two each, in the places of those that cost least.

  One that is larger than the median splits along its major axis into two of 1 / 1.6 its scales; a smaller one is
  cloned, the clone drawn from its own distribution (Kerbl et al., "3D Gaussian Splatting", 2023).
  """
  gaussians, count = scene.gaussians, max(1, round(share * len(scene.gaussians.means)))
  cost = _costs(scene, blends.picture(scene.gaussians, scene.rasterizer))
  leaving = jnp.argsort(cost)[:count]
  unrest = optimizers.gradient_of_means(scene.opt_state).at[leaving].set(-jnp.inf)
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
  halved, one = _put(gaussians, parents, first)
  divided, other = _put(halved, leaving, second)
  return divided, one | other


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
  merged = gaussians._replace(means=mix(gaussians.means), shape=shape, colors=mix(gaussians.colors))
  if gaussians.log_weights is not None:
    merged = merged._replace(log_weights=jnp.log((mass + mass[other]) / (joint.l11 * joint.l22)))
  choose = lambda new, old: jnp.where(keeps.reshape(-1, *[1] * (old.ndim - 1)), new, old)
  result = jax.tree.map(choose, merged._replace(canvas=None), gaussians._replace(canvas=None))
  return geometry.park(result._replace(canvas=gaussians.canvas), leaves), pair


def sequence(key: Array, scene: Scene, *, policies: tuple[Policy, ...]) -> tuple[Gaussians, Array]:
  """One policy after the other, each on what the one before left, all by the costs of the set as it was drawn.

  Only the first may rely on the picture; the others must be content with Gaussians that were parked since.
  """
  fresh = jnp.zeros(len(scene.gaussians.means), bool)
  for index, policy in enumerate(policies):
    gaussians, changed = policy(jax.random.fold_in(key, index), scene)
    scene, fresh = scene._replace(gaussians=gaussians), fresh | changed
  return scene.gaussians, fresh


def removal_cost(gaussians: Gaussians, rasterizer: kernel.Rasterizer, prediction: Array, target: Array) -> Array:
  """`[N]`, by how much the squared error, summed over the picture, rises without Gaussian i; exact.

  Without it a pixel's colour moves by a (prediction - c_i), a = w_i / (W - w_i), W the sum of all weights with the
  background's. One that no pixel sees, or that is parked, counts for less than any other: -inf.
  """
  total = blends.coverage(rasterizer)[..., None] + rasterizer.tail
  channels, factors = prediction.shape[-1], jnp.exp(rasterizer.log_weights)

  def collect(weight: Array, values: tuple[Array, ...], pixel: tuple[Array, ...]) -> tuple[Array, ...]:
    weight, all_weights = weight * values[-1], pixel[0]
    change = weight / jnp.maximum(all_weights - weight, rasterizer.tail)
    rise = jnp.zeros_like(weight)
    for color, drawn, error in zip(values, pixel[1 : 1 + channels], pixel[1 + channels :], strict=False):
      moved = change * (drawn - color)
      rise += moved * (2 * error + moved)
    return rise, weight

  values = jnp.concatenate([gaussians.colors, factors[:, None]], axis=1)
  image = jnp.concatenate([total, prediction, prediction - target], axis=-1)
  cost, seen = rasterizer.gather(collect, values, image)
  return jnp.where((seen > 0) & geometry.visible(gaussians), cost, -jnp.inf)


def _costs(scene: Scene, prediction: Array) -> Array:
  return removal_cost(scene.gaussians, scene.rasterizer, prediction, scene.target)


def births(key: Array, prediction: Array, target: Array, count: int, *, budget: Array) -> Gaussians:
  """`count` round Gaussians that take most from the squared error, by matched filters on the residual r.

  A Gaussian k of scale s, added at a pixel with the amplitude <k, r> / <k, k>, takes <k, r>^2 / <k, k> from the sum
  of squares; with G_s r the residual blurred by a unit Gaussian that is 4 pi s^2 |G_s r|^2, the amplitude 2 G_s r.
  The best of BIRTH_SCALES counts for each pixel, and pixels that promise less than one within APART come last.
  `budget` Gaussians share the picture: their spacing is the unit of the scales.
  """
  height, width, _ = target.shape
  spacing = jnp.sqrt(height * width / jnp.asarray(budget, prediction.dtype))
  scales = jnp.maximum(LEAST_BIRTH, spacing * jnp.asarray(BIRTH_SCALES, prediction.dtype))
  blurred = blurs(target - prediction, scales)
  gains = 4 * math.pi * scales[:, None, None] ** 2 * jnp.sum(jnp.square(blurred), axis=-1)
  best, gain = jnp.argmax(gains, axis=0), jnp.max(gains, axis=0)
  window = (2 * APART + 1,) * 2
  peak = jax.lax.reduce_window(gain, -jnp.inf, jax.lax.max, window, (1, 1), "SAME") <= gain
  _, pixels = jax.lax.top_k(jnp.where(peak, gain, gain - 2 * jnp.max(gain)).ravel(), count)
  amplitude = 2 * jnp.take_along_axis(blurred, best[None, ..., None], axis=0)[0]
  chosen = lambda image: image.reshape(height * width, -1)[pixels]
  means = jnp.stack([pixels % width, pixels // width], -1).astype(prediction.dtype) + 0.5
  log_scales = jnp.broadcast_to(jnp.log(scales)[chosen(best)], (count, 2))
  thetas = jax.random.uniform(key, (count,), prediction.dtype, maxval=math.pi)
  return Gaussians(means, Euler(log_scales, thetas), chosen(prediction) + chosen(amplitude))


def blurs(image: Array, scales: Array) -> Array:
  """`[S, H, W, C]`, `image` `[H, W, C]` blurred by unit Gaussians of `scales` `[S]` pixels; zeros around it."""
  height, width, _ = image.shape
  margin = 8  # what wraps round beyond this is weak, and only ranks births
  padded = jnp.pad(image, ((0, margin), (0, margin), (0, 0)))
  spectrum = jnp.fft.rfft2(padded, axes=(0, 1))
  y, x = jnp.fft.fftfreq(padded.shape[0]), jnp.fft.rfftfreq(padded.shape[1])
  square = (y[:, None] ** 2 + x**2).astype(image.dtype)
  transfer = jnp.exp(-2 * math.pi**2 * scales[:, None, None] ** 2 * square)[..., None]
  blurred = jnp.fft.irfft2(transfer * spectrum, s=padded.shape[:2], axes=(1, 2))
  return blurred[:, :height, :width].astype(image.dtype)


def _put(gaussians: Gaussians, places: Array, new: Gaussians) -> tuple[Gaussians, Array]:
  """The set with `new` Gaussians in `places` `[K]`, and which those are, `[N]` bool. A place N takes none."""
  if gaussians.log_weights is not None and new.log_weights is None:
    new = new._replace(log_weights=jnp.zeros(len(places), gaussians.means.dtype))
  new = new._replace(shape=geometry.TO_SHAPE[type(gaussians.shape)](new.shape))
  put = jax.tree.map(lambda old, leaf: old.at[places].set(leaf, mode="drop"), gaussians._replace(canvas=None), new)
  fresh = jnp.zeros(len(gaussians.means), bool).at[places].set(True, mode="drop")
  return put._replace(canvas=gaussians.canvas), fresh


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
