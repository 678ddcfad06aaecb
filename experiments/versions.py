"""What a version of the format brought: bytes at equal PSNR, image by image, of rows of ours in two files.

  python -m experiments.versions

compares kodak_rd.jsonl with kodak_rd_v2.jsonl of experiments/results. Expected: 5 percent less over 24 photographs.
"""

import statistics

from absl import flags

from experiments import curves, rate_distortion, rowfile, runner

FLAGS = flags.FLAGS


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("before", "kodak_rd_v2", "Names the rows' file of the version before.")
  flags.DEFINE_string("after", "kodak_rd", "Names that of the version that is looked at.")
  flags.DEFINE_integer("effort_before", 4, "Effort that the rows of before are of, the default then.")
  runner.define_effort_flag()


def points(name: str, effort: int) -> dict[str, dict[float, tuple[float, float]]]:
  """Of each image the (bpp, dB) by what was asked for, from the last rows of files tuned for PSNR."""
  found = dict[str, dict[float, tuple[float, float]]]()
  for row in rate_distortion.current(rowfile.read(rowfile.RESULTS / f"{name}.jsonl")):
    if (row["codec"], row["effort"], row["tune"]) == (rate_distortion.OURS, effort, rate_distortion.TUNE):
      found.setdefault(row["image"], {})[row["setting"]] = row["bpp"], row["psnr"]
  return found


def compared(before: str, effort_before: int, after: str, effort: int) -> list[tuple]:
  """(image, bytes at equal PSNR in percent, dB at each rate) of each image that both files have all rates of."""
  old, new = points(before, effort_before), points(after, effort)
  whole = lambda found, image: set(rate_distortion.BPP) <= set(found.get(image, ()))
  table = []
  for image in sorted(name for name in new if whole(old, name) and whole(new, name)):
    mine, theirs = ([found[image][rate] for rate in rate_distortion.BPP] for found in (new, old))
    gains = [a[1] - b[1] for a, b in zip(mine, theirs, strict=True)]
    table.append((image, curves.bd_rate(mine, theirs) or 0.0, *gains))
  return table


def main() -> int:
  """Prints a line for each image, and the means."""
  from gaussjax import report

  table = compared(FLAGS.before, FLAGS.effort_before, FLAGS.after, FLAGS.effort)
  if not table:
    raise ValueError(f"got no image that {FLAGS.before} and {FLAGS.after} have all rates of, expected one at least")
  means = [statistics.mean(column) for column in list(zip(*table, strict=True))[1:]]
  lines = [
    (name, f"{rate:+.2f}", *(f"{gain:+.2f}" for gain in gains)) for name, rate, *gains in [*table, ("mean", *means)]
  ]
  print(report.table(lines, ("image", "bytes, %", *(f"dB at {rate:g}" for rate in rate_distortion.BPP))))
  return 0


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
