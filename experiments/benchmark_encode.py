"""Where the time and the memory of an encoding go, by stage, as pictures grow.

  python -m experiments.benchmark_encode --images=DIR --megapixels=0.39,3.1,12.6 --name=encode

Each size is measured in a process of its own, cold (an empty cache of compiled programs) and warm (once more in the
same process). A picture larger than those of the folder is a mosaic of them, each at its own size: an enlarged
picture would be smoother than any photograph. With --each there are no mosaics: every picture of the folder is
encoded by itself, those of one size in one process, of which only the first is cold. With --baseline=DIR, another
checkout of this project, its encoder runs in turn with this one on the same pictures. Appends rows to
experiments/results/NAME.jsonl and draws NAME.png.
"""

import functools
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from experiments import rowfile, runner

FLAGS = flags.FLAGS
STAGES = ("start", "fit", "grids", "rounding", "packing")

# What a child runs, of this checkout or of a baseline: only what both have. Prints one line of JSON.
CHILD = """
import json, resource, sys, time
from gaussjax import startup
startup.prepare_jax()
import numpy as np
import gaussjax
options = json.loads(sys.argv[1])
runs, peak = [], 0
for path in options["images"]:
  image = np.load(path)
  begun, seen = time.perf_counter(), {}
  def note(stage, done, total):
    now = time.perf_counter() - begun
    seen.setdefault(stage, [now, now])[1] = now
  data = gaussjax.encode(image, bpp=options["bpp"], effort=options["effort"], progress_fn=note)
  end = time.perf_counter() - begun
  fit, rounding = seen["fit"], seen["quantise"]
  marks = [0.0, fit[0], fit[1], rounding[0], rounding[1], end]
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  picture = np.asarray(gaussjax.render(gaussjax.decode(data)[0]))
  error = np.mean((np.round(np.clip(picture, 0, 1) * 255) / 255 - image) ** 2, dtype=np.float64)
  run = {"seconds": end, "stages": [b - a for a, b in zip(marks, marks[1:])], "bytes": len(data)}
  runs.append(run | {"psnr": -10 * np.log10(error)})
print(json.dumps({"runs": runs, "peak_bytes": peak}))
"""


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("images", str(runner.PHOTOGRAPH), "An image file, or a folder of them, of one size.")
  flags.DEFINE_list("megapixels", ["0.39"], "Sizes of mosaics.")
  flags.DEFINE_multi_float("bpp", [0.2], "Bits a pixel; give it once for each rate.", lower_bound=0.01)
  flags.DEFINE_list("efforts", [str(runner.EFFORT)], "Efforts, 0 to 9.")
  flags.DEFINE_bool("warm", True, "Encode twice: the second time every program is at hand.")
  flags.DEFINE_bool("each", False, "Every picture of the folder by itself, once, instead of mosaics.")
  flags.DEFINE_string("baseline", "", "Another checkout, measured in turn.")
  flags.DEFINE_string("cores", "", "Those to run on, as for taskset, such as 0 or 0-1; all of them without.")
  flags.DEFINE_string("name", "encode", "Names the rows' file.")
  flags.DEFINE_string("results_dir", str(rowfile.RESULTS), "Where rows and plot go.")


def main() -> int:
  """Measures each size and effort, prints a line for each run, appends rows and draws."""
  path = Path(FLAGS.results_dir) / f"{FLAGS.name}.jsonl"
  path.parent.mkdir(parents=True, exist_ok=True)
  files = runner.image_files(FLAGS.images)
  print(
    f"{'MP':>6} effort {'':8} {'run':4} "
    + " ".join(f"{stage:>8}" for stage in STAGES)
    + "      all   s/MP     dB   GiB"
  )
  for make in (
    _each(files) if FLAGS.each else [functools.partial(_mosaic, files, float(m)) for m in FLAGS.megapixels]
  ):
    with tempfile.TemporaryDirectory() as folder:
      images, size = make(Path(folder))
      codes = ["", FLAGS.baseline] if FLAGS.baseline else [""]
      for effort, bpp, code in itertools.product(map(int, FLAGS.efforts), FLAGS.bpp, codes):
        row = {
          "size": size,
          "images": [path.stem for path in images],
          "effort": effort,
          "bpp": bpp,
          "cores": FLAGS.cores,
          "steps": None if code else steps_of(effort),
          "code": code and "baseline",
          "each": FLAGS.each,
        }
        row |= _measured(images, effort, bpp, code) | rowfile.origin()
        rowfile.append(path, row)
        _print(row)
  _draw(rowfile.read(path), path.with_suffix(".png"))
  print(f"{path}, {path.with_suffix('.png')}")
  return 0


def steps_of(effort: int) -> list[int]:
  """What an effort was when it was measured, since its number may come to mean another."""
  from gaussjax.gjx import encoding

  level = encoding.EFFORTS[effort]
  return [level.steps, level.stage_steps, level.tries]


Made = tuple[list[Path], list[int]]  # arrays on disk that are encoded one after another, and their size [H, W, C]


def _each(files: list[Path]) -> list[Callable[[Path], Made]]:
  """For each size of pictures what writes them into a folder."""
  import numpy as np

  from gaussjax import image_io

  groups: dict[tuple[int, ...], list[tuple[str, np.ndarray]]] = {}
  for file in files:
    image = image_io.read_image(file)
    groups.setdefault(image.shape, []).append((f"{file.name}.npy", image))

  def write(size: tuple[int, ...], images: list[tuple[str, np.ndarray]], folder: Path) -> Made:
    for name, image in images:
      np.save(folder / name, image)
    return [folder / name for name, _ in images], list(size)

  return [functools.partial(write, size, images) for size, images in groups.items()]


def _mosaic(files: list[Path], megapixels: float, folder: Path) -> Made:
  """As many pictures as make about `megapixels`, in rows, to be encoded twice with --warm."""
  import numpy as np

  from gaussjax import image_io

  first = image_io.read_image(files[0])
  turned = lambda image: image if image.shape == first.shape else np.rot90(image)
  images = [image for image in (turned(image_io.read_image(file)) for file in files) if image.shape == first.shape]
  height, width, _ = first.shape
  count = megapixels * 1e6 / (height * width)
  columns = max(1, round(math.sqrt(count * height / width * 1.5)))
  rows = max(1, round(count / columns))
  if rows * columns == 1 and count < 0.75:
    raise ValueError(f"got {megapixels:g} megapixels, expected at least those of {files[0]}")
  one_row = lambda row: np.concatenate([images[(row * columns + c) % len(images)] for c in range(columns)], 1)
  mosaic = np.concatenate([one_row(row) for row in range(rows)])
  path = folder / "mosaic.npy"
  np.save(path, mosaic)
  return [path] * (1 + FLAGS.warm), list(mosaic.shape)


def _measured(images: list[Path], effort: int, bpp: float, code: str) -> dict[str, Any]:
  """What a fresh process finds, with a cache of compiled programs of its own."""
  options = {"images": list(map(str, images)), "bpp": bpp, "effort": effort}
  root = Path(code).resolve() if code else Path(__file__).parent.parent
  with tempfile.TemporaryDirectory() as cache:
    environment = os.environ | {"PYTHONPATH": str(root), "XDG_CACHE_HOME": cache}
    command = [sys.executable, "-c", CHILD, json.dumps(options)]
    pinned = ["taskset", "-c", FLAGS.cores] if FLAGS.cores else []
    done = subprocess.run([*pinned, *command], capture_output=True, text=True, env=environment, cwd=cache)
  if done.returncode:
    raise ValueError(f"the encoder of {root} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
  return json.loads(done.stdout.splitlines()[-1])


def _print(row: dict[str, Any]) -> None:
  height, width, _ = row["size"]
  megapixels = height * width / 1e6
  warm = [run["seconds"] for run in row["runs"][1:]]
  for index, run in enumerate(row["runs"]):
    name, found = "warm" if index else "cold", f"{run['psnr']:6.2f} {row['peak_bytes'] / 2**30:5.2f}"
    stages = " ".join(f"{seconds:8.2f}" for seconds in run["stages"])
    whole = f"{run['seconds']:8.2f} {run['seconds'] / megapixels:6.1f}"
    print(f"{megapixels:6.2f} {row['effort']:6d} {row['code']:8} {name:4} {stages} {whole} {found}", flush=True)
  if row["each"] and warm:
    psnr = statistics.mean(run["psnr"] for run in row["runs"])
    print(f"{row['code'] or 'here'}: {len(warm)} warm, median {statistics.median(warm):.2f} s, mean {psnr:.3f} dB")


def _draw(rows: list[dict[str, Any]], path: Path) -> None:
  """Seconds a megapixel by stage, medians of warm runs where there are some: a bar for each size and effort.

  Of the machine that measured last; another's seconds are not to be compared with its own.
  """
  from matplotlib import pyplot

  kept = [row | {"area": row["size"][0] * row["size"][1]} for row in rows if row["machine"] == rows[-1]["machine"]]
  last = rowfile.latest(kept, ("area", "effort", "bpp", "cores", "code"))
  figure, axis = pyplot.subplots(figsize=(8, 0.8 + 0.45 * len(last)), layout="constrained")
  for place, row in enumerate(last):
    left, runs = 0.0, row["runs"][1:] or row["runs"]
    for index, stage in enumerate(STAGES):
      seconds = statistics.median(run["stages"][index] for run in runs) / row["area"] * 1e6
      axis.barh(place, seconds, left=left, color=f"C{index}", label=stage if place == 0 else None)
      left += seconds
  warm = lambda row: "warm" if len(row["runs"]) > 1 else "cold"
  names = [
    f"{row['area'] / 1e6:.2f} MP, {row['bpp']:g} bpp, effort {row['effort']}, {warm(row)} {row['code']}"
    for row in last
  ]
  axis.set_yticks(range(len(last)), names)
  axis.invert_yaxis()
  axis.set_xlabel("seconds a megapixel")
  axis.legend(ncols=len(STAGES), loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
  figure.savefig(path, dpi=150)


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
