"""Other codecs at their best: settings, how to call each, and what is missing for those that are not installed.

JPEG, WebP, JPEG 2000 and 8-bit AVIF are by Pillow, HEIC by pillow-heif (x265), JPEG XL by imagecodecs (libjxl),
which the extra `anchors` installs. AVIF of 10 bits is by libavif's own avifenc and avifdec (Debian: libavif-bin).
"""

import importlib.util
import io
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

Pixels = Any  # uint8 [H, W, C] in numpy


class Anchor(NamedTuple):
  """A codec with everything set but its quality."""

  family: str  # whose cheapest setting counts
  settings: tuple[float, ...]  # qualities, distances or ratios, from about 0.05 to 0.8 bits a pixel
  code: Callable[[Pixels, float], tuple[bytes, Pixels]]  # (the file, what it decodes to)
  missing: Callable[[], str | None]  # what to install, if anything
  version: Callable[[], str]


def pillow(pixels: Pixels, kind: str, **options: Any) -> tuple[bytes, Pixels]:
  """By Pillow, with its options for saving."""
  import numpy as np
  from PIL import Image

  buffer = io.BytesIO()
  Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, format=kind, **options)
  with Image.open(io.BytesIO(buffer.getvalue())) as decoded:
    return buffer.getvalue(), np.asarray(decoded).reshape(*pixels.shape[:2], -1)[..., : pixels.shape[-1]]


def jpeg(pixels: Pixels, quality: float) -> tuple[bytes, Pixels]:
  """libjpeg-turbo: optimised tables, progressive."""
  options = {"optimize": True, "progressive": True, "subsampling": "4:2:0"}
  return pillow(pixels, "JPEG", quality=int(quality), **options)


def webp(pixels: Pixels, quality: float) -> tuple[bytes, Pixels]:
  """libwebp at its slowest. (Sharp chroma, where Pillow has the option, makes the same bytes.)"""
  return pillow(pixels, "WEBP", quality=int(quality), method=6)


def jpeg2000(pixels: Pixels, ratio: float) -> tuple[bytes, Pixels]:
  """OpenJPEG; without mct=1 Pillow codes red, green and blue apart and loses 2 to 3 dB."""
  return pillow(pixels, "JPEG2000", irreversible=True, mct=1, quality_mode="rates", quality_layers=[ratio])


def avif(tune: str, chroma: str, speed: int) -> Callable[[Pixels, float], tuple[bytes, Pixels]]:
  """libaom by Pillow, 8 bits."""
  options = {"subsampling": chroma, "speed": speed, "advanced": {"tune": tune}}
  return lambda pixels, quality: pillow(pixels, "AVIF", quality=int(quality), max_threads=1, **options)


def avif_10(chroma: str, speed: int) -> Callable[[Pixels, float], tuple[bytes, Pixels]]:
  """libaom by avifenc, 10 bits, tuned for PSNR; the setting is its cq-level, of 0 to 63."""

  def code(pixels: Pixels, level: float) -> tuple[bytes, Pixels]:
    import numpy as np
    from PIL import Image

    options = ["--min", "0", "--max", "63", "-a", "end-usage=q", "-a", f"cq-level={level:g}", "-a", "tune=psnr"]
    with tempfile.TemporaryDirectory() as folder:
      source, file, decoded = (str(Path(folder, name)) for name in ("a.png", "a.avif", "b.png"))
      Image.fromarray(_rgb(pixels)).save(source)
      quiet: dict[str, Any] = {"check": True, "capture_output": True}
      subprocess.run(
        ["avifenc", "-j", "1", "-s", str(speed), "-d", "10", "-y", chroma, *options, source, file], **quiet
      )
      subprocess.run(["avifdec", "-d", "8", file, decoded], **quiet)
      return Path(file).read_bytes(), np.asarray(Image.open(decoded).convert("RGB"))[..., : pixels.shape[-1]]

  return code


def heic(chroma: str) -> Callable[[Pixels, float], tuple[bytes, Pixels]]:
  """x265 at its slowest, tuned for PSNR."""

  def code(pixels: Pixels, quality: float) -> tuple[bytes, Pixels]:
    import pillow_heif

    pillow_heif.register_heif_opener()
    options = {"preset": "placebo", "tune": "psnr"}
    return pillow(pixels, "HEIF", quality=int(quality), chroma=chroma, enc_params=options)

  return code


def jxl(pixels: Pixels, distance: float) -> tuple[bytes, Pixels]:
  """libjxl at effort 9, without the container's bytes."""
  import imagecodecs

  options: dict[str, Any] = {"effort": 9, "numthreads": 1, "usecontainer": False}
  data = bytes(imagecodecs.jpegxl_encode(_rgb(pixels), distance=distance, **options))
  return data, imagecodecs.jpegxl_decode(data)[..., : pixels.shape[-1]]


def _rgb(pixels: Pixels) -> Pixels:
  return pixels.repeat(3, axis=-1) if pixels.shape[-1] == 1 else pixels


def _of_pillow(feature: str, name: str) -> dict[str, Any]:
  """Whether Pillow has a codec, and which."""
  from PIL import features

  return {
    "missing": lambda: None if features.check(feature) else f"a Pillow with {name}",
    "version": lambda: f"{name} {features.version(feature)}",
  }


def _of_package(module: str, package: str, version: Callable[[], str]) -> dict[str, Any]:
  there = lambda: importlib.util.find_spec(module) is not None
  return {
    "missing": lambda: None if there() else f"{package} (pip install 'gaussjax[anchors]')",
    "version": version,
  }


def _x265() -> str:
  import pillow_heif

  return pillow_heif.libheif_info()["HEIF"]


def _libjxl() -> str:
  import imagecodecs

  return imagecodecs.jpegxl_version()


def _avifenc() -> str:
  said = subprocess.run(["avifenc", "--version"], check=True, capture_output=True, text=True).stdout
  library, encoder = (re.search(pattern, said) for pattern in (r"Version: (\S+)", r"aom \[enc[^:]*\]:v?([\d.]+)"))
  return f"libavif {library[1] if library else '?'}, libaom {encoder[1] if encoder else '?'}"


_AVIF = _of_pillow("avif", "libavif")
_AVIFENC: dict[str, Any] = {
  "missing": lambda: None if shutil.which("avifenc") and shutil.which("avifdec") else "avifenc (libavif-bin)",
  "version": _avifenc,
}
_HEIC = _of_package("pillow_heif", "pillow-heif", _x265)
_CQ = (62, 56, 50, 44, 37, 30, 23)
ANCHORS: dict[str, Anchor] = {
  "jpeg": Anchor("jpeg", (5, 9, 16, 28, 45, 64, 78), jpeg, **_of_pillow("jpg", "libjpeg")),
  "webp": Anchor("webp", (0, 5, 12, 25, 45, 65, 80), webp, **_of_pillow("webp", "libwebp")),
  "jpeg2000": Anchor("jpeg2000", (480, 240, 130, 80, 54, 38, 29), jpeg2000, **_of_pillow("jpg_2000", "OpenJPEG")),
  "jxl": Anchor("jxl", (25, 15, 9, 5.5, 3.5, 2.2), jxl, **_of_package("imagecodecs", "imagecodecs", _libjxl)),
  "heic 4:4:4": Anchor("heic", (0, 5, 13, 22, 32, 42, 52), heic("444"), **_HEIC),
  "heic 4:2:0": Anchor("heic", (0, 5, 13, 22, 32, 42, 52), heic("420"), **_HEIC),
  "avif psnr 4:4:4 10": Anchor("avif", _CQ, avif_10("444", 2), **_AVIFENC),
  "avif psnr 4:2:0 10": Anchor("avif", _CQ, avif_10("420", 2), **_AVIFENC),
  "avif psnr 4:4:4": Anchor("avif", (2, 8, 17, 28, 40, 52, 64), avif("psnr", "4:4:4", 2), **_AVIF),
  "avif psnr 4:2:0": Anchor("avif", (2, 8, 17, 28, 40, 52, 64), avif("psnr", "4:2:0", 2), **_AVIF),
  "avif iq 4:2:0": Anchor("avif", (2, 8, 17, 28, 40, 52, 64), avif("iq", "4:2:0", 2), **_AVIF),
  "avif iq 4:4:4": Anchor("avif", (2, 8, 17, 28, 40, 52, 64), avif("iq", "4:4:4", 2), **_AVIF),
  "avif psnr 4:4:4 10 speed 0": Anchor("avif speed 0", _CQ, avif_10("444", 0), **_AVIFENC),
}
# The strongest by PSNR and to the eye; the others are asked for by name, to see that they are not stronger.
USUAL = (
  "jpeg",
  "webp",
  "jpeg2000",
  "jxl",
  "heic 4:4:4",
  "heic 4:2:0",
  "avif psnr 4:4:4 10",
  "avif psnr 4:2:0 10",
  "avif iq 4:2:0",
)


def absent(names: Iterable[str]) -> dict[str, str]:
  """Those of the anchors that cannot be run here, with what each needs."""
  found = {name: ANCHORS[name].missing() for name in names}
  return {name: needed for name, needed in found.items() if needed is not None}
