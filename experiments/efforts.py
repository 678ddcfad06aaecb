"""What each effort brings: seconds, and bytes at equal PSNR against the default, image by image.

  python -m experiments.benchmark_encode --images=DIR --each --efforts=0,1,2,3,4,5,6,7,8,9 \\
    --bpp=0.1 --bpp=0.2 --bpp=0.4 --name=efforts
  python -m experiments.efforts

prints the table of the rows that the first command made, and draws NAME_levels.png. With --against=avif it prints
the bytes at equal PSNR against that codec at its best instead, whose rows `rate_distortion` made (--rows).
"""

import math
import statistics
from pathlib import Path

from absl import flags

from experiments import benchmark_encode, curves, rate_distortion, rate_report, rowfile, runner

FLAGS = flags.FLAGS


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("name", "efforts", "Names the rows' file.")
  flags.DEFINE_string("against", "", "A family of codecs; empty for the default effort.")
  flags.DEFINE_string("rows", "kodak_rd", "Names the file of that codec's rows.")
  flags.DEFINE_string("results_dir", str(rowfile.RESULTS), "Where rows are and the plot goes.")


Runs = dict[tuple[int, float], list[dict]]  # of each effort and rate: what came of each picture, in one order


def runs(rows: list[rowfile.Row]) -> Runs:
  """The last runs of each effort, as it is now, and rate; by the steps of the rows, not by the number they had."""
  from gaussjax.gjx import encoding

  found: Runs = {}
  levels = {tuple(benchmark_encode.steps_of(effort)): effort for effort in range(len(encoding.EFFORTS))}
  own = [row for row in rows if row["each"] and not row["code"] and tuple(row.get("steps", ())) in levels]
  for row in rowfile.latest(own, ("size", "steps", "bpp")):
    effort = levels[tuple(row["steps"])]
    height, width, _ = row["size"]
    names = row.get("images") or [None] * len(row["runs"])
    marked = [
      run | {"image": name, "bpp": 8 * run["bytes"] / (height * width), "warm": i > 0}
      for i, (run, name) in enumerate(zip(row["runs"], names, strict=True))
    ]
    found.setdefault((effort, row["bpp"]), []).extend(marked)
  return found


def compared(found: Runs, rates: list[float], default: int) -> list[tuple]:
  """(effort, bytes in percent against the default's, then dB and warm seconds at each rate) of each effort.

  Of those that have all the rates. Raises ValueError for fewer than two rates, and if the default has not all.
  """
  whole = [e for e in sorted({effort for effort, _ in found}) if all((e, bpp) in found for bpp in rates)]
  if len(rates) < 2 or default not in whole:
    raise ValueError(f"got rows of the rates {rates}, expected two at least, and effort {default} at each of them")
  curve = lambda effort, image: [(run["bpp"], run["psnr"]) for run in (found[effort, b][image] for b in rates)]
  table = []
  for effort in whole:
    images = range(len(found[effort, rates[0]]))
    saved = [curves.bd_rate(curve(effort, image), curve(default, image)) for image in images]
    means = [statistics.mean(run["psnr"] for run in found[effort, bpp]) for bpp in rates]
    warm = [statistics.median(run["seconds"] for run in found[effort, bpp] if run["warm"]) for bpp in rates]
    table.append((effort, statistics.mean(math.nan if rate is None else rate for rate in saved), *means, *warm))
  return table


def against(found: Runs, rows: list[rowfile.Row], codec: str) -> list[tuple[str, ...]]:
  """A line of `rate_report` for each effort whose rows say which images they are of, against a family of codecs."""
  ours = [
    {"image": run["image"], "codec": rate_report.OURS, "effort": effort, "bpp": run["bpp"], "psnr": run["psnr"]}
    for (effort, _), of in sorted(found.items())
    for run in of
    if run["image"]
  ]
  both = ours + [row for row in rows if rate_report.family(row) == codec]
  labels = dict.fromkeys(map(rate_report.label, ours))
  return [rate_report.against(both, label, codec, rate_report.PSNR) for label in labels]


def main() -> int:
  """Prints the table and draws it."""
  from gaussjax import report
  from gaussjax.gjx import encoding

  path = Path(FLAGS.results_dir) / f"{FLAGS.name}.jsonl"
  found = runs(rowfile.read(path))
  if FLAGS.against:
    theirs = rate_distortion.current(rowfile.read(path.with_name(f"{FLAGS.rows}.jsonl")))
    if FLAGS.against not in (names := rate_report.others(theirs)):
      raise ValueError(f"got --against={FLAGS.against}, expected one of {', '.join(names)}")
    lines = against(found, theirs, FLAGS.against)
    if not lines:
      raise ValueError(
        f"got {path}, whose rows name no image that {FLAGS.against} has rows of; measure it with --each"
      )
    print(report.table(lines, rate_report.HEAD))
    return 0
  rates = sorted({bpp for _, bpp in found})
  table = compared(found, rates, encoding.DEFAULT_EFFORT)
  head = ("effort", "bytes, %", *(f"dB at {rate:g}" for rate in rates), *(f"s at {rate:g}" for rate in rates))
  figures = lambda row: [f"{x:.2f}" for x in row[2:]]
  print(report.table([(str(row[0]), f"{row[1]:+.1f}", *figures(row)) for row in table], head))
  drawn = path.with_name(f"{FLAGS.name}_levels.png")
  draw(table, len(rates), drawn)
  print(drawn)
  return 0


def draw(table: list[tuple], rates: int, path: Path) -> None:
  """Bytes at equal PSNR over seconds, a point for each effort."""
  from gaussjax import report

  points = {f"effort {row[0]}": [(statistics.mean(row[2 + rates :]), row[1])] for row in table}
  seconds = [at for [(at, _)] in points.values()]
  metric = "bytes against the default, %"
  limits = min(seconds) / 1.5, max(seconds) * 1.5
  report.write_rates(path, {metric: points}, x="seconds an encoding", limits=limits, log_x=True)


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
