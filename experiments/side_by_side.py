"""Parts of photographs beside what our two tunings and another codec make of them, in files of one size.

  python -m experiments.side_by_side --images=DIR --bpp=0.2 --name=side_by_side

Of each image: the original, our file tuned for PSNR and to the eye, the latter without and with its grain, and the
other codec's smallest file that has at least as many bytes as the larger of ours. What is shown is the part of a
grid with the most contours, its pixels enlarged. Writes NAME.jpg, and prints bytes and measures of whole pictures.
"""

import bisect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from experiments import anchors, gallery, rowfile, runner

FLAGS = flags.FLAGS
TUNES = ("psnr", "visual")
BEST = 100  # of the qualities that are tried


class Shown(NamedTuple):
  """A picture, and what is said of it."""

  words: str
  pixels: Any  # uint8 [H, W, 3]


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("images", str(runner.PHOTOGRAPH), "An image file, or a folder of them.")
  flags.DEFINE_float("bpp", 0.2, "Bits a pixel of our files, at most.", lower_bound=0.01)
  runner.define_effort_flag()
  by_quality = [
    name for name, anchor in anchors.ANCHORS.items() if list(anchor.settings) == sorted(anchor.settings)
  ]
  flags.DEFINE_enum("codec", "avif iq 4:2:0", by_quality, "The other codec.")
  flags.DEFINE_string("name", "side_by_side", "Names the picture.")
  flags.DEFINE_string("results_dir", str(rowfile.RESULTS), "Where it goes.")


def main() -> int:
  """Encodes, prints and draws, image by image."""
  if lacking := anchors.absent([FLAGS.codec]):
    raise ValueError(
      f"got --codec={FLAGS.codec}, expected one that can be run here: it needs {lacking[FLAGS.codec]}"
    )
  import gaussjax
  from gaussjax import image_io

  path = Path(FLAGS.results_dir) / f"{FLAGS.name}.jpg"
  path.parent.mkdir(parents=True, exist_ok=True)
  rows = []
  for file in runner.image_files(FLAGS.images):
    original = image_io.as_uint8(gaussjax.read_image(file))
    made: dict[str, tuple[int, Any]] = {}
    for tune in TUNES:
      data = gaussjax.encode(original, bpp=FLAGS.bpp, effort=gaussjax.Effort.level(FLAGS.effort, tune=tune))
      gaussians, header = gaussjax.decode(data)
      picture = gaussjax.render(gaussians)
      made[f"gaussjax, {tune}"] = len(data), image_io.as_uint8(picture)
      if header.grain is not None:
        grained = gaussjax.add_grain(picture, header)
        made[f"gaussjax, {tune} with grain"] = len(data), image_io.as_uint8(grained)
    most = max(size for size, _ in made.values())
    made[FLAGS.codec] = as_large(anchors.ANCHORS[FLAGS.codec].code, original, most)
    shown = [Shown(file.stem, original)]
    for by, (size, pixels) in made.items():
      words = measures(size, pixels, original)
      shown.append(Shown(f"{by}\n{words}", pixels))
      print(f"{file.stem} {by}: {words}", flush=True)
    rows.append(shown)
    draw(rows, path)
  print(path)
  return 0


def as_large(code: Callable[[Any, float], tuple[bytes, Any]], pixels: Any, size: int) -> tuple[int, Any]:
  """(bytes, picture) by the lowest quality of 0 to BEST whose file has at least `size` bytes, or by BEST."""
  quality = bisect.bisect_left(range(BEST), size, key=lambda quality: len(code(pixels, quality)[0]))
  data, drawn = code(pixels, quality)
  return len(data), drawn


def measures(size: int, pixels: Any, original: Any) -> str:
  """Bytes and measures of a picture, in words."""
  import jax.numpy as jnp

  from gaussjax.quality import metrics, ssimulacra2

  pair = [jnp.asarray(image, jnp.float32) / 255 for image in (pixels, original)]
  text = f"{size:,} bytes, {float(metrics.psnr(*pair)):.2f} dB"
  return text + (f", SSIMULACRA 2 {metrics.ssimulacra2(*pair):.1f}" if ssimulacra2.fits(original) else "")


def draw(rows: list[list[Shown]], path: Path) -> None:
  """A line for each image, a column for each that made a file."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(4.2 * len(rows[0]), 3.2 * len(rows)), layout="constrained")
  FigureCanvasAgg(figure)
  for line, shown in zip(figure.subplots(len(rows), len(rows[0]), squeeze=False), rows, strict=True):
    left, top, right, bottom = gallery.part(shown[0].pixels / 255)
    for axes, one in zip(line, shown, strict=True):
      axes.imshow(one.pixels[top:bottom, left:right], interpolation="nearest")
      axes.set_title(one.words, fontsize=9)
      axes.set_axis_off()
  # Tight, since the titles of a single line of pictures stand out of the figure.
  figure.savefig(path, dpi=100, bbox_inches="tight", pil_kwargs={"quality": 88})


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
