"""Curves of rate and quality: which of several settings is cheapest, the BD-rate, and averages at equal slope.

A curve is points (bits a pixel, quality), where more quality is better: dB, or any other metric, negated if less of
it is better. Between points the logarithm of the rate goes over quality by PCHIP.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = Sequence[tuple[float, float]]

SAMPLES = 2000  # of a common interval; the BD-rate of smooth curves is then right to a thousandth of a percent
STEP = 0.01  # dB between samples of a curve for equal slope
BEYOND = 12.0  # dB that such a curve goes on, straight, on either side of its points


def front(points: Points) -> list[tuple[float, float]]:
  """The points that no other beats in both rate and quality, from the cheapest on."""
  kept: list[tuple[float, float]] = []
  for rate, quality in sorted(points, key=lambda point: (point[0], -point[1])):
    if not kept or quality > kept[-1][1]:
      kept.append((rate, quality))
  return kept


def log_rates(points: Points, qualities: NDArray) -> NDArray:
  """The logarithm of the rate at each quality, infinite where the points do not reach."""
  from scipy.interpolate import PchipInterpolator

  kept = front(points)
  if len(kept) < 2:
    return np.full(len(qualities), np.inf)
  rates, reached = np.transpose(kept)
  found = PchipInterpolator(reached, np.log(rates), extrapolate=False)(qualities)
  return np.where(np.isnan(found), np.inf, found)


def envelope(curves: Sequence[Points], qualities: NDArray) -> NDArray:
  """The logarithm of the least rate of any of the curves at each quality, infinite where none reaches."""
  return np.min([log_rates(points, qualities) for points in curves], axis=0)


def bd_rate(ours: Points, *theirs: Points) -> float | None:
  """Mean difference of the rate at equal quality, in percent; None if they do not overlap.

  Of several curves of theirs, as of several settings, the cheapest counts at each quality. All points count: the
  mean is over all qualities that both reach.
  """
  sides = ([ours], theirs)
  ends = [[quality for points in curves for _, quality in points] for curves in sides]
  if not all(ends):
    return None
  low, high = max(map(min, ends)), min(map(max, ends))
  if low >= high:
    return None
  qualities = low + (high - low) * (np.arange(SAMPLES) + 0.5) / SAMPLES
  apart = np.subtract(*(np.nan_to_num(envelope(curves, qualities), posinf=np.nan) for curves in sides))
  apart = apart[~np.isnan(apart)]  # between curves of theirs there may be a gap
  return 100 * (math.exp(apart.mean()) - 1) if len(apart) else None


def quality_at(points: Points, rate: float) -> float | None:
  """The quality at a rate; None where the points do not reach."""
  from scipy.interpolate import PchipInterpolator

  kept = front(points)
  if len(kept) < 2 or not kept[0][0] <= rate <= kept[-1][0]:
    return None
  rates, qualities = np.transpose(kept)
  return float(PchipInterpolator(np.log(rates), qualities)(math.log(rate)))


class EqualSlope(NamedTuple):
  """Means over images of points at which a bit less costs each image the same squared error."""

  points: list[tuple[float, float]]
  beyond: float  # share of the images' points that lie beyond what was measured


def equal_slope(images: Sequence[Points], count: int = 24) -> EqualSlope:
  """The mean curve of images, points (bpp, dB), at equal slope, over the mean rates that `images` have.

  That is how published curves are averaged whose images share a quantiser or a lambda: busy pictures get more bits
  then, smooth ones fewer. It takes rates beyond those measured, where curves go on straight (dB over log rate).
  """
  dense = [(rates, dbs, front(points)) for points in images for rates, dbs in [_dense(points)]]
  low, high = (np.mean([end([rate for rate, _ in points]) for points in images]) for end in (min, max))
  found, outside = [], []
  for slope in np.geomspace(1e-6, 1, 400):
    best = [np.argmin(10 ** (-dbs / 10) + slope * rates) for rates, dbs, _ in dense]
    chosen = [(rates[i], dbs[i]) for (rates, dbs, _), i in zip(dense, best, strict=True)]
    mean = tuple(np.mean(chosen, axis=0).tolist())
    if low <= mean[0] <= high and not any(i in (0, len(d[0]) - 1) for i, d in zip(best, dense, strict=True)):
      found.append(mean)
      inside = [p[0][1] <= db <= p[-1][1] for (_, db), (_, _, p) in zip(chosen, dense, strict=True)]
      outside.append(1 - float(np.mean(inside)))
  every = max(1, len(found) // count)
  return EqualSlope(sorted(found)[::every], float(np.mean(outside)) if outside else 0.0)


def _dense(points: Points) -> tuple[NDArray, NDArray]:
  """(rates, dB) of a curve and of its straight continuation, in small steps."""
  kept = front(points)
  logs, reached = np.log([rate for rate, _ in kept]), np.array([quality for _, quality in kept])
  dbs = np.arange(reached[0] - BEYOND, reached[-1] + BEYOND, STEP)
  within = np.clip(dbs, reached[0], reached[-1])
  ends = [(logs[b] - logs[a]) / (reached[b] - reached[a]) for a, b in ((0, 1), (-2, -1))]
  found = log_rates(kept, within) + ends[0] * np.minimum(dbs - reached[0], 0)
  return np.exp(found + ends[1] * np.maximum(dbs - reached[-1], 0)), dbs


class Comparison(NamedTuple):
  """Ours against a published curve."""

  name: str
  mean: Points  # theirs, as published
  naive: float | None  # BD-rate of ours averaged at fixed bpp, in percent
  fair: float | None  # image by image, or with ours at equal slope
  images: int | None  # of the mean image by image; None where only their mean is published


def compare(ours: Mapping[str, Points], mine: Points, published: Mapping[str, Any]) -> list[Comparison]:
  """Ours, points of images by name and their means, against published curves, (bpp, dB), by name.

  `published` has `mean`, name -> {points}, and `per_image`, name -> {points: image -> points}.
  """
  even = equal_slope(list(ours.values())).points
  found = [
    Comparison(name, curve["points"], bd_rate(mine, curve["points"]), bd_rate(even, curve["points"]), None)
    for name, curve in published["mean"].items()
  ]
  for name, curve in published["per_image"].items():
    theirs = curve["points"]
    rates = [bd_rate(points, theirs[image]) for image, points in ours.items() if image in theirs]
    whole = [rate for rate in rates if rate is not None]
    mean = [tuple(np.mean(step, axis=0).tolist()) for step in zip(*theirs.values(), strict=False)]
    fair = float(np.mean(whole)) if whole else None
    found.append(Comparison(name, mean, bd_rate(mine, mean), fair, len(whole)))
  return found
