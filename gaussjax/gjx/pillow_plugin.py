"""The plugin through which Pillow opens and saves `.gjx` files.

Pillow looks for plugins in its own package only, so it is told of this one: `gaussjax.register_pillow()`.
"""

from typing import Any

import numpy as np
from PIL import Image, ImageFile

from gaussjax import errors, image_io
from gaussjax.gjx import container, packing, search
from gaussjax.rendering import renderer

FORMAT, SUFFIX, MIME = "GJX", ".gjx", "image/x-gjx"
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # by channels
OPTIONS = ("quality", "bpp", "size", "target_psnr", "effort", "layers")  # of gaussjax.encode


def register_pillow() -> None:
  """From here on `PIL.Image.open("photo.gjx")` and `image.save("photo.gjx")` know the format. May be called again.

  `save` takes quality, bpp, size, target_psnr, effort and layers as `encode` does, exif and icc_profile as bytes.
  """
  Image.register_open(FORMAT, Picture, _is_ours)
  Image.register_save(FORMAT, _save)
  Image.register_extension(FORMAT, SUFFIX)
  Image.register_mime(FORMAT, MIME)


def _is_ours(prefix: bytes) -> bool:
  return prefix.startswith(container.SIGNATURES)


class Picture(ImageFile.ImageFile):
  """A file's picture at its own size and 8 bits. It is drawn when its pixels are first asked for."""

  format, format_description = FORMAT, "Gaussians"

  def _open(self) -> None:
    if not _is_ours(self.fp.read(len(container.SIGNATURE))):  # type: ignore[union-attr]
      raise SyntaxError("not a .gjx file")
    self.fp.seek(0)  # type: ignore[union-attr]
    try:
      contents = container.read(self.fp.read(container.LIMITS.file_bytes + 1))  # type: ignore[union-attr]
    except errors.FormatError as error:
      raise OSError(str(error)) from error  # as Pillow's users expect it
    header = contents.header
    if header.channels not in MODES:
      raise OSError(f"got a file of {header.channels} channels, expected 1 to 4 for a picture")
    self._size, self._mode = (header.width, header.height), MODES[header.channels]
    self._contents: Any = contents
    names = {"exif": "exif", "icc": "icc_profile"}
    self.info |= {names[kind]: data for kind, data in contents.metadata.items() if kind in names}

  def load(self) -> Any:
    """Draws the picture if it is not there yet."""
    if self._contents is not None:
      try:
        gaussians = packing.gaussians_of(self._contents)
      except errors.FormatError as error:
        raise OSError(str(error)) from error
      pixels = image_io.as_uint8(packing.add_grain(renderer.render(gaussians), self._contents.header))
      self.im = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else np.ascontiguousarray(pixels)).im
      self._contents, self.tile = None, []
      self.readonly = 0
      if self.fp is not None and self._exclusive_fp:
        self.fp.close()
      self.fp = None
    return super().load()


def _save(image: Image.Image, file: Any, filename: str | bytes) -> None:
  """Encodes. Raises OSError for a mode that the format has not."""
  if image.mode not in MODES.values():
    raise OSError(f"cannot write mode {image.mode} as {FORMAT}")
  given = image.encoderinfo
  kept = {"exif": given.get("exif"), "icc": given.get("icc_profile")}
  metadata = {kind: _bytes(data) for kind, data in kept.items() if data}
  options = {name: given[name] for name in OPTIONS if name in given}
  file.write(search.encode(np.asarray(image), metadata=metadata, **options))


def _bytes(data: Any) -> bytes:
  if isinstance(data, Image.Exif):
    return data.tobytes()
  return bytes(data)
