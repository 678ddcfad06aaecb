"""What the start is worth, in time to a PSNR and in PSNR at equal time."""

import math
import statistics

from experiments import rowfile, runner, sweep

NUM_GAUSSIANS, STEPS = 5000, 1000
SHORT = (20, 50, 100, 200, 300, 400, 500, 600, 800, 1000)  # steps of fits that each have a schedule of their own
EQUAL_SECONDS = 10.0
# Recipes that differ in the start only. Density control mends a bad start as the fit goes on; without it the start
# is all there is.
STARTS = {"with density control": ("balanced", "random"), "without density control": ("fixed", "random_fixed")}


def measure(images: list, rows: rowfile.Source) -> list[runner.Criterion]:
  """The criteria: medians over the images of ratios of seconds, initialisation in, compilation apart.

  The first version's recipe (v1) also has other rates.
  """
  ratios = []
  for path in images:
    first_version = row(rows, path, "v1", STEPS)
    ratios.append(faster(rows, path, first_version, "balanced"))
    print(f"{path.name}: v1 {first_version['psnr']:.2f} dB, {ratios[-1]:.1f}x", flush=True)
  return [
    *(criterion for where in STARTS for criterion in compared(images, where, rows)),
    runner.at_least("time to v1's PSNR after 1,000 steps, times faster, median", statistics.median(ratios), 10),
  ]


def compared(images: list, where: str, rows: rowfile.Source) -> list[runner.Criterion]:
  """The criteria of the start by content against random ones."""
  (ours, random), ratios, gains = STARTS[where], [], []
  for path in images:
    theirs = row(rows, path, random, STEPS)
    ratios.append(faster(rows, path, theirs, ours))
    soon, theirs_soon = (row(rows, path, name, None, EQUAL_SECONDS)["psnr"] for name in (ours, random))
    gains.append(soon - theirs_soon)
    print(
      f"{path.name}, {where}: random {theirs['psnr']:.2f} dB, {ratios[-1]:.1f}x; "
      f"{gains[-1]:+.2f} dB at {EQUAL_SECONDS:g} s",
      flush=True,
    )
  return [
    runner.at_least(
      f"time to random's PSNR after 1,000 steps, times faster, median, {where}", statistics.median(ratios), 2
    ),
    runner.at_least(f"gain at 10 s over random, dB, mean, {where}", statistics.mean(gains), 1),
  ]


def row(rows: rowfile.Source, path, name: str, steps: int | None, seconds: float | None = None) -> rowfile.Row:
  """The row of a fit by the recipe `name`."""
  return sweep.row_of(sweep.ACCEPTANCE, path, sweep.Setting(name, NUM_GAUSSIANS, 0, steps, seconds), rows)


def faster(rows: rowfile.Source, path, theirs: rowfile.Row, name: str) -> float:
  """By how much the shortest fit by `name` that is as good as `theirs` is faster; 0 if none is."""
  fits = (row(rows, path, name, steps) for steps in SHORT)
  seconds = next((ours["seconds"] for ours in fits if ours["psnr"] >= theirs["psnr"]), math.inf)
  return theirs["seconds"] / seconds
