"""Pictures of a fit: comparison, ellipses, curve. Arrays in, arrays or PNG files out."""

import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussjax import files, geometry, startup
from gaussjax.gjx import descent, native_loops
from gaussjax.rendering import scanlines
from gaussjax.types import Gaussians

GAP = 4  # white pixels between panels
ERROR_GAIN = 4  # errors are shown this many times enlarged, since a good fit's are invisible


def comparison(target: ArrayLike, render: ArrayLike) -> NDArray:
  """Target, render and error map (absolute difference, times ERROR_GAIN) side by side: `[H, 3 W + 2 GAP, 3]`."""
  target, render = _rgb(target), np.clip(_rgb(render), 0, 1)
  error = np.clip(np.abs(render - target) * ERROR_GAIN, 0, 1)
  gap = np.ones((target.shape[0], GAP, 3), target.dtype)
  return np.concatenate([target, gap, render, gap, error], axis=1)


def ellipses(gaussians: Gaussians, render: ArrayLike, *, magnify: int = 1, sigmas: float = 1.0) -> NDArray:
  """Each Gaussian's outline at `sigmas` standard deviations, in its colour, over the dimmed `render` `[H, W, C]`.

  The picture is `magnify` times larger than the render, so that small ellipses stay apart.
  """
  picture = np.repeat(np.repeat(0.35 * np.clip(_rgb(render), 0, 1), magnify, axis=0), magnify, axis=1)
  scales = np.asarray(geometry.scales(gaussians))
  thetas = np.asarray(geometry.to_euler(gaussians.shape).thetas)
  colors = np.clip(_rgb(np.asarray(gaussians.colors)), 0, 1)
  colors = 0.3 + 0.7 * colors  # dark Gaussians must show on a dark ground
  angles = np.linspace(0, 2 * np.pi, 360, endpoint=False)
  axes = np.stack([np.cos(thetas), np.sin(thetas)], -1)
  across = np.stack([-axes[:, 1], axes[:, 0]], -1)
  height, width, _ = picture.shape
  for angle in angles:  # a point of every ellipse at a time
    offset = scales[:, :1] * np.cos(angle) * axes + scales[:, 1:] * np.sin(angle) * across
    x, y = np.floor((np.asarray(gaussians.means) + sigmas * offset) * magnify).T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    picture[y[inside].astype(int), x[inside].astype(int)] = colors[inside]
  return picture


def write_curve(path: str | os.PathLike, history: Sequence[dict[str, float]]) -> None:
  """PSNR and loss against step as a PNG. Needs matplotlib, the extra `plots`; raises ImportError without it."""
  figure = _figure(7, 4)
  left = figure.add_subplot()
  right = left.twinx()
  steps = [record["step"] for record in history]
  left.plot(steps, [record["psnr"] for record in history], color="tab:blue")
  right.semilogy(steps, [record["loss"] for record in history], color="tab:orange")
  left.set(xlabel="step")
  left.set_ylabel("PSNR (dB)", color="tab:blue")
  right.set_ylabel("loss", color="tab:orange")
  left.grid(alpha=0.3)
  _write_figure(path, figure)


def write_sweep(path: str | os.PathLike, groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
  """Mean PSNR against N, and PSNR against seconds, as a PNG; groups of rows by label. Needs matplotlib.

  A row has `num_gaussians`, `psnr` and `curve`, of (step, seconds, psnr).
  """
  figure = _figure(11, 4.5)
  left, right = figure.subplots(1, 2)
  for index, (label, rows) in enumerate(groups.items()):
    color = f"C{index % 10}"
    counts = [row["num_gaussians"] for row in rows]
    left.plot(counts, [row["psnr"] for row in rows], ".", color=color, alpha=0.3)
    left.plot(np.mean(counts), np.mean([row["psnr"] for row in rows]), "o", color=color, label=label)
    right.plot(*zip(*mean_curve(rows, first=0.2, least=0, count=100), strict=True), color=color, label=label)
  left.set(xlabel="Gaussians", ylabel="PSNR (dB): images, and their mean")
  right.set(xlabel="seconds, compilation apart", ylabel="mean PSNR (dB)", xscale="log")
  for axes in (left, right):
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
  _write_figure(path, figure)


def mean_curve(
  rows: Sequence[Mapping[str, Any]], *, first: float, least: float, count: int
) -> list[tuple[float, float]]:
  """`count` points (seconds, mean PSNR) of rows as for `write_sweep`.

  From `first` seconds to where half of them have ended, but not before `least`.
  """
  seconds = np.geomspace(first, max(least, float(np.median([row["curve"][-1][1] for row in rows]))), count)
  curves = [np.interp(seconds, [p[1] for p in row["curve"]], [p[2] for p in row["curve"]]) for row in rows]
  return list(zip(seconds.tolist(), np.mean(curves, axis=0).tolist(), strict=True))


def write_rates(
  path: str | os.PathLike,
  panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
  *,
  x: str = "bits a pixel",
  limits: tuple[float, float] = (0, 0.8),
  log_x: bool = False,
) -> None:
  """Rate-distortion curves as a PNG: a panel for each metric, in it points (rate `x`, metric) by label.

  Panels without curves are left out; without any there is no file. Needs matplotlib.
  """
  panels = {metric: curves for metric, curves in panels.items() if curves}
  if not panels:
    return
  columns = min(2, len(panels))
  figure = _figure(6.5 * columns, 4.5 * math.ceil(len(panels) / columns))
  names = sorted({name for curves in panels.values() for name in curves})
  for index, (metric, curves) in enumerate(panels.items(), 1):
    axes = figure.add_subplot(math.ceil(len(panels) / columns), columns, index)
    for name, points in curves.items():
      style = {"color": f"C{names.index(name) % 10}", "linestyle": "-" if names.index(name) < 10 else "--"}
      axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1.2, label=name, **style)
    axes.set(xlabel=x, ylabel=f"{metric}, mean over images", xlim=limits, xscale="log" if log_x else "linear")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
  _write_figure(path, figure)


def write_bars(
  path: str | os.PathLike, groups: Mapping[str, Sequence[float]], names: Sequence[str], label: str
) -> None:
  """A PNG of bars: a group for each key, in it a bar for each of `names`. Raises ImportError without matplotlib."""
  figure = _figure(6, 4)
  axes = figure.subplots()
  width = 0.8 / len(names)
  for index, name in enumerate(names):
    places = [place + (index - (len(names) - 1) / 2) * width for place in range(len(groups))]
    axes.bar(places, [values[index] for values in groups.values()], width, label=name)
  axes.set(ylabel=label, xticks=range(len(groups)), xticklabels=list(groups))
  axes.grid(alpha=0.3, axis="y")
  axes.legend()
  _write_figure(path, figure)


def _figure(width: float, height: float) -> Any:
  """A matplotlib figure, in inches, that needs no display."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), layout="constrained")
  FigureCanvasAgg(figure)
  return figure


def _write_figure(path: str | os.PathLike, figure: Any) -> None:
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=110)
  files.write_whole(path, buffer.getvalue())


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
  """Rows as aligned columns, under a header and a rule."""
  cells = [[str(cell) for cell in row] for row in [header, *rows]]
  widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
  lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
  return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def environment() -> dict[str, str]:
  """Versions and device: what a figure was measured with."""
  device = jax.devices()[0]
  return {
    **startup.versions(),
    "device": f"{device.platform}: {device.device_kind}",
    "cpus": str(os.cpu_count()),
    "scanlines": _native(scanlines.available()),
    "coder": _native(native_loops.available()),
    "descent": _native(descent.available()),
  }


def _native(available: bool) -> str:
  return "native" if available else "not built"


def _rgb(image: ArrayLike) -> NDArray:
  """Gray and alpha channels as far as a picture needs them: `[..., C]` -> `[..., 3]`."""
  image = np.asarray(image)
  return image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
