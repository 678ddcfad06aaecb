"""Where the Gaussians start: `(key, image [H, W, C], num_gaussians) -> Gaussians`, Euler shapes, no canvas.

All are jitted.
"""

import functools
import math

import jax
import jax.numpy as jnp

from gaussjax import geometry, numerics
from gaussjax.quality import similarity
from gaussjax.rendering import buckets
from gaussjax.types import Array, Euler, Gaussians


@functools.partial(jax.jit, static_argnames=("num_gaussians", "gamma", "random_colors"))
def random(
  key: Array, image: Array, num_gaussians: int, *, gamma: float = 0.5, random_colors: bool = False
) -> Gaussians:
  """Uniform positions and angles, sigma = gamma sqrt(W H / N), the colour of the pixel under each mean."""
  key_means, key_thetas, key_colors = jax.random.split(key, 3)
  height, width, channels = image.shape
  size = jnp.array([width, height], image.dtype)
  means = size * jax.random.uniform(key_means, (num_gaussians, 2), image.dtype)
  thetas = jax.random.uniform(key_thetas, (num_gaussians,), image.dtype, maxval=math.pi)
  if random_colors:
    colors = jax.random.uniform(key_colors, (num_gaussians, channels), image.dtype)
  else:
    colors = color_under(image, means)
  return Gaussians(means, Euler(jnp.full_like(means, base_log_scale(image, num_gaussians, gamma)), thetas), colors)


@functools.partial(jax.jit, static_argnames=("num_gaussians", "gamma"))
def grid(key: Array, image: Array, num_gaussians: int, *, gamma: float = 0.5) -> Gaussians:
  """Round Gaussians on the cells of a grid as square as may be, filled row by row; `key` is not used."""
  del key
  height, width, _ = image.shape
  columns = max(1, min(num_gaussians, round(math.sqrt(num_gaussians * width / height))))
  rows = -(-num_gaussians // columns)
  index = jnp.arange(num_gaussians)
  row, column = index // columns, index % columns
  # The last row may be short: its cells are wider, so that it still spans the image.
  in_row = jnp.where(row == rows - 1, num_gaussians - (rows - 1) * columns, columns)
  means = jnp.stack([(column + 0.5) * width / in_row, (row + 0.5) * height / rows], -1).astype(image.dtype)
  shape = Euler(jnp.full_like(means, base_log_scale(image, num_gaussians, gamma)), jnp.zeros_like(means[:, 0]))
  return Gaussians(means, shape, color_under(image, means))


@functools.partial(jax.jit, static_argnames=("num_gaussians", "share", "gamma"))
def gradient_sampled(
  key: Array, image: Array, num_gaussians: int, *, share: float = 0.7, gamma: float = 0.45
) -> Gaussians:
  """Round Gaussians where the image changes: positions `share` by gradient magnitude, the rest uniform.

  Sampled without replacement while there are pixels enough. Each scale is `gamma` times the spacing, 1 over the
  root of the density, of the Gaussians around it. Sampling by gradient: Image-GS (SIGGRAPH 2025).
  """
  key_pixels, key_offsets, key_thetas = jax.random.split(key, 3)
  height, width, _ = image.shape
  counts, image = buckets.counted(image), buckets.filled(image)
  magnitude = counts * jnp.sqrt(jnp.sum(jnp.square(jnp.stack(image_gradient(image))), axis=(0, -1)))
  total = jnp.sum(magnitude)
  uniform = counts / jnp.sum(counts, dtype=magnitude.dtype)
  share_of_gradient = jnp.where(total > 0, share, 0)
  density = share_of_gradient * magnitude / jnp.where(total > 0, total, 1) + (1 - share_of_gradient) * uniform
  pixels = jax.random.choice(
    key_pixels, magnitude.size, (num_gaussians,), replace=num_gaussians > magnitude.size // 2, p=density.ravel()
  )
  corners = jnp.stack([pixels % width, pixels // width], -1).astype(image.dtype)
  means = corners + jax.random.uniform(key_offsets, (num_gaussians, 2), image.dtype)
  # The density that neighbours see: averaged over cells that hold a few Gaussians at the mean density.
  cell = max(1, round(2 * math.sqrt(height * width / num_gaussians)))
  cells = (max(1, height // cell), max(1, width // cell))
  smooth = jax.image.resize(jax.image.resize(density, cells, "linear"), (height, width), "linear")
  log_spacing = -jnp.log(num_gaussians * smooth.ravel()[pixels]) / 2
  log_scales = jnp.broadcast_to((math.log(gamma) + log_spacing)[:, None], means.shape)
  thetas = jax.random.uniform(key_thetas, (num_gaussians,), image.dtype, maxval=math.pi)
  return Gaussians(means, Euler(log_scales, thetas), color_under(image, means))


@functools.partial(jax.jit, static_argnames=("num_gaussians", "share", "gamma", "stretch"))
def structure_tensor(
  key: Array, image: Array, num_gaussians: int, *, share: float = 0.7, gamma: float = 0.45, stretch: float = 0.4
) -> Gaussians:
  """`gradient_sampled`, each Gaussian stretched along the edge it lies on, by up to exp(2 stretch) to 1.

  The edge is the structure tensor's minor axis, the stretch goes with the tensor's coherence (Bigun, Granlund,
  "Optimal orientation detection of linear symmetry", 1987). Of a large picture it is found in a smaller one.
  """
  times = _times_smaller(image, num_gaussians)
  image = buckets.smaller(image, times)
  gaussians = gradient_sampled(key, image, num_gaussians, share=share, gamma=gamma)
  dx, dy = image_gradient(buckets.filled(image))
  products = jnp.stack([jnp.sum(a * b, axis=-1) for a, b in ((dx, dx), (dx, dy), (dy, dy))], -1)
  margin = similarity.WINDOW // 2
  padded = jnp.pad(products, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
  smooth = similarity.window_means(3, padded.reshape(1, padded.shape[0], -1)).reshape(products.shape)
  xx, xy, yy = color_under(smooth, gaussians.means).T
  coherence = numerics.safe_divide(jnp.hypot(xx - yy, 2 * xy), xx + yy)
  along = jnp.arctan2(2 * xy, xx - yy) / 2 + math.pi / 2
  log_scales = geometry.to_euler(gaussians.shape).log_scales + stretch * coherence[:, None] * jnp.array(
    [1.0, -1.0], image.dtype
  )
  shape = Euler(log_scales + math.log(times), along)
  return gaussians._replace(means=times * gaussians.means, shape=shape)


MOST_PIXELS = 1 << 22  # that a start looks at: its memory is many times that of the picture


def _times_smaller(image: Array, num_gaussians: int) -> int:
  """How many times shorter the sides are of the picture that is looked at: of four pixels a Gaussian if it may."""
  pixels = image.shape[0] * image.shape[1]
  enough = math.floor(math.sqrt(pixels / (4 * num_gaussians)))
  return max(1, min(math.ceil(math.sqrt(pixels / MOST_PIXELS)), enough))


def image_gradient(image: Array) -> tuple[Array, Array]:
  """Central differences by x and by y, each `[H, W, C]`, one-sided at the border; 0 across a single pixel."""
  padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
  return (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2, (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2


def base_log_scale(image: Array, num_gaussians: int, gamma: float) -> float:
  """log(gamma sqrt(W H / N)), the log-scale in pixels at which N Gaussians share the image evenly."""
  return math.log(gamma * math.sqrt(image.shape[0] * image.shape[1] / num_gaussians))


def color_under(image: Array, means: Array) -> Array:
  """`[N, C]`, the colours of the pixels under the `means` `[N, 2]`, the nearest pixel for those outside."""
  column, row = jnp.floor(means).astype(jnp.int32).T
  height, width, _ = image.shape
  return image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
