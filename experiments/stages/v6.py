"""V6: the perceptual mix against L2."""

import statistics

from experiments import runner, variants

NUM_GAUSSIANS, STEPS = 2000, 1000


def measure(images: list) -> list[runner.Criterion]:
  """The criteria, means over the images."""
  import gaussjax

  gains: dict[str, list[float]] = {"psnr": [], "ssim": [], "ms_ssim": []}
  for path in images:
    image, stop = gaussjax.read_image(path), gaussjax.Stop(max_steps=STEPS)
    plain, mixed = (
      gaussjax.fit(image, num_gaussians=NUM_GAUSSIANS, preset=variants.recipe(name), stop=stop).metrics
      for name in ("balanced", "perceptual")
    )
    for name, values in gains.items():
      values.append(mixed[name] - plain[name])
    print(f"{path.name}: " + ", ".join(f"{name} {plain[name]:.4f} -> {mixed[name]:.4f}" for name in gains))
  return [
    runner.at_least("change of PSNR, dB", statistics.mean(gains["psnr"]), -0.3),
    runner.at_least("change of SSIM", statistics.mean(gains["ssim"]), 1e-4),
    runner.at_least("change of MS-SSIM", statistics.mean(gains["ms_ssim"]), 1e-4),
    runner.Criterion("change of LPIPS", "not measured", "< 0", False),
  ]
