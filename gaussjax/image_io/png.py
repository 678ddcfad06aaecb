"""What Pillow does not say of a PNG, and does not write."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunks(data: bytes) -> dict[bytes, bytes]:
  """A PNG's chunks before its pixels, by name."""
  found: dict[bytes, bytes] = {}
  position = len(PNG_SIGNATURE)
  while data.startswith(PNG_SIGNATURE) and position + 8 <= len(data):
    length, kind = struct.unpack_from(">I4s", data, position)
    if kind in (b"IDAT", b"IEND"):
      break
    found[kind] = data[position + 8 : position + 8 + length]
    position += 12 + length
  return found


def of_16_bits(pixels: NDArray[np.uint16], metadata: dict[str, bytes]) -> bytes:
  """A PNG of `[H, W, C]` by hand: Pillow writes colour at 8 bits only."""
  height, width, channels = pixels.shape
  color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
  rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
  filtered = rows.copy()
  filtered[:, 2 * channels :] -= rows[:, : -2 * channels]  # the filter "Sub", type 1: differences from the left
  body = np.insert(filtered, 0, 1, axis=1).tobytes()
  chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))]
  if "icc" in metadata:
    chunks.append((b"iCCP", b"ICC\0\0" + zlib.compress(metadata["icc"])))
  if "exif" in metadata:
    chunks.append((b"eXIf", metadata["exif"].removeprefix(b"Exif\0\0")))
  chunks += [(b"IDAT", zlib.compress(body)), (b"IEND", b"")]
  parts = [
    struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
  ]
  return PNG_SIGNATURE + b"".join(parts)
