"""Times the renderer on the reference scene: 768 x 512, 10,000 Gaussians.

  g++ -O3 -march=native -ffast-math -mprefer-vector-width=512 roofline.cpp -o roofline -lpthread
  python -m experiments.benchmark_render --out_dir=out/benchmark --roofline=./roofline

`--roofline` names a program that, given a number of blocks (16 Gaussians on one 16 x 16 tile each), prints JSON
with `forward_ms` and `backward_ms`: plain C++ on the same work. `--sweep` adds image sizes up to 4096 x 4096 with a
million Gaussians, and a plot. `--renderers` are those to measure, the fastest first; docs/results.md has figures.
"""

import json
import subprocess
from pathlib import Path

from absl import flags

from experiments import reference, runner

FLAGS = flags.FLAGS
REBUILD_EVERY = 10  # steps, of the amortised rows
SWEEP = ((256, 256), (512, 512), (1024, 1024), (2048, 2048))


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("out_dir", "out/benchmark_render", "Where benchmark.json and the plot go.")
  flags.DEFINE_string("roofline", None, "A compiled roofline program to compare with.")
  flags.DEFINE_list("renderers", ["scanlines", "tiles"], "Some of scanlines, tiles.")
  flags.DEFINE_bool("sweep", False, "Also measure image sizes up to 4096 x 4096.")


def main() -> int:
  """Measures, prints a table, writes JSON."""
  from gaussjax import report
  from gaussjax.rendering import blends

  both = (blends.accumulated_sum, blends.weighted_average)
  rows = [measure(512, 768, 10_000, blend, drawn_by) for drawn_by in FLAGS.renderers for blend in both]
  rows_of_batch = [measure_batch(size) for size in (1, 8)]
  figures = {"environment": report.environment(), "rows": rows, "batch": rows_of_batch} | roofline_figures(rows[0])
  if FLAGS.sweep:
    figures["sweep"] = [
      measure(h, w, round(h * w / reference.PIXELS_PER_GAUSSIAN), both[0], FLAGS.renderers[0]) for h, w in SWEEP
    ]
    figures["sweep"].append(measure(4096, 4096, 1_000_000, both[0], FLAGS.renderers[0], gradient=False))
  columns = [
    "renderer",
    "blend",
    "width",
    "height",
    "num_gaussians",
    "forward_ms",
    "value_and_grad_ms",
    "update_ms",
  ]
  columns += ["amortised_ms", "evaluations_millions", "compile_ms", "peak_memory_mb", "ns_per_pixel"]
  table = [[_short(row[name]) for name in columns] for row in rows + figures.get("sweep", [])]
  print(report.table(table, columns))
  for row in rows_of_batch:
    print(
      "a batch fit of {images} images, 128 x 128, 200 Gaussians: {image_steps_per_second:.0f} image steps/s".format(
        **row
      )
    )
  for name, value in figures.items():
    if name.endswith(("_ms", "_ratio")):
      print(f"{name}: {value:.2f}")
  with runner.results(FLAGS.out_dir) as folder:
    runner.write_json(folder / "benchmark.json", figures)
    if FLAGS.sweep:
      plot(folder / "sweep.png", figures["sweep"])
  print(f"results in {FLAGS.out_dir}")
  return 0


def measure(height: int, width: int, num_gaussians: int, blend, drawn_by: str, *, gradient: bool = True) -> dict:
  """One row: medians in milliseconds on prebuilt lists, and a step that builds them every REBUILD_EVERY steps."""
  import functools

  import jax
  import jax.numpy as jnp

  from gaussjax import geometry
  from gaussjax.rendering import blends, renderer, tiles

  gaussians = reference.scene(height, width, num_gaussians, blend=blend)
  neighbors, cutoff = renderer.allocate(gaussians, renderer=drawn_by), gaussians.canvas.cutoff
  draw = lambda gaussians, neighbors: blends.picture(gaussians, renderer.rasterizer(gaussians, neighbors))
  forward, first = reference.time_ms(jax.jit(draw), gaussians, neighbors)
  update, lists = 0.0, renderer.allocate(gaussians, renderer="tiles").lists
  if drawn_by == "tiles":
    placed = jax.jit(geometry.geometry)(gaussians)
    build = jax.jit(functools.partial(tiles.update, cutoff=cutoff))
    update, _ = reference.time_ms(build, placed, lists, jnp.float32(0.5))
  both = amortised = float("nan")
  if gradient:
    target = renderer.target(jnp.full((height, width, 3), 0.5))
    loss = lambda gaussians, neighbors: jnp.mean(jnp.square(draw(gaussians, neighbors) - target))
    both, first_both = reference.time_ms(jax.jit(jax.value_and_grad(loss)), gaussians, neighbors)
    first, amortised = first + first_both, both + update / REBUILD_EVERY
  assert lists is not None
  pairs = int(lists.required[1])
  return {
    "renderer": drawn_by,
    "blend": blend.name,
    "height": height,
    "width": width,
    "num_gaussians": num_gaussians,
    "forward_ms": forward,
    "value_and_grad_ms": both,
    "update_ms": update,
    "amortised_ms": amortised,
    "evaluations_millions": pairs * tiles.TILE[0] * tiles.TILE[1] / 1e6,
    "compile_ms": first,
    "peak_memory_mb": runner.peak_memory() / 2**20,
    "ns_per_pixel": (both if gradient else forward) * 1e6 / (height * width),
  }


def measure_batch(images: int) -> dict:
  """Fitting steps of a stack of images under vmap: image steps a second, lists refreshed in each step."""
  import jax
  import jax.numpy as jnp

  from gaussjax.fitting import recipes
  from gaussjax.rendering import renderer

  keys = jax.random.split(jax.random.key(0), images)
  targets = jnp.stack([jax.random.uniform(key, (128, 128, 3)) for key in keys])
  fitter = recipes.make_fitter(recipes.Recipe(), 128, 128)
  params = [recipes.start(key, target, 200, recipes.Recipe()) for key, target in zip(keys, targets, strict=True)]
  like = renderer.allocate(params[0])
  for one in params:
    like = renderer.allocate(one, like=like)  # a capacity that holds them all
  states = [fitter.init(one)._replace(neighbors=renderer.allocate(one, like=like)) for one in params]
  stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
  step = jax.jit(jax.vmap(fitter.step, in_axes=(0, 0, None)))
  milliseconds, _ = reference.time_ms(step, stack, targets, jnp.float32(0))
  return {"images": images, "step_ms": milliseconds, "image_steps_per_second": images * 1e3 / milliseconds}


def roofline_figures(row: dict) -> dict:
  """The accumulated sum's times, and their ratios to the roofline program's on as many blocks."""
  figures = {"forward_ms": row["forward_ms"], "value_and_grad_ms": row["value_and_grad_ms"]}
  if FLAGS.roofline is None:
    return figures
  if not Path(FLAGS.roofline).is_file():
    raise ValueError(f"got --roofline={FLAGS.roofline}, which is not a file; expected a compiled program")
  blocks = roofline_blocks()
  done = subprocess.run([Path(FLAGS.roofline).resolve(), str(blocks)], capture_output=True, text=True, check=True)
  limit = json.loads(done.stdout)
  both = limit["forward_ms"] + limit["backward_ms"]
  return figures | {
    "roofline": limit,
    "forward_roofline_ratio": row["forward_ms"] / limit["forward_ms"],
    "value_and_grad_roofline_ratio": row["value_and_grad_ms"] / both,
  }


def roofline_blocks() -> int:
  """Over all 16 x 16 tiles, ceil(count / 16), count the Gaussians whose 3-sigma bounding box meets the tile."""
  import numpy as np

  from gaussjax import geometry
  from gaussjax.rendering import blends

  gaussians = reference.scene(512, 768, 10_000, blend=blends.accumulated_sum)
  a11, a21, a22 = np.asarray(geometry.geometry(gaussians).whitening).T
  reach = 3 / np.stack([a11, a22 / np.sqrt(1 + (a21 / a11) ** 2)], -1)  # 3 sqrt(Sigma_xx), 3 sqrt(Sigma_yy)
  means = np.asarray(gaussians.means)
  low = np.clip(np.floor((means - reach) / 16), 0, [48, 32]).astype(int)
  high = np.clip(np.floor((means + reach) / 16), -1, [47, 31]).astype(int)
  counts = np.zeros((32, 48), int)
  for (left, top), (right, bottom) in zip(low, high, strict=True):
    counts[top : bottom + 1, left : right + 1] += 1
  return int(np.ceil(counts / 16).sum())


def plot(path: Path, rows: list[dict]) -> None:
  """Time and pixels, both logarithmic."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6, 4), layout="constrained")
  axes = figure.add_subplot()
  pixels = [row["height"] * row["width"] / 1e6 for row in rows]
  axes.loglog(pixels, [row["forward_ms"] for row in rows], "o-", label="forward")
  axes.loglog(pixels, [row["value_and_grad_ms"] for row in rows], "s-", label="value and gradient")
  axes.set(xlabel="megapixels", ylabel="ms", title="Reference scene, N in proportion to the pixels")
  axes.grid(alpha=0.3, which="both")
  axes.legend()
  figure.savefig(path, dpi=110)


def _short(value) -> str:
  return f"{value:.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
