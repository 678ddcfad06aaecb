"""Files of a tenth of the picture's size at 30 dB, and what rounding to a file's integers costs."""

from experiments import codec_levers, rate_distortion, rowfile, runner

BPP = 2.4  # a tenth of 24 bits
EFFORT = 4


def measure(images: list, rows: rowfile.Source) -> list[runner.Criterion]:
  """The criteria over the images: the least PSNR, the mean loss."""
  reached, losses = [], []
  for path in images:
    # Most pictures reach 30 dB with far fewer bits than they are allowed.
    for bpp in (0.3, 0.6, BPP / 2, BPP):
      row = rate_distortion.row_of(
        rate_distortion.KODAK, path, rate_distortion.OURS, bpp, rate_distortion.Ours(EFFORT), rows
      )
      if row["psnr"] >= 30:
        break
    stages = codec_levers.row_of(codec_levers.KODAK, path, row["gaussians"], EFFORT, rows)["psnr"]
    cost = stages["fitted"] - stages["coded"]
    print(f"{path.name}: {row['psnr']:.2f} dB at {row['bpp']:.3f} bpp, rounding costs {cost:.2f} dB", flush=True)
    reached.append(row["psnr"])
    losses.append(cost)
  return [
    runner.at_least(f"dB of a file of at most {BPP} bpp, the least", min(reached), 30),
    runner.at_most("dB that rounding costs, mean", sum(losses) / len(losses), 0.5),
  ]
