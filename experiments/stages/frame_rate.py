"""At least 1,000 frames a second on a GPU, 768 x 512 with 10,000 Gaussians."""

import jax

from experiments import reference
from experiments.runner import Criterion, NotMeasuredError
from gaussjax.rendering import blends, renderer, trial


def measure() -> list[Criterion]:
  """Frames a second of both linear blends, by the fastest renderer, lists prebuilt.

  Raises NotMeasuredError without a GPU.
  """
  if jax.default_backend() not in ("gpu", "cuda", "rocm"):
    raise NotMeasuredError(f"needs a GPU, got {jax.default_backend()}")
  return [frames_criterion(blend) for blend in (blends.accumulated_sum, blends.weighted_average)]


def frames_criterion(blend) -> Criterion:
  """One blend's median of nine frames, of each renderer."""
  gaussians = reference.scene(512, 768, 10_000, blend=blend)
  draw = jax.jit(lambda g, neighbors: blends.picture(g, renderer.rasterizer(g, neighbors)))
  found = []
  for name in trial.serving():
    milliseconds, _ = reference.time_ms(draw, gaussians, renderer.allocate(gaussians, renderer=name))
    found.append((1000 / milliseconds, name))
  rate, name = max(found)
  return Criterion(f"{blend.name}: frames a second, {name}", f"{rate:.0f}", "at least 1000", rate >= 1000)
