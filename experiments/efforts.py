"""What each effort brings: seconds, and bytes at equal PSNR against the default, image by image.

  python -m experiments.benchmark_encode --images=DIR --each --efforts=0,1,2,3,4,5,6,7,8,9 --bpp=0.1,0.2,0.4 \\
    --name=efforts
  python -m experiments.efforts

prints the table of the rows that the first command made, and draws NAME_levels.png.
"""

import statistics
from pathlib import Path

from absl import flags

from experiments import curves, rowfile, runner

FLAGS = flags.FLAGS


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("name", "efforts", "Names the rows' file.")
  flags.DEFINE_string("results_dir", str(rowfile.RESULTS), "Where rows are and the plot goes.")


Runs = dict[tuple[int, float], list[dict]]  # of each effort and rate: what came of each picture, in one order


def runs(rows: list[rowfile.Row]) -> Runs:
  """The last runs of each effort and rate."""
  found: Runs = {}
  own = [row for row in rows if row["each"] and not row["code"]]
  for row in rowfile.latest(own, ("size", "effort", "bpp", "cores")):
    height, width, _ = row["size"]
    marked = [
      run | {"bpp": 8 * run["bytes"] / (height * width), "warm": i > 0} for i, run in enumerate(row["runs"])
    ]
    found.setdefault((row["effort"], row["bpp"]), []).extend(marked)
  return found


def compared(rows: list[rowfile.Row], default: int) -> list[tuple]:
  """(effort, bytes in percent against the default's, then dB and warm seconds at each rate) of each effort."""
  found = runs(rows)
  rates = sorted({bpp for _, bpp in found})
  efforts = sorted({effort for effort, _ in found})
  whole = [effort for effort in efforts if all((effort, bpp) in found for bpp in rates)]
  curve = lambda effort, image: [(run["bpp"], run["psnr"]) for run in (found[effort, b][image] for b in rates)]
  table = []
  for effort in whole:
    images = range(len(found[effort, rates[0]]))
    saved = [curves.bd_rate(curve(effort, image), curve(default, image)) or 0.0 for image in images]
    means = [statistics.mean(run["psnr"] for run in found[effort, bpp]) for bpp in rates]
    warm = [statistics.median(run["seconds"] for run in found[effort, bpp] if run["warm"]) for bpp in rates]
    table.append((effort, statistics.mean(saved), *means, *warm))
  return table


def main() -> int:
  """Prints the table and draws it."""
  from gaussjax import report
  from gaussjax.gjx import encoding

  path = Path(FLAGS.results_dir) / f"{FLAGS.name}.jsonl"
  rows = rowfile.read(path)
  if not any(row["each"] and row["effort"] == encoding.DEFAULT_EFFORT for row in rows):
    raise ValueError(f"got {path} without rows of effort {encoding.DEFAULT_EFFORT}, expected those of --each")
  rates = sorted({bpp for _, bpp in runs(rows)})
  table = compared(rows, encoding.DEFAULT_EFFORT)
  head = ("effort", "bytes, %", *(f"dB at {rate:g}" for rate in rates), *(f"s at {rate:g}" for rate in rates))
  figures = lambda row: [f"{x:.2f}" for x in row[2:]]
  print(report.table([(str(row[0]), f"{row[1]:+.1f}", *figures(row)) for row in table], head))
  drawn = path.with_name(f"{FLAGS.name}_levels.png")
  draw(table, len(rates), drawn)
  print(drawn)
  return 0


def draw(table: list[tuple], rates: int, path: Path) -> None:
  """Bytes at equal PSNR over seconds."""
  from matplotlib import pyplot

  figure, axis = pyplot.subplots(figsize=(6, 4), layout="constrained")
  seconds = [statistics.mean(row[2 + rates :]) for row in table]
  axis.plot(seconds, [row[1] for row in table], "o-")
  for at, row in zip(seconds, table, strict=True):
    axis.annotate(str(row[0]), (at, row[1]), textcoords="offset points", xytext=(5, 4))
  axis.set_xscale("log")
  axis.set_xlabel("seconds an encoding")
  axis.set_ylabel("bytes at equal PSNR against the default effort, %")
  figure.savefig(path, dpi=150)
  pyplot.close(figure)


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
