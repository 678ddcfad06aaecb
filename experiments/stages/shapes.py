"""The three shapes on equal terms, and under stress."""

import statistics

from experiments import rowfile, runner, sweep, variants

NUM_GAUSSIANS, STEPS, STRESS_STEPS, FACTOR = 5000, 1000, 10_000, 10


def measure(images: list, rows: rowfile.Source) -> list[runner.Criterion]:
  """PSNR against Euler's at equal steps, and a run of 10,000 steps at ten times the rates without a bad number."""
  import jax
  import jax.numpy as jnp

  import gaussjax
  from gaussjax import image_io

  criteria, euler = [], []
  for name in ("balanced", "cholesky", "log_cholesky"):
    setting = sweep.Setting(name, NUM_GAUSSIANS, 0, STEPS, None)
    psnr = [sweep.row_of(sweep.ACCEPTANCE, path, setting, rows)["psnr"] for path in images]
    print(f"{name}: {statistics.mean(psnr):.2f} dB")
    if name == "balanced":
      euler = psnr
    else:
      criteria.append(
        runner.at_least(f"{name} against Euler, dB", statistics.mean(psnr) - statistics.mean(euler), -0.1)
      )
  small = image_io.resize(gaussjax.read_image(images[0]), 64, 96)
  for name in ("balanced", "cholesky", "log_cholesky"):
    base = variants.recipe(name)
    recipe = base._replace(initialize=lines, learning_rate=base.learning_rate * FACTOR)
    try:
      result = gaussjax.fit(small, num_gaussians=100, preset=recipe, stop=gaussjax.Stop(max_steps=STRESS_STEPS))
      finite = all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(result.state.params))
      measured = f"{'finite' if finite else 'not finite'}, rolled back {result.metrics['rollbacks']:.0f}x"
    except gaussjax.FitError as error:
      finite, measured = False, f"error: {str(error).split('.')[0]}"
    criteria.append(runner.Criterion(f"{name}, stressed", measured, "finite to the end", finite))
  return criteria


def lines(key, image, num_gaussians):
  """Gaussians of aspect ratios up to 1:200."""
  import jax
  import jax.numpy as jnp

  from gaussjax import geometry
  from gaussjax.fitting import initializers

  gaussians = initializers.random(key, image, num_gaussians)
  stretch = jax.random.uniform(key, (num_gaussians, 1), maxval=jnp.log(200.0) / 2)
  euler = geometry.to_euler(gaussians.shape)
  log_scales = euler.log_scales + stretch * jnp.array([1.0, -1.0])
  return gaussians._replace(shape=euler._replace(log_scales=log_scales))
