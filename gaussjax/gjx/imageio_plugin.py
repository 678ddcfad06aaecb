"""The plugin through which imageio reads and writes `.gjx` files.

imageio keeps a table of its plugins and looks for no others, by entry points or otherwise, so it has to be told of
this one: by `gaussjax.register_imageio()`, or for one call by `plugin=Plugin`.
"""

from typing import Any

import imageio.config
import numpy as np
from imageio.core.request import InitializationError, Request
from imageio.core.v3_plugin_api import ImageProperties, PluginV3
from numpy.typing import NDArray

from gaussjax import image_io
from gaussjax.gjx import container, packing, search
from gaussjax.rendering import renderer

SUFFIX = ".gjx"


def register_imageio() -> None:
  """From here on `imageio.v3.imread("photo.gjx")` and `imwrite` know the format. May be called again."""
  imageio.config.known_plugins["gjx"] = imageio.config.PluginConfig(
    name="gjx", class_name="Plugin", module_name=__name__, is_legacy=False
  )
  if SUFFIX not in imageio.config.known_extensions:
    extension = imageio.config.FileExtension(name="Gaussians", extension=SUFFIX, priority=["gjx"])
    imageio.config.known_extensions[SUFFIX] = [extension]
    imageio.config.extension_list.append(extension)


class Plugin(PluginV3):
  """One picture a file: `read` renders it as uint8 at its own size or another, `write` encodes."""

  def __init__(self, request: Request) -> None:
    super().__init__(request)
    if request.mode.io_mode.value == "r":
      self._data = request.get_file().read(container.LIMITS.file_bytes + 1)
      if not self._data.startswith(container.SIGNATURES):
        raise InitializationError("not a .gjx file")

  def read(
    self, *, index: int | None = 0, height: int | None = None, width: int | None = None, grain: bool = True
  ) -> NDArray[np.uint8]:
    """`[H, W, C]`, or `[H, W]` of one channel, with the file's grain or without.

    Raises ValueError for an index other than 0.
    """
    if index not in (0, None, Ellipsis):
      raise ValueError(f"got index {index}, expected 0: a .gjx file holds one picture")
    gaussians, header = packing.decode(self._data)
    picture = renderer.render(gaussians, height, width)
    pixels = image_io.as_uint8(packing.add_grain(picture, header) if grain else picture)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels

  def iter(self):
    """The one picture."""
    yield self.read()

  def write(self, ndimage: Any, **options: Any) -> bytes | None:
    """Encodes; `options` are those of gaussjax.encode."""
    data = search.encode(np.asarray(ndimage), **options)
    self.request.get_file().write(data)
    return data if self.request._uri_type == "bytes" else None

  def properties(self, index: int | None = 0) -> ImageProperties:
    """Shape and type of what `read` returns, from the header."""
    header = container.read(self._data).header
    shape = (header.height, header.width, *[header.channels][: header.channels > 1])
    return ImageProperties(shape=shape, dtype=np.dtype(np.uint8), n_images=1, is_batch=False)

  def metadata(self, index: int | None = 0, exclude_applied: bool = True) -> dict[str, Any]:
    """The header's fields, and the metadata that the file keeps."""
    contents = container.read(self._data)
    return {**contents.header._asdict(), **contents.metadata}
