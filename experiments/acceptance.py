"""Measures a stage of the plan against what it requires.

Exits 1 if anything falls short, 3 if it cannot be measured on this machine.

  python -m experiments.acceptance --stage=v1     about 2 minutes on 2 CPU cores

--stage=v1: on two patterns and the shipped photograph, seeds 0 to 4: one pass of 100 steps gains enough PSNR, the
gradients match finite differences, no scale collapses, the image stays covered, the loss goes down.
--stage=v2: ten passes against one. --stage=v3: density control, in dB and in Gaussians. --stage=v4: the start, in
time to a PSNR. --stage=v6: the perceptual mix against L2. --stage=v7: files at a tenth of
the size, and the cost of rounding. --stage=v8: the three shapes, also under stress. Each of
these takes --images, a file or a folder; without it the shipped photograph. v2, v3, v4, v6 and v8 keep the rows of
their fits in experiments/results/acceptance.jsonl, v7 those of its files beside it, and go on where they stopped.
--stage=v5: 1,000 frames a second at 768 x 512 with 10,000 Gaussians, on a GPU.
"""

import importlib

from absl import flags

from experiments import runner

FLAGS = flags.FLAGS
STAGES = ("v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8")
OWN_IMAGES = ("v1", "v5")


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_enum("stage", None, list(STAGES), "Which stage to measure.", required=True)
  flags.DEFINE_string("images", None, "An image file or a folder, for the stages that take one.")


def main() -> int:
  """Runs the stage and prints its table."""
  import gaussjax

  stage = importlib.import_module(f"experiments.stages.{FLAGS.stage}")
  try:
    if FLAGS.stage not in OWN_IMAGES:
      criteria = stage.measure(runner.image_files(FLAGS.images or runner.PHOTOGRAPH))
    elif FLAGS.images is None:
      criteria = stage.measure()
    else:
      raise ValueError(f"got --images, but --stage={FLAGS.stage} has images of its own; leave it out")
  except runner.NotMeasuredError as reason:
    print(f"not measured: {reason}")
    return 3
  rows = [(c.name, c.measured, c.required, "met" if c.met else "MISSED") for c in criteria]
  print(gaussjax.report.table(rows, ("criterion", "measured", "required", "")))
  missed = sum(not c.met for c in criteria)
  print(f"{FLAGS.stage}: {len(criteria) - missed} of {len(criteria)} criteria met")
  return 1 if missed else 0


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
