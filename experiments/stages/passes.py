"""Ten passes against one, at equal Gaussians and equal steps."""

import statistics

from experiments import rowfile, runner, sweep, variants

PASSES, STEPS, NUM_GAUSSIANS = 10, 1000, 5000
# What passes bring by themselves, and what they add to density control within a fit, which does much the same.
WITHIN = {"fixed": "without density control", "balanced": "with density control"}


def measure(images: list, rows: rowfile.Source) -> list[runner.Criterion]:
  """The criteria, on the mean of the images: with and without density control, in the passes as in the one fit."""
  return [criterion for name in WITHIN for criterion in compared(images, name, rows)]


def compared(images: list, name: str, rows: rowfile.Source) -> list[runner.Criterion]:
  """The criteria of passes by the recipe `name`, against one fit by it."""
  import gaussjax
  from gaussjax.contrib import passes

  recipe, where = variants.recipe(name), WITHIN[name]
  gains, from_start, over_short, over_long, kept = [], [], [], [], []
  for path in images:
    image = gaussjax.read_image(path)
    row = lambda steps, path=path: sweep.row_of(
      sweep.ACCEPTANCE, path, sweep.Setting(name, NUM_GAUSSIANS, 0, steps, None), rows
    )
    ended, report = passes.fit_passes(image, num_gaussians=NUM_GAUSSIANS, passes=PASSES, steps=STEPS, preset=recipe)
    short, single = row(100), row(STEPS)
    good = [one.psnr - one.psnr_before for one in report if one.kept]
    psnr = ended.metrics["psnr"]
    kept.append(sum(gain >= 0.05 for gain in good))
    gains.append(min(good, default=0.0))
    from_start.append(psnr - ended.history[0]["psnr"])
    over_short.append(psnr - short["psnr"])
    over_long.append(psnr - single["psnr"])
    print(
      f"{path.name}, {where}: {psnr:.2f} dB in passes, {single['psnr']:.2f} in one; {gains[-1]:.2f} dB least gain",
      flush=True,
    )
  return [
    runner.at_least(f"passes kept that gain 0.05 dB, the fewest, {where}", min(kept), 7),
    runner.at_least(f"gain over the initial state, dB, {where}", statistics.mean(from_start), 8),
    runner.at_least(f"gain over one pass of 100 steps, dB, {where}", statistics.mean(over_short), 2),
    runner.at_least(f"gain over one pass of all the steps, dB, {where}", statistics.mean(over_long), 0),
  ]
