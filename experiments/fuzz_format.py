"""Damages `.gjx` files in every way that comes to mind and reads them: each must be refused in words, or drawn.

  python -m experiments.fuzz_format --mutations=100000        about 3 minutes

Every truncation of a small file, then mutations: flipped, inserted, dropped and random bytes; half of them with the
check sums made right again, and half of those in the header's fields, the counts and the lengths.
"""

import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from absl import flags

from experiments import runner

FLAGS = flags.FLAGS
SIDE, COUNT, CHANNELS = 48, 60, 3
MAX_SECONDS, MAX_BYTES = 1.0, 512 * 2**20
HEADER_FIELDS = (
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


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_integer("mutations", 10000, "How many damaged files.", lower_bound=1)
  flags.DEFINE_integer("seed", 0, "Of the damage.")


def small_file(seed: int = 0, layers: int = 2) -> bytes:
  """A file of COUNT Gaussians in a picture of SIDE x SIDE, from random codes."""
  import numpy as np

  from gaussjax.gjx import container, grids

  rng = np.random.default_rng(seed)
  steps = grids.Steps(120, 100, 170, 110)
  grid, codes = grids.grid(steps), []
  for count in np.diff(np.linspace(0, COUNT, layers + 1).astype(int)):
    ratio = rng.integers(0, 25, count)
    codes.append(
      grids.Codes(
        cells=rng.integers(0, 14, (count, 2)),
        parts=rng.integers(0, grids.PARTS, count),
        minor=rng.integers(-5, 20, count),
        ratio=ratio,
        turn=rng.integers(0, 1 << 20, count) % grids.bins(ratio, grid),
        colors=rng.integers(-4, 12, (count, CHANNELS)),
      )
    )
  header = container.Header(SIDE, SIDE, CHANNELS, 0, 3500, 300, (500,) * CHANNELS, steps, layers)
  return container.write(header, codes, {"text": b"a note"})


def truncations(data: bytes) -> Iterator[bytes]:
  """Every beginning of a file that is not the whole."""
  return (data[:end] for end in range(len(data)))


def mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
  """Damaged copies of a file."""
  rng, parts = random.Random(seed), chunks(data)
  for index in range(count):
    if index % 2:
      yield bytes(damaged(bytearray(data), rng))
      continue
    kinds, bodies = [kind for kind, _ in parts], [bytearray(body) for _, body in parts]
    if index % 4:
      at = rng.randrange(len(bodies))
      bodies[at] = damaged(bodies[at], rng)
    else:
      _change_numbers(kinds, bodies, rng)
    yield signed(kinds, bodies)


def chunks(data: bytes) -> list[tuple[int, bytes]]:
  """(kind, body) of each chunk."""
  from gaussjax.gjx import container

  return [(kind, body) for kind, body, _ in container.chunks(data)[0]]


def signed(kinds: list[int], bodies: list[bytearray]) -> bytes:
  """A file of these chunks, with right check sums."""
  from gaussjax.gjx import container

  framed = [container.chunk(kind, bytes(body)) for kind, body in zip(kinds, bodies, strict=True)]
  return container.SIGNATURE + b"".join(framed)


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


def _change_numbers(kinds: list[int], bodies: list[bytearray], rng: random.Random) -> None:
  """Header fields, counts of Gaussians, kinds and the order of chunks."""
  way = rng.randrange(4)
  if way < 2:
    at, size = rng.choice(HEADER_FIELDS)
    value = rng.choice((0, 1, 255, rng.randrange(300), rng.getrandbits(8 * size), (1 << 8 * size) - 1))
    bodies[0][at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "big")
  elif way == 2:
    at = rng.randrange(len(bodies))
    count = rng.choice((0, 1, rng.randrange(200), 1_000_000, rng.getrandbits(32)))
    from gaussjax.gjx import container

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
  same = original._replace(steps=header.steps, background=header.background) == header
  if not same:  # another size or another floor would be another program to compile
    return "read"
  assert np.isfinite(np.asarray(gaussjax.render(gaussians))).all()
  return "drawn"


def main() -> int:
  """Prints what came of all files, exits 1 if one was too slow, compilation apart, or took too much memory."""
  from gaussjax.fitting import clock
  from gaussjax.gjx import container

  original, counts, slowest = small_file(), Counter[str](), 0.0
  header = container.read(original).header
  outcome(original, header)  # compiles
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  began = time.monotonic()
  with clock.stepping_clock() as seconds:
    for source in (truncations(original), mutations(original, FLAGS.mutations, FLAGS.seed)):
      for index, data in enumerate(source):
        start = seconds()
        counts[outcome(data, header)] += 1
        slowest = max(slowest, seconds() - start)
        if index % 5000 == 4999:
          print(f"{index + 1} of {FLAGS.mutations}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
  grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
  print(
    f"{sum(counts.values())} files: {dict(counts)}; slowest {slowest:.3f} s (compilation apart), memory grew by "
    f"{grown / 2**20:.0f} MB"
  )
  return 0 if slowest < MAX_SECONDS and grown < MAX_BYTES else 1


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
