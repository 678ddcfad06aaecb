"""Tables, curves and the page of rows of `rate_distortion`.

Each image is compared with each codec by the BD-rate of each metric: over all qualities that both reach, and of
several settings of a codec the cheapest counts at each. Published curves are compared image by image where they
have points of images, and otherwise with ours averaged at equal slope too (`curves`).
"""

import itertools
import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from experiments import anchors, curves, rowfile, thumbnails

OURS, TUNE = "gaussjax", "psnr"  # our encoder, and what it is tuned for unless it is said
SHOWN = 0.2  # bits a pixel of the files whose pictures a report has
RATES = (0.12, 0.2, 0.3, 0.45, 0.6)  # bits a pixel at which published curves are shown
# GaussianImage (ECCV 2024), as published: bits a pixel, dB, means over Kodak.
GAUSSIAN_IMAGE = [(0.118, 24.66), (0.147, 25.04), (0.432, 27.38), (0.717, 28.72)]


class Metric(NamedTuple):
  """A metric of the rows, made so that more is better and that equal steps are alike to compare."""

  name: str
  label: str
  scale: Callable[[float], float]


METRICS = (
  Metric("psnr", "PSNR (dB)", lambda x: x),
  Metric("ms_ssim", "MS-SSIM (dB)", lambda x: -10 * math.log10(max(1 - x, 1e-9))),
  Metric("ssimulacra2", "SSIMULACRA 2", lambda x: x),
  Metric("lpips", "LPIPS (negated)", lambda x: -x),
  Metric("flip", "FLIP (negated)", lambda x: -x),
)
PSNR = METRICS[0]
HEAD = ("", "against", "by", "all", "odd", "even", "images", "worst")  # of the lines of `against`


def summarise(rows: list[rowfile.Row], plot: Path, published: Path | None = None) -> None:
  """Prints mean points, BD-rates and the comparison with published curves, draws the curves and writes the page."""
  from gaussjax import files, report

  labels = sorted({label(row) for row in rows})
  print(rowfile.commits(Counter(rowfile.commit_of(row) for row in rows if row["codec"] == OURS)))
  for name, needed in anchors.absent(set(anchors.USUAL) - set(labels)).items():
    print(f"{name}: no rows, needs {needed}")
  for name in sorted(set(anchors.USUAL) - set(labels) - set(anchors.absent(anchors.USUAL))):
    print(f"{name}: no rows, not measured yet")
  print(report.table(mean_table(rows, labels), ("codec", "setting", "bpp", *(m.name for m in METRICS), "images")))
  print("\nBD-rate in percent, all points that both reach, mean over images (odd / even numbered; images; worst);")
  print("of a codec's settings the cheapest at each quality counts")
  mine = [name for name in labels if name.startswith(OURS)]
  lines = [against(rows, name, other, metric) for name in mine for other in others(rows) for metric in METRICS]
  print(report.table(lines, HEAD))
  for name in mine:
    print_published(rows, name, published)
  try:
    report.write_rates(plot, {metric.label: mean_curves(rows, labels, metric) for metric in METRICS[:4]})
    print(f"plot in {plot}")
  except ImportError:
    print("plot left out: matplotlib is missing (pip install 'gaussjax[plots]')")
  files.write_whole(plot.with_suffix(".html"), page(rows, plot).encode())


def label(row: rowfile.Row) -> str:
  """A row's codec, ours with its effort and with what it is tuned for, if that is not PSNR."""
  if row["codec"] != OURS:
    return row["codec"]
  return f"{OURS} effort {row['effort']}" + ("" if tune(row) == TUNE else f", {tune(row)}")


def tune(row: rowfile.Row) -> str:
  """What a row of ours is tuned for; the first ones do not say."""
  return row.get("tune") or TUNE


def picture_name(row: rowfile.Row) -> str:
  """What the small picture of a row of ours is called, without its suffix."""
  name = f"{Path(row['image']).stem}-{row['setting']:g}-{row['effort']}"
  return name if tune(row) == TUNE else f"{name}-{tune(row)}"


def family(row: rowfile.Row) -> str:
  """The codec that a row's settings are of."""
  return anchors.ANCHORS[row["codec"]].family if row["codec"] in anchors.ANCHORS else label(row)


def others(rows: Iterable[rowfile.Row]) -> list[str]:
  """The families that are not ours."""
  return sorted({family(row) for row in rows if row["codec"] != OURS})


def points(rows: Iterable[rowfile.Row], metric: Metric) -> list[tuple[float, float]]:
  """(bpp, the metric on its scale) of the rows that have it."""
  return [(row["bpp"], metric.scale(row[metric.name])) for row in rows if row.get(metric.name) is not None]


def rate_against(rows: list[rowfile.Row], image: str, mine: str, other: str, metric: Metric) -> float | None:
  """The BD-rate of an image's files against a family's."""
  of = [row for row in rows if row["image"] == image]
  settings = sorted({row["codec"] for row in of if family(row) == other})
  theirs = [points((row for row in of if row["codec"] == codec), metric) for codec in settings]
  return curves.bd_rate(points((row for row in of if label(row) == mine), metric), *theirs)


def against(rows: list[rowfile.Row], mine: str, other: str, metric: Metric) -> tuple[str, ...]:
  """A line of the table of BD-rates."""
  of = {row["image"]: rowfile.number(row) for row in rows if label(row) == mine}
  found = {image: rate_against(rows, image, mine, other, metric) for image in of}
  rates = {image: rate for image, rate in found.items() if rate is not None}
  odd, even = ([rate for image, rate in rates.items() if of[image] % 2 == rest] for rest in (1, 0))
  means = [f"{statistics.mean(v):+.1f}" if v else "-" for v in (list(rates.values()), odd, even)]
  return (mine, other, metric.name, *means, str(len(rates)), f"{max(rates.values()):+.1f}" if rates else "-")


def mean_table(rows: list[rowfile.Row], labels: list[str]) -> list[tuple[str, ...]]:
  """A line for each codec and setting: means over the images that have it."""
  lines = []
  for name in labels:
    of = [row for row in rows if label(row) == name]
    for members in by_setting(of):
      figures = [mean(members, metric.name) for metric in METRICS]
      shown = ["-" if figure is None else f"{figure:.4g}" for figure in figures]
      rate = f"{statistics.mean(row['bpp'] for row in members):.3f}"
      lines.append((name, f"{members[0]['setting']:g}", rate, *shown, str(len(members))))
  return lines


def by_setting(rows: list[rowfile.Row]) -> list[list[rowfile.Row]]:
  """The rows of each setting, by rate."""
  settings = {row["setting"] for row in rows}
  groups = [[row for row in rows if row["setting"] == setting] for setting in settings]
  return sorted(groups, key=lambda members: statistics.mean(row["bpp"] for row in members))


def mean(rows: list[rowfile.Row], name: str) -> float | None:
  """The mean of a figure, None if not every row has it."""
  values = [row[name] for row in rows if row.get(name) is not None]
  return statistics.mean(values) if len(values) == len(rows) else None


def mean_curves(rows: list[rowfile.Row], labels: list[str], metric: Metric) -> dict[str, list[tuple[float, float]]]:
  """The mean point of each setting, over the images that every codec has as many settings of as of any."""
  whole = of_common_images(rows)
  found: dict[str, list[tuple[float, float]]] = {}
  for name in labels:
    groups = by_setting([row for row in whole if label(row) == name])
    means = [[statistics.mean(axis) for axis in zip(*points(members, metric), strict=True)] for members in groups]
    found[name] = [(rate, quality) for rate, quality in (pair for pair in means if pair)]
  return {name: curve for name, curve in found.items() if curve}


def of_common_images(rows: list[rowfile.Row]) -> list[rowfile.Row]:
  """The rows of images for which each codec has as many settings as it has for any: means are then of the same."""
  count = Counter((label(row), row["image"]) for row in rows)
  whole = {name: max(n for (other, _), n in count.items() if other == name) for name, _ in count}
  return [row for row in rows if all(count[name, row["image"]] == most for name, most in whole.items())]


def print_published(rows: list[rowfile.Row], mine: str, published: Path | None) -> None:
  """The table of published curves, dB of RGB against bits a pixel."""
  from gaussjax import report

  ours = [row for row in rows if label(row) == mine]
  by_image = {
    Path(row["image"]).stem: points([r for r in ours if r["image"] == row["image"]], PSNR) for row in ours
  }
  by_image = {image: of for image, of in by_image.items() if len(curves.front(of)) > 1}
  even = [(row["bpp"], row["psnr"]) for row in means(ours)]
  figure = curves.bd_rate(even, GAUSSIAN_IMAGE)
  print(f"\n{mine} against GaussianImage's published means of all 24: {signed(figure)}")
  if published is None or not by_image:
    return
  found = curves.compare(by_image, even, json.loads(published.read_text()))
  beyond = curves.equal_slope(list(by_image.values())).beyond
  print(f"{mine}, {len(by_image)} images, against published curves of all 24; fair is image by image, or with ours")
  print(f"averaged at equal slope, where {beyond:.0%} of our images' points lie beyond those measured")
  shown = lambda points: ["-" if (db := curves.quality_at(points, rate)) is None else f"{db:.2f}" for rate in RATES]
  lines = [(mine, *shown(even), "", "", "")] + [
    (c.name, *shown(c.mean), signed(c.naive), signed(c.fair), "equal slope" if c.images is None else str(c.images))
    for c in found
  ]
  print(report.table(lines, ("", *(f"{rate:g} bpp" for rate in RATES), "naive", "fair", "images")))


def means(rows: list[rowfile.Row]) -> list[dict[str, float]]:
  """Mean rate and dB of each setting."""
  return [{name: statistics.mean(row[name] for row in of) for name in ("bpp", "psnr")} for of in by_setting(rows)]


def signed(percent: float | None) -> str:
  """A BD-rate in words."""
  return "no overlap" if percent is None else f"{percent:+.1f}"


def page(rows: list[rowfile.Row], plot: Path) -> str:
  """The report: the mean curves, and a row an image with the BD-rates of ours against each other codec."""
  from gaussjax.web import reports

  labels = sorted({label(row) for row in rows})
  lines = []
  mine = [name for name in labels if name.startswith(OURS)]
  for image, name in itertools.product(sorted({row["image"] for row in rows}), mine):
    of = [row for row in rows if row["image"] == image and label(row) == name]
    near = min(of, key=lambda row: abs(row["bpp"] - SHOWN), default=None)
    if near is not None:
      pair = thumbnails.pair(
        thumbnails.folder_of(plot), picture_name(near), f"{image} at {near['bpp']:.2f} bits a pixel"
      )
      rates = [rate_against(rows, image, name, other, PSNR) for other in others(rows)]
      lines.append((image, name, near["bpp"], near["psnr"], *rates, pair))
  columns = ("image", "codec", "bpp", "dB", *(f"{other}, %" for other in others(rows)), "picture, wiped")
  plots = [
    (f"Means over images: {metric.label}", reports.Plot("bits a pixel", metric.label, found))
    for metric in METRICS
    if (found := mean_curves(rows, labels, metric))
  ]
  table = reports.Table(columns, lines, digits=2)
  return reports.report(
    f"Rate and distortion, {plot.stem}",
    [*plots, (f"Images: ours near {SHOWN} bits a pixel, and BD-rates by PSNR against others", table)],
  )
