"""Fits of a thousand different sizes in one process: memory, and mappings of it, as they go.

  python -m experiments.benchmark_sizes --count=1000

Each size compiles programs of its own, which take some hundreds of mappings, of which Linux gives a process 65,530.
Expected: the process ends normally; mappings stay below 30,000 and resident memory below 4 GB.
"""

from pathlib import Path

from absl import flags

from experiments import runner

FLAGS = flags.FLAGS
MOST_MAPPINGS = 40_000


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_integer("count", 1000, "Sizes.", lower_bound=1)
  flags.DEFINE_integer("every", 100, "Sizes between lines.", lower_bound=1)
  flags.DEFINE_bool("encode", False, "Encode each instead of fitting it.")


def main() -> int:
  """Prints a line now and then; exits 1 if mappings grew beyond MOST_MAPPINGS."""
  import numpy as np

  import gaussjax

  rng, most = np.random.default_rng(0), 0
  print("sizes  mappings  MB now  MB at most", flush=True)
  for index in range(FLAGS.count):
    height, width = 16 + index % 40, 16 + index // 40
    image = rng.uniform(size=(height, width, 3)).astype(np.float32)
    if FLAGS.encode:
      gaussjax.encode(image, size=300, effort=0)
    else:
      gaussjax.fit(image, num_gaussians=8, stop=gaussjax.Stop(max_steps=2))
    most = max(most, mappings())
    if (index + 1) % FLAGS.every == 0 or index + 1 == FLAGS.count:
      peak = runner.peak_memory() / 2**20
      print(f"{index + 1:5d}  {mappings():8d}  {runner.memory() / 2**20:6.0f}  {peak:10.0f}", flush=True)
  print(f"mappings at most {most}")
  return int(most > MOST_MAPPINGS)


def mappings() -> int:
  """Of this process's memory; 0 where there is no /proc."""
  maps = Path("/proc/self/maps")
  return len(maps.read_bytes().splitlines()) if maps.exists() else 0


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
