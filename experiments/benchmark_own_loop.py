"""A loop of one's own over the fast renderer, as README shows it, against `fit`: milliseconds a step.

  python -m experiments.benchmark_own_loop

Both fit the photograph from the same kind of start by the squared error and Adam, without density control. Prints
and expects about:

  own loop   49.5 ms a step
  fit        75.3 ms a step     with its records and checks
  ratio      0.66               exit 1 above 1.3
"""

import time

from absl import flags

from experiments import runner

FLAGS = flags.FLAGS
MOST = 1.3


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("image", str(runner.PHOTOGRAPH), "The image file to fit.")
  flags.DEFINE_integer("num_gaussians", 5000, "N.", lower_bound=1)
  flags.DEFINE_integer("steps", 200, "Steps that are timed, after as many.", lower_bound=10)


def main() -> int:
  """Prints both and their ratio."""
  import gaussjax

  image = gaussjax.read_image(FLAGS.image)
  own, theirs = own_loop(image, FLAGS.num_gaussians, FLAGS.steps), fit(image, FLAGS.num_gaussians, FLAGS.steps)
  print(f"own loop   {own:.1f} ms a step\nfit        {theirs:.1f} ms a step\nratio      {own / theirs:.2f}")
  return int(own > MOST * theirs)


def own_loop(image, num_gaussians: int, steps: int) -> float:
  """Milliseconds a step of the loop in README, the second half of twice `steps`."""
  import jax
  import jax.numpy as jnp
  import optax

  import gaussjax

  start = gaussjax.fit(image, num_gaussians=num_gaussians, stop=gaussjax.Stop(max_steps=1)).gaussians
  gaussians, neighbors = start, gaussjax.allocate(start)
  optimizer = optax.adam(1e-3)
  opt_state = optimizer.init(gaussians)

  def loss_fn(gaussians, neighbors):
    return jnp.mean(jnp.square(gaussjax.render(gaussians, neighbors=neighbors) - image))

  @jax.jit
  def step(gaussians, opt_state, neighbors):
    neighbors, overflow = gaussjax.refresh(gaussians, neighbors)
    loss, gradients = jax.value_and_grad(loss_fn)(gaussians, neighbors)
    updates, opt_state = optimizer.update(gradients, opt_state)
    return optax.apply_updates(gaussians, updates), opt_state, neighbors, overflow

  began = 0.0
  for index in range(2 * steps):
    if index == steps:
      began = time.perf_counter()
    *made, overflow = step(gaussians, opt_state, neighbors)
    if overflow:
      neighbors = gaussjax.allocate(gaussians, like=neighbors)
    else:
      gaussians, opt_state, neighbors = made
  jax.block_until_ready(gaussians)
  return (time.perf_counter() - began) / steps * 1e3


def fit(image, num_gaussians: int, steps: int) -> float:
  """Milliseconds a step of `fit` without density control, the second half of twice `steps`."""
  import gaussjax

  # Means at the own loop's rate: faster ones would ask for lists more often.
  balanced = gaussjax.PRESETS["balanced"]
  recipe = balanced._replace(policy=None, learning_rate=1e-3 / balanced.ratios.means)
  stop = gaussjax.Stop(max_steps=2 * steps)
  history = gaussjax.fit(image, num_gaussians=num_gaussians, preset=recipe, stop=stop).history
  seconds = {record["step"]: record["seconds"] for record in history}
  return (seconds[2 * steps] - seconds[steps]) / steps * 1e3


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
