"""A gallery of files: photographs, a drawing and text at several rates, whole, enlarged and as ellipses.

  python -m experiments.gallery --out_dir=out/gallery

writes index.html, which opens from disk and needs no network, and for each subject and rate a .gjx file, the
viewer's page of it beside its original, and pictures. Files that are there already are kept. Drawing and text are
made here by matplotlib; --images takes photographs of your own.
"""

import html
from pathlib import Path
from typing import Any

from absl import flags

from experiments import runner

FLAGS = flags.FLAGS
HEIGHT, WIDTH = 512, 768  # of the drawings
RATES = ("0.05", "0.1", "0.2", "0.5")  # bits a pixel
ZOOM = 4  # times, in the enlarged parts
PART = 0.25  # of each side, what is enlarged
WORDS = (
  ("A picture is a set of Gaussians.", 30),
  ("Each has a place, a shape, a colour.", 24),
  ("Small letters are hard: a file has few bits for them.", 18),
  ("abcdefghijklmnopqrstuvwxyz 0123456789 (+-=)", 14),
  ("The quick brown fox jumps over the lazy dog.", 10),
)
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0 auto; padding: 1rem clamp(1rem, 4vw, 3rem); max-width: 110rem; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr)); gap: 1.5rem 1rem; }
figure { margin: 0; } img { width: 100%; height: auto; display: block; margin-bottom: 2px; }
figcaption { font-variant-numeric: tabular-nums; font-size: .9rem; }
"""


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("out_dir", None, "Where everything goes.", required=True)
  flags.DEFINE_string("images", str(runner.PHOTOGRAPH), "An image file, or a folder of them.")
  flags.DEFINE_list("rates", list(RATES), "Bits a pixel.")
  runner.define_effort_flag()


def main() -> int:
  """Encodes what is missing, then writes the page."""
  folder = Path(FLAGS.out_dir)
  folder.mkdir(parents=True, exist_ok=True)
  rows, found = [], subjects(FLAGS.images)
  for name, image in found.items():
    shown = [original(folder, name, image)]
    for rate in FLAGS.rates:
      shown.append(one(folder, f"{name}-{rate}", image, float(rate)))
      print(f"{name} at {rate} bits a pixel", flush=True)
    rows.append(f'<h2>{html.escape(name)}</h2>\n<div class="row">{"".join(shown)}</div>')
  write(folder / "index.html", page(rows).encode())
  keep(folder / "sheet.jpg", sheet(folder, list(found), FLAGS.rates))
  print(f"the gallery: {folder / 'index.html'}")
  return 0


def subjects(images: str) -> dict[str, Any]:
  """Pictures `[H, W, 3]` in [0, 1] by name. Raises ValueError for a name that is no picture."""
  import gaussjax

  found = {path.stem: gaussjax.read_image(path) for path in runner.image_files(images)}
  return {**found, "drawing": drawing(), "text": text()}


def drawing() -> Any:
  """Flat colours, sharp contours, thin lines and a gradient."""
  import numpy as np
  from matplotlib import patches

  axes, pixels = canvas("#f4efe3")
  axes.imshow(np.linspace(0, 1, 64)[:, None], extent=(0, 768, 300, 512), cmap="Blues", aspect="auto", alpha=0.8)
  for x, peak, color in ((180, 210, "#56707f"), (420, 290, "#3f5563"), (640, 180, "#6d8796")):
    axes.add_patch(patches.Polygon([(x - 220, 120), (x, 120 + peak), (x + 220, 120)], color=color))
  axes.add_patch(patches.Circle((610, 420), 48, facecolor="#f2b134", edgecolor="#7a4b00", linewidth=3))
  axes.add_patch(patches.Rectangle((0, 0), 768, 130, color="#7a9e5f"))
  axes.add_patch(patches.Rectangle((90, 70), 150, 110, facecolor="#b5483a", edgecolor="black", linewidth=2))
  axes.add_patch(patches.Polygon([(75, 180), (165, 255), (255, 180)], facecolor="#42302b", edgecolor="black"))
  for x in range(300, 760, 24):
    axes.plot([x, x + 10], [20, 118], color="#2c3b22", linewidth=1.5)
  for radius in range(10, 70, 6):
    axes.add_patch(patches.Circle((340, 60), radius, fill=False, edgecolor="#24324a", linewidth=1))
  return pixels()


def text() -> Any:
  """Lines of smaller and smaller letters, dark on light above and light on dark below."""
  axes, pixels = canvas("white")
  axes.axhspan(0, 256, color="#20262e")
  for half, color in ((488, "black"), (232, "white")):
    y: float = half
    for words, size in WORDS:
      axes.text(24, y, words, color=color, fontsize=size, va="top", family="DejaVu Serif")
      y -= 1.9 * size
  return pixels()


def canvas(color: str) -> tuple[Any, Any]:
  """(matplotlib's axes in pixels from the lower left, a function that gives the pixels `[H, W, 3]`)."""
  import numpy as np
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72, facecolor=color)
  drawn = FigureCanvasAgg(figure)
  axes = figure.add_axes((0, 0, 1, 1))
  axes.set_axis_off()

  def pixels() -> Any:
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    drawn.draw()
    return np.asarray(drawn.buffer_rgba())[..., :3].astype(np.float32) / 255

  return axes, pixels


def original(folder: Path, name: str, image: Any) -> str:
  """The first figure of a row: the picture itself, and a part of it with its pixels enlarged."""
  import numpy as np

  left, top, right, bottom = part(image)
  enlarged = np.repeat(np.repeat(image[top:bottom, left:right], ZOOM, 0), ZOOM, 1)
  keep(folder / f"{name}.png", image)
  keep(folder / f"{name}-zoom.jpg", enlarged)
  return figure(name, (f"{name}.png", f"{name}-zoom.jpg"), "the original, and a part of it", f"{name}.png")


def part(image: Any) -> tuple[int, int, int, int]:
  """(left, top, right, bottom) of what is enlarged: of the parts of a grid the one with the most contours."""
  import numpy as np

  height, width = image.shape[:2]
  tall, wide = int(height * PART), int(width * PART)
  change = np.abs(np.diff(np.asarray(image), axis=1)).sum(-1)
  corners = [(x, y) for y in range(0, height - tall + 1, tall // 2) for x in range(0, width - wide, wide // 2)]
  left, top = max(corners, key=lambda at: float(change[at[1] : at[1] + tall, at[0] : at[0] + wide].sum()))
  return left, top, left + wide, top + tall


def one(folder: Path, name: str, image: Any, bpp: float) -> str:
  """The figure of one file, which is made if it is not there."""
  import jax.numpy as jnp

  import gaussjax
  from gaussjax import image_io, report
  from gaussjax.gjx import packing
  from gaussjax.web import pages

  path = folder / f"{name}.gjx"
  if not path.is_file():
    write(path, gaussjax.encode(image, bpp=bpp, effort=FLAGS.effort))
  data = path.read_bytes()
  gaussians, header = gaussjax.decode(data)
  drawn = packing.at_8_bits(gaussians)
  left, top, right, bottom = part(image)
  zoomed = gaussjax.render(gaussians, ZOOM * (bottom - top), viewport=(left, top, right, bottom))
  keep(folder / f"{name}.jpg", drawn)
  keep(folder / f"{name}-zoom.jpg", zoomed)
  keep(folder / f"{name}-ellipses.jpg", report.ellipses(gaussians, drawn, magnify=2))
  address = pages.address(image_io.image_bytes(image_io.as_uint8(image), ".png"), "image/png")
  write(folder / f"{name}.html", pages.viewer(data, title=name, original=address).encode())
  psnr = float(gaussjax.metrics.psnr(jnp.asarray(drawn), image))
  words = f"{len(data):,} bytes, {8 * len(data) / (header.height * header.width):.3f} bits a pixel, {psnr:.2f} dB, "
  pictures = tuple(f"{name}{end}.jpg" for end in ("", "-zoom", "-ellipses"))
  return figure(name, pictures, f"{words}{len(gaussians.means):,} Gaussians", f"{name}.html")


def sheet(folder: Path, names: list[str], rates: list[str]) -> Any:
  """One small picture of all: a row a subject, for each rate the whole and beside it the part."""
  import numpy as np

  import gaussjax
  from gaussjax import image_io

  def small(path: Path) -> Any:
    image = image_io.resize(gaussjax.read_image(path), 120, 180)
    return np.pad(image, ((0, 4), (0, 4), (0, 0)), constant_values=1)

  row = lambda name: [small(folder / f"{name}-{rate}{end}.jpg") for rate in rates for end in ("", "-zoom")]
  return np.concatenate([np.concatenate(row(name), axis=1) for name in names])


def keep(path: Path, image: Any) -> None:
  """Writes a picture, clipped."""
  import numpy as np

  import gaussjax

  gaussjax.write_image(path, np.clip(np.asarray(image), 0, 1))


def write(path: Path, data: bytes) -> None:
  """Writes a file whole."""
  from gaussjax import files

  files.write_whole(path, data)


def figure(name: str, pictures: tuple[str, ...], words: str, link: str) -> str:
  """The HTML of one figure; a click on a picture opens the viewer."""
  shown = "".join(f'<img src="{html.escape(file)}" alt="{html.escape(name)}" loading="lazy">' for file in pictures)
  return f'<figure><a href="{html.escape(link)}">{shown}</a><figcaption>{html.escape(words)}</figcaption></figure>'


def page(rows: list[str]) -> str:
  """The whole page."""
  head = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
  about = f"A click opens the viewer. Below each picture: a part of it, {ZOOM} times as large, and its Gaussians."
  rest = "\n".join(rows)
  return (
    f"{head}<title>Gaussians</title><style>{STYLE}</style>\n<h1>Gaussians</h1><p>{about}</p>\n{rest}\n</html>\n"
  )


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
