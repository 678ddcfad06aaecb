"""The scene that renderers are measured on, and how long a function takes."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

PIXELS_PER_GAUSSIAN = 768 * 512 / 10_000


def scene(height: int, width: int, num_gaussians: int, *, blend: Callable, seed: int = 0):
  """Uniform means, angles and colours, scales s0 exp(0.4 normal) an axis with s0 = 0.7 sqrt(W H / N)."""
  import jax.numpy as jnp

  import gaussjax

  rng = np.random.default_rng(seed)
  array = lambda values: jnp.asarray(values, jnp.float32)
  means = rng.uniform(size=(num_gaussians, 2)) * [width, height]
  log_scales = np.log(0.7 * np.sqrt(width * height / num_gaussians)) + 0.4 * rng.normal(size=(num_gaussians, 2))
  shape = gaussjax.Euler(array(log_scales), array(rng.uniform(0, np.pi, num_gaussians)))
  canvas = gaussjax.Canvas(height, width, jnp.zeros(3), blend)
  return gaussjax.Gaussians(array(means), shape, array(rng.uniform(size=(num_gaussians, 3))), None, canvas)


def time_ms(function: Callable, *arguments: Any, repeats: int = 9) -> tuple[float, float]:
  """(median milliseconds of a call, milliseconds of the first one, which compiles)."""
  import jax

  def once() -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return (time.perf_counter() - start) * 1e3

  first = once()
  return float(np.median([once() for _ in range(repeats)])), first
