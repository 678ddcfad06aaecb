"""The pictures of docs/ideas.md, each drawn by the library itself.

python -m experiments.pictures --out_dir=docs/images
"""

from pathlib import Path
from typing import Any

from absl import flags

from experiments import runner

FLAGS = flags.FLAGS
BLUE, ORANGE, GRAY = "#2f6db3", "#d9782d", "#888888"
COARSER = (0, 2, 4)  # octaves by which all steps grow


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("out_dir", None, "Where the pictures go.", required=True)


def main() -> int:
  """Draws them all."""
  folder = Path(FLAGS.out_dir)
  folder.mkdir(parents=True, exist_ok=True)
  for draw in (kernel, average, shapes):
    figure = draw()
    figure.savefig(folder / f"{draw.__name__}.png", dpi=100)
  for name, picture in (("density", density()), ("quantisation", quantisation())):
    import gaussjax

    gaussjax.write_image(folder / f"{name}.jpg", picture)
  return 0


def panels(columns: int, width: float = 8, height: float = 2.8) -> tuple[Any, Any]:
  """(a figure that needs no display, its axes)."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), layout="constrained")
  FigureCanvasAgg(figure)
  return figure, figure.subplots(1, columns)


def kernel() -> Any:
  """The kernel by distance, at two cut-offs, and in the plane."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from gaussjax.rendering import kernel as kernels

  figure, (left, right) = panels(2)
  distance = np.linspace(0, 4.5, 300)
  left.plot(distance, np.exp(-(distance**2) / 2), color=GRAY, linestyle="--", label="exp(-q / 2)")
  for cutoff, color in ((3.5, BLUE), (2.0, ORANGE)):
    along = kernels.kernel(jnp.asarray(distance**2 / 2), kernels.tail(cutoff))
    left.plot(distance, along, color=color, label=f"cut at {cutoff:g}")
    left.plot([cutoff], [0], "o", color=color, markersize=5)
  left.set(xlabel="distance, standard deviations", ylabel="weight")
  left.legend()
  pixels = jnp.stack(jnp.meshgrid(jnp.arange(48) + 0.5, jnp.arange(32) + 0.5), -1).reshape(-1, 2)
  mean, whitening = jnp.array([24.0, 16.0]), jnp.array([1 / 6.5, 0.06, 1 / 3.6])
  weights = jax.vmap(lambda pixel: kernels.weight(mean, whitening, pixel, kernels.tail(3.5)))(pixels)
  shown = right.imshow(weights.reshape(32, 48), cmap="magma", extent=(0, 48, 32, 0))
  figure.colorbar(shown, ax=right, shrink=0.8)
  right.set(title="one Gaussian on its pixels: black is exactly 0", xlabel="x, pixels", ylabel="y")
  right.title.set_fontsize(10)
  return figure


def average() -> Any:
  """A row of pixels: three Gaussians, their sum and their average."""
  import jax.numpy as jnp
  import numpy as np

  from gaussjax.rendering import kernel as kernels

  figure, (left, right) = panels(2)
  x, tau = np.linspace(0, 40, 400), kernels.tail(3.5)
  weights, colors = [], (0.2, 0.9, 0.4)
  for mean, scale, color, line in ((8, 5.0, 0.2, BLUE), (22, 3.0, 0.9, ORANGE), (31, 4.0, 0.4, "#3c8d5a")):
    weights.append(np.asarray(kernels.kernel(jnp.asarray(((x - mean) / scale) ** 2 / 2), tau)))
    left.plot(x, weights[-1], color=line, label=f"colour {color}")
  total = np.sum(weights, axis=0)
  summed = np.sum([w * c for w, c in zip(weights, colors, strict=True)], axis=0)
  left.set(xlabel="x, pixels", ylabel="weight", ylim=(-0.05, 1.35))
  right.plot(x, (summed + tau * 0.5) / (total + tau), color=BLUE, label="weighted average, over 0.5")
  right.plot(x, summed, color=ORANGE, linestyle="--", label="accumulated sum, over 0")
  right.set(xlabel="x, pixels", ylabel="colour", ylim=(-0.05, 1.35))
  left.legend(ncols=3, fontsize=8, loc="upper center")
  right.legend(ncols=1, fontsize=8, loc="upper right")
  return figure


def shapes() -> Any:
  """Two log-scales and an angle; a thin Gaussian with and without the floor."""
  import numpy as np
  from matplotlib import patches

  figure, (left, right) = panels(2)
  turn = np.degrees(0.6)
  left.add_patch(patches.Ellipse((0, 0), 16, 6, angle=turn, facecolor="#cfe0f2", edgecolor=BLUE))
  for length, angle, words, beside in (
    (8, 0.6, "exp(log_scales[0])", (7, 5)),
    (3, 0.6 + np.pi / 2, "exp(log_scales[1])", (-8.5, 5)),
  ):
    end = length * np.cos(angle), length * np.sin(angle)
    left.annotate("", end, (0, 0), arrowprops={"arrowstyle": "->"})
    left.text(*beside, words, va="center", fontsize=9)
  left.plot([0, 5], [0, 0], color=GRAY, linewidth=1)
  left.add_patch(patches.Arc((0, 0), 7, 7, theta1=0, theta2=turn, color=GRAY))
  left.text(3.8, 0.9, "theta", fontsize=9)
  left.set(xlim=(-9, 15), ylim=(8, -7), title="Euler: two scales and an angle")
  for scale, color, words in (
    (0.02, ORANGE, "its own scale: 0.02"),
    (np.hypot(0.02, 0.3), BLUE, "with the floor: 0.3"),
  ):
    right.add_patch(patches.Ellipse((2, 1.5), 3, 2 * scale, angle=20, fill=False, edgecolor=color, label=words))
  right.set(xlim=(0, 4), ylim=(3, 0), title="the floor, on pixels", xticks=range(5), yticks=range(4))
  right.grid(color="#cccccc")
  right.legend(fontsize=8)
  for axes in (left, right):
    axes.set_aspect("equal")
    axes.title.set_fontsize(10)
  return figure


def fitted(policy: Any, steps: int) -> tuple[Any, Any]:
  """(a small photograph, a fit of 400 Gaussians to it)."""
  import gaussjax
  from gaussjax import image_io

  image = image_io.resize(gaussjax.read_image(runner.PHOTOGRAPH), 256, 384)
  recipe = gaussjax.PRESETS["fast"]._replace(
    policy=policy, initialize=gaussjax.initializers.grid, weighted=False, steps=steps
  )
  return image, gaussjax.fit(image, num_gaussians=400, preset=recipe).gaussians


def density() -> Any:
  """The same fit of 400 Gaussians without and with density control: pictures above, ellipses below."""
  import numpy as np

  import gaussjax
  from gaussjax import report
  from gaussjax.fitting import density as control

  columns = []
  for policy in (None, control.relocate):
    image, gaussians = fitted(policy, 300)
    drawn = np.clip(np.asarray(gaussjax.render(gaussians)), 0, 1)
    columns.append(np.concatenate([drawn, report.ellipses(gaussians, drawn)]))
    print(f"{policy}: {float(gaussjax.metrics.psnr(drawn, image)):.2f} dB")
  return np.concatenate([columns[0], np.ones((512, 4, 3), np.float32), columns[1]], axis=1)


def quantisation() -> Any:
  """A fit whose numbers are put to the nearest code on finer and coarser grids."""
  import numpy as np

  import gaussjax
  from gaussjax.fitting import density as control
  from gaussjax.gjx import grids, packing, quantization
  from gaussjax.rendering import renderer

  image, gaussians = fitted(control.relocate, 300)
  gaussians = packing.holdable(gaussians)
  balanced = quantization.balanced_steps(gaussians, renderer.target(image))
  shown = []
  for octaves in COARSER:
    times = 8 * octaves * len(balanced)  # an eighth of an octave of one step at a time
    steps = quantization.coarser(balanced, times, quantization.finest(gaussians))
    snapped, data = grids.nearest(gaussians, steps), packing.pack(gaussians, steps)
    drawn = np.clip(np.asarray(gaussjax.render(snapped)), 0, 1)
    print(f"{octaves}: {len(data)} bytes, {float(gaussjax.metrics.psnr(drawn, image)):.2f} dB")
    shown += [drawn[40:232, 100:356], np.ones((192, 4, 3), np.float32)]
  return np.concatenate(shown[:-1], axis=1)


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
