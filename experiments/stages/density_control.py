"""What density control is worth, at equal N and in Gaussians."""

import bisect
import math
import statistics

from experiments import rowfile, runner, sweep

NUM_GAUSSIANS, STEPS, SHARES = 5000, 1000, (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0)


def measure(images: list, rows: rowfile.Source) -> list[runner.Criterion]:
  """(a) at the same start and N; (b) the smallest share of N that equals a fixed random start."""
  gains, shares = [], []
  for path in images:

    def psnr(name, count, path=path):
      return sweep.row_of(sweep.ACCEPTANCE, path, sweep.Setting(name, count, 0, STEPS, None), rows)["psnr"]

    gains.append(psnr("balanced", NUM_GAUSSIANS) - psnr("fixed", NUM_GAUSSIANS))
    wanted = psnr("random_fixed", NUM_GAUSSIANS)
    # More Gaussians are better by far more than fits of one recipe differ, so the smallest is found by halving.
    reaches = lambda share, psnr=psnr, wanted=wanted: psnr("balanced", round(share * NUM_GAUSSIANS)) >= wanted
    shares.append((*SHARES, math.inf)[bisect.bisect_left(SHARES, True, key=reaches)])
    print(
      f"{path.name}: {gains[-1]:+.2f} dB by density control; fixed random's {wanted:.2f} dB at {shares[-1]:.2f} N",
      flush=True,
    )
  return [
    runner.at_least("gain by density control, dB, mean", statistics.mean(gains), 0.5),
    runner.at_least("gain by density control, dB, least", min(gains), -0.05),
    runner.at_most("Gaussians for the PSNR of 5,000 fixed random ones, share, mean", statistics.mean(shares), 0.7),
  ]
