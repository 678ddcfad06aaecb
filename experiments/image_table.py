"""Prints the table "Image by image" of docs/results.md from the rows, to be put there when those are new.

python -m experiments.image_table

It also draws the mean curves of the codecs in it, kodak_means.png in experiments/results.
"""

import statistics

from experiments import curves, rate_distortion, rate_report, rowfile, runner

FITS = (("balanced", 5000), ("balanced", 10000), ("best", 10000))
OTHERS = ("jpeg", "webp", "jpeg2000", "avif")


def lines(*, first: bool = False) -> list[list[str]]:
  """The cells of a line for each image, and of the means; by the last row of each thing, or the first ever."""
  fits = rowfile.latest(rowfile.read(rowfile.RESULTS / "kodak.jsonl"), ("image", "setting"))
  files = rows_of_files(first=first)
  table = list[list[float]]()
  images = sorted({row["image"] for row in fits})
  for image in images:
    of = lambda codec: [row for row in files if row["image"] == image and row["codec"] == codec]  # noqa: B023
    kept = {row["setting"]: row for row in of(rate_distortion.OURS)}
    points = lambda rows: [(row["bpp"], row["psnr"]) for row in rows]
    psnr = [
      row["psnr"]
      for variant, count in FITS
      for row in fits
      if row["image"] == image and (row["setting"]["variant"], row["setting"]["num_gaussians"]) == (variant, count)
    ]
    rates = [curves.bd_rate(points(kept.values()), points(of(codec))) for codec in OTHERS]
    table.append([*psnr, *(kept[rate]["psnr"] for rate in sorted(kept)), *(rate or 0.0 for rate in rates)])
  table.append([statistics.mean(column) for column in zip(*table, strict=True)])
  names = [f"{rowfile.number({'image': image}):02d}" for image in images] + ["mean"]
  written = lambda row: [f"{value:.2f}" for value in row[:-4]] + [f"{value:+.0f}" for value in row[-4:]]
  return [[name, *written(row)] for name, row in zip(names, table, strict=True)]


def rows_of_files(*, first: bool = False) -> list[rowfile.Row]:
  """Of the 24 photographs' files the last row of each, or the first ever; ours tuned for PSNR, at the usual rates.

  Others' later rows, which have a tune, are of other settings, and of few photographs.
  """

  def counts(row: rowfile.Row) -> bool:
    if row["codec"] != rate_distortion.OURS:
      return "tune" not in row
    tuned = rate_report.tune(row) == rate_report.TUNE
    return tuned and row["effort"] == runner.EFFORT and row["setting"] in rate_distortion.BPP

  kept = [row for row in rowfile.read(rate_distortion.KODAK) if counts(row)]
  return rowfile.latest(kept[::-1] if first else kept, ("image", "codec", "setting"))


def mean_curves() -> dict[str, list[tuple[float, float]]]:
  """(bpp, dB) of each codec: means over images of each setting that all have."""
  files, found = rows_of_files(), {}
  count = len({row["image"] for row in files})
  for codec in (rate_distortion.OURS, *OTHERS):
    of = [row for row in files if row["codec"] == codec]
    whole = [row for group in rate_report.by_setting(of) if len(group) == count for row in group]
    found[codec] = [(point["bpp"], point["psnr"]) for point in rate_report.means(whole)]
  return found


def main() -> int:
  """Prints and draws."""
  from gaussjax import report

  for cells in lines():
    print(f"| {' | '.join(cells)} |")
  drawn = rowfile.RESULTS / "kodak_means.png"
  report.write_rates(drawn, {"PSNR (dB)": mean_curves()})
  print(drawn)
  return 0


if __name__ == "__main__":
  runner.run(main, __doc__)
