"""What benchmark_gpu measures, section by section. Each yields rows of figures as it finds them.

A section runs in a process of its own, since a kernel that reads where it must not leaves a GPU's process unusable.
"""

import contextlib
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import reference, runner

Rows = Iterator[dict[str, Any]]


class Sizes(NamedTuple):
  """How large things are."""

  frames: tuple[tuple[int, int, int], ...]  # (height, width, N)
  few: int  # N of the fit, of the first photograph
  many: int  # N of the large fit
  height: int | None  # of the photograph; None: as it is
  steps: int | None  # of a fit; None: the preset's
  batch: tuple[int, int, int]  # images, their side, N
  large: tuple[int, int]  # (height, width) of the photograph that is encoded in the end
  loop: int  # frames drawn in one program
  effort: int  # of an encoding
  folder: Path  # for pictures and traces


def full(folder: Path) -> Sizes:
  """The sizes of docs/gpu.md."""
  from gaussjax.gjx import encoding

  frames = ((512, 768, 10_000), (2048, 2048, 100_000))
  return Sizes(
    frames, 10_000, 50_000, None, None, (64, 256, 1000), (3000, 4000), 100, encoding.DEFAULT_EFFORT, folder
  )


def small(folder: Path) -> Sizes:
  """A rehearsal's."""
  return Sizes(((40, 50, 60),), 60, 90, 48, 20, (3, 32, 20), (60, 80), 3, 0, folder)


def rehearse() -> None:
  """Lets a CPU go the ways of an accelerator."""
  import jax

  from gaussjax.rendering import splat, tiles

  if jax.default_backend() == "cpu":
    splat.flat = tiles.on_device = lambda: True


def names(sizes: Sizes) -> list[str]:
  """The renderers at hand, the fastest on a GPU first. A rehearsal on a CPU takes Warp too, which is slow there."""
  from gaussjax.rendering import trial, warp

  here = set(trial.serving()) - {"scanlines"}
  here |= {"warp"} if sizes.loop < 10 and warp.available() else set()
  return [name for name in ("warp", "tiles", "dense") if name in here]


@contextlib.contextmanager
def drawn_by(name: str) -> Iterator[None]:
  """Within the block whatever does not ask for a renderer is drawn by this one."""
  from gaussjax.rendering import renderer

  before, renderer.BY_DEFAULT = renderer.BY_DEFAULT, (name,)
  try:
    yield
  finally:
    renderer.BY_DEFAULT = before


def photograph(sizes: Sizes) -> np.ndarray:
  """kodim23, or a small copy."""
  import gaussjax
  from gaussjax import image_io

  image = gaussjax.read_image(runner.PHOTOGRAPH)
  return image if sizes.height is None else image_io.resize(image, sizes.height)


def about(sizes: Sizes) -> Rows:
  """Versions, card, driver."""
  import jax

  from experiments import rowfile
  from gaussjax.rendering import trial

  device = jax.devices()[0]
  yield rowfile.origin() | {"devices": len(jax.devices()), "kind": device.device_kind, "backend": device.platform}
  memory = device.memory_stats() or {}
  yield {"memory_gb": memory.get("bytes_limit", 0) / 1e9, "renderers": names(sizes), "default": trial.chosen()}
  asked = "name,driver_version,clocks.max.sm,clocks.max.mem,power.limit,compute_cap"
  with contextlib.suppress(OSError, subprocess.SubprocessError):
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
    yield {"nvidia_smi": subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()}
  with contextlib.suppress(ImportError):
    import warp

    yield {"warp": warp.__version__}


def correctness(sizes: Sizes) -> Rows:
  """Each renderer against float64, on a small scene and on the one of the frames."""
  from gaussjax.rendering import trial

  for name in names(sizes):
    yield {"renderer": name, "num_gaussians": trial.NUM_GAUSSIANS} | trial.verdict(name)._asdict()
  height, width, count = sizes.frames[0]
  for name in names(sizes):
    found = trial.verdict(name, trial.scene(height, width, count))
    yield {"renderer": name, "num_gaussians": count, "height": height, "width": width} | found._asdict()


def milliseconds(function: Callable, *arguments: Any, calls: int = 30) -> dict[str, float]:
  """Of a call alone, of one in a row of calls that nobody waits for, and of the first, which compiles."""
  import jax

  alone, first = reference.time_ms(function, *arguments, repeats=9)
  start = time.perf_counter()
  for _ in range(calls):
    last = function(*arguments)
  jax.block_until_ready(last)
  return {"call_ms": alone, "pipelined_ms": (time.perf_counter() - start) * 1e3 / calls, "first_ms": first}


def looped_ms(draw: Callable, gaussians: Any, neighbors: Any, length: int) -> float:
  """Milliseconds of one `draw(gaussians, neighbors)` [] of `length` in one program, one after the other."""
  import jax

  def one(carry, _):
    moved = gaussians._replace(means=gaussians.means + carry * 1e-30)
    return draw(moved, neighbors), None

  many = jax.jit(lambda carry: jax.lax.scan(one, carry, length=length)[0])
  return reference.time_ms(many, np.float32(0), repeats=5)[0] / length


def frames(sizes: Sizes) -> Rows:
  """Frames a second of each renderer, as `render` within jit: geometry, lists' check, sums and division."""
  import jax
  import jax.numpy as jnp

  import gaussjax
  from gaussjax.rendering import blends, renderer

  for height, width, count in sizes.frames:
    gaussians = reference.scene(height, width, count, blend=blends.weighted_average)
    for name in names(sizes):
      if name == "dense" and height * width * count > 2**33:
        continue
      neighbors = renderer.allocate(gaussians, renderer=name)
      draw = lambda g, n: gaussjax.render(g, neighbors=n)
      row: dict[str, Any] = {"renderer": name, "height": height, "width": width, "num_gaussians": count}
      row |= milliseconds(jax.jit(draw), gaussians, neighbors)
      row["looped_ms"] = looped_ms(lambda g, n, d=draw: jnp.mean(d(g, n)), gaussians, neighbors, sizes.loop)
      loss = lambda g, n, d=draw: jnp.mean(jnp.square(d(g, n) - 0.5))
      both = milliseconds(jax.jit(jax.value_and_grad(loss)), gaussians, neighbors)
      row |= {f"gradient_{key}": value for key, value in both.items()}
      yield row | {"fps": 1e3 / row["pipelined_ms"], "looped_fps": 1e3 / row["looped_ms"]}


def steps(sizes: Sizes) -> Rows:
  """Milliseconds of a step of the default fit, refresh, gradient and optimiser, thirty in one program."""
  import jax
  import jax.numpy as jnp

  from gaussjax.fitting import initializers, loop, recipes
  from gaussjax.rendering import renderer

  image = jnp.asarray(photograph(sizes))
  recipe = recipes.PRESETS["balanced"]._replace(initialize=initializers.structure_tensor)
  for name in names(sizes):
    with drawn_by(name):
      fitter = recipes.make_fitter(recipe, *image.shape[:2])
      state, taken = fitter.init(recipes.start(jax.random.key(0), image, sizes.few, recipe)), []
      for index in range(8):
        start = time.perf_counter()
        until = int(state.step) + 30
        state, info = loop.advance(fitter.step, state, image, jnp.int32(until), jnp.float32(1600))
        jax.block_until_ready(state)
        if info.overflow:
          state = state._replace(neighbors=renderer.allocate(state.params, like=state.neighbors))
        elif index:
          taken.append((time.perf_counter() - start) * 1e3 / 30)
      yield {"renderer": name, "num_gaussians": sizes.few, "step_ms": float(np.median(taken)), "all_ms": taken}
      if name == "dense":
        continue
      made, _ = reference.time_ms(lambda s=state: renderer.allocate(s.params, like=s.neighbors).lists, repeats=5)
      yield {"renderer": name, "allocate_ms": made}


def _fit(sizes: Sizes, count: int, name: str) -> dict[str, Any]:
  """A default fit: seconds with and without what compiles, PSNR, and the way there."""
  import gaussjax

  image, stop = photograph(sizes), gaussjax.Stop(max_steps=sizes.steps)
  with drawn_by(name):
    start = time.perf_counter()
    result = gaussjax.fit(image, num_gaussians=count, stop=stop)
    seconds = time.perf_counter() - start
  curve = [(r["step"], round(r["seconds"], 3), round(r["psnr"], 3)) for r in result.history[::10]]
  gaussjax.write_image(sizes.folder / f"fit-{count}-{name}.png", _compared(image, result.gaussians))
  return {
    "renderer": name,
    "num_gaussians": count,
    "wall_seconds": seconds,
    "seconds": result.metrics["seconds"],
    "psnr": result.metrics["psnr"],
    "seconds_to_46_db": next((r["seconds"] for r in result.history if r["psnr"] >= 46), None),
    "curve": curve,
  }


def _compared(image: np.ndarray, gaussians: Any) -> np.ndarray:
  import gaussjax
  from gaussjax import report

  return np.clip(report.comparison(image, gaussjax.render(gaussians)), 0, 1)


def fit(sizes: Sizes) -> Rows:
  """The photograph by the default preset; twice, since the first time compiles."""
  for name in [name for name in names(sizes) if name != "dense"]:
    for again in (False, True):
      yield _fit(sizes, sizes.few, name) | {"compiled_before": again}


def large_fit(sizes: Sizes) -> Rows:
  """The same with many Gaussians."""
  for name in [name for name in names(sizes) if name != "dense"]:
    yield _fit(sizes, sizes.many, name)


def kernels(sizes: Sizes) -> Rows:
  """The tests of Warp's kernels, here on a GPU: stacks, 32 channels, needles, bad numbers."""
  del sizes
  root = Path(__file__).resolve().parent.parent
  command = [sys.executable, "-m", "pytest", "-q", "--durations=0", str(root / "tests" / "test_warp.py")]
  environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # with unpacked wheels
  done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment)
  yield {
    "status": done.returncode,
    "said": " | ".join((done.stdout + done.stderr).strip().splitlines()[-6:])[-900:],
  }


def stack(sizes: Sizes) -> Rows:
  """Many fits at once, and many renders at once."""
  import jax

  import gaussjax

  count, side, num_gaussians = sizes.batch
  image = photograph(sizes)
  rng = np.random.default_rng(0)
  corners = rng.integers(0, np.array(image.shape[:2]) - side + 1, (count, 2))
  images = np.stack([image[y : y + side, x : x + side] for y, x in corners])
  for name in [name for name in names(sizes) if name != "dense"]:
    with drawn_by(name):
      for again in (False, True):
        start = time.perf_counter()
        sets, psnr = gaussjax.fit_stack(images, num_gaussians=num_gaussians, preset="fast", steps=sizes.steps)
        seconds = time.perf_counter() - start
        row = {"renderer": name, "images": count, "side": side, "num_gaussians": num_gaussians}
        row |= {"seconds": seconds, "ms_an_image": seconds * 1e3 / count, "psnr": float(np.mean(psnr))}
        yield row | {"compiled_before": again}
      from gaussjax.fitting import stacks

      neighbors = stacks._allocated(sets)
      draw = jax.jit(jax.vmap(lambda g, n: gaussjax.render(g, neighbors=n)))
      yield {"renderer": name, "images": count, "drawn": True} | milliseconds(draw, sets, neighbors)


def encode(sizes: Sizes) -> Rows:
  """The photograph at 0.2 bits a pixel."""
  yield from _encode(sizes, photograph(sizes), (True, False))


def large_encode(sizes: Sizes) -> Rows:
  """Twelve megapixels at 0.2 bits a pixel: the photograph and its mirror images, side by side."""
  image, (height, width) = photograph(sizes), sizes.large
  rows, columns = -(-height // image.shape[0]), -(-width // image.shape[1])
  pad = ((0, (rows - 1) * image.shape[0]), (0, (columns - 1) * image.shape[1]), (0, 0))
  yield from _encode(sizes, np.pad(image, pad, mode="symmetric")[:height, :width], (False,))


def _encode(sizes: Sizes, image: np.ndarray, first: tuple[bool, ...]) -> Rows:
  import jax.numpy as jnp

  import gaussjax

  name, compilations = names(sizes)[0], runner.Compilations()
  for compiles in first:
    with drawn_by(name):
      start, before = time.perf_counter(), compilations.seconds
      data = gaussjax.encode(image, bpp=0.2 if sizes.height is None else 2.0, effort=sizes.effort)
      seconds, compiled = time.perf_counter() - start, compilations.seconds - before
      gaussians, _ = gaussjax.decode(data)
      psnr = float(gaussjax.metrics.psnr(gaussjax.render(gaussians), jnp.asarray(image)))
    size = {"height": image.shape[0], "width": image.shape[1], "bytes": len(data)}
    spent = {"wall_seconds": seconds, "seconds": seconds - compiled}
    yield {"renderer": name, **size, **spent, "psnr": psnr, "compiles": compiles}


def profile(sizes: Sizes) -> Rows:
  """Where a step of each renderer spends its time, kernel by kernel, and what it was compiled to."""
  import jax
  import jax.numpy as jnp

  import gaussjax
  from gaussjax.rendering import blends, renderer

  height, width, count = sizes.frames[0]
  gaussians = reference.scene(height, width, count, blend=blends.weighted_average)
  loss = lambda g, n: jnp.mean(jnp.square(gaussjax.render(g, neighbors=n) - 0.5))
  for name in [name for name in names(sizes) if name != "dense"]:
    neighbors = renderer.allocate(gaussians, renderer=name)
    compiled = jax.jit(jax.value_and_grad(loss)).lower(gaussians, neighbors).compile()
    text = compiled.as_text() or ""
    (sizes.folder / f"program-{name}.txt.gz").write_bytes(gzip.compress(text.encode()))
    found = {word: text.count(f" {word}(") for word in ("fusion", "while", "conditional", "scatter", "custom-call")}
    yield {"renderer": name, "program": found | {"sort": text.count(" sort(")}}
    jax.block_until_ready(compiled(gaussians, neighbors))
    with tempfile.TemporaryDirectory() as folder:
      with jax.profiler.trace(folder, create_perfetto_trace=True):
        for _ in range(10):
          last = compiled(gaussians, neighbors)
        jax.block_until_ready(last)
      for kernel, spent, times in _kernels(Path(folder)):
        yield {"renderer": name, "kernel": kernel, "us_a_step": spent / 10, "launches": times / 10}


def _kernels(folder: Path) -> list[tuple[str, float, int]]:
  """(name, microseconds, how often) of what a device ran in a trace, the longest first; on a CPU of everything."""
  (path,) = folder.rglob("perfetto_trace.json.gz")
  events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
  processes = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
  on_device = {pid for pid, name in processes.items() if "GPU" in name or "TPU" in name} or set(processes)
  spent: dict[str, list[float]] = {}
  for event in events:
    if event.get("ph") == "X" and event["pid"] in on_device:
      spent.setdefault(event["name"][:90], []).append(event.get("dur", 0.0))
  found = [(name, sum(durations), len(durations)) for name, durations in spent.items()]
  return sorted(found, key=lambda one: -one[1])[:20]


def variants(sizes: Sizes) -> Rows:
  """What might be faster: other chunks and reductions in XLA, other blocks and fast mathematics in Warp."""
  from gaussjax.rendering import splat

  for exponent in (22, 26):
    with _patched(splat, "CHUNK_EVALUATIONS_ELSEWHERE", 2**exponent):
      yield {"renderer": "tiles", "chunk": f"2^{exponent}"} | _forward_and_gradient(sizes, "tiles")
  with _patched(splat, "weigh", _fused):
    yield {"renderer": "tiles", "weigh": "fused"} | _forward_and_gradient(sizes, "tiles")
  if "warp" in names(sizes):
    yield from _warps_variants(sizes)


def _warps_variants(sizes: Sizes) -> Rows:
  from gaussjax.rendering import warp, warp_kernels

  for lanes in (32, 64, 128, 256):
    with _patched(warp, "LANES", lanes):
      yield {"renderer": "warp", "lanes": lanes} | _forward_and_gradient(sizes, "warp")
  for kernel in warp_kernels.of_length(4):
    kernel.module.options["fast_math"] = True
    kernel.module.unload()
  yield {"renderer": "warp", "fast_math": True} | _forward_and_gradient(sizes, "warp")


def _fused(weights, values):
  """splat.weigh as a sum of products, which XLA can make in the pass that makes the weights."""
  import jax.numpy as jnp

  return jnp.sum(weights[:, :, None, :] * values[..., None], axis=1)


@contextlib.contextmanager
def _patched(module: Any, name: str, value: Any) -> Iterator[None]:
  before = getattr(module, name)
  setattr(module, name, value)
  try:
    yield
  finally:
    setattr(module, name, before)


def _forward_and_gradient(sizes: Sizes, name: str) -> dict[str, float]:
  import jax
  import jax.numpy as jnp

  import gaussjax
  from gaussjax.rendering import blends, renderer

  height, width, count = sizes.frames[0]
  gaussians = reference.scene(height, width, count, blend=blends.weighted_average)
  neighbors = renderer.allocate(gaussians, renderer=name)
  loss = lambda g, n: jnp.mean(jnp.square(gaussjax.render(g, neighbors=n) - 0.5))
  drawn = looped_ms(loss, gaussians, neighbors, sizes.loop)
  gradient = lambda g, n: jnp.sum(jax.grad(loss)(g, n).means)
  return {"looped_ms": drawn, "gradient_looped_ms": looped_ms(gradient, gaussians, neighbors, sizes.loop)}


def graphs(sizes: Sizes) -> Rows:
  """Steps again, loops and branches within CUDA's graphs instead of on the host."""
  for row in steps(sizes):
    yield row | {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "")}


GRAPHS = "--xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CONDITIONAL,WHILE"


class Section(NamedTuple):
  """A section, the most seconds it may take, and what the environment of its process has besides."""

  measure: Callable[[Sizes], Rows]
  seconds: int
  environment: dict[str, str] = {}  # noqa: RUF012  never changed


# What matters most comes first, since time may run out.
SECTIONS = {
  "about": Section(about, 40),
  "correctness": Section(correctness, 90),
  "frames": Section(frames, 90),
  "steps": Section(steps, 90),
  "fit": Section(fit, 90),
  "stack": Section(stack, 100),
  "profile": Section(profile, 60),
  "encode": Section(encode, 100),
  "kernels": Section(kernels, 90),
  "large_fit": Section(large_fit, 90),
  "variants": Section(variants, 80),
  "graphs": Section(graphs, 60, {"XLA_FLAGS": GRAPHS}),
  "large_encode": Section(large_encode, 120),
}
