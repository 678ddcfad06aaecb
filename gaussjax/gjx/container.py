"""The file `.gjx`: header, chunks with CRCs, layers. Bytes in, integers out; docs/format.md specifies it.

Nothing is believed before its CRC and its limits are checked, and a file holds at least a byte for each Gaussian,
so what a reader does is bounded by the file's size and by `Limits`.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

from numpy.typing import NDArray

from gaussjax import geometry
from gaussjax.errors import DamagedError, FormatError
from gaussjax.gjx import contexts, grain, grids, range_coder, version_2
from gaussjax.gjx.grain import Grain
from gaussjax.gjx.grids import Codes, Steps

SIGNATURE = b"\x8bGJX"
# Of files with a short frame: its last byte says how many channels they have.
SHORT_SIGNATURES = {channels: b"\x8bG" + str(channels).encode() for channels in (1, 3, 4)}
SIGNATURES = (SIGNATURE, *SHORT_SIGNATURES.values())
VERSION = 3  # of what is written; version 2 is read (version_2.py)
ANCILLARY = 0x80  # in a chunk's kind: a reader that does not know it goes on
LAYER = ord("L")
GRAIN = ANCILLARY | ord("G")
METADATA = {"exif": ANCILLARY | ord("E"), "icc": ANCILLARY | ord("I"), "text": ANCILLARY | ord("T")}

FIXED = 1000  # the background's colours, the cut-off and the floor are in thousandths
CUTOFFS, FLOORS = ([round(FIXED * bound) for bound in bounds] for bounds in (geometry.CUTOFFS, geometry.FLOORS))
# Bits of the header's second byte: 0 and 1 the layers less one, 5 and 6 which of CHANNELS.
BLEND, WEIGHTED, OWN_CANVAS, RESERVED = 1 << 2, 1 << 3, 1 << 4, 1 << 7
CHANNELS = (1, 3, 4)  # those that need no byte of their own
CANVAS = (round(FIXED * 3.5), round(FIXED * 0.3))  # cut-off and floor that need no bytes
MAX_LAYERS = 4

MOST_SHORT = 1 << 11  # bytes of a file in a short frame: the check sum of larger ones is to be a longer one
SHORT_SIDE = 12  # bits that it has for the height and the width, less one, each
COLOR_CHANNELS = 3  # of a background's, at most, that are of one brightness in it; a fourth is alpha's
LEAST_SHORT_POSITION = 116  # the least code of positions' steps that it tells

Writer = TypeVar("Writer", bound=range_coder.Encoder)


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
  background: tuple[int, ...]  # one a channel, in 1 / background_unit
  steps: Any  # grids.Steps, or those of version_2
  layers: int
  weighted: bool = False  # whether there are log-weights
  background_unit: int = FIXED  # or 255, with the CANVAS alone
  version: int = VERSION
  grain: Grain | None = None  # texture that a reader draws by itself


class Contents(NamedTuple):
  """A file in integers."""

  header: Header
  layers: list[Any]  # grids.Codes, or those of version_2
  metadata: dict[str, bytes]  # of the kinds of METADATA
  sizes: list[tuple[str, int]]  # each chunk's name and its bytes, frame included


def write(
  header: Header, layers: list[Codes], metadata: dict[str, bytes] | None = None, *, short: bool = False
) -> bytes:
  """The whole file; each layer is sorted. With `short` in a short frame, 13 bytes less, where that holds it.

  Raises ValueError for metadata that `check_metadata` refuses.
  """
  check_metadata(metadata or {})
  bodies = _layer_bytes(header, [contexts.ordered(layer) for layer in layers])
  framed = _in_short_frame(header, bodies[0]) if short and not metadata else None
  if framed is not None:
    return framed
  parts = [SIGNATURE, chunk(LAYER, bodies[0], header_bytes(header))]
  parts += [chunk(LAYER, body) for body in bodies[1:]]
  if header.grain is not None:
    parts.append(chunk(GRAIN, grain.to_bytes(header.grain, header.height, header.width)))
  parts += [chunk(METADATA[name], data) for name, data in (metadata or {}).items()]
  return b"".join(parts)


def _in_short_frame(header: Header, body: bytes) -> bytes | None:
  """The file whose one layer has the data `body`; None where the frame does not hold what the header says."""
  steps, background = _short_steps(header.steps), header.background
  usual = header.layers == 1 and header.blend == 0 and header.background_unit == 255 and not header.weighted
  small = header.channels in SHORT_SIGNATURES and max(header.height, header.width) <= 1 << SHORT_SIDE
  gray = len(set(background[:COLOR_CHANNELS])) == 1
  if not usual or not small or not gray or header.grain is not None or steps is None:
    return None
  size = header.height - 1 << SHORT_SIDE | header.width - 1
  head = SHORT_SIGNATURES[header.channels] + size.to_bytes(3, "big") + steps.to_bytes(2, "big")
  framed = head + bytes(background[:1] + background[COLOR_CHANNELS:]) + body
  framed += bytes([zlib.crc32(framed) & 255])
  return framed if len(framed) <= MOST_SHORT else None


def _short_steps(steps: Steps) -> int | None:
  """The 16 bits that tell usual steps; None of others."""
  position = steps.position
  above = (
    position - LEAST_SHORT_POSITION,
    steps.log_scale - position + 16,
    steps.turn + position - 270,
    steps.color - position + 20,
  )
  told, at = 0, 0
  for value, bits in zip(above, (5, 2, 4, 5), strict=True):
    if not 0 <= value < 1 << bits:
      return None
    told, at = told | value << at, at + bits
  return told


def _steps_of_short(told: int) -> Steps:
  position = LEAST_SHORT_POSITION + (told & 31)
  log_scale, turn, color = position - 16 + (told >> 5 & 3), 270 - position + (told >> 7 & 15), told >> 11
  return Steps(position, log_scale, turn, position - 20 + color, grids.STEP_ZERO)


def _read_short(data: bytes, limits: Limits) -> Contents:
  """The contents of a file in a short frame. Raises FormatError."""
  channels = next(channels for channels, signature in SHORT_SIGNATURES.items() if data.startswith(signature))
  begin = 9 + max(0, channels - COLOR_CHANNELS)
  if len(data) <= begin + 1:
    raise FormatError("cut off before the first layer's end")
  if zlib.crc32(memoryview(data)[:-1]) & 255 != data[-1]:
    raise FormatError("damaged or cut off: the check sum is wrong")
  size, told = int.from_bytes(data[3:6], "big"), int.from_bytes(data[6:8], "big")
  background = tuple([data[8]] * min(channels, COLOR_CHANNELS)) + tuple(data[9:begin])
  height, width = (size >> SHORT_SIDE) + 1, (size & (1 << SHORT_SIDE) - 1) + 1
  check_canvas(height, width, channels, *CANVAS, limits.pixels)
  header = Header(height, width, channels, 0, *CANVAS, background, _steps_of_short(told), 1, background_unit=255)
  sizes = [("header", begin - len(SHORT_SIGNATURES[channels])), ("layer 1", len(data) - begin)]
  return Contents(header, _layers(header, [data[begin:-1]], limits), {}, sizes)


def header_bytes(header: Header) -> bytes:
  """The header, without the signature."""
  known = header.channels in CHANNELS
  own = header.background_unit == FIXED
  flags = header.layers - 1 | header.blend * BLEND | header.weighted * WEIGHTED | own * OWN_CANVAS
  flags |= (CHANNELS.index(header.channels) if known else len(CHANNELS)) << 5
  out = bytes([VERSION, flags, *([] if known else [header.channels])])
  out += varint(header.height - 1) + varint(header.width - 1)
  out += bytes(header.steps if header.weighted else header.steps[:-1])
  if own:
    return out + struct.pack(f">HH{header.channels}h", header.cutoff, header.floor, *header.background)
  return out + bytes(header.background)


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


def numbers(header: Header, count: int) -> contexts.Numbers:
  """The fields of a file whose first layer has `count` Gaussians, before the first of them."""
  background = [(value << 16) // header.background_unit for value in header.background]
  return contexts.first_numbers(count, header.height * header.width, background, weighted=header.weighted)


def _coded(header: Header, layers: list[Codes], coder: type[Writer]) -> Iterator[Writer]:
  """The `coder` of each layer (ordered), when it is coded. Models go on from layer to layer, coders begin anew."""
  grid, models, known = (
    grids.grid(header.steps),
    contexts.models(header.channels),
    numbers(header, len(layers[0].minor)),
  )
  for index, layer in enumerate(layers):
    one = coder(models)
    contexts.code_layer(one, len(layer.minor), header.channels, grid, known, layers[:index], layer)
    yield one


def _layer_bytes(header: Header, layers: list[Codes]) -> list[bytes]:
  """The layers' data."""
  counts = [len(layer.minor) for layer in layers]
  coders = _coded(header, layers, range_coder.Encoder)
  return [varint(n) + coder.finish().ljust(n, b"\0") for n, coder in zip(counts, coders, strict=True)]


def field_bits(contents: Contents) -> dict[str, float]:
  """Bits that each field of the Gaussians takes, all layers together; of version 2 nothing is told."""
  totals = dict[str, float]()
  if contents.header.version == VERSION:
    for meter in _coded(contents.header, contents.layers, range_coder.Meter):
      for field, bits in meter.bits.items():
        totals[field] = totals.get(field, 0.0) + bits
  return totals


def chunk(kind: int, data: bytes, before: bytes = b"") -> bytes:
  """A chunk: kind, length, data, and the CRC-32 of all three and of what is `before` them."""
  framed = before + bytes([kind]) + varint(len(data)) + data
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
  if not data.startswith(SIGNATURES):
    raise FormatError("not a .gjx file: its signature is missing")
  if not data.startswith(SIGNATURE):
    return _read_short(data, limits)
  if len(data) == len(SIGNATURE):
    raise FormatError("cut off before the header's end")
  new = data[len(SIGNATURE)] == VERSION
  if not new and data[len(SIGNATURE)] != version_2.HEADER:
    raise FormatError(f"got a file of version {data[len(SIGNATURE)]}, expected {VERSION} or 2")
  header, begin = _header(data, limits) if new else (None, len(SIGNATURE))
  found, whole = chunks(data, begin)
  if header is None:
    if not found or found[0][0] != version_2.HEADER:
      raise FormatError("damaged: no header")
    header = Header(**version_2.header(found[0][1], limits.pixels), version=2)
    begin, found = begin + found[0][2], found[1:]
  metadata, bodies = {}, []
  names = {kind: name for name, kind in METADATA.items()}
  sizes = [("header", begin - len(SIGNATURE))]
  for kind, body, size in found:
    if kind == LAYER:
      bodies.append(body)
      sizes.append((f"layer {len(bodies)}", size))
    elif kind in names:
      metadata[names[kind]] = body
      sizes.append((names[kind], size))
    elif kind == GRAIN and header.version == VERSION:
      header = header._replace(grain=_grain(body, header))
      sizes.append(("grain", size))
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


def chunks(data: bytes, begin: int) -> tuple[list[tuple[int, bytes, int]], bool]:
  """(kind, data, size) of each whole chunk from `begin`, and whether the file ends with one.

  Checks CRCs, of which the first is of the header too. Raises FormatError.
  """
  found, position, since = list[tuple[int, bytes, int]](), begin, len(SIGNATURE)
  while position < len(data):
    try:
      length, first = read_varint(data, position + 1)
    except IndexError:
      return found, False
    end = first + length
    if end + 4 > len(data):
      return found, False
    if struct.unpack_from(">I", data, end)[0] != zlib.crc32(memoryview(data)[since:end]):
      raise FormatError(f"damaged: the check sum of the chunk at byte {position} is wrong")
    found.append((data[position], data[first:end], end + 4 - position))
    position = since = end + 4
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


def _header(data: bytes, limits: Limits) -> tuple[Header, int]:
  """(the header of a file of this version, where it ends). Raises FormatError."""
  try:
    return _parsed(data, len(SIGNATURE) + 1, limits)
  except (IndexError, struct.error):
    raise FormatError("cut off before the header's end") from None


def _parsed(data: bytes, at: int, limits: Limits) -> tuple[Header, int]:
  flags, at = data[at], at + 1
  if flags & RESERVED:
    raise FormatError("got a header that this version does not know")
  which = flags >> 5 & 3
  if which < len(CHANNELS):
    channels = CHANNELS[which]
  else:
    channels, at = data[at], at + 1
  height, at = read_varint(data, at)
  width, at = read_varint(data, at)
  weighted = bool(flags & WEIGHTED)
  end = at + len(Steps._fields) - (not weighted)
  if end > len(data):
    raise IndexError
  steps = Steps(*data[at:end], *([] if weighted else [grids.STEP_ZERO]))
  if flags & OWN_CANVAS:
    cutoff, floor, *background = struct.unpack_from(f">HH{channels}h", data, end)
    end += 4 + 2 * channels
  else:
    (cutoff, floor), background = CANVAS, [*struct.unpack_from(f"{channels}B", data, end)]
    end += channels
  check_canvas(height + 1, width + 1, channels, cutoff, floor, limits.pixels)
  unit = FIXED if flags & OWN_CANVAS else 255
  blend = int(bool(flags & BLEND))
  return Header(
    height + 1, width + 1, channels, blend, cutoff, floor, tuple(background), steps, (flags & 3) + 1, weighted, unit
  ), end


def check_canvas(height: int, width: int, channels: int, cutoff: int, floor: int, pixels: int) -> None:
  """Raises FormatError for a canvas that no file has."""
  try:
    geometry.check_canvas(height, width, channels, cutoff / FIXED, floor / FIXED, most_pixels=pixels)
  except ValueError as error:
    raise FormatError(f"a header that no file has: {error}") from None


def _layers(header: Header, bodies: list[bytes], limits: Limits) -> list[Any]:
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
  if header.version < VERSION:
    return version_2.layers(header.steps, header.channels, counts, streams)
  grid, models, layers = grids.grid(header.steps), contexts.models(header.channels), list[Codes]()
  known = numbers(header, counts[0])
  for count, stream in zip(counts, streams, strict=True):
    coder = range_coder.Decoder(models, stream)
    try:
      layers.append(contexts.code_layer(coder, count, header.channels, grid, known, layers, None))
    except DamagedError as error:
      raise FormatError(f"damaged: {error}") from None
  return layers


def _grain(body: bytes, header: Header) -> Grain:
  try:
    return grain.from_bytes(body, header.height, header.width)
  except DamagedError as error:
    raise FormatError(f"damaged: {error}") from None


def check_drawable(header: Header, radii: NDArray, means: NDArray, limits: Limits = LIMITS) -> None:
  """Raises FormatError if Gaussians of `radii` `[N]` pixels at `means` `[N, 2]` meet too many tiles."""
  size = 16
  low, high = (means - radii[:, None]) // size, (means + radii[:, None]) // size
  last = (header.width - 1) // size, (header.height - 1) // size
  met = (high.clip(-1, last) - low.clip(0, last) + 1).clip(0)
  overlaps = int((met[:, 0] * met[:, 1]).sum())
  if overlaps > limits.overlaps:
    raise FormatError(f"got {overlaps} Gaussians in tiles, expected at most {limits.overlaps}")
