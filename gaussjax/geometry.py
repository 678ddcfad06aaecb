"""From raw shape parameters to ellipses: closed forms for ONE Gaussian, vmapped at the edge.

Every shape is a factor S; its covariance is Sigma = S S^T + floor^2 I, so no scale falls below the floor and no
gradient dies there. Rendered at r times the fitted resolution, Sigma_r = r^2 S S^T + (max(r, 1) floor)^2 I: exact
upwards, low-pass filtered downwards (elliptical weighted average; Zwicker et al., "EWA Splatting", 2002).
"""

import functools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gaussjax import numerics
from gaussjax.types import Array, Canvas, Cholesky, Euler, Gaussians, LogCholesky, Shape


class Geometry(NamedTuple):
  """Gaussians placed on an output pixel grid."""

  means: Array  # [N, 2] (x, y) output pixels
  whitening: Array  # [N, 3] (a11, a21, a22): A = [[a11, 0], [a21, a22]], Sigma^-1 = A^T A
  log_weights: Array  # [N] the sets' own plus the loss of amplitude that a low-pass filter brings
  gradients: Array | None = None  # [N, 2] by how much all channels rise a pixel along x and y


class Affine(NamedTuple):
  """Axis-aligned map from fitted pixels to output pixels: p * scale - offset * scale."""

  scale: Array  # [2] (x, y)
  offset: Array  # [2] (x, y) fitted pixels of the output's upper left corner


@functools.singledispatch
def factor(shape: Shape) -> Array:
  """S `[2, 2]` in pixels, with S S^T the covariance before the floor. One Gaussian."""
  raise TypeError(f"got {type(shape).__name__}, expected one of Euler, Cholesky, LogCholesky")


@factor.register
def _(shape: Euler) -> Array:
  cos, sin = jnp.cos(shape.thetas), jnp.sin(shape.thetas)
  return jnp.array([[cos, -sin], [sin, cos]]) * jnp.exp(shape.log_scales)


@factor.register
def _(shape: Cholesky) -> Array:
  return jnp.array([[shape.l11, jnp.zeros_like(shape.l11)], [shape.l21, shape.l22]])


@factor.register
def _(shape: LogCholesky) -> Array:
  return factor(Cholesky(jnp.exp(shape.log_l11), shape.l21, jnp.exp(shape.log_l22)))


@functools.singledispatch
def enlarged(shape: Shape, by: Array) -> Shape:
  """The shape whose S is `by` [] times as large. One Gaussian."""
  raise TypeError(f"got {type(shape).__name__}, expected one of Euler, Cholesky, LogCholesky")


@enlarged.register
def _(shape: Euler, by: Array) -> Shape:
  return shape._replace(log_scales=shape.log_scales + jnp.log(by))


@enlarged.register
def _(shape: Cholesky, by: Array) -> Shape:
  return Cholesky(*[length * by for length in shape])


@enlarged.register
def _(shape: LogCholesky, by: Array) -> Shape:
  return LogCholesky(shape.log_l11 + jnp.log(by), shape.l21 * by, shape.log_l22 + jnp.log(by))


Covariance = tuple[Array, Array, Array, Array]  # (xx, xy, yy, determinant)


def covariance(s: Array) -> Covariance:
  """Sigma = S S^T of `s` `[2, 2]`.

  The determinant is a sum of squares, here and in `widened`, so it keeps its precision at any aspect ratio, where
  xx * yy - xy^2 loses it.
  """
  (a, b), (c, d) = s
  return a * a + b * b, a * c + b * d, c * c + d * d, (a * d - b * c) ** 2


def widened(sigma: Covariance, floor: Array) -> Covariance:
  """Sigma + diag(floor^2), `floor` `[2]` pixels."""
  xx, xy, yy, det = sigma
  fx, fy = jnp.square(floor)
  return xx + fx, xy, yy + fy, det + fx * yy + fy * xx + fx * fy


def whitening(xx: Array, xy: Array, det: Array) -> Array:
  """Lower triangular A `[3]` = (a11, a21, a22) in 1 / pixels with Sigma^-1 = A^T A (inverse Cholesky factor)."""
  return jnp.stack([1 / jnp.sqrt(xx), -xy / (jnp.sqrt(xx) * jnp.sqrt(det)), jnp.sqrt(xx) / jnp.sqrt(det)])


def principal_scales(s: Array, floor: Array) -> Array:
  """`[2]` (major, minor) standard deviations in pixels: square roots of the eigenvalues of Sigma."""
  xx, xy, yy, det = widened(covariance(s), floor)
  major = (xx + yy) / 2 + numerics.safe_sqrt(((xx - yy) / 2) ** 2 + xy**2)
  return jnp.stack([jnp.sqrt(major), jnp.sqrt(det / major)])


def square_root(sigma: Covariance) -> tuple[Array, Array, Array]:
  """(xx, xy, yy) of the symmetric matrix whose square is Sigma."""
  xx, xy, yy, det = sigma
  root = jnp.sqrt(det)
  share = 1 / jnp.sqrt(xx + yy + 2 * root)
  return (xx + root) * share, xy * share, (yy + root) * share


def gradient(slope: Array, sigma: Covariance, scale: Array, whitening: Array) -> Array:
  """`[2]` by how much brightness rises a pixel of the output grid, whose pixels are 1 / `scale` `[2]` fitted ones.

  With Sigma the covariance on the fitted grid, brightness is slope . Sigma^(-1/2) (p - mean) there. A low-pass
  filter takes (first moment) . Sigma_filtered^-1 (p - mean) of it, which is the same where nothing is filtered.
  """
  xx, xy, yy = square_root(sigma)
  moment = scale * jnp.stack([xx * slope[0] + xy * slope[1], xy * slope[0] + yy * slope[1]])
  a11, a21, a22 = whitening
  u, v = a11 * moment[0], a21 * moment[0] + a22 * moment[1]
  return jnp.stack([a11 * u + a21 * v, a22 * v])


def place(
  mean: Array, shape: Shape, log_weight: Array, slope: Array | None, affine: Affine, *, floor: float
) -> tuple[Array, Array, Array, Array | None]:
  """One Gaussian on the output grid: mean `[2]`, whitening `[3]`, log-weight `[]`, gradient of brightness `[2]`.

  The filter that keeps small Gaussians from aliasing spreads them; their log-weight falls by half the logarithm
  of the determinants' ratio, so that the integral over the image stays what it was.
  """
  sigma = covariance(affine.scale[:, None] * factor(shape))
  *_, exact_det = widened(sigma, affine.scale * floor)
  xx, xy, _, filtered_det = widened(sigma, jnp.maximum(affine.scale, 1) * floor)
  spread = (jnp.log(exact_det) - jnp.log(filtered_det)) / 2
  white = whitening(xx, xy, filtered_det)
  rise = None
  if slope is not None:
    rise = gradient(
      slope, widened(covariance(factor(shape)), jnp.full_like(affine.scale, floor)), affine.scale, white
    )
  return (mean - affine.offset) * affine.scale, white, log_weight + spread, rise


def geometry(gaussians: Gaussians, affine: Affine | None = None) -> Geometry:
  """All Gaussians on an output grid; without `affine`, on the grid they were fitted on. Needs a canvas."""
  means = gaussians.means
  if affine is None:
    affine = Affine(jnp.ones(2, means.dtype), jnp.zeros(2, means.dtype))
  log_weights = jnp.zeros_like(means[:, 0]) if gaussians.log_weights is None else gaussians.log_weights
  one = functools.partial(place, floor=canvas_of(gaussians).floor)
  placed = jax.vmap(one, in_axes=(0, 0, 0, 0, None))(means, gaussians.shape, log_weights, gaussians.slopes, affine)
  return Geometry(*placed)


CONTAINED = 10.0  # longer sides of the picture
MAX_LOG_WEIGHT = 10.0  # beside one of more than that a float32 no longer holds the tail


def contain(gaussians: Gaussians) -> Gaussians:
  """The set with each Gaussian of a scale beyond CONTAINED times the longer side shrunk to that.

  Log-weights are held to MAX_LOG_WEIGHT either way.

  A projection, for after a step: what is flat over the whole picture has next to no gradient left that could hold
  it, and Adam, whose steps do not shrink with the gradient, would drive it out of all bounds.
  """
  canvas = canvas_of(gaussians)
  ratio = CONTAINED * max(canvas.height, canvas.width) / scales(gaussians)[:, 0]
  held = gaussians.log_weights
  if held is not None:
    held = jnp.clip(held, -MAX_LOG_WEIGHT, MAX_LOG_WEIGHT)
  return gaussians._replace(shape=jax.vmap(enlarged)(gaussians.shape, jnp.minimum(ratio, 1)), log_weights=held)


PARKED = -1e5  # pixels, both coordinates: no support reaches from there into a picture


def park(gaussians: Gaussians, leaving: Array) -> Gaussians:
  """The set with those that are `leaving` `[N]` bool put where no pixel sees them: their places are free."""
  return gaussians._replace(means=jnp.where(leaving[:, None], PARKED, gaussians.means))


def visible(gaussians: Gaussians) -> Array:
  """`[N]` bool: not parked."""
  return gaussians.means[:, 0] > PARKED / 2


def shown(gaussians: Gaussians) -> NDArray:
  """Indices `[K]` of those that are not parked. Host, in numpy: their number is read from values."""
  return np.flatnonzero(visible(jax.tree.map(np.asarray, gaussians)))


def live(gaussians: Gaussians) -> Gaussians:
  """The set without parked Gaussians. Host, as `shown`."""
  kept = shown(gaussians)
  return gaussians if len(kept) == len(gaussians.means) else take(gaussians, kept)


def padded(gaussians: Gaussians, count: int) -> Gaussians:
  """The set with parked Gaussians, `count` in all: sets of other sizes then share compiled programs.

  Host: in numpy, which has no program to compile for each size.
  """
  more = count - len(gaussians.means)
  mode: Any = "edge" if len(gaussians.means) else "constant"
  extend = lambda leaf: np.pad(np.asarray(leaf), [(0, more)] + [(0, 0)] * (leaf.ndim - 1), mode=mode)
  longer = per_gaussian(extend, gaussians)
  longer.means[len(gaussians.means) :] = PARKED
  return jax.device_put(longer._replace(canvas=None))._replace(canvas=gaussians.canvas)


def per_gaussian(change: Callable[..., Any], *sets: Gaussians) -> Gaussians:
  """`change` of each array that has a row a Gaussian, of several sets together; the first one's canvas stays."""
  first, *others = (gaussians._replace(canvas=None) for gaussians in sets)
  return jax.tree.map(change, first, *others)._replace(canvas=sets[0].canvas)


def take(gaussians: Gaussians, index: Any) -> Gaussians:
  """The Gaussians of an `index`: integers `[K]`, a slice or, outside of jit, a mask `[N]` bool. The canvas stays.

  Raises ValueError for anything else, and outside of jit for integers beyond the set.
  """
  count = len(gaussians.means)
  if isinstance(index, slice):
    return per_gaussian(lambda leaf: leaf[index], gaussians)
  if not isinstance(index, jax.Array):
    index = np.asarray(index, np.int32 if np.size(index) == 0 else None)
  if index.ndim != 1 or not (index.dtype == bool or np.issubdtype(index.dtype, np.integer)):
    raise ValueError(f"got an index of {index.dtype} {index.shape}, expected integers [K], a mask [N] or a slice")
  if index.dtype == bool:
    if len(index) != count:
      raise ValueError(f"got a mask of {len(index)}, expected one of {count} Gaussians")
    if isinstance(index, jax.core.Tracer):
      raise ValueError("got a mask within jit, where sizes are fixed; expected integers, or use gaussjax.where")
    index = np.flatnonzero(index)
  elif not isinstance(index, jax.core.Tracer) and index.size and not -count <= index.min() <= index.max() < count:
    raise ValueError(f"got indices from {index.min()} to {index.max()}, expected those of {count} Gaussians")
  return per_gaussian(lambda leaf: leaf[index], gaussians)


def where(mask: Array, first: Gaussians, second: Gaussians) -> Gaussians:
  """For each Gaussian the one of `first` where `mask` `[N]` bool holds, else of `second`; on the canvas of `first`.

  Raises ValueError for sets of different sizes, shapes or channels.
  """
  first, second = _alike(first, second)
  if not len(mask) == len(first.means) == len(second.means):
    raise ValueError(
      f"got a mask of {len(mask)} and sets of {len(first.means)} and {len(second.means)}, expected one size"
    )
  choose = lambda a, b: jnp.where(jnp.reshape(mask, (-1, *[1] * (a.ndim - 1))), a, b)
  return per_gaussian(choose, first, second)


def concatenate(sets: Sequence[Gaussians]) -> Gaussians:
  """All Gaussians of several sets, one after the other, on the canvas of the first.

  Raises ValueError for none, or for sets of different shapes, channels or canvases.
  """
  if not sets:
    raise ValueError("got no sets, expected at least one")
  return per_gaussian(lambda *leaves: jnp.concatenate(leaves), *_alike(*sets))


def _alike(*sets: Gaussians) -> list[Gaussians]:
  """The sets, with log-weights or slopes if one has some. Raises ValueError for what does not belong together."""
  traits = lambda g: (type(g.shape).__name__, g.colors.shape[1:], g.canvas and _fixed(g.canvas))
  for gaussians in sets[1:]:
    if traits(gaussians) != traits(sets[0]):
      raise ValueError(f"got sets of {traits(sets[0])} and {traits(gaussians)}, expected one shape and canvas")
  some = lambda name: any(getattr(gaussians, name) is not None for gaussians in sets)
  alike = list(sets)
  if some("log_weights"):
    weights = lambda g: jnp.zeros_like(g.means[:, 0]) if g.log_weights is None else g.log_weights
    alike = [gaussians._replace(log_weights=weights(gaussians)) for gaussians in alike]
  if some("slopes"):
    slopes = lambda g: jnp.zeros_like(g.means) if g.slopes is None else g.slopes
    alike = [gaussians._replace(slopes=slopes(gaussians)) for gaussians in alike]
  return alike


def _fixed(canvas: Canvas) -> tuple:
  """All of a canvas but its background."""
  return canvas.height, canvas.width, canvas.blend, canvas.cutoff, canvas.floor


def single(gaussians: Gaussians) -> Gaussians:
  """The set in at least single precision: in half of it means beyond 2,048 and weights are no longer told apart."""
  return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.promote_types(leaf.dtype, jnp.float32)), gaussians)


def scales(gaussians: Gaussians) -> Array:
  """`[N, 2]` (major, minor) standard deviations in pixels, the floor included."""
  floor = jnp.full(2, canvas_of(gaussians).floor, gaussians.means.dtype)
  return jax.vmap(lambda shape: principal_scales(factor(shape), floor))(gaussians.shape)


# What a set in a file may be, so that a reader's work is bounded.
MAX_PIXELS = 2**27
MAX_GAUSSIANS = 2**22
MAX_CHANNELS = 32
CUTOFFS = (0.5, 8.0)  # standard deviations, least and most
FLOORS = (0.02, 4.0)  # pixels, least and most


def check_canvas(
  height: Any, width: Any, channels: Any, cutoff: Any, floor: Any, *, most_pixels: int = MAX_PIXELS
) -> None:
  """Raises ValueError for a canvas that no file may hold. A stranger's five may be of any value and type."""
  counts = {"height": (height, most_pixels), "width": (width, most_pixels), "channels": (channels, MAX_CHANNELS)}
  for name, (value, most) in counts.items():
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not 1 <= int(value) <= most:
      raise ValueError(f"got {name} {str(value)[:40]}, expected a whole number of 1 to {most}")
  if height * width > most_pixels:
    raise ValueError(f"got {width} x {height} pixels, expected at most {most_pixels}")
  for name, value, (low, high) in (("cutoff", cutoff, CUTOFFS), ("floor", floor, FLOORS)):
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not low <= value <= high:  # type: ignore[operator]
      raise ValueError(f"got {name} {str(value)[:40]}, expected a number of {low:g} to {high:g}")


def canvas_of(gaussians: Gaussians):
  """The canvas, or a ValueError for a set that has none yet."""
  if gaussians.canvas is None:
    raise ValueError("got Gaussians without a canvas, expected a set from fit, load or with canvas=Canvas(...)")
  return gaussians.canvas


# Within jit, as the others: outside of it each operation would be a program of its own.
@jax.jit
def to_cholesky(shape: Shape) -> Cholesky:
  """The same S S^T as a Cholesky factor with a diagonal that is not negative. `[N]` fields."""

  def one(shape: Shape) -> Cholesky:
    s = factor(shape)
    l11 = numerics.safe_sqrt(jnp.sum(s[0] * s[0]))
    l21 = numerics.safe_divide(jnp.sum(s[0] * s[1]), l11)
    det = jnp.abs(s[0, 0] * s[1, 1] - s[0, 1] * s[1, 0])
    # A first row of zeros leaves all of the variance to y.
    l22 = jnp.where(l11 > 0, numerics.safe_divide(det, l11), numerics.safe_sqrt(jnp.sum(s[1] * s[1])))
    return Cholesky(l11, l21, l22)

  return jax.vmap(one)(shape)


@jax.jit
def to_log_cholesky(shape: Shape) -> LogCholesky:
  """The same S S^T, a zero on the diagonal raised to numerics.TINY_SCALE."""
  l11, l21, l22 = to_cholesky(shape)
  log = lambda scale: jnp.log(jnp.maximum(scale, numerics.TINY_SCALE))
  return LogCholesky(log(l11), l21, log(l22))


@jax.jit
def to_euler(shape: Shape) -> Euler:
  """The same S S^T as principal scales (major first) and angle in (-pi/2, pi/2]; scales at least TINY_SCALE."""
  if isinstance(shape, Euler):  # a third of the programs of a fit for a file, when it went by way of the factor
    return _major_first(shape)

  def one(shape: Shape) -> Euler:
    s = factor(shape)
    # Singular values of a 2x2 matrix without cancellation (Blinn, "Consider the Lowly 2x2 Matrix", 1996).
    e, f = (s[0, 0] + s[1, 1]) / 2, (s[0, 0] - s[1, 1]) / 2
    g, h = (s[1, 0] + s[0, 1]) / 2, (s[1, 0] - s[0, 1]) / 2
    major = numerics.safe_sqrt(e * e + h * h) + numerics.safe_sqrt(f * f + g * g)
    minor = numerics.safe_divide(jnp.abs(s[0, 0] * s[1, 1] - s[0, 1] * s[1, 0]), major)
    xx, xy, yy = jnp.sum(s[0] * s[0]), jnp.sum(s[0] * s[1]), jnp.sum(s[1] * s[1])
    circle = (xx - yy) ** 2 + 4 * xy**2 <= numerics.CIRCLE * (xx + yy) ** 2
    theta = jnp.arctan2(jnp.where(circle, 0, 2 * xy), jnp.where(circle, 1, xx - yy)) / 2
    return Euler(jnp.log(jnp.maximum(jnp.stack([major, minor]), numerics.TINY_SCALE)), theta)

  return jax.vmap(one)(shape)


def _major_first(shape: Euler) -> Euler:
  """`to_euler` of principal scales and angles that may be in any order and beyond a half turn."""
  swapped = shape.log_scales[:, 0] < shape.log_scales[:, 1]
  log_scales = jnp.where(swapped[:, None], shape.log_scales[:, ::-1], shape.log_scales)
  turned = shape.thetas + jnp.where(swapped, math.pi / 2, 0).astype(shape.thetas.dtype)
  turned -= math.pi * jax.lax.stop_gradient(jnp.ceil(turned / math.pi - 0.5))
  circle = jnp.tanh(log_scales[:, 0] - log_scales[:, 1]) <= math.sqrt(numerics.CIRCLE)
  return Euler(jnp.maximum(log_scales, math.log(numerics.TINY_SCALE)), jnp.where(circle, 0, turned))


# How any shape becomes one of the type.
TO_SHAPE: dict[type, Callable[[Shape], Shape]] = {
  Euler: to_euler,
  Cholesky: to_cholesky,
  LogCholesky: to_log_cholesky,
}
