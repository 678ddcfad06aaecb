"""V2: ten passes against one, at equal Gaussians and equal steps."""

from experiments import runner, sweep

PASSES, STEPS, NUM_GAUSSIANS = 10, 1000, 5000


def measure(images: list) -> list[runner.Criterion]:
  """The criteria, on the mean of the images."""
  import gaussjax

  gains, from_start, over_short, over_long, kept = [], [], [], [], []
  for path in images:
    image = gaussjax.read_image(path)
    row = lambda steps, path=path: sweep.row_of(
      sweep.ACCEPTANCE, path, sweep.Setting("balanced", NUM_GAUSSIANS, 0, steps, None)
    )
    ended, report = gaussjax.fit_passes(image, num_gaussians=NUM_GAUSSIANS, passes=PASSES, steps=STEPS)
    short, single = row(100), row(STEPS)
    good = [one.psnr - one.psnr_before for one in report if one.kept]
    psnr = ended.metrics["psnr"]
    kept.append(sum(gain >= 0.05 for gain in good))
    gains.append(min(good, default=0.0))
    from_start.append(psnr - ended.history[0]["psnr"])
    over_short.append(psnr - short["psnr"])
    over_long.append(psnr - single["psnr"])
    print(f"{path.name}: {psnr:.2f} dB in passes, {single['psnr']:.2f} in one; {gains[-1]:.2f} dB least gain")
  mean = lambda values: sum(values) / len(values)
  return [
    runner.at_least("passes kept that gain 0.05 dB, the fewest", min(kept), 7),
    runner.at_least("gain over the initial state, dB", mean(from_start), 8),
    runner.at_least("gain over one pass of 100 steps, dB", mean(over_short), 2),
    runner.at_least("gain over one pass of all the steps, dB", mean(over_long), 0),
  ]
