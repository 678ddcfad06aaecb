"""Files of 30 to 1,500 bytes, as a page shows before a picture is there: ours and the best that others can do.

  python -m experiments.tiny_files --images=DIR --name=tiny

Others may take any smaller size of the picture and any quality: of all on a grid whose file is no larger than
allowed, drawn at full size by a Lanczos filter, the one of the highest PSNR counts. BlurHash and ThumbHash have the
sizes that they have. Rows go to experiments/results/NAME.jsonl, once for others, and with --fresh again for ours;
then (with --summary at once) come a table of means, NAME.png, and NAME-strip.jpg, one picture at each size. What is
not installed is named, and so is a file that cannot be made so small.
"""

import functools
import importlib.util
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from experiments import anchors, rowfile, runner, thumbnails

FLAGS = flags.FLAGS
OURS = "gaussjax"
SIZES = (30, 100, 200, 400, 800, 1500)  # bytes
SIDES = (8, 12, 16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384)  # pixels of the longer side
GAP = 4  # white pixels in the strip


class Tried(NamedTuple):
  """A file, and the picture that it makes."""

  data: bytes
  side: int | None  # pixels of the longer side of what it holds
  setting: float
  drawn: Any  # uint8 [H, W, 3]


class Codec(NamedTuple):
  """A way to make small files."""

  settings: tuple[float, ...]
  code: Callable[[Any, float], tuple[bytes, Any]]  # of a small picture, uint8
  missing: Callable[[], str | None]
  sides: tuple[int, ...] = SIDES


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("images", str(runner.PHOTOGRAPH), "An image file, or a folder of them.")
  flags.DEFINE_list("codecs", [OURS, *CODECS], f"Some of {', '.join([OURS, *CODECS])}.")
  flags.DEFINE_string("name", None, "Names the rows' file.", required=True)
  flags.DEFINE_string("strip", "kodim23", "The image, without its suffix, that the strip shows.")
  flags.DEFINE_string("results_dir", str(rowfile.RESULTS), "Where rows and pictures go.")
  flags.DEFINE_bool("fresh", False, "Encode again what of ours was measured on another commit.")
  flags.DEFINE_bool("summary", False, "Encode nothing: summarise the rows that are there.")


def main() -> int:
  """Measures what has no row yet, then summarises."""
  unknown = set(FLAGS.codecs) - {OURS, *CODECS}
  if unknown:
    raise ValueError(f"got --codecs={','.join(sorted(unknown))}, expected some of {', '.join([OURS, *CODECS])}")
  path = Path(FLAGS.results_dir) / f"{FLAGS.name}.jsonl"
  if not FLAGS.summary:
    path.parent.mkdir(parents=True, exist_ok=True)
    for image in runner.image_files(FLAGS.images):
      for codec in FLAGS.codecs:
        measure_all(path, image, codec, fresh=FLAGS.fresh and codec == OURS)
  rows = rowfile.latest(rowfile.read(path), ("image", "codec", "size"))
  if not rows:
    raise ValueError(f"{path} holds no rows; run without --summary first")
  summarise(rows, path, FLAGS.strip)
  return 0


def measure_all(path: Path, image: Path, codec: str, *, fresh: bool) -> None:
  """Appends the rows of an image and codec, one for each size, if one is missing."""
  needed = None if codec == OURS else CODECS[codec].missing()
  if needed is not None:
    print(f"{codec}: not measured, needs {needed}")
    return
  keys = [{"image": image.name, "codec": codec, "size": size} for size in SIZES]
  there = rowfile.read(path)
  if all(rowfile.find(there, key, fresh=fresh) is not None for key in keys):
    return
  found = measure(image, codec, thumbnails.folder_of(path))
  for key, figures in zip(keys, found, strict=True):
    rowfile.append(path, rowfile.measured(key, lambda figures: figures, (figures,)))
  shown = ["absent" if row["psnr"] is None else f"{row['psnr']:.2f}" for row in found]
  print(f"{image.name} {codec}: {', '.join(shown)} dB", flush=True)


def measure(path: Path, codec: str, folder: Path | None = None) -> list[rowfile.Row]:
  """The figures at each of SIZES; None for psnr where there is no such file. Small pictures go to `folder`."""
  import numpy as np

  import gaussjax
  from gaussjax import image_io

  image = gaussjax.read_image(path)[..., :3]
  image = np.broadcast_to(image, (*image.shape[:2], 3))
  pixels, rows = image_io.as_uint8(image), list[rowfile.Row]()
  for size, best in zip(SIZES, ours(image) if codec == OURS else others(pixels, codec), strict=True):
    if best is None:
      rows.append({"bytes": None, "psnr": None, "ssim": None})
      continue
    drawn = best.drawn / np.float32(255)
    figures = {"psnr": psnr(best.drawn, pixels), "ssim": float(_jitted_ssim()(drawn, pixels / np.float32(255)))}
    rows.append({"bytes": len(best.data), "side": best.side, "setting": best.setting, **figures})
    thumbnails.keep(folder, f"{path.stem}-{codec}-{size}", image, drawn)
  return rows


@functools.cache
def _jitted_ssim() -> Callable[[Any, Any], Any]:
  import jax

  from gaussjax.quality import metrics

  return jax.jit(metrics.ssim)


def psnr(drawn: Any, pixels: Any) -> float:
  """Decibels of an 8-bit picture."""
  import numpy as np

  error = np.mean(np.square(drawn.astype(np.float32) - pixels))
  return float(20 * math.log10(255) - 10 * math.log10(max(float(error), 1e-9)))


def ours(image: Any) -> Iterator[Tried | None]:
  """Our file at each of SIZES."""
  import numpy as np

  import gaussjax
  from gaussjax import image_io

  for size in SIZES:
    try:
      data = gaussjax.encode(np.asarray(image), size=size)
    except ValueError:  # too small for any file
      yield None
      continue
    drawn = gaussjax.render(gaussjax.decode(data)[0])
    yield Tried(data, None, size, image_io.as_uint8(np.asarray(drawn)))


def others(pixels: Any, codec: str) -> list[Tried | None]:
  """The file of the highest PSNR of those tried that are no larger than each of SIZES."""
  best: dict[int, tuple[float, Tried]] = {}
  for tried in candidates(pixels, codec):
    reached = psnr(tried.drawn, pixels)
    for size in SIZES:
      if len(tried.data) <= size and (size not in best or reached > best[size][0]):
        best[size] = reached, tried
  return [best[size][1] if size in best else None for size in SIZES]


def candidates(pixels: Any, codec: str) -> Iterator[Tried]:
  """All files of a codec's grid that are small enough for any of SIZES."""
  import numpy as np
  from PIL import Image

  settings, code, _, sides = CODECS[codec]
  whole = Image.fromarray(pixels)
  for side in sides:
    by = side / max(whole.size)
    small = np.asarray(whole.resize([max(1, round(by * x)) for x in whole.size], Image.Resampling.LANCZOS))
    for setting in settings:
      data, decoded = code(small, setting)
      if len(data) > SIZES[-1]:
        break  # settings go from small files to large ones
      drawn = Image.fromarray(np.ascontiguousarray(decoded)).resize(whole.size, Image.Resampling.LANCZOS)
      yield Tried(data, side, setting, np.asarray(drawn))


def blurhash(pixels: Any, components: float) -> tuple[bytes, Any]:
  """BlurHash, a character a byte, decoded as large as it was."""
  import blurhash as package
  import numpy as np

  across, down = divmod(int(components), 10)
  height, width = pixels.shape[:2]
  if height > width:
    across, down = down, across
  code = package.encode(pixels, components_x=across, components_y=down)
  return code.encode(), np.asarray(package.decode(code, width, height), np.float64).round().astype(np.uint8)


def thumbhash(pixels: Any, _: float) -> tuple[bytes, Any]:
  """ThumbHash of an opaque picture of at most 100 x 100 pixels, decoded as it is: 32 pixels."""
  import fast_thumbhash as package
  import numpy as np

  height, width = pixels.shape[:2]
  opaque = np.concatenate([pixels, np.full((height, width, 1), 255, np.uint8)], axis=-1)
  code = bytes(package.rgba_to_thumb_hash(width, height, opaque.tobytes()))
  width, height, values = package.thumb_hash_to_rgba(code)
  return code, np.frombuffer(bytes(values), np.uint8).reshape(height, width, 4)[..., :3]


def _package(module: str, package: str) -> Callable[[], str | None]:
  return lambda: None if importlib.util.find_spec(module) else f"{package} (pip install 'gaussjax[anchors]')"


CODECS: dict[str, Codec] = {
  "webp": Codec((0, 5, 12, 25, 40, 60, 80, 95), anchors.webp, anchors.ANCHORS["webp"].missing),
  "avif": Codec(
    (5, 15, 25, 35, 45, 60, 75, 90), anchors.avif("psnr", "4:2:0", 2), anchors.ANCHORS["avif psnr 4:2:0"].missing
  ),
  "jxl": Codec((25, 18, 12, 8, 5, 3, 1.5), anchors.jxl, anchors.ANCHORS["jxl"].missing),
  "blurhash": Codec(
    (32, 43, 64, 96, 99), blurhash, _package("blurhash", "blurhash"), (48,)
  ),  # components across and down
  "thumbhash": Codec((0,), thumbhash, _package("fast_thumbhash", "fast-thumbhash"), (96,)),
}


def summarise(rows: list[rowfile.Row], path: Path, shown: str) -> None:
  """Prints the table, draws the plot and the strip."""
  from gaussjax import report

  codecs = [name for name in (OURS, *CODECS) if any(row["codec"] == name for row in rows)]
  for name in {OURS, *CODECS} - set(codecs):
    print(f"{name}: no rows")
  print(f"{len({row['image'] for row in rows})} images; dB and SSIM on the mean of those that have such a file")
  lines = [(codec, *(cell(rows, codec, size) for size in SIZES)) for codec in codecs]
  print(report.table(lines, ("", *(f"{size} bytes" for size in SIZES))))
  curves = {codec: list(mean_curve(rows, codec)) for codec in codecs}
  try:
    panels = {"PSNR (dB)": {name: curve for name, curve in curves.items() if curve}}
    report.write_rates(path.with_suffix(".png"), panels, x="bytes", limits=(20, 2000), log_x=True)
  except ImportError:
    print("plot left out: matplotlib is missing (pip install 'gaussjax[plots]')")
  write_strip(rows, path, shown)


def members(rows: list[rowfile.Row], codec: str, size: int) -> list[rowfile.Row]:
  """The rows of files that there are."""
  return [row for row in rows if (row["codec"], row["size"]) == (codec, size) and row["psnr"] is not None]


def cell(rows: list[rowfile.Row], codec: str, size: int) -> str:
  """Means at a size, with the number of images if some have no such file."""
  of = members(rows, codec, size)
  if not of:
    return "-"
  every = len({row["image"] for row in rows if row["codec"] == codec})
  means = (statistics.mean(row[name] for row in of) for name in ("psnr", "ssim"))
  return "{:.2f} / {:.3f}".format(*means) + (f" ({len(of)})" if len(of) < every else "")


def mean_curve(rows: list[rowfile.Row], codec: str) -> Iterator[tuple[float, float]]:
  """(bytes allowed, mean dB) where every image has a file."""
  every = len({row["image"] for row in rows if row["codec"] == codec})
  for size in SIZES:
    of = members(rows, codec, size)
    if len(of) == every:
      yield size, statistics.mean(row["psnr"] for row in of)


def write_strip(rows: list[rowfile.Row], path: Path, shown: str) -> None:
  """NAME-strip.jpg: the original, then at each size ours above the best other, where their pictures were kept."""
  import numpy as np

  from gaussjax import files, image_io

  of = [row for row in rows if Path(row["image"]).stem == shown and row["psnr"] is not None]
  columns = []
  for size in SIZES:
    best = sorted((row for row in of if row["size"] == size and row["codec"] != OURS), key=lambda row: row["psnr"])
    names = [OURS, best[-1]["codec"] if best else None]
    columns.append([kept_picture(path, f"{shown}-{name}-{size}-drawn") for name in names])
    print(f"{size} bytes: above {OURS}, below {names[1]}")
  pictures = [picture for column in columns for picture in column if picture is not None]
  if not pictures:
    print(f"strip left out: no pictures of {shown} were kept")
    return
  white = np.ones_like(pictures[0])
  stacked = [stack([white if picture is None else picture for picture in column], 0) for column in columns]
  data = image_io.image_bytes(image_io.as_uint8(stack(stacked, 1)), ".jpg")
  files.write_whole(path.with_name(f"{path.stem}-strip.jpg"), data)
  print(f"strip in {path.stem}-strip.jpg")


def kept_picture(path: Path, stem: str) -> Any:
  """A small picture, None if there is none."""
  import gaussjax

  file = thumbnails.folder_of(path) / f"{stem}{thumbnails.SUFFIX}"
  return gaussjax.read_image(file) if file.is_file() else None


def stack(pictures: list[Any], axis: int) -> Any:
  """Pictures one after another with white between."""
  import numpy as np

  shape = list(pictures[0].shape)
  shape[axis] = GAP
  gap = np.ones(shape, np.float32)
  between = [part for picture in pictures for part in (gap, picture)]
  return np.concatenate(between[1:], axis=axis)


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
