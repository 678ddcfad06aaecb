"""Image files in."""

from collections.abc import Callable

from gaussjax import files
from gaussjax.image_io import colors, exif, opening, unpacking
from gaussjax.image_io.arrays import FloatImage


def read_image(
  source: files.Place | bytes,
  *,
  name: str | None = None,
  keep_alpha: bool = False,
  background: float = 1.0,
  report_fn: Callable[[str], None] = lambda conversion: None,
) -> FloatImage:
  """Reads the first frame of an image file (or pipe), or of its bytes, as float32 `[H, W, C]` in [0, 1], in sRGB.

  `source` is a path, an open file, an address such as "s3://photos/1.png" (for fsspec), or the bytes.
  C is 1 for gray and 3 for colour, plus 1 for alpha if `keep_alpha`; otherwise alpha is composited on a gray of
  `background` (1 is white). Unsigned samples of at most 16 bits are divided by their greatest value. Signed ones,
  those of 32 bits, and floats outside [0, 1] are scaled so that the least becomes 0 and the greatest 1; floats that
  overshoot [0, 1] by at most OVERSHOOT are clipped. Colours are converted to sRGB by the file's profile, and EXIF's
  rotation is applied.

  `report_fn` receives one line for each conversion that changes what is seen; errors speak of `name`. Raises
  ValueError, in one line, for what is not a readable and whole image of at most MAX_PIXELS.
  """
  data, name = opening.bytes_of(source, name)
  lines: list[str] = []
  with opening.decoding(name):
    image, samples = unpacking.unpacked(data, lines)
    lines += colors.unread_color_space(image, data)
    color = colors.to_srgb(samples, image.info.get("icc_profile"), lines)
    if samples.alpha is not None:
      color = colors.with_alpha(color, samples.alpha, keep_alpha, background, lines)
  for line in lines:
    report_fn(line)
  return color


def read_metadata(data: bytes) -> dict[str, bytes]:
  """EXIF and ICC profile of an image file's bytes, as far as they hold for the pixels that `read_image` returns.

  So EXIF comes without the rotation and without a TIFF's layout, and of profiles only sRGB's own. Metadata that is
  broken is left out. Raises ValueError for what is not an image.
  """
  with opening.decoding("the bytes given"):
    image = opening.opened(data)
    found = {"exif": exif.to_keep(image)}
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "RGBA", "RGBX", "P") and colors.is_srgb(profile):
      found["icc"] = profile
  return {name: value for name, value in found.items() if value}
