"""V4: what the start is worth, in time to a PSNR and in PSNR at equal time."""

import math
import statistics

from experiments import runner, sweep

NUM_GAUSSIANS, STEPS = 5000, 1000
SHORT = (20, 50, 100, 200, 300, 400, 500, 600, 800, 1000)  # steps of fits that each have a schedule of their own
EQUAL_SECONDS = 10.0


def measure(images: list) -> list[runner.Criterion]:
  """The criteria: medians over the images of ratios of seconds, initialisation in, compilation apart.

  The fast preset is compared with a random start, of it or of the balanced one, whichever comes further. Their
  density control mends a bad start as the fit goes on; so also without it, where the start is all there is.
  V1's own recipe also has other rates.
  """
  ratios, fixed_ratios, seeds_ratios, gains, fixed_gains = [], [], [], [], []
  for path in images:

    def row(name, steps, seconds=None, path=path):
      return sweep.row_of(sweep.ACCEPTANCE, path, sweep.Setting(name, NUM_GAUSSIANS, 0, steps, seconds))

    def faster(theirs, name, row=row):
      fits = (row(name, steps) for steps in SHORT)
      return theirs["seconds"] / next(
        (ours["seconds"] for ours in fits if ours["psnr"] >= theirs["psnr"]), math.inf
      )

    start = max((row(name, STEPS) for name in ("random", "random_fast")), key=lambda fit: fit["psnr"])
    seed = row("v1", STEPS)
    ratios.append(faster(start, "fast"))
    fixed_ratios.append(faster(row("random_fixed", STEPS), "fixed"))
    seeds_ratios.append(faster(seed, "fast"))
    soon = {
      name: row(name, None, EQUAL_SECONDS)["psnr"] for name in ("fast", "random_fast", "fixed", "random_fixed")
    }
    gains.append(soon["fast"] - soon["random_fast"])
    fixed_gains.append(soon["fixed"] - soon["random_fixed"])
    print(
      f"{path.name}: random {start['psnr']:.2f} dB, {ratios[-1]:.1f}x, {fixed_ratios[-1]:.1f}x without density "
      f"control; v1 {seed['psnr']:.2f} dB, {seeds_ratios[-1]:.1f}x; {gains[-1]:+.2f} dB at {EQUAL_SECONDS:g} s, "
      f"{fixed_gains[-1]:+.2f} without density control",
      flush=True,
    )
  reached = "time to random's PSNR after 1,000 steps, times faster, median"
  return [
    runner.at_least(reached, statistics.median(ratios), 2),
    runner.at_least(f"{reached}, without density control", statistics.median(fixed_ratios), 2),
    runner.at_least(
      "time to V1's PSNR after 1,000 steps, times faster, median", statistics.median(seeds_ratios), 10
    ),
    runner.at_least("gain at 10 s over random, dB, mean", statistics.mean(gains), 1),
    runner.at_least("the same, without density control, dB, mean", statistics.mean(fixed_gains), 1),
  ]
