"""Whether a renderer's numbers are right on the device at hand: its picture and gradient against float64 numpy.

Compilers for CPUs and GPUs have been wrong before, some of them only on one kind of card or above some size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gaussjax import errors, geometry
from gaussjax.rendering import blends, kernel, renderer, scanlines, warp
from gaussjax.types import Canvas, Euler, Gaussians

HEIGHT, WIDTH, NUM_GAUSSIANS = 192, 256, 100  # more than 32,768 pixels, below which a known mistake hid
TOLERANCE = 1e-4  # of either error: float32 has some 1e-6, products in TF32 1e-3
STEP = 1e-6  # of finite differences; the kernel has a kink, so that a longer one is less exact

Fields = dict[str, NDArray]  # a set's numbers by name, in float64


class Verdict(NamedTuple):
  """How far a renderer's numbers are from those of float64."""

  picture: float  # the largest difference, of colours in [0, 1]
  gradient: float  # of a directional derivative, over the sum of what its terms are without their signs; the worst
  right: bool  # whether both are within TOLERANCE

  def __str__(self) -> str:
    words = "right" if self.right else "WRONG"
    return f"{words}: within {self.picture:.1e} (picture) and {self.gradient:.1e} (gradient) of float64"


def scene(height: int = HEIGHT, width: int = WIDTH, num_gaussians: int = NUM_GAUSSIANS, seed: int = 0) -> Gaussians:
  """A random set whose supports together cover the picture some thirty times; three channels, weighted average."""
  rng = np.random.default_rng(seed)
  place = lambda numbers: jnp.asarray(np.asarray(numbers, np.float32))
  means = rng.uniform(-0.05, 1.05, (num_gaussians, 2)) * [width, height]
  scale = np.sqrt(height * width / num_gaussians) * 0.9
  shape = Euler(
    place(np.log(scale) + rng.normal(0, 0.4, (num_gaussians, 2))), place(rng.uniform(-1.5, 1.5, num_gaussians))
  )
  canvas = Canvas(height, width, place([0.2, 0.5, 0.7]), blends.weighted_average)
  colors, log_weights = rng.uniform(size=(num_gaussians, 3)), rng.normal(0, 0.3, num_gaussians)
  return Gaussians(place(means), shape, place(colors), place(log_weights), canvas)


def picture(fields: Fields, canvas: Canvas) -> NDArray:
  """`[H, W, 3]` in float64, one Gaussian after the other, from the definition (docs/format.md has it too)."""
  tau = kernel.tail(canvas.cutoff)
  sums, total = np.zeros((canvas.height, canvas.width, 3)), np.full((canvas.height, canvas.width, 1), tau)
  sums += tau * np.asarray(canvas.background, np.float64)
  x, y = np.arange(canvas.width) + 0.5, np.arange(canvas.height) + 0.5
  rows = zip(*(fields[name] for name in ("means", "log_scales", "thetas", "colors", "log_weights")), strict=True)
  for mean, log_scales, theta, color, log_weight in rows:
    turn = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
    sigma = turn @ np.diag(np.exp(2 * log_scales)) @ turn.T + canvas.floor**2 * np.eye(2)
    reach = canvas.cutoff * np.sqrt(np.diag(sigma))
    (left, top), (right, bottom) = (
      np.clip(np.floor(mean + way * reach), 0, [canvas.width, canvas.height]).astype(int) for way in (-1, 1)
    )
    box = slice(top, bottom + 1), slice(left, right + 1)
    dx, dy = x[None, box[1]] - mean[0], y[box[0], None] - mean[1]
    (a, b), (_, c) = np.linalg.inv(sigma)
    q = a * dx**2 + 2 * b * dx * dy + c * dy**2
    weight = (np.exp(log_weight) * np.maximum(np.exp(-q / 2) - tau, 0) / (1 - tau))[..., None]
    sums[box] += weight * color
    total[box] += weight
  return sums / total


def _fields(gaussians: Gaussians) -> Fields:
  """The numbers of a set, or of its gradient."""
  named = {"means": gaussians.means, "colors": gaussians.colors, "log_weights": gaussians.log_weights}
  return {name: np.asarray(leaf, np.float64) for name, leaf in (named | gaussians.shape._asdict()).items()}


def verdict(drawn_by: str, gaussians: Gaussians | None = None) -> Verdict:
  """What one of renderer.RENDERERS makes of a set (Euler shapes, three channels) within jit, and its gradient.

  The gradient is that of a sum of the picture's numbers, each with a random weight, field by field in a random
  direction. Raises ValueError for a renderer that does not serve here.
  """
  gaussians = scene() if gaussians is None else gaussians
  canvas, rng = geometry.canvas_of(gaussians), np.random.default_rng(1)
  weights = rng.normal(size=(canvas.height, canvas.width, 3))

  def loss(gaussians: Gaussians, neighbors: renderer.Neighbors, weights: jax.Array):
    drawn = blends.picture(gaussians, renderer.rasterizer(gaussians, neighbors))
    return jnp.sum(weights * drawn), drawn

  neighbors = renderer.allocate(gaussians, renderer=drawn_by)
  both = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (_, drawn), gradient = both(gaussians, neighbors, jnp.asarray(weights, jnp.float32))
  fields, pulled = _fields(gaussians), _fields(gradient)
  off = float(np.max(np.abs(np.asarray(drawn, np.float64) - picture(fields, canvas))))
  slopes = []
  for name, numbers in fields.items():
    way = rng.normal(size=numbers.shape)
    ends = [picture(fields | {name: numbers + step * way}, canvas) for step in (STEP, -STEP)]
    expected, terms = np.sum(weights * (ends[0] - ends[1])) / (2 * STEP), pulled[name] * way
    slopes.append(float(abs(np.sum(terms) - expected) / max(np.sum(np.abs(terms)), 1e-30)))
  # A NaN is neither: `not <=`.
  return Verdict(off, max(slopes), all(error <= TOLERANCE for error in (off, *slopes)))


def chosen() -> tuple[str, str]:
  """(who draws a picture of some size on this device unless asked otherwise, why)."""
  name, backend = renderer.allocate(scene()).renderer, jax.default_backend()
  if name == "scanlines":
    return name, "native code, the fastest on a CPU"
  if name == "warp":
    return name, f"Warp's kernels, the fastest on this {backend}"
  if backend == "cpu":
    return name, "the native code was not built: install gaussjax where there is a C++ compiler"
  beside = "asked for by renderer='warp', not measured to win" if warp.available() else "not installed"
  return name, f"JAX on this {backend}; scanlines is for CPUs, warp is {beside}"


def serving() -> list[str]:
  """Which of renderer.RENDERERS draw here. Warp on a CPU is for its tests."""
  here = {"scanlines": scanlines.serves(jnp.dtype("float32"), False)}
  here |= {"warp": jax.default_backend() != "cpu" and warp.serves(jnp.dtype("float32"))}
  return [name for name in renderer.RENDERERS if here.get(name, True)]


def summary() -> dict[str, str]:
  """Who draws and why, what each renderer's verdict is, and whether numbers can be trusted here, in words."""
  said = {}
  for name in serving():
    try:
      said[f"{name} draws"] = str(verdict(name))
    except Exception as error:  # of whatever kind: the others have theirs
      said[f"{name} draws"] = f"broken: {errors.one_line(error)}"
  wrong = [name.split()[0] for name, words in said.items() if not words.startswith("right")]
  trust = f"CANNOT be trusted where {' or '.join(wrong)} draws; see docs/gpu.md" if wrong else "can be trusted"
  return {"renderer": ": ".join(chosen()), **said, "numbers": trust}
