"""A given set of Gaussians as a small file: N stays what it is, its own picture is to be kept, steps are sought."""

import math

import numpy as np

from gaussjax import geometry
from gaussjax.gjx import encoding, grids, quantization
from gaussjax.gjx.encoding import FALL, Goal, Work
from gaussjax.types import Gaussians

# What quality amounts to: how far a photograph's file is from its fit, a tenth of the whole error. Denser sets are
# nearer to their photographs, by the power law of encoded ones.
PSNR_AT_50, PSNR_OF_QUALITY = 40.0, 0.2  # dB, and dB for each unit of quality
PIXELS_EACH = 120  # pixels for each Gaussian in a photograph's file at quality 50
SHARE = 0.1  # of the error that steps are balanced against, what is left after quantisation, about
TIMES_OF_A_DECIBEL = 32 / (
  20 * math.log10(2)
)  # steps made coarser one after another: 32 times are an octave of all
MAX_TRIES = 5  # quantisations, the last on the finest steps
NEAR = 0.5  # dB above the goal that will do


def encode(work: Work, gaussians: Gaussians, goal: Goal) -> bytes:
  """The file of a set as `packing.holdable` returns one. Raises ValueError for a goal out of reach."""
  if goal.size is not None:
    return _to_size(work, gaussians, goal.size)
  if goal.psnr is not None:
    return _to_psnr(work, gaussians, goal.psnr, goal.psnr)
  density = len(gaussians.means) * PIXELS_EACH / work.pixels
  psnr = PSNR_AT_50 + PSNR_OF_QUALITY * (goal.quality - 50) + 10 * FALL * math.log10(max(density, 1))
  psnr = min(psnr, encoding.most_psnr(work.image) - 1)
  return _to_psnr(work, gaussians, psnr, min(psnr, PSNR_AT_50))


def _to_size(work: Work, gaussians: Gaussians, size: int) -> bytes:
  """The file of at most `size` bytes on the finest steps."""
  balanced = _balanced(work, gaussians, PSNR_AT_50)
  coarsest = quantization.coarser(balanced, encoding.COARSER, quantization.finest(gaussians))
  least = len(encoding.file(work, gaussians, coarsest))
  if least > size:
    raise ValueError(f"got {size} bytes for {len(gaussians.means)} Gaussians, expected at least {least}")
  for index in range(MAX_TRIES):
    steps = encoding.steps_within(work, gaussians, balanced, size * (1 - 0.01 * index))
    data = encoding.file(work, encoding.quantized(work, gaussians, steps), steps)
    if len(data) <= size:
      return data
  return encoding.file(work, gaussians, encoding.steps_within(work, gaussians, balanced, size))


def _to_psnr(work: Work, gaussians: Gaussians, psnr: float, enough: float) -> bytes:
  """The smallest file found that is within `psnr` dB of the set's own picture, or the nearest one from `enough` on.

  Raises ValueError if none is.
  """
  balanced, least = _balanced(work, gaussians, psnr), quantization.finest(gaussians)
  tried, times = list[tuple[float, bytes]](), 0
  for index in range(MAX_TRIES):
    steps = least if index == MAX_TRIES - 1 else quantization.coarser(balanced, times, least)
    data = encoding.file(work, encoding.quantized(work, gaussians, steps), steps)
    found = encoding.reached(work, data)
    tried.append((found, data))
    within = [data for found, data in tried if found >= psnr]
    if within and (found < psnr + NEAR or index >= 2):
      return min(within, key=len)
    # Where numbers are out of range finer steps bring less than they should: ask for more each time.
    times += math.floor((found - psnr - 0.1) * TIMES_OF_A_DECIBEL * (2**index if found < psnr else 1))
    times = min(max(times, 2 * encoding.FINER), encoding.COARSER)
  found, data = max(tried)
  if found < enough:
    raise ValueError(
      f"got a set whose picture a file holds to {found:.1f} dB, expected {enough:.1f}; lower the goal or fit anew "
      f"({_count_beyond(gaussians)} of {len(gaussians.means)} means are too far outside the picture)"
    )
  return data


def _count_beyond(gaussians: Gaussians) -> int:
  """How many means are beyond the margin that a file has around the picture."""
  canvas, means = geometry.canvas_of(gaussians), np.asarray(gaussians.means)
  margin = grids.margins(canvas)
  beyond = (means < -margin) | (means > margin + [canvas.width, canvas.height])
  return int(np.sum(beyond.any(axis=1)))


def _balanced(work: Work, gaussians: Gaussians, psnr: float) -> grids.Steps:
  """Steps with which a file is within `psnr` dB of the set's own picture, about."""
  return quantization.balanced_steps(gaussians, work.target, 10 ** (-psnr / 10) / SHARE)
