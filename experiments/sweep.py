"""Fits many images with many settings and keeps one row of figures for each pair.

  python -m experiments.sweep --images=DIR --num_gaussians=5000,10000 --variants=balanced,random --name=kodak

appends to experiments/results/NAME.jsonl, and goes on where it stopped: pairs that have a row are skipped
(with --fresh only if it is of this commit), and a fit that was interrupted goes on from its checkpoint. At
the end, or with --summary at once, it prints the tables of each pair's last row (means of all images, of the
odd and of the even numbered ones; seconds to given PSNRs), says which commits those are of, and draws
NAME.png and the page NAME.html, with a row a fit; small pictures for it are in NAME-pictures.
"""

import contextlib
import functools
import itertools
import re
import statistics
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, cast

from absl import flags

from experiments import rowfile, runner, thumbnails, variants

FLAGS = flags.FLAGS
ACCEPTANCE = rowfile.RESULTS / "acceptance.jsonl"  # rows of the stages
TARGETS = (28, 30, 32, 35)  # dB


class Setting(NamedTuple):
  """What a row was fitted with, apart from the image."""

  variant: str
  num_gaussians: int
  seed: int
  steps: int | None  # None: by seconds
  seconds: float | None  # the number of steps that take about so long


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("images", str(runner.PHOTOGRAPH), "An image file, or a folder of them.")
  flags.DEFINE_list("num_gaussians", ["5000"], "N, one or more.")
  flags.DEFINE_list("variants", ["balanced"], f"One or more of {', '.join(variants.NAMES)}.")
  flags.DEFINE_list("seeds", ["0"], "One or more.")
  flags.DEFINE_integer("steps", None, "Steps of each fit; without it the recipe's.", lower_bound=1)
  flags.DEFINE_float("seconds", None, "Instead of steps: as many steps as take about so long.", lower_bound=1)
  flags.DEFINE_string("name", None, "Names the rows' file.", required=True)
  flags.DEFINE_string("results_dir", str(rowfile.RESULTS), "Where rows and plot go.")
  flags.DEFINE_bool("fresh", False, "Measure again what was measured on another commit.")
  runner.define_engine_flags()
  flags.DEFINE_bool("summary", False, "Fit nothing: summarise the rows that are there.")


def main() -> int:
  """Fits what has no row yet, then summarises."""
  images, settings = runner.image_files(FLAGS.images), settings_from_flags()
  path = Path(FLAGS.results_dir) / f"{FLAGS.name}.jsonl"
  if not FLAGS.summary:
    path.parent.mkdir(parents=True, exist_ok=True)
    fit_all(path, images, settings, rowfile.source(fresh=FLAGS.fresh))
  rows = rowfile.read(path)
  if not rows:
    raise ValueError(f"{path} holds no rows; run without --summary first")
  summarise(rows, path.with_suffix(".png"))
  print(f"rows in {path}, plots in {path.with_suffix('.png')}")
  return 0


def settings_from_flags() -> list[Setting]:
  """All combinations that the flags ask for. Raises ValueError."""
  if FLAGS.steps is not None and FLAGS.seconds is not None:
    raise ValueError("got --steps and --seconds, expected one of them")
  unknown = set(FLAGS.variants) - set(variants.NAMES)
  if unknown:
    raise ValueError(f"got --variants={','.join(sorted(unknown))}, expected some of {', '.join(variants.NAMES)}")
  counts, seeds = integers("num_gaussians", least=1), integers("seeds", least=0)
  combined = itertools.product(FLAGS.variants, counts, seeds)
  return [Setting(*values, FLAGS.steps, FLAGS.seconds) for values in combined]


def integers(flag: str, *, least: int) -> list[int]:
  """The numbers of a list flag. Raises ValueError."""
  words: list[str] = FLAGS[flag].value or []
  if not all(re.fullmatch(r"\d+", word) and int(word) >= least for word in words):
    raise ValueError(f"got --{flag}={','.join(words)}, expected whole numbers of at least {least}")
  return [int(word) for word in words]


def fit_all(path: Path, images: list[Path], settings: list[Setting], rows: rowfile.Source) -> None:
  """A row for each pair that has none, written as soon as it is measured."""
  pairs = list(itertools.product(images, settings))
  drawn = thumbnails.folder_of(path.absolute())
  calls = [
    (wanted(*pair), (pair[0].absolute(), tuple(pair[1]), checkpoints_of(path, *pair), drawn)) for pair in pairs
  ]
  runner.measure_by_workers(path, measure_whole, calls, fresh=rows.fresh)
  there = rowfile.read(path)
  left = [pair for pair in pairs if rowfile.find(there, wanted(*pair), fresh=rows.fresh) is None]
  for index, (image, setting) in enumerate(left):
    print(f"{index + 1}/{len(left)}: {image.name} {setting}", flush=True)
    row_of(path, image, setting, rows)


def wanted(image: Path, setting: Setting) -> rowfile.Row:
  """What the row of this image and setting is of."""
  return {"image": image.name, "setting": setting._asdict()}


def row_of(path: Path, image: Path, setting: Setting, rows: rowfile.Source) -> rowfile.Row:
  """The row of an image and setting, from the file or fitted now and appended to it."""
  return rowfile.kept(path, wanted(image, setting), lambda: fitted(path, image, setting), rows)


def fitted(path: Path, image: Path, setting: Setting) -> rowfile.Row:
  """The row of a fit, whose checkpoint is kept until it is done."""
  folder = checkpoints_of(path, image, setting)
  with runner.interruptible() as requested:
    row = measure(image, setting, folder, requested, thumbnails.folder_of(path))
  if row is None:
    raise runner.InterruptedFitError(
      "interrupted; the rows so far are kept, and the same command goes on from here"
    )
  print(f"  {image.name} {setting.variant}: {row['psnr']:.3f} dB in {row['seconds']:.1f} s", flush=True)
  return row


def checkpoints_of(path: Path, image: Path, setting: Setting) -> Path:
  """Where the checkpoints of a fit are, beside the rows' file; another commit begins anew."""
  fit = "-".join(map(str, (image.stem, *setting, rowfile.commit())))
  return path.parent.absolute() / f".{path.stem}-checkpoint" / fit


def measure_whole(path: Path, setting: tuple, folder: Path, drawn: Path | None = None) -> rowfile.Row:
  """The row of one fit by a worker, which is not interrupted but ended, and whose checkpoint then stays."""
  return cast(rowfile.Row, measure(path, Setting(*setting), folder, lambda: False, drawn))


def measure(path: Path, setting: Setting, folder: Path, requested, drawn: Path | None = None) -> rowfile.Row | None:
  """The row of one fit, or None if it was interrupted; small pictures of it go to the folder `drawn`."""
  import jax.numpy as jnp

  import gaussjax
  from gaussjax import startup
  from gaussjax.fitting import checkpoints
  from gaussjax.quality import metrics

  startup.release_programs()
  image, count, seed = gaussjax.read_image(path), setting.num_gaussians, setting.seed
  fit = lambda **more: variants.fit(setting.variant, image, num_gaussians=count, seed=seed, **more)
  steps = setting.steps
  if setting.seconds is not None:
    paced = folder.with_suffix(".steps")  # as measured at first, so that a fit that goes on keeps its schedule
    if not paced.is_file():
      trial = fit(stop=gaussjax.Stop(max_steps=100)).history
      pace = (trial[-1]["seconds"] - trial[3]["seconds"]) / (trial[-1]["step"] - trial[3]["step"])
      paced.parent.mkdir(parents=True, exist_ok=True)
      paced.write_text(str(max(10, round(setting.seconds / pace / 10) * 10)))
    steps = int(paced.read_text())
  stop = gaussjax.Stop(max_steps=steps, requested=requested)
  result = fit(stop=stop, checkpoint=gaussjax.Checkpoint(folder))
  if requested():
    return None
  checkpoints.discard(folder)
  folder.with_suffix(".steps").unlink(missing_ok=True)
  with contextlib.suppress(OSError):  # other fits have theirs beside it
    folder.parent.rmdir()
  render, target = gaussjax.render(result.gaussians), jnp.asarray(image)
  result.metrics.update(metrics.perceptual(render, target))
  thumbnails.keep(drawn, name_of(path.name, setting), image, render)
  figures = {name: value for name, value in result.metrics.items() if name not in ("step", "seconds")}
  return {
    "num_gaussians": len(result.gaussians.means),
    "steps": int(result.state.step),
    "seconds": result.history[-1]["seconds"],
    **figures,
    "curve": thin([(record["step"], record["seconds"], record["psnr"]) for record in result.history]),
  }


def name_of(image: str, setting: Setting) -> str:
  """By which the pictures of a fit are told from others."""
  return "-".join(map(str, (Path(image).stem, *setting)))


def thin(curve: list[tuple[float, float, float]]) -> list[tuple[float, ...]]:
  """Each point at which the PSNR rises by 0.2 dB over the last one kept, and the last."""
  kept = [curve[0]]
  for point in curve[1:]:
    if point[2] >= kept[-1][2] + 0.2:
      kept.append(point)
  return [tuple(round(value, 3) for value in point) for point in [*kept, curve[-1]]]


def summarise(rows: list[rowfile.Row], plot: Path) -> None:
  """Prints the tables, draws the plots and writes the page."""
  from gaussjax import files, report

  groups: dict[tuple, list[rowfile.Row]] = {}
  last = rowfile.latest(rows, ("image", "setting"))
  print(rowfile.commits(Counter(map(rowfile.commit_of, last))))
  for row in last:
    setting = Setting(**row["setting"])
    groups.setdefault((setting.variant, setting.num_gaussians, setting.steps, setting.seconds), []).append(row)
  table = []
  for (variant, count, _, _), members in groups.items():
    psnr = [row["psnr"] for row in members]
    odd, even = ([row["psnr"] for row in members if rowfile.number(row) % 2 == rest] for rest in (1, 0))
    means = [f"{statistics.mean(values):.2f}" if values else "-" for values in (psnr, odd, even)]
    spread = [f"{statistics.stdev(psnr):.2f}" if len(psnr) > 1 else "-", spread_of_seeds(members)]
    seconds = [row["seconds"] for row in members]
    ssim = statistics.mean(row["ssim"] for row in members)
    times = f"{statistics.mean(seconds):.0f} / {max(seconds):.0f}"
    table.append(
      (variant, str(count), str(len(members)), *means, *spread, f"{min(psnr):.2f}", f"{ssim:.4f}", times)
    )
  columns = ("variant", "N", "rows", "dB", "odd", "even", "sd", "of seeds", "least", "SSIM", "s mean / max")
  print(report.table(table, columns))
  reached = [
    (variant, str(count), *(time_to(members, target) for target in TARGETS))
    for (variant, count, _, _), members in groups.items()
  ]
  print(report.table(reached, ("seconds to", "N", *(f"{target} dB" for target in TARGETS))))
  try:
    report.write_sweep(plot, {f"{key[0]}, N = {key[1]}": members for key, members in groups.items()})
  except ImportError:
    print("plot left out: matplotlib is missing (pip install 'gaussjax[plots]')")
  files.write_whole(plot.with_suffix(".html"), page(last, groups, plot).encode())


def page(rows: list[rowfile.Row], groups: dict[tuple, list[rowfile.Row]], plot: Path) -> str:
  """The report: a row a fit, and the mean curve of each group."""
  from gaussjax import report
  from gaussjax.web import reports

  folder, lines = thumbnails.folder_of(plot), []
  for row in rows:
    setting = Setting(**row["setting"])
    pair = thumbnails.pair(folder, name_of(row["image"], setting), f"{row['image']} by {setting.variant}")
    given = setting.variant, setting.num_gaussians, setting.seed
    lines.append((row["image"], *given, row["psnr"], row["ssim"], row["seconds"], pair))
  columns = ("image", "variant", "N", "seed", "dB", "SSIM", "seconds", "picture, wiped to its original")
  curve = functools.partial(report.mean_curve, first=0.5, least=1, count=40)
  means = {f"{key[0]}, N = {key[1]}": curve(members) for key, members in groups.items()}
  return reports.report(
    f"Sweep {plot.stem}",
    [
      ("Mean PSNR by time", reports.Plot("seconds, compilation apart", "PSNR (dB)", means, log_x=True)),
      ("Fits", reports.Table(columns, lines)),
      ("Rows", rowfile.commits(Counter(map(rowfile.commit_of, rows)))),
    ],
  )


def spread_of_seeds(rows: list[rowfile.Row]) -> str:
  """The standard deviation of dB over the seeds of an image, mean over the images that have several."""
  by_image: dict[str, list[float]] = {}
  for row in rows:
    by_image.setdefault(row["image"], []).append(row["psnr"])
  found = [statistics.stdev(psnr) for psnr in by_image.values() if len(psnr) > 1]
  return f"{statistics.mean(found):.2f}" if found else "-"


def time_to(rows: Iterable[rowfile.Row], target: float) -> str:
  """Median seconds to a PSNR over the fits that reach it, and how many do."""
  firsts = [next((point[1] for point in row["curve"] if point[2] >= target), None) for row in rows]
  seconds = [first for first in firsts if first is not None]
  return (
    f"{statistics.median(seconds):.1f} ({len(seconds)} of {len(firsts)})" if seconds else f"- (0 of {len(firsts)})"
  )


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
