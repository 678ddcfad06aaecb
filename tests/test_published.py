"""What README and docs/results.md say is what the rows in experiments/results say.

Not held here, since no rows are kept of it: seconds on named machines, other encoders' settings, memory.
"""

import functools
import json
import re
import statistics
from pathlib import Path

import pytest

from experiments import (
  curves,
  image_table,
  published,
  rate_distortion,
  rate_report,
  results_quick,
  rowfile,
  runner,
  sweep,
  tiny_files,
  versions,
)

ROOT = Path(__file__).parent.parent
README, RESULTS = (ROOT / name for name in ("README.md", "docs/results.md"))


def rows_of(name):
  return rowfile.latest(rowfile.read(rowfile.RESULTS / f"{name}.jsonl"), ("image", "setting"))


def fits(name, variant, count, **more):
  """Rows of a variant by image, in order."""
  wanted = {"variant": variant, "num_gaussians": count, **more}
  found = [row for row in rows_of(name) if wanted.items() <= row["setting"].items()]
  return sorted(found, key=lambda row: row["image"])


def mean(rows, figure="psnr", rest=None):
  return statistics.mean(row[figure] for row in rows if rest is None or rowfile.number(row) % 2 == rest)


def line(path, begin, cells=None):
  """The cells of the one table line that begins so, without bold; of `cells` cells, if given."""
  text = path.read_text(encoding="utf-8").replace("**", "")
  found = [row for row in map(str.strip, text.splitlines()) if row.startswith(f"| {begin} |")]
  found = [row for row in found if cells is None or row.count("|") == cells + 2]
  assert len(found) == 1, f"{path.name} has {len(found)} lines that begin with {begin}"
  return [cell.strip() for cell in found[0].strip("|").split("|")][1:]


def same(said, found):
  """Whether figures are as said, to the digits that are given."""
  assert len(said) == len(found), (said, found)
  for word, value in zip(said, found, strict=True):
    digits = len(word.partition(".")[2])
    assert abs(float(word) - value) <= 0.5 * 10**-digits + 1e-6, (said, found)


def words(cells):
  return re.findall(r"[-+]?\d+(?:\.\d+)?", " ".join(cells))


@pytest.fixture(scope="module")
def columns():
  """The columns of the table of fits."""
  return [fits("kodak", "balanced", 5000), fits("kodak", "balanced", 10000), fits("kodak", "best", 10000)]


@pytest.fixture(scope="module")
def files():
  return image_table.rows_of_files()


def test_the_table_of_fits(columns):
  assert [len(column) for column in columns] == [24, 24, 24]
  same(words(line(RESULTS, "mean PSNR, dB")), [mean(column) for column in columns])
  same(
    words(line(RESULTS, "odd / even images")), [mean(column, rest=rest) for column in columns for rest in (1, 0)]
  )
  same(words(line(RESULTS, "mean SSIM")), [mean(column, "ssim") for column in columns])
  high = fits("kodak_high", "balanced", 50000)
  said = re.search(r"\*\*([\d.]+) dB\*\* on the\s+mean of 24 \(odd ([\d.]+), even ([\d.]+)", RESULTS.read_text())
  same(said.groups(), [mean(high), mean(high, rest=1), mean(high, rest=0)])
  told = words(line(README, "5,000 / 10,000 / 50,000 Gaussians"))
  same(told, [mean(columns[0]), mean(columns[1]), mean(high)])


def test_the_table_of_parts():
  """Each row of the ablation is the mean of its images and seeds."""
  names = {
    "default": "balanced",
    "without weights": "unweighted",
    "without density control": "fixed",
    "constant rates instead of the cosine schedule": "constant",
    "random start": "random",
    "gradient-sampled start": "gradient_sampled",
    "colours solved in closed form at the end": "final_solve",
    "perceptual mix instead of L2": "perceptual",
    "Adan instead of Adam": "adan",
    "L-BFGS, without density control": "lbfgs",
  }
  for said, variant in names.items():
    rows = fits("ablation", variant, 5000, seconds=60.0)
    assert len(rows) == 8, variant
    same(words(line(RESULTS, said)[:1]), [mean(rows)])


def test_the_table_of_files(files):
  ours = [row for row in files if row["codec"] == rate_distortion.OURS]
  by_rate, bpp = (
    {rate: mean([row for row in ours if row["setting"] == rate], figure) for rate in rate_distortion.BPP}
    for figure in ("psnr", "bpp")
  )
  same(words(line(RESULTS, "bpp, mean of 24 photographs")), list(bpp.values()))
  same(words(line(RESULTS, "dB")), list(by_rate.values()))
  drawn = image_table.mean_curves()
  assert [psnr for _, psnr in drawn["gaussjax"]] == pytest.approx(list(by_rate.values()))
  assert set(drawn) == {"gaussjax", *image_table.OTHERS} and all(len(curve) > 4 for curve in drawn.values())
  same(words(line(README, "files at 0.12 / 0.3 / 0.6 bits a pixel")), [by_rate[rate] for rate in (0.12, 0.3, 0.6)])


def test_bytes_against_other_codecs(files):
  found = {}
  points = lambda image, codec: [
    (row["bpp"], row["psnr"]) for row in files if (row["image"], row["codec"]) == (image, codec)
  ]
  for codec, begin in (
    ("jpeg", "JPEG"),
    ("webp", "WebP"),
    ("jpeg2000", "JPEG 2000"),
    ("avif", "AVIF as Pillow writes it by default: read on"),
  ):
    rates = [
      {"image": image, "rate": curves.bd_rate(points(image, rate_distortion.OURS), points(image, codec))}
      for image in sorted({row["image"] for row in files})
    ]
    found[codec] = mean(rates, "rate")
    worst = max(row["rate"] for row in rates)
    said = words(line(RESULTS, begin, cells=4))
    same(said, [found[codec], mean(rates, "rate", 1), mean(rates, "rate", 0), worst])
  told = words(line(README, "bytes at equal PSNR against WebP / JPEG 2000 / JPEG"))
  same(told, [found[codec] for codec in ("webp", "jpeg2000", "jpeg")])


@functools.cache
def current(name):
  """The rows of a file that a summary is of."""
  return rate_distortion.current(rowfile.read(rowfile.RESULTS / f"{name}.jsonl"))


def against(name, label, metric, family="avif"):
  """Mean BD-rates of all, odd and even images, and the worst, against the cheapest of a family's settings."""
  rows = current(name)
  metrics = {metric.name: metric for metric in rate_report.METRICS}
  cells = rate_report.against(rows, label, family, metrics[metric])[3:]
  return [None if cell == "-" else float(cell) for cell in (*cells[:3], cells[4])]


@pytest.mark.parametrize(
  ("metric", "begin"),
  [("psnr", "PSNR"), ("ms_ssim", "MS-SSIM"), ("ssimulacra2", "SSIMULACRA 2"), ("lpips", "LPIPS"), ("flip", "FLIP")],
)
def test_bytes_against_the_best_avif(metric, begin):
  found = against("kodak_rd", f"gaussjax effort {runner.EFFORT}", metric)
  same(words(line(RESULTS, begin, cells=4)), found)
  held_out = against("held_out", f"gaussjax effort {runner.EFFORT}", metric)
  place = ["psnr", "ms_ssim", "ssimulacra2", "lpips", "flip"].index(metric)
  same(words(line(RESULTS, "AVIF", cells=6)[place : place + 1]), held_out[:1])


@pytest.mark.parametrize(
  ("family", "begin"),
  [("heic", "HEIC"), ("jxl", "JPEG XL"), ("webp", "WebP"), ("jpeg2000", "JPEG 2000"), ("jpeg", "JPEG")],
)
def test_bytes_against_others_at_their_best(family, begin):
  label = f"gaussjax effort {runner.EFFORT}"
  found = [against("kodak_rd", label, metric.name, family) for metric in rate_report.METRICS]
  same(words(line(RESULTS, f"{begin} at its best")), [*(mean for mean, *_ in found), found[0][-1]])


def test_bytes_of_files_for_the_eye():
  order = ("ssimulacra2", "lpips", "ms_ssim", "flip", "psnr")
  for begin, tuned in (
    ("tuned for PSNR", ""),
    ("tuned for the eye, without their grain", ", visual"),
    ("the same files, as readers draw them, with grain", ", visual with grain"),
  ):
    label = f"gaussjax effort {runner.EFFORT}{tuned}"
    found = [against("kodak_visual_effort_5", label, metric)[0] for metric in order]
    same(words(line(RESULTS, begin)), found)


def test_the_table_of_tiny_files():
  rows = rowfile.latest(rowfile.read(rowfile.RESULTS / "tiny.jsonl"), ("image", "codec", "size"))
  best = dict[int, float]()
  for begin, codec in (
    ("WebP, scaled up", "webp"),
    ("AVIF of speed 2, scaled up", "avif"),
    ("JPEG XL, scaled up", "jxl"),
    ("BlurHash", "blurhash"),
    ("ThumbHash", "thumbhash"),
    ("gaussjax", "gaussjax"),
  ):
    found = []
    for size in tiny_files.SIZES:
      of = tiny_files.members(rows, codec, size)
      assert len(of) in (0, 24)
      found += [mean(of), mean(of, "ssim")] if of else []
      if of and codec != "gaussjax":
        best[size] = max(best.get(size, 0), mean(of))
    same(words(line(RESULTS, begin, cells=6)), found)
  gains = [value - best[size] for value, size in zip(found[::2], tiny_files.SIZES[1:], strict=True)]
  same(words(line(RESULTS, "ours before the best other, dB")), gains)
  same(words(line(README, "files of 100 / 200 / 400 / 800 / 1,500 bytes"))[:5], gains)


def test_the_table_of_versions():
  table = versions.compared("kodak_rd_v2", 4, "kodak_rd", runner.EFFORT)
  rates = [{"image": name, "rate": rate} for name, rate, *_ in table]
  ends = [pick(row["rate"] for row in rates) for pick in (min, max)]
  assert len(table) == 24
  same(
    words(line(RESULTS, "bytes at equal PSNR, %")), [*(mean(rates, "rate", rest) for rest in (None, 1, 0)), *ends]
  )
  gains = [statistics.mean(column) for column in list(zip(*table, strict=True))[2:]]
  same(words(line(RESULTS, "dB at equal bytes")), gains)


def test_the_table_image_by_image():
  """All of the last rows, or all of the first: a line of another measurement would be a picture nobody made."""
  text = RESULTS.read_text(encoding="utf-8")
  said = [row for row in text.splitlines() if re.match(r"\| (\d\d|mean) \|", row)]
  assert len(said) == 25
  written = lambda table: [f"| {' | '.join(cells)} |" for cells in table]
  assert said in [written(image_table.lines()), written(image_table.lines(first=True))]


def test_every_published_runner_takes_its_flags(monkeypatch, tmp_path):
  """A flag that a runner does not know would be found out after hours."""
  import subprocess
  import sys

  commands = published.commands("IMAGES", "FOUR", True)
  code = (
    "import importlib, json, sys\nfrom absl import flags\n"
    "module, arguments = json.loads(sys.argv[1])\n"
    "importlib.import_module(f'experiments.{module}').define_flags()\n"
    "assert len(flags.FLAGS([module, *arguments])) == 1\n"
  )
  for module, *arguments in {words[0]: words for words in commands.values()}.values():
    done = subprocess.run(
      [sys.executable, "-c", code, json.dumps([module, arguments])], cwd=ROOT, capture_output=True
    )
    assert done.returncode == 0, (module, done.stderr.decode())


def test_quick_figures_are_of_published_rows(monkeypatch, tmp_path):
  """With measurements that give the rows themselves all are met; a figure that is off, or no figure, is not."""
  kept = {"sweep": 0.0, "files": 0.0}

  def row_of_fit(path, image, setting, rows):
    row = results_quick.published(rowfile.RESULTS / "kodak.jsonl", sweep.wanted(image, setting))
    return row | {"psnr": row["psnr"] + kept["sweep"]}

  def row_of_file(path, image, codec, setting, effort, rows):
    row = results_quick.published(rate_distortion.KODAK, rate_distortion.wanted(image, codec, setting, effort))
    return row | {"psnr": row["psnr"] + kept["files"] * (codec == "gaussjax")}

  monkeypatch.setattr(sweep, "row_of", row_of_fit)
  monkeypatch.setattr(rate_distortion, "row_of", row_of_file)
  monkeypatch.setattr(results_quick, "MUTATIONS", 20)
  source = rowfile.source()
  figures = lambda: [
    results_quick.damaged(),
    *(results_quick.fit(*given, tmp_path, source) for given in results_quick.FITS),
    *(results_quick.file(rate, tmp_path, source) for rate in results_quick.RATES),
    *(results_quick.against(codec, tmp_path, source) for codec in results_quick.OTHERS),
  ]
  assert all(one.met for one in figures())
  kept |= {"sweep": -0.2, "files": float("nan")}
  assert [one.met for one in figures()] == [
    True,
    *[False] * (len(results_quick.FITS) + len(results_quick.RATES) + len(results_quick.OTHERS)),
  ]
  assert runner.PHOTOGRAPH.stem == "kodim23"
