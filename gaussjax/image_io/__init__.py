"""The only door for images: files and arrays come in here, and every file of pixels is written here.

A reader of what comes in may rely on it: float `[H, W, C]` in [0, 1], upright, in sRGB. What a conversion changed
of what is seen is said in a line each; what cannot be read right is refused with a ValueError of one line.

A file goes by `opening` (bytes, whatever they come from), `unpacking` (samples, in full depth) and `colors` (sRGB).
"""

from gaussjax.image_io.arrays import (
  MAX_CHANNELS as MAX_CHANNELS,
  MAX_PIXELS as MAX_PIXELS,
  FloatImage as FloatImage,
  as_image as as_image,
  as_uint8 as as_uint8,
  resize as resize,
)
from gaussjax.image_io.png import PNG_SIGNATURE as PNG_SIGNATURE
from gaussjax.image_io.reading import read_image as read_image, read_metadata as read_metadata
from gaussjax.image_io.writing import (
  FORMATS as FORMATS,
  image_bytes as image_bytes,
  write_image as write_image,
)
