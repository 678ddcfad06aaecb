"""Damages files in every way that comes to mind and reads them: each must be refused in words, or drawn.

  python -m experiments.fuzz_format --mutations=100000        about 3 minutes
  python -m experiments.fuzz_format --format=npz              about 1 minute

Every truncation of a small file, then mutations: flipped, inserted, dropped and random bytes; half of them with the
check sums made right again, and half of those in the header's fields, the counts and the lengths. Half of the files
are of version 3, half of version 2, made from a file that the last writer of that version left.
"""

import functools
import io
import json
import math
import random
import sys
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from experiments import runner

FLAGS = flags.FLAGS
SIDE, COUNT, CHANNELS = 48, 60, 3
MAX_SECONDS, MAX_BYTES = 1.0, 512 * 2**20
VERSION_2 = Path(__file__).parent / "data" / "version_2.gjx"  # 60 Gaussians too, in two layers
HEADER_FIELDS_2 = (
  (0, 1),
  (1, 1),
  (2, 4),
  (6, 4),
  (10, 1),
  (11, 1),
  (12, 1),
  (13, 2),
  (15, 2),
  *((17 + i, 1) for i in range(4)),
)
SIZES = (2, 3)  # where a small file of version 3 has its height and its width, a byte each


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_integer("mutations", 10000, "How many damaged files.", lower_bound=1)
  flags.DEFINE_enum("format", "gjx", ["gjx", "npz"], "Of the files.")
  flags.DEFINE_integer("seed", 0, "Of the damage.")


def small_file(seed: int = 0, layers: int = 2, *, weighted: bool = True, grained: bool = False) -> bytes:
  """A file of COUNT Gaussians in a picture of SIDE x SIDE, from random codes."""
  import numpy as np

  from gaussjax.gjx import container, grain, grids

  rng = np.random.default_rng(seed)
  steps = grids.Steps(120, 100, 170, 110, 112 if weighted else grids.STEP_ZERO)
  counts = np.diff(np.linspace(0, COUNT, layers + 1).astype(int))
  codes = [random_codes(rng, count, CHANNELS, steps, weighted=weighted, cells=14) for count in counts]
  header = container.Header(
    SIDE, SIDE, CHANNELS, 0, 3500, 300, (128,) * CHANNELS, steps, layers, weighted, background_unit=255
  )
  if grained:
    size = 2 * math.prod(grain.regions(SIDE, SIDE, 4))
    levels = rng.integers(0, 6, size, np.uint8).tobytes()
    header = header._replace(grain=grain.Grain(4, levels[: size // 2], levels[size // 2 :]))
  return container.write(header, codes, {"text": b"a note"})


def short_file(channels: int = CHANNELS) -> bytes:
  """The same in a short frame: of one layer, without weights."""
  import numpy as np

  from gaussjax.gjx import container, grids

  steps = grids.Steps(126, 110, 148, 118, grids.STEP_ZERO)
  codes = random_codes(np.random.default_rng(0), COUNT, channels, steps, cells=14)
  header = container.Header(
    SIDE, SIDE, channels, 0, *container.CANVAS, (128,) * channels, steps, 1, background_unit=255
  )
  data = container.write(header, [codes], short=True)
  assert not data.startswith(container.SIGNATURE)
  return data


def random_codes(
  rng: Any, count: int, channels: int, steps: Any, *, weighted: bool = False, cells: int = 40
) -> Any:
  """Codes of `count` Gaussians that a file with `steps` may hold, in the first `cells` of either direction."""
  import numpy as np

  from gaussjax.gjx import contexts, grids

  grid, integers = grids.grid(steps), lambda numbers: np.round(numbers).astype(np.int64)
  weights = integers(rng.normal(0, 0.5, count) * grids.ONE / grid.weight) * weighted
  unit = grid.minor[grids.level(grids.MINOR, grids.weight_feature(weights * int(grid.weight)))]
  least = np.maximum((contexts.LEAST_ROOT + (unit >> 1)) // unit, 1)
  minor = np.maximum(integers(np.exp(rng.normal(0.4, 0.3, count)) * grids.ONE / unit), least)
  blank = np.zeros((count, channels), np.int64)
  codes = grids.Codes(rng.integers(0, cells, (count, 2)), weights, minor, 0 * minor, 0 * minor, blank, 0 * minor)
  unit = grid.ratio[grids.level(grids.RATIO, grids.known(codes, grid).features)]
  codes = codes._replace(ratio=integers(np.abs(rng.normal(0.8, 0.6, count)) * grids.ONE / unit))
  feature = grids.known(codes, grid).features
  unit = grid.color[grids.level(grids.COLOR, feature)][:, None]
  return codes._replace(
    turn=rng.integers(0, 1 << 20, count) % grids.bins(grid, feature),
    colors=integers(rng.laplace(0, 0.2, (count, channels)) * grids.ONE / unit),
    parts=rng.integers(0, 1 << 20, count) % (1 << grids.part_bits(feature)),
  )


def truncations(data: bytes) -> Iterator[bytes]:
  """Every beginning of a file that is not the whole."""
  return (data[:end] for end in range(len(data)))


class Parts(NamedTuple):
  """A file taken apart; lists and bytes may be changed."""

  header: bytearray  # before the chunks; none in version 2, where it is the first chunk's body
  kinds: list[int]
  bodies: list[bytearray]


def parts_of(data: bytes) -> Parts:
  """A whole file's parts."""
  from gaussjax.gjx import container

  begin = len(container.SIGNATURE)
  if data[begin] == container.VERSION:
    begin += len(container.header_bytes(container.read(data).header))
  found, _ = container.chunks(data, begin)
  header = bytearray(data[len(container.SIGNATURE) : begin])
  return Parts(header, [kind for kind, _, _ in found], [bytearray(body) for _, body, _ in found])


def signed(parts: Parts) -> bytes:
  """A file of these parts, with right check sums."""
  from gaussjax.gjx import container

  framed, before = [container.SIGNATURE], bytes(parts.header)
  for kind, body in zip(parts.kinds, parts.bodies, strict=True):
    framed.append(container.chunk(kind, bytes(body), before))
    before = b""
  return b"".join(framed)


def mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
  """Damaged copies of a file of either version."""
  from gaussjax.gjx import container

  rng = random.Random(seed)
  if not data.startswith(container.SIGNATURE):  # a short frame: every second one with a right check sum
    for index in range(count):
      changed = bytes(damaged(bytearray(data), rng))
      yield changed if index % 2 else changed[:-1] + bytes([zlib.crc32(changed[:-1]) & 255])
    return
  whole = parts_of(data)
  for index in range(count):
    if index % 2:
      yield bytes(damaged(bytearray(data), rng))
      continue
    parts = Parts(bytearray(whole.header), list(whole.kinds), [bytearray(body) for body in whole.bodies])
    if index % 4:
      at = rng.randrange(len(parts.bodies))
      parts.bodies[at] = damaged(parts.bodies[at], rng)
    else:
      _change_numbers(parts, rng)
    yield signed(parts)


def damaged(data: bytearray, rng: random.Random) -> bytearray:
  """Up to eight changes of bytes."""
  for _ in range(rng.randint(1, 8)):
    at, way = rng.randrange(len(data) + 1), rng.randrange(4)
    if way == 0 and data:
      data[at % len(data)] ^= 1 << rng.randrange(8)
    elif way == 1:
      data[at:at] = rng.randbytes(rng.randint(1, 16))
    elif way == 2:
      del data[at : at + rng.randint(1, 16)]
    else:
      data[at : at + 4] = rng.choice((bytes(4), b"\xff" * 4, rng.randbytes(4)))
  return data


def _change_numbers(parts: Parts, rng: random.Random) -> None:
  """Header fields, counts of Gaussians, kinds and the order of chunks."""
  from gaussjax.gjx import container

  way, bodies, kinds = rng.randrange(4), parts.bodies, parts.kinds
  if way < 2 and parts.header:
    at = rng.randrange(len(parts.header))
    if at in SIZES:
      number = rng.choice((0, 1, rng.randrange(300), rng.getrandbits(rng.randint(1, 34))))
      parts.header[at : at + 1] = container.varint(number)
    else:
      parts.header[at] = rng.choice((0, 1, 255, rng.randrange(256), parts.header[at] ^ 1 << rng.randrange(8)))
  elif way < 2:
    at, size = rng.choice(HEADER_FIELDS_2)
    value = rng.choice((0, 1, 255, rng.randrange(300), rng.getrandbits(8 * size), (1 << 8 * size) - 1))
    bodies[0][at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "big")
  elif way == 2:
    at = rng.randrange(len(bodies))
    count = rng.choice((0, 1, rng.randrange(200), 1_000_000, rng.getrandbits(32)))
    bodies[at][: rng.randint(0, 2)] = container.varint(count)
  else:
    first, second = rng.randrange(len(bodies)), rng.randrange(len(bodies))
    kinds[first], kinds[second] = kinds[second], rng.choice((kinds[first], rng.randrange(256)))


def outcome(data: bytes, original: Any) -> str:
  """Reads a file and draws it if it can: what came of it. `original` is the header before the damage."""
  import numpy as np

  import gaussjax
  from gaussjax.gjx import container

  limits = container.Limits(pixels=1 << 16, gaussians=1 << 12, file_bytes=1 << 20, overlaps=1 << 16)
  try:
    gaussians, header = gaussjax.decode(data, limits=limits)
  except gaussjax.FormatError as error:
    assert str(error) and "\n" not in str(error)
    return "refused"
  assert header.height * header.width <= limits.pixels
  same = original._replace(steps=header.steps, background=header.background, grain=header.grain) == header
  if not same:  # another size or another floor would be another program to compile
    return "read"
  assert np.isfinite(gaussjax.add_grain(gaussjax.render(gaussians), header)).all()
  return "drawn"


ABSURD: tuple[Any, ...] = (
  None,
  True,
  -1,
  0,
  0.5,
  24.0,
  1 << 40,
  10**400,
  float("nan"),
  float("inf"),
  "x",
  "é" * 999,
  [],
  {},
  [["means"]],
)


def npz_mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
  """Damaged copies of an .npz archive; in every second one zip's own check sums are right."""
  rng = random.Random(seed)
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    parts = {member.filename: archive.read(member) for member in archive.infolist()}
  for index in range(count):
    if index % 2:
      yield bytes(damaged(bytearray(data), rng))
      continue
    members = list(parts.items())
    at, way = rng.randrange(len(members)), rng.randrange(8)
    name, body = members[at]
    if way < 2:
      members[at] = name, bytes(damaged(bytearray(body), rng))
    elif way < 4:  # one bit of a number
      bit = rng.randrange(8 * 128, 8 * len(body))
      members[at] = name, body[: bit // 8] + bytes([body[bit // 8] ^ 1 << bit % 8]) + body[bit // 8 + 1 :]
    elif way == 4:
      members[at] = name, body[:10] + bytes(damaged(bytearray(body[10:128]), rng)) + body[128:]  # shape and type
    elif way == 5:
      members[at] = rng.choice(("é.npy", "../x.npy", "x", "header.npy", "x.npy", "log_weights.npy")), body
    elif way == 6:
      del members[at]
    else:
      members[0] = members[0][0], _other_header(parts[members[0][0]], rng)
    yield _zipped(members, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)))


def _other_header(body: bytes, rng: random.Random) -> bytes:
  """The member `header.npy` with an absurd value, or none, in one place."""
  import numpy as np

  header = json.loads(np.load(io.BytesIO(body)).item())
  name = rng.choice([*header, "bfloat16"])
  header[name] = rng.choice(ABSURD)
  if rng.random() < 0.2:
    del header[name]
  text = json.dumps(header if rng.random() < 0.9 else rng.choice(ABSURD))
  buffer = io.BytesIO()
  np.save(buffer, np.array(text))
  return buffer.getvalue()


def _zipped(members: list[tuple[str, bytes]], method: int) -> bytes:
  buffer = io.BytesIO()
  with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w", method) as archive:  # of equal names
    for name, body in members:
      archive.writestr(name, body)
  return buffer.getvalue()


def npz_outcome(data: bytes, original: Any) -> str:
  """Reads an archive and draws its set if it can: what came of it. `original` is the set before the damage."""
  import jax
  import numpy as np

  import gaussjax
  from gaussjax.gjx import npz

  try:
    gaussians = npz.loads(data)
  except gaussjax.FormatError as error:
    assert str(error) and "\n" not in str(error)
    return "refused"
  kind = lambda tree: (jax.tree.structure(tree), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)])
  if kind(gaussians) != kind(original):  # would be another program to compile
    return "read"
  assert np.isfinite(np.asarray(gaussjax.render(gaussians))).all()
  return "drawn"


def main() -> int:
  """Prints what came of all files, exits 1 if one was too slow, compilation apart, or took too much memory."""
  import gaussjax
  from gaussjax import report
  from gaussjax.gjx import npz

  rows, worst, most = [], 0.0, 0
  if FLAGS.format == "gjx":
    wholes = {
      "version 3": small_file(grained=True),
      "in a short frame": short_file(),
      "version 2": VERSION_2.read_bytes(),
    }
    found = {
      name: outcomes(
        whole,
        mutations,
        FLAGS.mutations // len(wholes),
        functools.partial(outcome, original=gaussjax.decode(whole)[1]),
      )
      for name, whole in wholes.items()
    }
  else:
    gaussians, _ = gaussjax.decode(small_file())
    judge = functools.partial(npz_outcome, original=gaussians)
    found = {".npz": outcomes(npz.dumps(gaussians), npz_mutations, FLAGS.mutations, judge)}
  for name, (counts, slowest, grown) in found.items():
    ends = (f"{counts[end]:,}" for end in ("refused", "drawn", "read"))
    rows.append((name, f"{sum(counts.values()):,}", *ends, f"{slowest:.3f}", f"{grown / 2**20:.0f}"))
    worst, most = max(worst, slowest), max(most, grown)
  heads = ("files", "all", "refused", "drawn", "read", "slowest, s", "memory grew, MB")
  print(report.table(rows, heads))
  return 0 if worst < MAX_SECONDS and most < MAX_BYTES else 1


def outcomes(
  whole: bytes, mutate: Callable[[bytes, int, int], Iterator[bytes]], count: int, judge: Callable[[bytes], str]
) -> tuple[Counter[str], float, int]:
  """(what came of all truncations and `count` mutations, the slowest's seconds, bytes by which memory grew)."""
  from gaussjax.fitting import clock

  counts, slowest = Counter[str](), 0.0
  judge(whole)  # compiles
  before = runner.peak_memory()
  began = time.monotonic()
  with clock.stepping_clock() as seconds:
    for source in (truncations(whole), mutate(whole, count, FLAGS.seed)):
      for index, data in enumerate(source):
        start = seconds()
        counts[judge(data)] += 1
        slowest = max(slowest, seconds() - start)
        if index % 5000 == 4999:
          print(f"{index + 1} of {count}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
  return counts, slowest, runner.peak_memory() - before


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
