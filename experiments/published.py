"""Measures all that docs/results.md publishes, one runner after another: hours.

  python -m experiments.published --images=DIR             DIR holds the 24 Kodak photographs
  python -m experiments.published --images=DIR --list      the commands, and nothing else

Each runner keeps its rows in experiments/results and goes on where it stopped, so the same command does. One that
fails is told of at the end, and the others go on; rows are of whatever commit measured them, unless --fresh.
results_quick does one photograph of each in minutes.
"""

import shlex
import subprocess
import sys
import time
from pathlib import Path

from absl import flags

from experiments import runner

FLAGS = flags.FLAGS
ABLATION = "balanced,unweighted,fixed,constant,random,gradient_sampled,final_solve,perceptual,adan,lbfgs"
FOUR = (3, 5, 13, 23)  # photographs of the ablation and of most stages


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("images", None, "The folder of the 24 Kodak photographs.", required=True)
  flags.DEFINE_list("only", None, "Some of the names that --list gives.")
  flags.DEFINE_bool("fresh", False, "Measure again what was measured on another commit.")
  flags.DEFINE_bool("list", False, "Print the commands.")


def commands(images: str, four: str, fresh: bool) -> dict[str, list[str]]:
  """The runners by the name of their table, with flags."""
  of, of_four, again = f"--images={images}", f"--images={four}", ["--fresh"] * fresh
  sweep = ["sweep", of, *again]
  stages = {
    f"stage v{number}": ["acceptance", f"--stage=v{number}", *([] if number in (1, 5) else [of_four]), *again]
    for number in (1, 2, 3, 5, 6, 8)
  }
  return {
    "photographs": [*sweep, "--num_gaussians=5000,10000", "--name=kodak"],
    "photographs by best": [*sweep, "--num_gaussians=10000", "--variants=best", "--name=kodak"],
    "photographs by many": [*sweep, "--num_gaussians=30000,50000", "--name=kodak_high"],
    "parts": [
      *("sweep", of_four, *again, "--num_gaussians=5000", "--seeds=0,1", "--seconds=60", "--name=ablation"),
      f"--variants={ABLATION}",
    ],
    **stages,
    "stage v4": ["acceptance", "--stage=v4", of, *again],
    "stage v7": ["acceptance", "--stage=v7", of, *again],
    "rate and distortion": ["rate_distortion", of, "--name=kodak_rd", *again],
    "to the eye": [
      *("rate_distortion", of, "--name=kodak_visual_effort_5", "--tune=visual", *again),
      "--codecs=gaussjax,avif iq 4:2:0",
    ],
    "tiny files": ["tiny_files", of, "--name=tiny", *again],
    "bits and rounding": ["codec_levers", of_four, "--name=codec_levers"],
    "damaged files": ["fuzz_format", "--mutations=100000"],
    "damaged archives": ["fuzz_format", "--mutations=100000", "--format=npz"],
    "renderer": ["benchmark_render", "--sweep"],
    "encodings": ["benchmark_encode", of, "--each"],
    "encodings of each effort": [
      *("benchmark_encode", of_four, "--each", "--efforts=0,1,2,3,4,5,6,7,8,9"),
      *("--bpp=0.1", "--bpp=0.2", "--bpp=0.4", "--cores=0", "--name=efforts"),
    ],
    "efforts": ["efforts"],
  }


def four_of(images: Path) -> Path:
  """A folder of links to the four photographs."""
  folder = Path("out") / "published" / "four"
  folder.mkdir(parents=True, exist_ok=True)
  for number in FOUR:
    name = f"kodim{number:02d}.png"
    if not (images / name).is_file():
      raise ValueError(f"got --images={images}, which has no {name}; expected the 24 Kodak photographs")
    (folder / name).unlink(missing_ok=True)  # of other photographs, perhaps
    (folder / name).symlink_to((images / name).absolute())
  return folder


def main() -> int:
  """Runs them in turn: 1 if any failed; 130 after an interruption."""
  images = Path(FLAGS.images)
  work = commands(str(images), str(four_of(images)), FLAGS.fresh)
  if unknown := set(FLAGS.only or ()) - work.keys():
    raise ValueError(f"got --only={','.join(sorted(unknown))}, expected some of {', '.join(work)}")
  work = {name: words for name, words in work.items() if FLAGS.only is None or name in FLAGS.only}
  if FLAGS.list:
    for name, words in work.items():
      print(f"{name}: {shlex.join(words)}")
    return 0
  ended, began = dict[str, int](), time.monotonic()
  for index, (name, (module, *arguments)) in enumerate(work.items()):
    print(f"== {index + 1}/{len(work)} {name}, {time.monotonic() - began:.0f} s so far", flush=True)
    ended[name] = subprocess.run([sys.executable, "-m", f"experiments.{module}", *arguments]).returncode
    if ended[name] == runner.INTERRUPTED:
      raise runner.InterruptedFitError(f"interrupted in {name}; the same command goes on from here")
  for name, status in ended.items():
    print(f"{name}: {'done' if not status else f'status {status}'}")
  return int(any(status not in (0, NOT_MEASURED) for status in ended.values()))


NOT_MEASURED = 3  # what acceptance says of a stage that this machine cannot measure


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
