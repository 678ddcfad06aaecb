"""Density control at a fixed number of places: which Gaussians leave, and where new ones begin.

A policy is a function `(key, scene) -> (gaussians, fresh [N] bool)`: the set keeps its size, so that one compiled
step serves the whole fit, and the `fresh` ones get new moments. A Gaussian that is not in use is parked where no
pixel sees it (`geometry.park`); whoever needs a place takes those first. All are for the weighted average.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gaussjax import geometry
from gaussjax.quality import visibility
from gaussjax.rendering import blends, buckets, kernel, scanlines
from gaussjax.types import Array, Euler, Gaussians

# Sizes of new Gaussians, standard deviations in units of the spacing sqrt(W H / N): the residual picks one of them.
BIRTH_SCALES = (0.09, 0.14, 0.22, 0.35, 0.56)
LEAST_BIRTH = 0.7  # pixels: finer than that a residual is noise
APART = 2  # pixels: of births nearer to each other than this, only the one that promises most
BAND_PIXELS, BAND_MARGIN = 2**23, 128  # of a picture's pixels that are blurred at once, and rows around them
# Of the Gaussians, what a round moves at first, and the power by which that falls to nothing.
SHARE, FALL = 0.6, 3.0


class Scene(NamedTuple):
  """What a policy sees of a fit."""

  gaussians: Gaussians
  rasterizer: kernel.Rasterizer  # of the set, at the size of the target
  target: Array  # [H, W, C]
  opt_state: Any  # the optimiser's
  budget: Array  # [] int32, visible Gaussians that the set may have in the end
  progress: Array  # [] share of the steps done


Policy = Callable[[Array, Scene], tuple[Gaussians, Array]]


def relocate(
  key: Array,
  scene: Scene,
  *,
  share: float = SHARE,
  fall: float = FALL,
  idle: Array | int | None = None,
  worth: Callable[[Array], Array] | None = None,
) -> tuple[Gaussians, Array]:
  """Those that cost least to remove move to where new Gaussians take most from the squared error.

  They are the `share` times (1 - progress)^`fall` of all: many while the set takes shape, few that then settle.
  The `idle` that cost least of all are parked instead, and those that come after them move: if None, as many as
  there are places beyond the budget. `worth` says of a picture `[H, W, C]` how much a squared error counts at each
  pixel `[H, W]`; if None, all alike.
  """
  gaussians, places = scene.gaussians, len(scene.gaussians.means)
  idle = jnp.maximum(places - jnp.asarray(scene.budget, jnp.int32), 0) if idle is None else idle
  count = min(max(1, round(share * places)), math.prod(scene.target.shape[:2]))  # births are at different pixels
  prediction = blends.picture(gaussians, scene.rasterizer)
  cost = removal_cost(gaussians, scene.rasterizer, prediction, scene.target)
  weights = None if worth is None else worth(buckets.filled(scene.target))
  if weights is not None:
    cost *= _at(weights, gaussians.means)
  # Of those that count for nothing the parked ones first: not to be confused with others that no pixel sees.
  order = jnp.lexsort((cost, geometry.visible(gaussians)))
  leaving = jax.lax.dynamic_slice(order, (jnp.asarray(idle, jnp.int32),), (count,))
  moving = jnp.round(count * (1 - scene.progress) ** fall)
  born = births(key, prediction, scene.target, count, budget=scene.budget, weights=weights)
  moved, fresh = put(gaussians, jnp.where(jnp.arange(count) < moving, leaving, places), born)
  return geometry.park(moved, jnp.argsort(order) < idle), fresh


# For the eye: Gaussians go where errors are seen, and not where texture hides them.
relocate_by_eye: Policy = functools.partial(relocate, worth=visibility.visibility)


def relocates(policy: Policy | None) -> bool:
  """Whether a policy is `relocate`, with arguments of its own or without."""
  return getattr(policy, "func", policy) is relocate


def _at(weights: Array, means: Array) -> Array:
  """`[N]` of an image `[H, W]` what is under each mean; at its edge, of those outside."""
  height, width = weights.shape
  column, row = jnp.clip(means.astype(jnp.int32), 0, jnp.array([width - 1, height - 1], jnp.int32)).T
  return weights[row, column]


def removal_cost(gaussians: Gaussians, rasterizer: kernel.Rasterizer, prediction: Array, target: Array) -> Array:
  """`[N]`, by how much the squared error, summed over the picture, rises without Gaussian i; exact.

  Pixel by pixel, `kernel.without` says how. One that no pixel sees, or that is parked, counts for
  less than any other: -inf.
  """
  if gaussians.canvas is not None and not gaussians.canvas.blend.density:
    raise ValueError(f"got the blend {gaussians.canvas.blend.name}, expected one whose removal costs are known")
  total = blends.coverage(rasterizer)[..., None] + rasterizer.tail
  counts = buckets.counted(target)[..., None]  # elsewhere nothing changes a colour, and none is wanted
  total, target = jnp.where(counts, total, jnp.inf), jnp.where(counts, target, prediction)
  cost, seen = rasterizer.removal(gaussians.colors, total, prediction, target)
  return jnp.where((seen > 0) & geometry.visible(gaussians), cost, -jnp.inf)


def births(
  key: Array, prediction: Array, target: Array, count: int, *, budget: Array, weights: Array | None = None
) -> Gaussians:
  """`count` round Gaussians that take most from the squared error, by matched filters on the residual r.

  A Gaussian k of scale s, added at a pixel with the amplitude <k, r> / <k, k>, takes <k, r>^2 / <k, k> from the sum
  of squares; with G_s r the residual blurred by a unit Gaussian that is 4 pi s^2 |G_s r|^2, the amplitude 2 G_s r.
  The best of BIRTH_SCALES counts for each pixel, and pixels that promise less than one within APART come last.
  `budget` Gaussians share the picture: their spacing is the unit of the scales. `weights` `[H, W]` say how much
  what a birth takes away counts where it is.
  """
  height, width, _ = target.shape
  counts, (rows, columns) = buckets.counted(target), buckets.extent(target)
  spacing = jnp.sqrt(rows * columns / jnp.asarray(budget, prediction.dtype))
  scales = jnp.maximum(LEAST_BIRTH, spacing * jnp.asarray(BIRTH_SCALES, prediction.dtype))
  gain, best, blurred = best_blurs(jnp.where(counts[..., None], target - prediction, 0), scales)
  gain = jnp.where(counts, gain if weights is None else gain * weights, -jnp.inf)
  side = 2 * APART + 1
  most = gain
  for window in ((side, 1), (1, side)):
    most = jax.lax.reduce_window(most, -jnp.inf, jax.lax.max, window, (1, 1), "SAME")
  peak = most <= gain
  _, pixels = jax.lax.top_k(jnp.where(peak, gain, gain - 2 * jnp.max(gain)).ravel(), count)
  chosen = lambda image: image.reshape(height * width, -1)[pixels]
  means = jnp.stack([pixels % width, pixels // width], -1).astype(prediction.dtype) + 0.5
  log_scales = jnp.broadcast_to(jnp.log(scales)[chosen(best)], (count, 2))
  thetas = jax.random.uniform(key, (count,), prediction.dtype, maxval=math.pi)
  return Gaussians(means, Euler(log_scales, thetas), chosen(prediction) + 2 * chosen(blurred))


Blurs = tuple[
  Array, Array, Array
]  # of each pixel: gain [H, W], index of its scale [H, W], blurred residual [H, W, C]


def best_blurs(residual: Array, scales: Array) -> Blurs:
  """For each pixel the one of the `scales` `[S]`, in pixels, whose Gaussian there takes most from `residual`.

  In native code where that serves, else by Fourier transforms: a large picture band by band, which see BAND_MARGIN
  rows of each other.
  """
  made = scanlines.best_blurs(residual, scales)
  return _by_transforms(residual, scales) if made is None else made


def _by_transforms(residual: Array, scales: Array) -> Blurs:
  height, width, channels = residual.shape
  bands = -(-height * width // BAND_PIXELS)
  if bands == 1:
    return _best_blurs(residual, scales)
  rows = -(-height // bands)
  below = bands * rows - height + BAND_MARGIN
  padded = jnp.pad(residual, ((BAND_MARGIN, below), (0, 0), (0, 0)))

  def one(band: Array) -> Blurs:
    seen = jax.lax.dynamic_slice(padded, (band * rows, 0, 0), (rows + 2 * BAND_MARGIN, width, channels))
    gain, index, blurred = _best_blurs(seen, scales)
    inner = slice(BAND_MARGIN, BAND_MARGIN + rows)
    return gain[inner], index[inner], blurred[inner]

  found = jax.lax.map(one, jnp.arange(bands, dtype=jnp.int32))
  gain, index, blurred = (leaf.reshape(-1, *leaf.shape[2:])[:height] for leaf in found)
  return gain, index, blurred


def _best_blurs(residual: Array, scales: Array) -> Blurs:
  """The same by Fourier transforms, of one scale after another: all at once would take much memory."""
  import scipy.fft  # half a second of a process that has no use for it where native code blurs

  height, width, _ = residual.shape
  margin = 8  # what wraps round beyond this is weak, and only ranks births
  rows, columns = (scipy.fft.next_fast_len(side + margin, real=True) for side in (height, width))
  padded = jnp.pad(jnp.moveaxis(residual, -1, 0), ((0, 0), (0, rows - height), (0, columns - width)))
  spectrum = jnp.fft.rfft2(padded)
  y, x = jnp.fft.fftfreq(rows), jnp.fft.rfftfreq(columns)
  square = (y[:, None] ** 2 + x**2).astype(residual.dtype)

  def one(best: Blurs, index: Array) -> tuple[Blurs, None]:
    most, which, chosen = best
    transfer = jnp.exp(-2 * math.pi**2 * scales[index] ** 2 * square)
    drawn = jnp.fft.irfft2(transfer * spectrum, s=(rows, columns))[:, :height, :width]
    gain = (4 * math.pi * scales[index] ** 2 * jnp.sum(jnp.square(drawn), axis=0)).astype(residual.dtype)
    more = gain > most
    return (jnp.where(more, gain, most), jnp.where(more, index, which), jnp.where(more, drawn, chosen)), None

  size = (height, width)
  none = (
    jnp.full(size, -jnp.inf, residual.dtype),
    jnp.zeros(size, jnp.int32),
    jnp.zeros_like(padded[:, :height, :width]),
  )
  (gain, which, chosen), _ = jax.lax.scan(one, none, jnp.arange(len(scales), dtype=jnp.int32))
  return gain, which, jnp.moveaxis(chosen, 0, -1)


def put(gaussians: Gaussians, places: Array, new: Gaussians) -> tuple[Gaussians, Array]:
  """The set with `new` Gaussians in `places` `[K]`, and which those are, `[N]` bool. A place N takes none."""
  if gaussians.log_weights is not None and new.log_weights is None:
    new = new._replace(log_weights=jnp.zeros(len(places), gaussians.means.dtype))
  if gaussians.slopes is not None and new.slopes is None:
    new = new._replace(slopes=jnp.zeros_like(new.means))
  new = new._replace(shape=geometry.TO_SHAPE[type(gaussians.shape)](new.shape))
  put = jax.tree.map(lambda old, leaf: old.at[places].set(leaf, mode="drop"), gaussians._replace(canvas=None), new)
  fresh = jnp.zeros(len(gaussians.means), bool).at[places].set(True, mode="drop")
  return put._replace(canvas=gaussians.canvas), fresh
