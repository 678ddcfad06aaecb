"""One pass of the plain recipe gains PSNR, with right gradients, no collapse and no loss of coverage."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

import gaussjax
from experiments import runner, variants
from experiments.runner import Criterion
from gaussjax import geometry
from gaussjax.fitting import recipes
from gaussjax.rendering import blends

SEEDS = range(5)
PATTERN_SIZE = 128


def complex_pattern(size: int = PATTERN_SIZE) -> np.ndarray:
  """Three sine gratings, one a channel: `[size, size, 3]` in [0, 1]."""
  v, u = (np.mgrid[:size, :size] + 0.5) / size
  waves = [np.sin(8 * np.pi * u), np.sin(8 * np.pi * v), np.sin(4 * np.pi * (u + v))]
  return (np.stack(waves, -1) / 2 + 0.5).astype(np.float32)


def sharp_edge(size: int = PATTERN_SIZE) -> np.ndarray:
  """Quadrants of red, green, blue and yellow: `[size, size, 3]`."""
  quadrants = np.array([[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 0]]], np.float32)
  return quadrants.repeat(size // 2, 0).repeat(size // 2, 1)


def measure() -> list[Criterion]:
  """All criteria, the worst of the seeds each."""
  from gaussjax import image_io

  photograph = image_io.resize(gaussjax.read_image(runner.PHOTOGRAPH), 128, 192)
  criteria = [gradients_criterion()]
  criteria += fit_criteria(
    "complex_pattern", complex_pattern(), 100, gain=6, psnr=22, min_scale=0.128, w_median=0.5
  )
  criteria += fit_criteria("sharp_edge", sharp_edge(), 100, gain=5, min_scale=0.128)
  return criteria + fit_criteria("photograph 192x128", photograph, 500, gain=6, min_scale=0.3)


def fit_criteria(
  name: str, image: np.ndarray, num_gaussians: int, *, gain: float, min_scale: float, **least: float
) -> list[Criterion]:
  """Fits of one image from every seed against the least that each figure must reach."""
  histories = []
  for seed in SEEDS:
    print(f"{name}: seed {seed}", flush=True)
    fit = gaussjax.fit(image, num_gaussians=num_gaussians, seed=seed, preset=variants.recipe("v1"))
    histories.append(fit.history)
  spread = lambda values: f"{min(values):.3g} to {max(values):.3g}"

  def at_least(label: str, values: list[float], required: float) -> Criterion:
    return Criterion(f"{name}: {label}", spread(values), f"at least {required}", min(values) >= required)

  losses = [[record["loss"] for record in history] for history in histories]
  lowest = [min(record["min_scale_px"] for record in history) for history in histories]
  rises = [max(loss) / loss[0] for loss in losses]
  ends = [loss[-1] / min(loss) for loss in losses]
  medians = [history[-1]["w_median"] for history in histories]
  return [
    at_least("gain, dB", [h[-1]["psnr"] - h[0]["psnr"] for h in histories], gain),
    at_least("PSNR, dB", [h[-1]["psnr"] for h in histories], least.get("psnr", 0)),
    Criterion(f"{name}: min scale, px", spread(lowest), f"over {min_scale}", min(lowest) > min_scale),
    Criterion(
      f"{name}: W_median",
      spread(medians),
      f"over {least.get('w_median', 0)}",
      min(medians) > least.get("w_median", 0),
    ),
    Criterion(f"{name}: greatest loss / first", spread(rises), "at most 1.1", max(rises) <= 1.1),
    Criterion(f"{name}: last loss / least", spread(ends), "at most 1.02", max(ends) <= 1.02),
  ]


def gradients_criterion() -> Criterion:
  """check_grads in float64 for every parameterisation, linear blend and field."""
  checked = 0
  with jax.enable_x64(True):
    for parameterize in (geometry.to_euler, geometry.to_cholesky, geometry.to_log_cholesky):
      for blend in (blends.weighted_average, blends.accumulated_sum):
        checked += check_gradients(parameterize, blend)
  return Criterion("gradients against differences", f"{checked} fields agree", "rtol 1e-4", True)


def check_gradients(
  parameterize: Callable, blend: blends.Blend, *, render: Callable | None = None, num_gaussians: int = 6
) -> int:
  """Checks each field's gradient of a weighted sum over a render; needs float64; raises AssertionError.

  One field at a time: in a random direction over all of them the colours would hide the angles. Returns how many.
  """
  rng = np.random.default_rng(0)
  height, width = 13, 17
  target = jnp.asarray(rng.uniform(size=(height, width, 3)))
  params = recipes.start(
    jax.random.key(0), target, num_gaussians, recipes.Recipe(parameterize=parameterize, blend=blend)
  )
  stretch = jnp.asarray(rng.normal(size=(num_gaussians, 2)) * 0.4)
  euler = geometry.to_euler(params.shape)._replace(thetas=jnp.asarray(rng.uniform(size=num_gaussians)))
  euler = euler._replace(log_scales=euler.log_scales + stretch)
  params = params._replace(shape=parameterize(euler), log_weights=jnp.asarray(rng.normal(size=num_gaussians) * 0.3))
  cotangent = jnp.asarray(rng.normal(size=target.shape))
  draw = gaussjax.render if render is None else render
  value_and_grad = jax.jit(jax.value_and_grad(lambda params: jnp.sum(cotangent * draw(params))))

  # One compiled program serves every field, where differentiating by each alone would compile one for each.
  @jax.custom_vjp
  def total(params):
    return value_and_grad(params)[0]

  total.defvjp(value_and_grad, lambda gradient, scale: (jax.tree.map(lambda leaf: scale * leaf, gradient),))
  leaves, tree = jax.tree.flatten(params)
  for i, leaf in enumerate(leaves):
    with_leaf = lambda x, i=i: total(jax.tree.unflatten(tree, [*leaves[:i], x, *leaves[i + 1 :]]))
    check_grads(with_leaf, (leaf,), order=1, modes=("rev",), atol=1e-9, rtol=1e-4)
  return len(leaves)
