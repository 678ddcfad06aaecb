"""Our files against JPEG, JPEG 2000, WebP and AVIF: bytes on disk and PSNR of the 8-bit picture, image by image.

  python -m experiments.rate_distortion --images=DIR --name=kodak_rd

appends to experiments/results/NAME.jsonl a row for each image, codec and setting, and goes on where it
stopped; with --fresh rows of another commit are measured again, ours only. At the end, or with --summary at
once, it prints mean points and BD-rates of the last rows, says which commits those are of, and draws
NAME.png and the page NAME.html, with a row an image; small pictures for it are in NAME-pictures. An image's
BD-rate is by PCHIP on the logarithm of the rate, from points of LOW to HIGH bits a pixel, over the PSNRs that
both reach.
"""

import io
import itertools
import math
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

from absl import flags

from experiments import rowfile, runner, thumbnails

FLAGS = flags.FLAGS
OURS = "gaussjax"
KODAK = rowfile.RESULTS / "kodak_rd.jsonl"  # rows that a stage shares
LOW, HIGH = 0.07, 0.66  # bits a pixel
SHOWN = 0.2  # bits a pixel of the files whose pictures a report has
SETTINGS: dict[str, tuple[float, ...]] = {
  OURS: (0.08, 0.12, 0.2, 0.3, 0.45, 0.6),  # bpp asked for
  "jpeg": (5, 8, 10, 14, 20, 28, 38, 50, 62, 75),  # quality
  "jpeg2000": (300, 200, 130, 90, 64, 48, 40, 32),  # compression ratio
  "webp": (0, 5, 12, 25, 40, 55, 68, 78),  # quality
  "avif": (5, 12, 20, 28, 36, 44, 52, 60),  # quality
}
# GaussianImage (ECCV 2024), as published: bits a pixel, dB, means over Kodak.
GAUSSIAN_IMAGE = ((0.118, 24.66), (0.147, 25.04), (0.432, 27.38), (0.717, 28.72))


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("images", str(runner.PHOTOGRAPH), "An image file, or a folder of them.")
  flags.DEFINE_list("codecs", list(SETTINGS), f"Some of {', '.join(SETTINGS)}.")
  flags.DEFINE_integer("effort", 4, "Effort of our encoder, 0 to 9.", lower_bound=0, upper_bound=9)
  flags.DEFINE_string("name", None, "Names the rows' file.", required=True)
  flags.DEFINE_string("results_dir", str(rowfile.RESULTS), "Where rows and plot go.")
  runner.define_engine_flags()
  flags.DEFINE_bool("fresh", False, "Encode again what of ours was measured on another commit.")
  flags.DEFINE_bool("summary", False, "Encode nothing: summarise the rows that are there.")


def main() -> int:
  """Encodes what has no row yet, then summarises."""
  unknown = set(FLAGS.codecs) - set(SETTINGS)
  if unknown:
    raise ValueError(f"got --codecs={','.join(sorted(unknown))}, expected some of {', '.join(SETTINGS)}")
  path = Path(FLAGS.results_dir) / f"{FLAGS.name}.jsonl"
  if not FLAGS.summary:
    path.parent.mkdir(parents=True, exist_ok=True)
    encode_all(path, runner.image_files(FLAGS.images), rowfile.source(fresh=FLAGS.fresh))
  # A stage of acceptance keeps rows of other rates here, of some of the images.
  last = rowfile.latest(rowfile.read(path), ("image", "codec", "setting", "effort"))
  rows = [row for row in last if row["setting"] in SETTINGS[row["codec"]]]
  if not rows:
    raise ValueError(f"{path} holds no rows; run without --summary first")
  summarise(rows, path.with_suffix(".png"))
  return 0


def encode_all(path: Path, images: list[Path], rows: rowfile.Source) -> None:
  """A row for each image, codec and setting that has none, written as soon as it is measured."""
  pairs = [(codec, setting) for codec in FLAGS.codecs for setting in SETTINGS[codec]]
  tasks = [
    (image, codec, setting, FLAGS.effort if codec == OURS else None)
    for image, (codec, setting) in itertools.product(images, pairs)
  ]
  left = missing(path, tasks, rows)
  drawn = thumbnails.folder_of(path.absolute())
  calls = [(wanted(*task), (task[0].absolute(), *task[1:], drawn)) for task in left]
  runner.measure_by_workers(path, measure, calls, fresh=rows.fresh)
  left = missing(path, tasks, rows)
  began = time.monotonic()
  with runner.interruptible() as requested:
    for index, (image, codec, setting, effort) in enumerate(left):
      if requested():
        raise runner.InterruptedFitError(f"{index} of {len(left)} rows done; the same command goes on from here")
      row = row_of(path, image, codec, setting, effort, rows)
      eta = (time.monotonic() - began) / (index + 1) * (len(left) - index - 1)
      figures = f"{row['bpp']:.4f} bpp  {row['psnr']:.2f} dB  {row['seconds']:.1f} s"
      print(f"{index + 1}/{len(left)} {image.name} {codec} {setting:g}: {figures}  ETA {eta:.0f} s", flush=True)


def missing(path: Path, tasks: list[tuple], rows: rowfile.Source) -> list[tuple]:
  """The tasks (image, codec, setting, effort) that have no row."""
  there = rowfile.read(path)
  return [task for task in tasks if rowfile.find(there, wanted(*task), fresh=of_ours(task[1], rows).fresh) is None]


def row_of(
  path: Path, image: Path, codec: str, setting: float, effort: int | None, rows: rowfile.Source
) -> rowfile.Row:
  """The row of an image, codec and setting, from the file or measured now and appended to it."""
  key, made = (
    wanted(image, codec, setting, effort),
    lambda: measure(image, codec, setting, effort, thumbnails.folder_of(path)),
  )
  return rowfile.kept(path, key, made, of_ours(codec, rows))


def of_ours(codec: str, rows: rowfile.Source) -> rowfile.Source:
  """The source for rows of a codec: a commit of ours changes no other's files."""
  return rows if codec == OURS else rows._replace(fresh=False)


def wanted(image: Path, codec: str, setting: float, effort: int | None) -> rowfile.Row:
  """What the row of this image, codec and setting is of."""
  return {"image": image.name, "codec": codec, "setting": setting, "effort": effort}


def measure(path: Path, codec: str, setting: float, effort: int | None, drawn: Path | None = None) -> rowfile.Row:
  """The row of one file; small pictures of ours go to the folder `drawn`."""
  import numpy as np

  import gaussjax
  from gaussjax import image_io, startup

  startup.release_programs()
  image = gaussjax.read_image(path)
  began, count = time.monotonic(), None
  if effort is not None:
    data = gaussjax.encode(image, bpp=setting, effort=effort)
    seconds = time.monotonic() - began
    gaussians, _ = gaussjax.decode(data)
    decoded, count = image_io.as_uint8(gaussjax.render(gaussians)), len(gaussians.means)
    thumbnails.keep(drawn, f"{path.stem}-{setting:g}-{effort}", image, decoded / np.float32(255))
  else:
    data, decoded = classic(image_io.as_uint8(image), codec, setting)
    seconds = time.monotonic() - began
  error = np.mean((decoded.astype(np.float64) - image_io.as_uint8(image)) ** 2)
  return {
    "gaussians": count,
    "bytes": len(data),
    "bpp": 8 * len(data) / (image.shape[0] * image.shape[1]),
    "psnr": 20 * math.log10(255) - 10 * math.log10(max(float(error), 1e-9)),
    "seconds": seconds,
  }


def classic(pixels, codec: str, setting: float) -> tuple[bytes, Any]:
  """(the file's bytes, what they decode to) of another codec at its best."""
  import numpy as np
  from PIL import Image

  options: dict[str, dict[str, Any]] = {
    "jpeg": {"quality": int(setting), "optimize": True, "progressive": True, "subsampling": "4:2:0"},
    # Without mct=1 Pillow codes red, green and blue apart and loses 2 to 3 dB.
    "jpeg2000": {"irreversible": True, "mct": 1, "quality_mode": "rates", "quality_layers": [setting]},
    "webp": {"quality": int(setting), "method": 6},
    "avif": {"quality": int(setting), "speed": 4},
  }
  buffer = io.BytesIO()
  single = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
  Image.fromarray(single).save(buffer, format=codec.upper(), **options[codec])
  with Image.open(io.BytesIO(buffer.getvalue())) as decoded:
    return buffer.getvalue(), np.asarray(decoded).reshape(pixels.shape)


def bd_rate(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> float | None:
  """Mean difference of the rate at equal PSNR, in percent, of (bpp, dB) points; None if they do not overlap."""
  from scipy.interpolate import PchipInterpolator

  curves: list[tuple[list[float], list[float]]] = []
  for points in (ours, theirs):
    chosen: list[tuple[float, float]] = sorted(
      {round(psnr, 4): rate for rate, psnr in points if LOW <= rate <= HIGH}.items()
    )
    if len(chosen) < 2:
      return None
    curves.append(([psnr for psnr, _ in chosen], [math.log(rate) for _, rate in chosen]))
  low, high = max(c[0][0] for c in curves), min(c[0][-1] for c in curves)
  if low >= high:
    return None
  areas = [float(PchipInterpolator(psnr, rate).integrate(low, high)) for psnr, rate in curves]
  return 100 * (math.exp((areas[0] - areas[1]) / (high - low)) - 1)


def summarise(rows: list[rowfile.Row], plot: Path) -> None:
  """Prints the mean points and the BD-rates, draws the curves and writes the page."""
  from gaussjax import files, report

  labels = sorted({label(row) for row in rows})
  rows = of_common_images(rows)
  print(rowfile.commits(Counter(rowfile.commit_of(row) for row in rows if row["codec"] == OURS)))
  print(f"{len({row['image'] for row in rows})} images that every codec has all its points of")
  curves = {name: mean_points([row for row in rows if label(row) == name]) for name in labels}
  table = [
    (name, f"{setting:g}", f"{bpp:.3f}", f"{psnr:.2f}", n)
    for name in labels
    for setting, bpp, psnr, n in curves[name]
  ]
  print(report.table(table, ("codec", "setting", "bpp", "dB", "images")))
  ours = [name for name in labels if name.startswith(OURS)]
  print(
    f"\nBD-rate in percent, points of {LOW} to {HIGH} bpp, mean over images (odd / even numbered; images; worst)"
  )
  print(
    report.table(
      [against(rows, mine, other) for mine in ours for other in labels if other != mine],
      ("", "against", "all", "odd", "even", "images", "worst"),
    )
  )
  for mine in ours:
    published = bd_rate([(bpp, psnr) for _, bpp, psnr, _ in curves[mine]], list(GAUSSIAN_IMAGE))
    figure = "no overlap" if published is None else f"{published:.1f}"
    print(f"{mine} against GaussianImage's published means of all 24: {figure}")
  try:
    report.write_rates(plot, {name: [(bpp, psnr) for _, bpp, psnr, _ in curves[name]] for name in labels})
    print(f"plot in {plot}")
  except ImportError:
    print("plot left out: matplotlib is missing (pip install 'gaussjax[plots]')")
  files.write_whole(plot.with_suffix(".html"), page(rows, curves, plot).encode())


def page(rows: list[rowfile.Row], curves: dict[str, list], plot: Path) -> str:
  """The report: the mean curves, and a row an image with the BD-rates of ours against each other codec."""
  from gaussjax.web import reports

  mine = [name for name in curves if name.startswith(OURS)]
  others = [name for name in curves if not name.startswith(OURS)]
  points = lambda image, name: [(r["bpp"], r["psnr"]) for r in rows if r["image"] == image and label(r) == name]
  lines = []
  for image, name in itertools.product(sorted({row["image"] for row in rows}), mine):
    of = [row for row in rows if row["image"] == image and label(row) == name]
    near = min(of, key=lambda row: abs(row["bpp"] - SHOWN), default=None)
    if near is not None:
      stem = f"{Path(image).stem}-{near['setting']:g}-{near['effort']}"
      pair = thumbnails.pair(thumbnails.folder_of(plot), stem, f"{image} at {near['bpp']:.2f} bits a pixel")
      rates = [bd_rate(points(image, name), points(image, other)) for other in others]
      lines.append((image, name, near["bpp"], near["psnr"], *rates, pair))
  columns = ("image", "codec", "bpp", "dB", *(f"{other}, %" for other in others), "picture, wiped")
  means = {name: [(bpp, psnr) for _, bpp, psnr, _ in curves[name]] for name in curves}
  return reports.report(
    f"Rate and distortion, {plot.stem}",
    [
      ("Means over images", reports.Plot("bits a pixel", "PSNR (dB)", means)),
      (
        f"Images: ours near {SHOWN} bits a pixel, and BD-rates against others",
        reports.Table(columns, lines, digits=2),
      ),
    ],
  )


def of_common_images(rows: list[rowfile.Row]) -> list[rowfile.Row]:
  """The rows of images for which each codec has as many settings as it has for any: means are then of the same."""
  count = Counter((label(row), row["image"]) for row in rows)
  whole = {name: max(n for (other, _), n in count.items() if other == name) for name, _ in count}
  return [row for row in rows if all(count[name, row["image"]] == most for name, most in whole.items())]


def label(row: rowfile.Row) -> str:
  """A row's codec, ours with its effort."""
  return f"{row['codec']} effort {row['effort']}" if row["codec"] == OURS else row["codec"]


def mean_points(rows: list[rowfile.Row]) -> list[tuple[float, float, float, int]]:
  """(setting, mean bpp, mean dB, images) of each setting, by rate."""
  settings = {row["setting"]: [other for other in rows if other["setting"] == row["setting"]] for row in rows}
  mean = lambda members, name: statistics.mean(row[name] for row in members)
  points = [(setting, mean(of, "bpp"), mean(of, "psnr"), len(of)) for setting, of in settings.items()]
  return sorted(points, key=lambda point: point[1])


def against(rows: list[rowfile.Row], mine: str, other: str) -> tuple[str, ...]:
  """A line of the table of BD-rates."""
  points = lambda image, name: [(r["bpp"], r["psnr"]) for r in rows if r["image"] == image and label(r) == name]
  found = {}
  for row in rows:
    if label(row) == mine:
      rate = bd_rate(points(row["image"], mine), points(row["image"], other))
      if rate is not None:
        found[row["image"]] = (rate, rowfile.number(row))
  rates = [rate for rate, _ in found.values()]
  odd, even = ([rate for rate, number in found.values() if number % 2 == rest] for rest in (1, 0))
  means = [f"{statistics.mean(values):+.1f}" if values else "-" for values in (rates, odd, even)]
  return (mine, other, *means, str(len(rates)), f"{max(rates):+.1f}" if rates else "-")


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
