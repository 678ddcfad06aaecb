"""The file `.gjx`: chunks with CRCs, the header, the layers. Bytes in, integers out; docs/format.md specifies it.

Nothing is believed before its CRC and its limits are checked, and a file holds at least a byte for each Gaussian,
so what a reader does is bounded by the file's size and by `Limits`.
"""

import struct
import zlib
from typing import NamedTuple

from numpy.typing import NDArray

from gaussjax import geometry
from gaussjax.errors import DamagedError, FormatError
from gaussjax.gjx import contexts, grids, range_coder
from gaussjax.gjx.grids import Codes, Steps
from gaussjax.rendering import blends

SIGNATURE = b"\x8bGJX"
VERSION = 2  # files of version 1, before any release, had other angles
ANCILLARY = 0x80  # in a chunk's kind: a reader that does not know it goes on
HEADER, LAYER = ord("H"), ord("L")
METADATA = {"exif": ANCILLARY | ord("E"), "icc": ANCILLARY | ord("I"), "text": ANCILLARY | ord("T")}

FIXED = 1000  # the background's colours, the cut-off and the floor are in thousandths
CUTOFFS, FLOORS = ([round(FIXED * bound) for bound in bounds] for bounds in (geometry.CUTOFFS, geometry.FLOORS))
HEADER_FORMAT = ">BBIIBBBHH4B"
MAX_LAYERS = 4


class Limits(NamedTuple):
  """What a reader accepts."""

  pixels: int = 1 << 27
  gaussians: int = 1 << 22
  file_bytes: int = 1 << 28
  overlaps: int = 1 << 27  # Gaussians met in tiles of 16 x 16 pixels, all told


LIMITS = Limits()


class Header(NamedTuple):
  """The picture that a file holds, without its Gaussians."""

  height: int
  width: int
  channels: int
  blend: int  # the code of one of rendering.blends
  cutoff: int  # standard deviations, in 1 / FIXED
  floor: int  # pixels, in 1 / FIXED
  background: tuple[int, ...]  # one a channel, in 1 / FIXED
  steps: Steps
  layers: int


class Contents(NamedTuple):
  """A file in integers."""

  header: Header
  layers: list[Codes]
  metadata: dict[str, bytes]  # of the kinds of METADATA
  sizes: list[tuple[str, int]]  # each chunk's name and its bytes, frame included


def write(header: Header, layers: list[Codes], metadata: dict[str, bytes] | None = None) -> bytes:
  """The whole file; each layer is sorted. Raises ValueError for metadata that `check_metadata` refuses."""
  check_metadata(metadata or {})
  fixed = (header.blend, header.cutoff, header.floor)
  size = (header.height, header.width, header.channels)
  head = struct.pack(HEADER_FORMAT, VERSION, VERSION, *size, header.layers, *fixed, *header.steps)
  head += struct.pack(f">{header.channels}h", *header.background)
  parts = [SIGNATURE, chunk(HEADER, head)]
  layers = [contexts.ordered(layer) for layer in layers]
  parts += [chunk(LAYER, data) for data in _layer_bytes(header, layers)]
  parts += [chunk(METADATA[name], data) for name, data in (metadata or {}).items()]
  return b"".join(parts)


def check_metadata(metadata: dict[str, bytes]) -> None:
  """Raises ValueError for kinds of metadata that a file does not keep, and for what is not bytes or too many."""
  unknown = set(metadata) - set(METADATA)
  if unknown:
    raise ValueError(f"got metadata {', '.join(sorted(map(str, unknown)))}, expected some of {', '.join(METADATA)}")
  for name, data in metadata.items():
    if not isinstance(data, bytes):
      raise ValueError(f"got metadata {name} of type {type(data).__name__}, expected bytes")
  total, most = sum(map(len, metadata.values())), LIMITS.file_bytes // 2  # the rest is for the Gaussians
  if total > most:
    raise ValueError(f"got {total:,} bytes of metadata, expected at most {most:,}")


def _layer_bytes(header: Header, layers: list[Codes]) -> list[bytes]:
  """The layers' chunks. Models go on from layer to layer, the coder begins anew."""
  grid, models, written = grids.grid(header.steps), range_coder.Models(contexts.NUM_MODELS), []
  predictors = contexts.fitted_predictors(layers, grid)
  for index, layer in enumerate(layers):
    count = len(layer.minor)
    coder = range_coder.Encoder(models)
    if index == 0:
      predictors = contexts.code_predictors(coder, header.channels, predictors)  # as the reader has them
    contexts.code_layer(coder, count, header.channels, grid, predictors, layers[:index], layer)
    written.append(varint(count) + coder.finish().ljust(count, b"\0"))
  return written


def chunk(kind: int, data: bytes) -> bytes:
  """A chunk: kind, length, data, and the CRC-32 of all three."""
  framed = bytes([kind]) + varint(len(data)) + data
  return framed + struct.pack(">I", zlib.crc32(framed))


def varint(value: int) -> bytes:
  """Seven bits a byte, the lowest first, the top bit set in all but the last."""
  out = bytearray()
  while value > 127:
    out.append(value & 127 | 128)
    value >>= 7
  return bytes([*out, value])


def read(data: bytes, *, limits: Limits = LIMITS, partial: bool = False) -> Contents:
  """Reads a file; with `partial` one that was cut off, as far as its layers are whole. Raises FormatError."""
  if len(data) > limits.file_bytes:
    raise FormatError(f"got {len(data)} bytes, expected at most {limits.file_bytes}")
  if not data.startswith(SIGNATURE):
    raise FormatError("not a .gjx file: its signature is missing")
  found, whole = chunks(data)
  if not found or found[0][0] != HEADER:
    raise FormatError("damaged: no header")
  header = _header(found[0][1], limits)
  metadata, bodies = {}, []
  names = {kind: name for name, kind in METADATA.items()}
  sizes = [("header", found[0][2])]
  for kind, body, size in found[1:]:
    if kind == LAYER:
      bodies.append(body)
      sizes.append((f"layer {len(bodies)}", size))
    elif kind in names:
      metadata[names[kind]] = body
      sizes.append((names[kind], size))
    elif not kind & ANCILLARY:
      raise FormatError(f"got a chunk of kind {kind}, which this version does not know and may not skip")
    else:
      sizes.append((f"unknown {kind}", size))
  if len(bodies) > header.layers:
    raise FormatError(f"damaged: {len(bodies)} layers, expected {header.layers}")
  if not partial and (not whole or len(bodies) < header.layers):
    raise FormatError(f"cut off: {len(bodies)} of {header.layers} layers are whole")
  if not bodies:
    raise FormatError("cut off before the first layer's end")
  return Contents(header, _layers(header, bodies, limits), metadata, sizes)


def chunks(data: bytes) -> tuple[list[tuple[int, bytes, int]], bool]:
  """(kind, data, size) of each whole chunk, and whether the file ends with one. Checks CRCs: FormatError."""
  found, position = list[tuple[int, bytes, int]](), len(SIGNATURE)
  while position < len(data):
    try:
      length, begin = read_varint(data, position + 1)
    except IndexError:
      return found, False
    end = begin + length
    if end + 4 > len(data):
      return found, False
    if struct.unpack_from(">I", data, end)[0] != zlib.crc32(memoryview(data)[position:end]):
      raise FormatError(f"damaged: the check sum of the chunk at byte {position} is wrong")
    found.append((data[position], data[begin:end], end + 4 - position))
    position = end + 4
  return found, True


def read_varint(data: bytes, position: int) -> tuple[int, int]:
  """(value, position after it). Raises IndexError at the end of the data, FormatError beyond 2^32."""
  value = 0
  for shift in range(0, 35, 7):
    byte = data[position]
    position += 1
    value |= (byte & 127) << shift
    if byte < 128:
      if value >= 1 << 32:
        break
      return value, position
  raise FormatError("damaged: a length has too many bits")


def _header(body: bytes, limits: Limits) -> Header:
  fixed = struct.calcsize(HEADER_FORMAT)
  if len(body) < fixed:
    raise FormatError("damaged: the header is too short")
  version, least, height, width, channels, layers, blend, cutoff, floor, *steps = struct.unpack_from(
    HEADER_FORMAT, body
  )
  if least > VERSION:
    raise FormatError(f"got a file for readers of version {least} and later, expected {VERSION}")
  if version < VERSION:
    raise FormatError(f"got a file of version {version}, which is no longer read; encode it anew")
  in_range = (("layers", layers, 1, MAX_LAYERS), ("blend", blend, 0, len(blends.BY_CODE) - 1))
  for name, value, low, high in in_range:
    if not low <= value <= high:
      raise FormatError(f"got a header with {name} {value}, expected {low} to {high}")
  try:
    geometry.check_canvas(height, width, channels, cutoff / FIXED, floor / FIXED, most_pixels=limits.pixels)
  except ValueError as error:
    raise FormatError(f"a header that no file has: {error}") from None
  if len(body) != fixed + 2 * channels:
    raise FormatError(f"damaged: a header of {len(body)} bytes, expected {fixed + 2 * channels}")
  background = struct.unpack_from(f">{channels}h", body, fixed)
  return Header(height, width, channels, blend, cutoff, floor, background, Steps(*steps), layers)


def _layers(header: Header, bodies: list[bytes], limits: Limits) -> list[Codes]:
  counts, streams = [], []
  for body in bodies:
    try:
      count, begin = read_varint(body, 0)
    except IndexError:
      raise FormatError("damaged: a layer without a count") from None
    if not 1 <= count <= len(body) - begin:
      raise FormatError(
        f"got a layer of {count} Gaussians in {len(body) - begin} bytes, expected at least 1 byte each"
      )
    counts.append(count)
    streams.append(body[begin:])
  if sum(counts) > limits.gaussians:
    raise FormatError(f"got {sum(counts)} Gaussians, expected at most {limits.gaussians}")
  grid, models, layers = grids.grid(header.steps), range_coder.Models(contexts.NUM_MODELS), list[Codes]()
  predictors: list[contexts.Predictor] = []
  for count, stream in zip(counts, streams, strict=True):
    coder = range_coder.Decoder(models, stream)
    try:
      if not layers:
        predictors = contexts.code_predictors(coder, header.channels, None)
      layers.append(contexts.code_layer(coder, count, header.channels, grid, predictors, layers, None))
    except DamagedError as error:
      raise FormatError(f"damaged: {error}") from None
  return layers


def check_drawable(header: Header, radii: NDArray, means: NDArray, limits: Limits = LIMITS) -> None:
  """Raises FormatError if Gaussians of `radii` `[N]` pixels at `means` `[N, 2]` meet too many tiles."""
  size = 16
  low, high = (means - radii[:, None]) // size, (means + radii[:, None]) // size
  last = (header.width - 1) // size, (header.height - 1) // size
  met = (high.clip(-1, last) - low.clip(0, last) + 1).clip(0)
  overlaps = int((met[:, 0] * met[:, 1]).sum())
  if overlaps > limits.overlaps:
    raise FormatError(f"got {overlaps} Gaussians in tiles, expected at most {limits.overlaps}")
