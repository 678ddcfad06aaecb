"""Fits Gaussians to one image and shows the result.

  python -m experiments.fit_image --out_dir=out/demo

writes gaussians.npz, render.png, comparison.png (target, render, error), ellipses.png, curve.png, metrics.json and
report.html, a page with all of it. A fit that was interrupted goes on with the same flags and --resume. With --live
a page of this machine shows the picture as it grows, at every checkpoint.
"""

import functools
import pathlib
from typing import Any

from absl import flags

from experiments import live, runner, variants

FLAGS = flags.FLAGS

BLENDS = ("weighted_average", "accumulated_sum", "alpha_composite")
PARAMETERIZATIONS = {"euler": "to_euler", "cholesky": "to_cholesky", "log_cholesky": "to_log_cholesky"}


# What a checkpoint cannot tell from its arrays: to go on takes the same.
OF_THE_RECIPE = ("preset", "loss", "init", "density", "blend", "parameterization", "learning_rate")
INITIALIZERS = ("random", "random_colors", "grid", "gradient_sampled", "structure_tensor", "superpixels")


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("image", str(runner.PHOTOGRAPH), "The image file to fit.")
  flags.DEFINE_integer("num_gaussians", 1000, "N, the number of Gaussians.")
  flags.DEFINE_integer("iterations", None, "Steps; without it the recipe's.")
  flags.DEFINE_float("target_psnr", None, "Stop at this PSNR, in dB.")
  flags.DEFINE_float("time_limit", None, "Stop after so many seconds of stepping.", lower_bound=0)
  flags.DEFINE_float("min_gain", None, "Stop when 100 steps gain less than so many dB.", lower_bound=0)
  flags.DEFINE_float("learning_rate", None, "Rate of the colours (the others keep their ratio); v1: of all fields.")
  flags.DEFINE_enum(
    "preset",
    "balanced",
    [*variants.PRESETS, "v1"],
    "v1: constant rate 0.01 of the longer side, 100 steps.",
  )
  flags.DEFINE_enum("parameterization", "euler", list(PARAMETERIZATIONS), "How shapes are stored.")
  flags.DEFINE_enum(
    "blend",
    "weighted_average",
    list(BLENDS),
    "How a pixel is made; only weighted_average has density control.",
  )
  flags.DEFINE_enum(
    "loss",
    None,
    ["l1", "l2", "dssim", "ms_dssim", "lpips", "mix", "perceptual"],
    "What is made small; without it the recipe's.",
  )
  flags.DEFINE_enum("init", None, list(INITIALIZERS), "Where the Gaussians start; without it the recipe's.")
  flags.DEFINE_enum("density", None, ["none", "relocate", "split"], "Density control; without it the recipe's.")
  flags.DEFINE_integer("seed", 0, "Seed of the random numbers.")
  flags.DEFINE_integer("height", None, "Resize the image to this height first (area average).")
  flags.DEFINE_integer("width", None, "Resize the image to this width first.")
  flags.DEFINE_string("out_dir", "out/fit_image", "Where the results go.")
  flags.DEFINE_bool("resume", False, "Go on from the checkpoint in --out_dir.")
  flags.DEFINE_integer("checkpoint_every", 100, "Steps between checkpoints.", lower_bound=1)
  flags.DEFINE_bool("live", False, "Show the fit as it goes on, on a page at 127.0.0.1.")
  flags.DEFINE_bool("checked", False, "Assert every step with chex and stop at the first bad one; slow.")


def main() -> int:
  """Fits, writes the results, prints a table."""
  import jax.numpy as jnp

  import gaussjax
  from gaussjax import image_io, report
  from gaussjax.fitting import checkpoints
  from gaussjax.quality import metrics

  recipe = recipe_from_flags()
  image = gaussjax.read_image(FLAGS.image, report_fn=lambda line: print(f"{FLAGS.image}: {line}"))
  if FLAGS.height is not None or FLAGS.width is not None:
    image = image_io.resize(image, FLAGS.height, FLAGS.width)
  steps = recipe.steps if FLAGS.iterations is None else FLAGS.iterations
  compilations, report_progress, counts = runner.Compilations(), runner.progress(steps), []

  checkpoint = runner.checkpoint(FLAGS.out_dir, resume=FLAGS.resume, every_steps=FLAGS.checkpoint_every)
  checkpoint = checkpoint._replace(label=" ".join(f"--{name}={FLAGS[name].value}" for name in OF_THE_RECIPE))
  shown = shown_live(checkpoint.folder, steps, recipe, image)

  def progress_fn(record):
    counts.append(compilations.count)
    report_progress(record)
    if shown is not None:
      shown.add(record)

  with runner.results(FLAGS.out_dir) as folder, runner.interruptible() as requested:
    result = gaussjax.fit(
      image,
      num_gaussians=FLAGS.num_gaussians,
      seed=FLAGS.seed,
      preset=recipe,
      stop=gaussjax.Stop(steps, FLAGS.target_psnr, FLAGS.time_limit, FLAGS.min_gain, requested),
      checkpoint=checkpoint,
      progress_fn=progress_fn,
    )
    if requested():
      raise runner.InterruptedFitError(f"stopped at step {int(result.state.step)} of {steps}; go on with --resume")
    result.metrics["compile_seconds"] = compilations.seconds
    result.metrics["compilations_after_first_record"] = counts[-1] - counts[min(1, len(counts) - 1)]
    render = gaussjax.render(result.gaussians)
    result.metrics.update(metrics.perceptual(render, jnp.asarray(image)))
    write_results(folder, image, render, result)
  checkpoints.discard(checkpoint.folder)
  if shown is not None:
    shown.close()
  rows = [(name, f"{value:.5g}") for name, value in result.metrics.items()]
  print(report.table(rows, ("figure", "value")))
  print(f"results in {FLAGS.out_dir}: comparison.png is the one to look at first")
  return 0


def shown_live(folder, steps: int, recipe, image) -> live.Live | None:
  """The page of the fit as it goes on, if it is asked for."""
  if not FLAGS.live:
    return None
  draw = functools.partial(live.drawn, recipe=recipe, height=image.shape[0], width=image.shape[1])
  shown = live.Live(folder, steps, draw)
  print(f"the fit as it goes on: {shown.address}", flush=True)
  return shown


def recipe_from_flags():
  """The recipe that the flags describe."""
  from gaussjax import geometry
  from gaussjax.contrib import initializers as more_initializers, policies
  from gaussjax.fitting import density, initializers
  from gaussjax.quality import losses
  from gaussjax.rendering import blends

  base = variants.recipe(FLAGS.preset)
  initialize: Any = base.initialize
  if FLAGS.init == "random_colors":
    initialize = functools.partial(initializers.random, random_colors=True)
  elif FLAGS.init is not None:
    initialize = getattr(more_initializers if FLAGS.init == "superpixels" else initializers, FLAGS.init)
  blend = getattr(blends, FLAGS.blend)
  if blend != blends.weighted_average and FLAGS.init is None:
    initialize = initializers.structure_tensor
  unmoved = None if not blend.density else base.policy
  policy: Any = {None: unmoved, "none": None, "relocate": density.relocate, "split": policies.split}
  return base._replace(
    loss=base.loss if FLAGS.loss is None else getattr(losses, FLAGS.loss),
    initialize=initialize,
    policy=policy[FLAGS.density],
    parameterize=getattr(geometry, PARAMETERIZATIONS[FLAGS.parameterization]),
    blend=blend,
    learning_rate=base.learning_rate if FLAGS.learning_rate is None else FLAGS.learning_rate,
    checked=FLAGS.checked,
  )


def write_results(folder, image, render, result) -> None:
  """All files of a run into `folder`."""
  import gaussjax
  from gaussjax import files, report

  gaussjax.save(folder / "gaussians.npz", result.gaussians)
  gaussjax.write_image(folder / "render.png", render)
  gaussjax.write_image(folder / "comparison.png", report.comparison(image, render))
  magnify = max(1, 1536 // max(image.shape[:2]))
  gaussjax.write_image(folder / "ellipses.png", report.ellipses(result.gaussians, render, magnify=magnify))
  try:
    report.write_curve(folder / "curve.png", result.history)
  except ImportError:
    print("curve.png left out: matplotlib is missing (pip install 'gaussjax[plots]')")
  given = {name: FLAGS[name].value for name in runner.own_flags()}
  figures = {
    "flags": given,
    "environment": report.environment(),
    "metrics": result.metrics,
    "history": result.history,
  }
  runner.write_json(folder / "metrics.json", figures)
  files.write_whole(folder / "report.html", page(image, render, result, figures).encode())


def page(image, render, result, figures: dict[str, Any]) -> str:
  """The report of a run: figures, curves, the picture under a wipe."""
  import json

  from gaussjax import image_io
  from gaussjax.web import pages, reports

  address = lambda picture: pages.address(image_io.image_bytes(image_io.as_uint8(picture), ".png"), "image/png")
  curve = lambda x: reports.Plot(x, "PSNR (dB)", {"PSNR": [(row[x], row["psnr"]) for row in result.history]})
  measured = [(name, float(value)) for name, value in result.metrics.items()]
  parts = [
    (
      "Picture",
      reports.Pair(address(image), address(render), f"the fit of {len(result.gaussians.means)} Gaussians"),
    ),
    ("Figures", reports.Table(("figure", "value"), measured, digits=5)),
    ("By steps", curve("step")),
    ("By seconds", curve("seconds")),
    ("With", json.dumps({"flags": figures["flags"], "environment": figures["environment"]}, default=str)),
  ]
  return reports.report(f"Fit of {pathlib.Path(FLAGS.image).name}", parts)


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
