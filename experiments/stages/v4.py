"""V4: what the start is worth, in time to a PSNR and in PSNR at equal time."""

import statistics

from experiments import runner, variants

NUM_GAUSSIANS, STEPS, SHORT = 5000, 1000, (50, 100, 200, 400)  # lengths that each have their own schedule


def measure(images: list) -> list[runner.Criterion]:
  """The criteria: medians over the images of ratios of seconds, initialisation in, compilation apart."""
  import gaussjax

  def fit(image, name, steps):
    stop = gaussjax.Stop(max_steps=steps)
    return gaussjax.fit(image, num_gaussians=NUM_GAUSSIANS, preset=variants.recipe(name), stop=stop)

  ratios, seeds_ratios, gains = [], [], []
  for path in images:
    image = gaussjax.read_image(path)
    fit(image, "balanced", 10)
    start, seed = fit(image, "random", STEPS), fit(image, "v1", STEPS)
    ours = [fit(image, "balanced", steps) for steps in SHORT]
    ratios.append(start.metrics["seconds"] / seconds_to(start.metrics["psnr"], ours))
    seeds_ratios.append(seed.metrics["seconds"] / seconds_to(seed.metrics["psnr"], ours))
    pace = start.metrics["seconds"] / STEPS
    ten = max(10, round(10 / pace))
    gains.append(fit(image, "balanced", ten).metrics["psnr"] - fit(image, "random", ten).metrics["psnr"])
    print(
      f"{path.name}: random {start.metrics['psnr']:.2f} dB, {ratios[-1]:.1f}x; v1 {seed.metrics['psnr']:.2f} dB, "
      f"{seeds_ratios[-1]:.1f}x; {gains[-1]:+.2f} dB at 10 s ({ten} steps)"
    )
  return [
    runner.at_least("time to random's PSNR after 1,000 steps, times faster, median", statistics.median(ratios), 2),
    runner.at_least(
      "time to V1's PSNR after 1,000 steps, times faster, median", statistics.median(seeds_ratios), 10
    ),
    runner.at_least("gain at 10 s over random, dB, mean", statistics.mean(gains), 1),
  ]


def seconds_to(psnr, fits) -> float:
  """Of the shortest fit that ends at this PSNR or above; infinite if none does."""
  return next((fit.metrics["seconds"] for fit in fits if fit.metrics["psnr"] >= psnr), float("inf"))
