"""What the processes of the soak do: `python -m experiments.soak_children NAME ARGUMENTS`, started by soak.py.

Each says `working` when it has begun, and is killed when it is least convenient.
"""

import contextlib
import itertools
import json
import os
import sys
from pathlib import Path

from experiments import fuzz_format, runner
from gaussjax import files, startup

STEPS, COUNT, SIDE = 300, 40, 48
SIZE = 700  # bytes of a file
DAMAGED = 200  # files that a round of `steady` reads


def picture(seed: int):
  """`[SIDE, SIDE, 3]` bytes of smooth shapes."""
  import numpy as np

  rng = np.random.default_rng(seed)
  rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
  waves = [np.sin(rows * a + columns * b + c) for a, b, c in rng.uniform(-9, 9, (3, 3))]
  return np.round(127.5 + 127.5 * np.stack(waves, -1)).astype(np.uint8)


def fit(folder: str) -> None:
  """A fit with checkpoints in `folder`, and its set beside them."""
  import gaussjax

  checkpoint = gaussjax.Checkpoint(Path(folder) / "checkpoint", every_steps=10)
  stop = gaussjax.Stop(max_steps=STEPS)
  result = gaussjax.fit(
    picture(0), num_gaussians=COUNT, preset="fast", stop=stop, checkpoint=checkpoint, progress_fn=_say_working()
  )
  gaussjax.save(Path(folder) / "set.npz", result.gaussians)


def encode(folder: str) -> None:
  """An encoding with checkpoints in `folder`, and its file beside them."""
  import gaussjax

  checkpoint = gaussjax.Checkpoint(Path(folder) / "checkpoint", every_steps=10, every_seconds=0.2)
  data = gaussjax.encode(picture(1), size=SIZE, effort=0, checkpoint=checkpoint, progress_fn=_say_working())
  files.write_whole(Path(folder) / "file.gjx", data)


def _say_working():
  """A progress_fn that says `working` at the first report."""
  said = itertools.count()
  return lambda *_: print("working", flush=True) if next(said) == 0 else None


def pictures(folder: str, count: str) -> None:
  """PNG files to encode."""
  import gaussjax

  for index in range(int(count)):
    gaussjax.write_image(Path(folder) / f"{index}.png", picture(index))


def limited(bytes_: str, *arguments: str) -> None:
  """The command `gaussjax`, which may write no file of more than so many bytes: a disk that is full."""
  import resource

  from gaussjax import cli

  resource.setrlimit(resource.RLIMIT_FSIZE, (int(bytes_), int(bytes_)))
  print("working", file=sys.stderr, flush=True)
  cli.main(list(arguments))


def steady(folder: str) -> None:
  """Rounds of everything in one process that lives on: one for each line of stdin, answered by one of JSON."""
  import gaussjax

  print("working", flush=True)
  whole = fuzz_format.small_file()
  _, header = gaussjax.decode(whole)
  for seed, _ in enumerate(sys.stdin):
    counts = dict[str, int]()
    for data in fuzz_format.mutations(whole, DAMAGED, seed):
      came = fuzz_format.outcome(data, header)
      counts[came] = counts.get(came, 0) + 1
    with contextlib.redirect_stdout(sys.stderr):
      gaussjax.fit(picture(seed), num_gaussians=COUNT, preset="fast", stop=gaussjax.Stop(max_steps=30))
      data = gaussjax.encode(picture(seed), size=SIZE, effort=0)
    path = Path(folder) / "steady.gjx"
    files.write_whole(path, data)
    gaussjax.render(gaussjax.load(path))
    print(json.dumps({"memory": runner.memory(), "handles": _handles(), **counts}), flush=True)


def _handles() -> int:
  """Open files of this process; 0 where there is no /proc."""
  return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


if __name__ == "__main__":
  startup.prepare_jax()
  {work.__name__: work for work in (fit, encode, pictures, limited, steady)}[sys.argv[1]](*sys.argv[2:])
