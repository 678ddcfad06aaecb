"""What the parts of the codec are worth: bits of each field, dB lost to quantisation, what layers cost and show.

  python -m experiments.codec_levers --images=DIR --num_gaussians=3000 --name=codec_levers

keeps a row for each image in experiments/results/NAME.jsonl, goes on where it stopped (with --fresh rows of
another commit are measured again), prints the table and the commits of its rows, and draws NAME.png. `plain`
is without the lever: positions in any order, all angles alike, the other fields by the entropy of their own
histogram (whose table a file would have to hold besides); rounding to the nearest codes at once.
The second table is of the same fit in files of one to four layers: their sizes, and the PSNR of each prefix.
"""

import math
import statistics
from pathlib import Path

from absl import flags

from experiments import rowfile, runner

FLAGS = flags.FLAGS
KODAK = rowfile.RESULTS / "codec_levers.jsonl"  # rows that a stage shares
FIELDS = ("position", "weight", "scale", "turn", "color")
LAYERS = (1, 2, 3, 4)
LAYER_HEADER = ("layers", "bytes", *(f"dB after {n}" for n in LAYERS))


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("images", str(runner.PHOTOGRAPH), "An image file, or a folder of them.")
  flags.DEFINE_integer("num_gaussians", 3000, "N.", lower_bound=1)
  runner.define_effort_flag()
  runner.define_engine_flags()
  flags.DEFINE_bool("fresh", False, "Measure again what was measured on another commit.")
  flags.DEFINE_string("name", None, "Names the rows' file.", required=True)
  flags.DEFINE_string("results_dir", str(rowfile.RESULTS), "Where rows and plot go.")


def main() -> int:
  """Measures what has no row yet, then summarises."""
  path = Path(FLAGS.results_dir) / f"{FLAGS.name}.jsonl"
  path.parent.mkdir(parents=True, exist_ok=True)
  rows: list[rowfile.Row] = []
  source, images = rowfile.source(fresh=FLAGS.fresh), runner.image_files(FLAGS.images)
  of = FLAGS.num_gaussians, FLAGS.effort
  calls = [(wanted(image, *of), (image.absolute(), *of)) for image in images]
  runner.measure_by_workers(path, measure, calls, fresh=FLAGS.fresh)
  with runner.interruptible() as requested:
    for image in images:
      if requested():
        raise runner.InterruptedFitError(f"{len(rows)} rows done; the same command goes on from here")
      rows.append(row_of(path, image, *of, source))
      print(f"{image.name}: {rows[-1]['psnr']}", flush=True)
  print(rowfile.commits(source.commits))
  summarise(rows, path.with_suffix(".png"))
  return 0


def row_of(path: Path, image: Path, num_gaussians: int, effort: int, rows: rowfile.Source) -> rowfile.Row:
  """The row of an image, from the file or measured now and appended to it."""
  key, made = wanted(image, num_gaussians, effort), lambda: measure(image, num_gaussians, effort)
  return rowfile.kept(path, key, made, rows)


def wanted(image: Path, num_gaussians: int, effort: int) -> rowfile.Row:
  """What the row of this image is of."""
  return {"image": image.name, "num_gaussians": num_gaussians, "effort": effort}


def measure(path: Path, num_gaussians: int, effort: int) -> rowfile.Row:
  """The row of one image."""
  import gaussjax
  from gaussjax import startup
  from gaussjax.gjx import container, grids, packing, search

  startup.release_programs()
  image = gaussjax.read_image(path)
  stages = search.stages(image, num_gaussians, effort=effort)
  contents = container.read(packing.pack(stages.gaussians, stages.steps))
  layer, steps = contents.layers[0], contents.header.steps
  count, coded = len(layer.minor), container.field_bits(contents)
  return {
    "plain": plain_bits(layer, grids.grid(steps), image.shape),
    "coded": {name: coded.get(name, 0.0) / count for name in FIELDS},
    "psnr": {"fitted": stages.fitted, "plain": stages.nearest, "coded": stages.quantized},
    "layers": {str(layers): prefixes(stages, layers, image) for layers in LAYERS},
  }


def prefixes(stages, layers: int, image) -> list[tuple[int, float]]:
  """(bytes, dB at 8 bits) of what can be drawn when each layer of a file is whole."""
  import jax.numpy as jnp

  from gaussjax.gjx import container, packing
  from gaussjax.quality import metrics

  data = packing.pack(stages.gaussians, stages.steps, layers=layers)
  drawn, end = [], len(container.SIGNATURE)
  for name, size in container.read(data).sizes:
    end += size
    if name.startswith("layer"):
      picture = packing.at_8_bits(packing.decode(data[:end], partial=True)[0])
      drawn.append((end, float(metrics.psnr(jnp.asarray(picture), image))))
  return drawn


def plain_bits(layer, grid, shape: tuple[int, ...]) -> dict[str, float]:
  """Bits a Gaussian of each field, of codes on a `grid`, without what the coder knows of its neighbours."""
  import numpy as np

  from gaussjax.gjx import grids

  side = grid.position * 2**grids.SPLIT
  feature = grids.known(layer, grid).features
  cells = math.prod((1 + 2 * grids.MARGIN) * length / side for length in shape[:2])
  return {
    "position": math.log2(cells) + float(np.mean(grids.part_bits(feature))),
    "weight": entropy(layer.weights),
    "scale": entropy(layer.minor) + entropy(layer.ratio),
    "turn": float(np.mean(np.log2(grids.bins(grid, feature)))),
    "color": sum(entropy(channel) for channel in layer.colors.T),
  }


def entropy(values) -> float:
  """Bits a value of the histogram of these."""
  import numpy as np

  _, counts = np.unique(values, return_counts=True)
  shares = counts / counts.sum()
  return float(-np.sum(shares * np.log2(shares)))


def summarise(rows: list[rowfile.Row], plot: Path) -> None:
  """Prints the table of means and draws it."""
  from gaussjax import report

  mean = lambda kind, name: statistics.mean(row[kind].get(name, 0.0) for row in rows)  # of weights, before them
  bits = {name: (mean("plain", name), mean("coded", name)) for name in FIELDS}
  bits["all"] = (sum(plain for plain, _ in bits.values()), sum(coded for _, coded in bits.values()))
  table = [(name, f"{plain:.2f}", f"{coded:.2f}", f"{coded - plain:+.2f}") for name, (plain, coded) in bits.items()]
  print(report.table(table, ("bits a Gaussian", "plain", "coded", "")))
  fitted, plain, made_good = (mean("psnr", name) for name in ("fitted", "plain", "coded"))
  print(
    f"quantising, mean of {len(rows)} images: {fitted:.2f} dB before, {plain - fitted:+.2f} dB at once, ", end=""
  )
  print(f"{made_good - fitted:+.2f} dB in shares, each made good by the rest")
  print(report.table(layer_rows([row["layers"] for row in rows if "layers" in row]), LAYER_HEADER))
  try:
    report.write_bars(plot, bits, ("plain", "coded"), "bits a Gaussian")
    print(f"plot in {plot}")
  except ImportError:
    print("plot left out: matplotlib is missing (pip install 'gaussjax[plots]')")


def layer_rows(images: list[dict[str, list]]) -> list[tuple[str, ...]]:
  """Means over images, for each number of layers: the file's size over that of one layer, the prefixes' PSNRs."""
  rows = []
  for layers in images[0] if images else ():
    cost = statistics.mean(one[layers][-1][0] / one["1"][-1][0] for one in images) - 1
    drawn = [statistics.mean(one[layers][n][1] for one in images) for n in range(int(layers))]
    shown = [f"{psnr:.2f}" for psnr in drawn] + [""] * (len(LAYERS) - len(drawn))
    rows.append((layers, f"{cost:+.1%}", *shown))
  return rows


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
