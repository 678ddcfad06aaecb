"""Writes what this version writes into a folder of its name, for later versions to read: once, before a release.

    PYTHONPATH=. python tests/golden/make.py

A set (.npz), a file (.gjx), a fit that stopped on its way (a checkpoint), and `expected.json`, what a reader is to
find in them. A folder that is there is left alone: what was released does not change any more.
"""

import json
import sys
from pathlib import Path

import numpy as np

import gaussjax
from gaussjax import files
from gaussjax.fitting import checkpoints
from gaussjax.gjx import npz

STEPS, HALF, COUNT, SEED = 40, 20, 6, 0


def image():
  """`[12, 16, 1]` of bytes, from whole numbers alone."""
  rows, columns = np.mgrid[:12, :16]
  return ((rows * 9 + columns * 7 + (rows // 4) * (columns // 5) * 20) % 256).astype(np.uint8)[..., None]


def a_set():
  """Five Gaussians of exact numbers, with weights."""
  index = np.arange(5, dtype=np.float32)
  means = np.stack([3 * index + 0.5, 2 * index + 1.25], -1)
  shape = gaussjax.Euler(np.stack([index / 4, index / 8], -1), index / 2)
  colors = np.stack([index / 8, 1 - index / 8, index / 16], -1)
  canvas = gaussjax.Canvas(12, 16, np.array([0.5, 0.25, 0.125], np.float32), gaussjax.blends.weighted_average)
  return gaussjax.Gaussians(means, shape, colors, index / 16, canvas)


def fit(folder, steps):
  """A fit whose checkpoints are in `folder`, stopped after `steps` of STEPS."""
  seen = []
  stop = gaussjax.Stop(max_steps=STEPS, requested=lambda: bool(seen) and seen[-1]["step"] >= steps)
  checkpoint = gaussjax.Checkpoint(folder, every_steps=steps, label="golden")
  recipe = gaussjax.Recipe(
    initialize=gaussjax.initializers.grid, policy=None, steps=STEPS
  )  # compiles in little time
  return gaussjax.fit(
    image(),
    num_gaussians=COUNT,
    seed=SEED,
    preset=recipe,
    stop=stop,
    checkpoint=checkpoint,
    progress_fn=seen.append,
  )


def found(gaussians):
  """What is compared of a set."""
  canvas = gaussians.canvas
  arrays = {"means": gaussians.means, "colors": gaussians.colors, **gaussians.shape._asdict()}
  arrays |= {"background": canvas.background}
  arrays |= {} if gaussians.log_weights is None else {"log_weights": gaussians.log_weights}
  return {
    "canvas": [canvas.height, canvas.width, canvas.blend.name, float(canvas.cutoff), float(canvas.floor)],
    "arrays": {name: summary(np.asarray(array, np.float64)) for name, array in arrays.items()},
  }


def summary(array):
  """A shape, and two sums that tell arrays apart, also ones in another order."""
  return [list(array.shape), float(array.sum()), float((array.ravel() * np.arange(array.size)).sum())]


def main():
  """Writes the folder."""
  from experiments import fuzz_format

  folder = Path(__file__).parent / gaussjax.__version__
  if folder.exists():
    sys.exit(f"{folder} is there: what was released does not change")
  folder.mkdir()
  files.write_whole(folder / "set.npz", npz.dumps(a_set()))
  files.write_whole(folder / "small.gjx", fuzz_format.small_file())
  fit(folder / "fit", HALF)
  for old in checkpoints.kept(folder / "fit")[1:]:
    old.unlink()
  whole = fit(folder / "whole", STEPS)
  checkpoints.discard(folder / "whole")
  expected = {
    "set.npz": found(gaussjax.load(folder / "set.npz")),
    "small.gjx": found(gaussjax.load(folder / "small.gjx")),
    "fit": {"psnr": whole.metrics["psnr"], "records": len(whole.history)},
  }
  files.write_whole(folder / "expected.json", (json.dumps(expected) + "\n").encode())


if __name__ == "__main__":
  main()
