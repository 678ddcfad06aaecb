"""V4: what the start is worth, in time to a PSNR and in PSNR at equal time."""

import statistics

from experiments import runner, sweep

NUM_GAUSSIANS, STEPS, SHORT = 5000, 1000, (20, 50, 100, 200, 400)  # lengths that each have their own schedule
EQUAL_SECONDS = 10.0


def measure(images: list) -> list[runner.Criterion]:
  """The criteria: medians over the images of ratios of seconds, initialisation in, compilation apart.

  `random` differs from the preset in the start alone; V1's recipe also in its rates, and has no density control.
  """
  ratios, seeds_ratios, gains = [], [], []
  for path in images:

    def row(name, steps, seconds=None, path=path):
      return sweep.row_of(sweep.ACCEPTANCE, path, sweep.Setting(name, NUM_GAUSSIANS, 0, steps, seconds))

    start, seed = row("random", STEPS), row("v1", STEPS)
    seconds_to = lambda psnr, row=row: next(
      (ours["seconds"] for ours in (row("balanced", steps) for steps in SHORT) if ours["psnr"] >= psnr),
      float("inf"),
    )
    ratios.append(start["seconds"] / seconds_to(start["psnr"]))
    seeds_ratios.append(seed["seconds"] / seconds_to(seed["psnr"]))
    gains.append(row("balanced", None, EQUAL_SECONDS)["psnr"] - row("random", None, EQUAL_SECONDS)["psnr"])
    print(
      f"{path.name}: random {start['psnr']:.2f} dB, {ratios[-1]:.1f}x; v1 {seed['psnr']:.2f} dB, "
      f"{seeds_ratios[-1]:.1f}x; {gains[-1]:+.2f} dB at {EQUAL_SECONDS:g} s",
      flush=True,
    )
  return [
    runner.at_least("time to random's PSNR after 1,000 steps, times faster, median", statistics.median(ratios), 2),
    runner.at_least(
      "time to V1's PSNR after 1,000 steps, times faster, median", statistics.median(seeds_ratios), 10
    ),
    runner.at_least("gain at 10 s over random, dB, mean", statistics.mean(gains), 1),
  ]
