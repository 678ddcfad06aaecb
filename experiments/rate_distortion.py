"""Our files against other codecs at their best: bytes on disk and how good the 8-bit picture is, image by image.

  python -m experiments.rate_distortion --images=DIR --name=kodak_rd

appends to experiments/results/NAME.jsonl a row for each image, codec and setting, and goes on where it
stopped; with --fresh rows of another commit are measured again, ours only. At the end, or with --summary at
once, it prints mean points and BD-rates of the last rows (`rate_report`). The other codecs and what they need
are in `anchors`; one that is not installed is named and left out. Small pictures of ours are in NAME-pictures.
"""

import itertools
import math
import time
from pathlib import Path
from typing import NamedTuple

from absl import flags

from experiments import anchors, rate_report, rowfile, runner, thumbnails

FLAGS = flags.FLAGS
OURS, TUNE = rate_report.OURS, rate_report.TUNE


class Ours(NamedTuple):
  """How our encoder is asked for a file."""

  effort: int
  tune: str = TUNE


KODAK = rowfile.RESULTS / "kodak_rd.jsonl"  # rows that a stage shares
PUBLISHED = rowfile.RESULTS / "published_rd.json"  # curves of others, with their sources
BPP = (0.08, 0.12, 0.2, 0.3, 0.45, 0.6)  # bits a pixel that ours are asked for


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("images", str(runner.PHOTOGRAPH), "An image file, or a folder of them.")
  names = [OURS, *anchors.ANCHORS]
  flags.DEFINE_list("codecs", [OURS, *anchors.USUAL], f"Some of {', '.join(names)}.")
  runner.define_effort_flag()
  flags.DEFINE_enum("tune", TUNE, ["psnr", "visual"], "What our encoder is tuned for.")
  flags.DEFINE_string("name", None, "Names the rows' file.", required=True)
  flags.DEFINE_string("results_dir", str(rowfile.RESULTS), "Where rows and plot go.")
  runner.define_engine_flags()
  flags.DEFINE_bool("fresh", False, "Encode again what of ours was measured on another commit.")
  flags.DEFINE_string("published", str(PUBLISHED), "Published curves to compare with, as JSON; empty for none.")
  flags.DEFINE_bool("summary", False, "Encode nothing: summarise the rows that are there.")


def main() -> int:
  """Encodes what has no row yet, then summarises."""
  unknown = set(FLAGS.codecs) - {OURS, *anchors.ANCHORS}
  if unknown:
    raise ValueError(
      f"got --codecs={','.join(sorted(unknown))}, expected some of {', '.join([OURS, *anchors.ANCHORS])}"
    )
  path = Path(FLAGS.results_dir) / f"{FLAGS.name}.jsonl"
  lacking = anchors.absent(name for name in FLAGS.codecs if name != OURS)
  for name, needed in lacking.items():
    print(f"{name}: not measured, needs {needed}")
  if not FLAGS.summary:
    path.parent.mkdir(parents=True, exist_ok=True)
    codecs = [name for name in FLAGS.codecs if name not in lacking]
    encode_all(path, codecs, runner.image_files(FLAGS.images), rowfile.source(fresh=FLAGS.fresh))
  rows = current(rowfile.read(path))
  if not rows:
    raise ValueError(f"{path} holds no rows; run without --summary first")
  published = Path(FLAGS.published) if FLAGS.published else None
  rate_report.summarise(rows, path.with_suffix(".png"), published)
  return 0


def settings(codec: str) -> tuple[float, ...]:
  """What a codec is asked for."""
  return BPP if codec == OURS else anchors.ANCHORS[codec].settings


def current(rows: list[rowfile.Row]) -> list[rowfile.Row]:
  """The last row of each thing that a summary is of.

  Not those of codecs, settings and rates that are no longer measured, or that a stage of acceptance keeps here.
  """
  known = [row for row in rows if row["codec"] == OURS or (row["codec"] in anchors.ANCHORS and "tune" in row)]
  ours = [row | {"tune": rate_report.tune(row)} if row["codec"] == OURS else row for row in known]
  ours += [row | row["grained"] | {"tune": f"{row['tune']} with grain"} for row in ours if "grained" in row]
  last = rowfile.latest(ours, ("image", "codec", "setting", "effort", "tune"))
  return [row for row in last if row["setting"] in settings(row["codec"])]


def encode_all(path: Path, codecs: list[str], images: list[Path], rows: rowfile.Source) -> None:
  """A row for each image, codec and setting that has none, written as soon as it is measured."""
  pairs = [(codec, setting) for codec in codecs for setting in settings(codec)]
  tasks = [
    (image, codec, setting, Ours(FLAGS.effort, FLAGS.tune) if codec == OURS else None)
    for image, (codec, setting) in itertools.product(images, pairs)
  ]
  left = missing(path, tasks, rows)
  drawn = thumbnails.folder_of(path.absolute())
  calls = [(wanted(*task), (task[0].absolute(), *task[1:], drawn)) for task in left]
  runner.measure_by_workers(path, measure, calls, fresh=rows.fresh)
  left = missing(path, tasks, rows)
  began = time.monotonic()
  with runner.interruptible() as requested:
    for index, (image, codec, setting, ours) in enumerate(left):
      if requested():
        raise runner.InterruptedFitError(f"{index} of {len(left)} rows done; the same command goes on from here")
      row = row_of(path, image, codec, setting, ours, rows)
      eta = (time.monotonic() - began) / (index + 1) * (len(left) - index - 1)
      figures = f"{row['bpp']:.4f} bpp  {row['psnr']:.2f} dB  {row['seconds']:.1f} s"
      print(f"{index + 1}/{len(left)} {image.name} {codec} {setting:g}: {figures}  ETA {eta:.0f} s", flush=True)


def missing(path: Path, tasks: list[tuple], rows: rowfile.Source) -> list[tuple]:
  """The tasks (image, codec, setting, ours) that have no row."""
  there = rowfile.read(path)
  return [task for task in tasks if rowfile.find(there, wanted(*task), fresh=of_ours(task[1], rows).fresh) is None]


def row_of(
  path: Path, image: Path, codec: str, setting: float, ours: Ours | None, rows: rowfile.Source
) -> rowfile.Row:
  """The row of an image, codec and setting, from the file or measured now and appended to it."""
  key, made = (
    wanted(image, codec, setting, ours),
    lambda: measure(image, codec, setting, ours, thumbnails.folder_of(path)),
  )
  return rowfile.kept(path, key, made, of_ours(codec, rows))


def of_ours(codec: str, rows: rowfile.Source) -> rowfile.Source:
  """The source for rows of a codec: a commit of ours changes no other's files."""
  return rows if codec == OURS else rows._replace(fresh=False)


def wanted(image: Path, codec: str, setting: float, ours: Ours | None) -> rowfile.Row:
  """What the row of this image, codec and setting is of."""
  asked = {"effort": None, "tune": None} if ours is None else ours._asdict()
  return {"image": image.name, "codec": codec, "setting": setting, **asked}


def measure(path: Path, codec: str, setting: float, ours: Ours | None, drawn: Path | None = None) -> rowfile.Row:
  """The row of one file, of the picture without grain, and with it as `grained`; small ones go to `drawn`."""
  import numpy as np

  import gaussjax
  from gaussjax import image_io, startup

  startup.release_programs()
  image = gaussjax.read_image(path)
  original = image_io.as_uint8(image)
  began, count, more = time.monotonic(), None, {}
  if ours is not None:
    data = gaussjax.encode(image, bpp=setting, effort=gaussjax.Effort.level(*ours))
    seconds = time.monotonic() - began
    gaussians, header = gaussjax.decode(data)
    picture = gaussjax.render(gaussians)
    decoded, count = image_io.as_uint8(picture), len(gaussians.means)
    if header.grain is not None:
      more["grained"] = quality(image_io.as_uint8(gaussjax.add_grain(picture, header)), original)
    thumbnails.keep(
      drawn, rate_report.picture_name(wanted(path, codec, setting, ours)), image, decoded / np.float32(255)
    )
  else:
    data, decoded = anchors.ANCHORS[codec].code(original, setting)
    seconds = time.monotonic() - began
  version = {} if codec == OURS else {"encoder": anchors.ANCHORS[codec].version()}
  return {
    **version,
    "gaussians": count,
    "bytes": len(data),
    "bpp": 8 * len(data) / (image.shape[0] * image.shape[1]),
    **quality(decoded, original),
    "seconds": seconds,
    **more,
  }


def quality(decoded, original) -> dict[str, float]:
  """Every metric that is defined for an 8-bit picture and installed."""
  import numpy as np

  from gaussjax.quality import metrics, ssimulacra2

  error = float(np.mean((decoded.astype(np.float64) - original) ** 2))
  pair = decoded / np.float32(255), original / np.float32(255)
  found = metrics.evaluate(*pair) | metrics.perceptual(*pair)
  if ssimulacra2.fits(original):
    found["ssimulacra2"] = metrics.ssimulacra2(*pair)
  del found["mse"]
  return found | {"psnr": 20 * math.log10(255) - 10 * math.log10(max(error, 1e-9))}


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
