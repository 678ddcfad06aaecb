"""Parts of photographs beside what our two tunings and another codec make of them, in files of one size.

  python -m experiments.side_by_side --images=DIR --bpp=0.2 --name=side_by_side

Of each image: the original, our file tuned for PSNR and to the eye, and the other codec's smallest file that has at
least as many bytes as the larger of ours. What is shown is the part of a grid with the most contours, its pixels
enlarged. Writes NAME.jpg, and prints bytes and measures of whole pictures.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from experiments import anchors, gallery, rowfile, runner

FLAGS = flags.FLAGS
TUNES = ("psnr", "visual")
BEST = 100  # of the qualities that are tried


class Shown(NamedTuple):
  """A picture that a file holds."""

  by: str
  size: int  # bytes
  pixels: Any  # uint8 [H, W, 3]


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("images", str(runner.PHOTOGRAPH), "An image file, or a folder of them.")
  flags.DEFINE_float("bpp", 0.2, "Bits a pixel of our files, at most.", lower_bound=0.01)
  flags.DEFINE_integer("effort", 4, "Effort of our encoder, 0 to 9.", lower_bound=0, upper_bound=9)
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
  from gaussjax.gjx import packing

  path = Path(FLAGS.results_dir) / f"{FLAGS.name}.jpg"
  path.parent.mkdir(parents=True, exist_ok=True)
  rows = []
  for file in runner.image_files(FLAGS.images):
    original = image_io.as_uint8(gaussjax.read_image(file))
    shown = [Shown(file.stem, file.stat().st_size, original)]
    for tune in TUNES:
      data = gaussjax.encode(original, bpp=FLAGS.bpp, effort=gaussjax.Effort.level(FLAGS.effort, tune=tune))
      pixels = image_io.as_uint8(packing.at_8_bits(gaussjax.decode(data)[0]))
      shown.append(Shown(f"gaussjax, {tune}", len(data), pixels))
    most = max(one.size for one in shown[1:])
    shown.append(as_large(FLAGS.codec, anchors.ANCHORS[FLAGS.codec].code, original, most))
    for one in shown[1:]:
      print(f"{file.stem} {one.by}: {caption(one, original)}", flush=True)
    rows.append(shown)
    draw(rows, path)
  print(path)
  return 0


def as_large(name: str, code: Callable[[Any, float], tuple[bytes, Any]], pixels: Any, size: int) -> Shown:
  """By the lowest quality of 0 to BEST whose file has at least `size` bytes, or BEST."""
  low, high = 0, BEST
  while low < high:
    middle = (low + high) // 2
    low, high = (low, middle) if len(code(pixels, middle)[0]) >= size else (middle + 1, high)
  data, drawn = code(pixels, low)
  return Shown(name, len(data), drawn)


def caption(one: Shown, original: Any) -> str:
  """Bytes and measures."""
  import jax.numpy as jnp

  from gaussjax.quality import metrics, ssimulacra2

  pair = [jnp.asarray(pixels, jnp.float32) / 255 for pixels in (one.pixels, original)]
  text = f"{one.size:,} bytes, {float(metrics.psnr(*pair)):.2f} dB"
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
      axes.set_title(one.by if one is shown[0] else f"{one.by}\n{caption(one, shown[0].pixels)}", fontsize=9)
      axes.set_axis_off()
  figure.savefig(path, dpi=100, pil_kwargs={"quality": 88})


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
