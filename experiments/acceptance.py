"""Measures a stage of the plan against what it requires.

Exits 1 if anything falls short, 3 if it cannot be measured on this machine.

  python -m experiments.acceptance --stage=plain_fit     about 2 minutes on 2 CPU cores

plain_fit (v1): on two patterns and the shipped photograph, seeds 0 to 4: one pass of 100 steps gains enough
  PSNR, the gradients match finite differences, no scale collapses, the image stays covered, the loss goes
  down.
passes (v2): ten passes against one.
density_control (v3): what it is worth, in dB and in Gaussians.
start (v4): what it is worth, in time to a PSNR.
frame_rate (v5): 1,000 frames a second at 768 x 512 with 10,000 Gaussians, on a GPU.
perceptual_loss (v6): the perceptual mix against L2.
files (v7): files at a tenth of the size, and the cost of rounding.
shapes (v8): the three shapes, also under stress.

All but plain_fit and frame_rate take --images, a file or a folder; without it the shipped photograph. They
keep the rows of their fits in experiments/results/acceptance.jsonl, files those of its files beside it, go on
where they stopped, and say which commits the rows are of; --fresh measures again what is of another commit.
"""

import importlib

from absl import flags

from experiments import rowfile, runner

FLAGS = flags.FLAGS
STAGES = {
  "v1": "plain_fit",
  "v2": "passes",
  "v3": "density_control",
  "v4": "start",
  "v5": "frame_rate",
  "v6": "perceptual_loss",
  "v7": "files",
  "v8": "shapes",
}
OWN_IMAGES = ("plain_fit", "frame_rate")


def define_flags() -> None:
  """The flags of this runner."""
  names = [*STAGES.values(), *STAGES]
  flags.DEFINE_enum("stage", None, names, "Which stage to measure; v1 to v8 are other names.", required=True)
  flags.DEFINE_string("images", None, "An image file or a folder, for the stages that take one.")
  flags.DEFINE_bool("fresh", False, "Measure again what was measured on another commit.")


def main() -> int:
  """Runs the stage and prints its table."""
  from gaussjax import report

  name, source = STAGES.get(FLAGS.stage, FLAGS.stage), rowfile.source(fresh=FLAGS.fresh)
  stage = importlib.import_module(f"experiments.stages.{name}")
  try:
    if name not in OWN_IMAGES:
      criteria = stage.measure(runner.image_files(FLAGS.images or runner.PHOTOGRAPH), source)
    elif FLAGS.images is None:
      criteria = stage.measure()
    else:
      raise ValueError(f"got --images, but --stage={FLAGS.stage} has images of its own; leave it out")
  except runner.NotMeasuredError as reason:
    print(f"not measured: {reason}")
    return 3
  rows = [(c.name, c.measured, c.required, "met" if c.met else "MISSED") for c in criteria]
  print(report.table(rows, ("criterion", "measured", "required", "")))
  missed = sum(not c.met for c in criteria)
  print(f"{name}: {len(criteria) - missed} of {len(criteria)} criteria met")
  if source.commits:
    print(rowfile.commits(source.commits))
  return 1 if missed else 0


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
