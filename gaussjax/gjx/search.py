"""An image as a small file, and back: the fit, its quantisation, and the search for the rate that was asked for."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussjax import geometry, image_io
from gaussjax.errors import FormatError
from gaussjax.fitting import density, optimizers, recipes
from gaussjax.gjx import container, grids, quantization, rate
from gaussjax.gjx.grids import Codes, Steps
from gaussjax.quality import metrics
from gaussjax.rendering import blends, renderer
from gaussjax.types import Array, Canvas, Gaussians, Stop

# Steps of the fit and of each stage of quantisation, by effort.
EFFORTS = (
  (60, 8),
  (100, 10),
  (150, 15),
  (250, 20),
  (400, 30),
  (1000, 40),
  (1500, 60),
  (2500, 80),
  (4000, 100),
  (8000, 150),
)
DEFAULT_EFFORT = 4
DEFAULT_QUALITY = 50.0

# No log-weights, which the format does not have. Many Gaussians of a short fit are new, so moments soon forget.
RECIPE = recipes.Recipe(
  recipes.multi_scale,
  objective=rate.lagrangian,
  optimizer=functools.partial(optimizers.adam, b2=0.95, most_turn=optimizers.MOST_TURN),
)
BITS = 36.0  # a Gaussian's, about
SETTLED = 1.002  # a fit's bytes on a grid, against those when it has been quantised with the rate in view, at least
FRAME = 70  # bytes of a file that are not a Gaussian's, about
# How the squared error falls with N, measured: by this power of it.
FALL = 0.92
SLOPE_AT_50 = 3.4e-7  # squared error a Gaussian of a 768 x 512 picture at quality 50
KODAK_PIXELS = 768 * 512
PILOT_GAUSSIANS, PILOT_STEPS = 400, 60
MAX_FITS = 4  # for a target in dB
LEAST_PIXELS = 4  # pixels for each Gaussian at the highest rate

Progress = Callable[[str, int, int], None]  # (what is being done, steps done, steps in all)


def encode(
  image: ArrayLike,
  *,
  quality: float | None = None,
  bpp: float | None = None,
  size: int | None = None,
  target_psnr: float | None = None,
  effort: int = DEFAULT_EFFORT,
  layers: int = 1,
  seed: int = 0,
  metadata: dict[str, bytes] | None = None,
  progress_fn: Progress = lambda stage, done, total: None,
) -> bytes:
  """An image `[H, W, C]` (as for `fit`) as the bytes of a `.gjx` file.

  At most one of: `quality`, 0 to 100, the same worth of a bit in every image (default 50); `bpp`, bits a pixel, or
  `size`, bytes, neither exceeded; `target_psnr`, dB, of the decoded picture at 8 bits, reached. `effort` 0 to 9 is
  time. `layers`, 1 to 4, are Gaussians by size: a file that is cut off is drawn from those that are whole.

  Who encodes more than a dozen pictures in a process calls `startup.release_programs` between them.

  Raises ValueError for arguments that make no sense or a target out of reach, FitError.
  """
  pixels = image_io.as_image(image).astype(np.float32)
  _check_arguments(pixels, quality, bpp, size, target_psnr, effort, layers)
  work = _Work(pixels, effort, layers, seed, metadata or {}, progress_fn)
  count = pixels.shape[0] * pixels.shape[1]
  if bpp is not None:
    size = math.floor(bpp * count / 8)
  if size is not None:
    return _to_size(work, size)
  if target_psnr is not None:
    return _to_psnr(work, target_psnr)
  return _to_quality(work, DEFAULT_QUALITY if quality is None else quality)


def decode(
  data: bytes, *, partial: bool = False, limits: container.Limits = container.LIMITS
) -> tuple[Gaussians, container.Header]:
  """The Gaussians of a `.gjx` file, ready to `render`, and its header.

  With `partial` a file that was cut off is read as far as its layers are whole. Raises FormatError for
  anything that is not such a file or exceeds the `limits`.
  """
  contents = container.read(data, partial=partial, limits=limits)
  return gaussians_of(contents, limits=limits), contents.header


def gaussians_of(contents: container.Contents, *, limits: container.Limits = container.LIMITS) -> Gaussians:
  """The set that a file's integers stand for. Raises FormatError if that is beyond the limits."""
  header = contents.header
  together = Codes(*[np.concatenate(field) for field in zip(*contents.layers, strict=True)])
  background = np.array(header.background, np.float32) / container.FIXED
  canvas = Canvas(
    header.height,
    header.width,
    jax.device_put(background),
    blends.BY_CODE[header.blend],
    cutoff=header.cutoff / container.FIXED,
    floor=header.floor / container.FIXED,
  )
  grid = grids.grid(header.steps)
  largest, least = (together.minor + together.ratio).max() * grid.log_scale, together.minor.min() * grid.log_scale
  if largest > grids.MAX_LOG_SCALE or least < -grids.MAX_LOG_SCALE:
    raise FormatError("damaged: a scale is out of range")
  gaussians = grids.dequantize(together, grid, canvas)
  finite = all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(gaussians))
  if not finite or float(np.abs(gaussians.colors).max()) > 1e4:
    raise FormatError("damaged: a number is out of range")
  radii = canvas.cutoff * np.hypot(np.exp(np.asarray(gaussians.shape[0])[:, 0], dtype=np.float64), canvas.floor)
  container.check_drawable(header, radii, np.asarray(gaussians.means, np.float64), limits)
  return gaussians


def at_8_bits(gaussians: Gaussians) -> image_io.FloatImage:
  """`[H, W, C]` in [0, 1]: the picture as a viewer sees it, which is what PSNRs of files are of."""
  return image_io.as_image(image_io.as_uint8(renderer.render(gaussians)))


class _Work(NamedTuple):
  """What the search for a rate does not change."""

  image: NDArray  # [H, W, C] float32
  effort: int
  layers: int
  seed: int
  metadata: dict[str, bytes]
  progress_fn: Progress

  @property
  def target(self) -> Array:
    """The image on the device."""
    return jnp.asarray(self.image)


class _Packed(NamedTuple):
  data: bytes
  psnr: float  # dB, at 8 bits


def _to_size(work: _Work, size: int) -> bytes:
  """The best file of at most `size` bytes: as many Gaussians as a fair share of bits allows, then the steps."""
  free = size - FRAME - 2 * work.image.shape[2] - sum(len(data) + 10 for data in work.metadata.values())
  if free < BITS:
    raise ValueError(
      f"got {size} bytes to fill, expected at least {math.ceil(size - free + BITS)} for this picture"
    )
  num_gaussians = round(8 * free / BITS)
  fitted = _fit(work, min(num_gaussians, _most(work)))
  balanced = quantization.balanced_steps(fitted, work.target)
  least = quantization.finest(*work.image.shape[:2])
  most = size * SETTLED
  low, high = -96, 224  # steps made coarser, one after another: three octaves finer to seven coarser
  while high - low > 1:
    middle = (low + high) // 2
    fits = len(_file(work, fitted, quantization.coarser(balanced, middle, least))) <= most
    low, high = (low, middle) if fits else (middle, high)
  steps = quantization.coarser(balanced, high, least)
  quantized = _quantized(work, fitted, steps)
  data = _file(work, quantized, steps)
  while len(data) > size:  # rarely by more than a few bytes
    share = (len(data) - size) / len(data) + 0.002
    quantized = _without_least(quantized, work.target, max(1, math.ceil(share * len(quantized.means))))
    data = _file(work, quantized, steps)
  return data


def _to_psnr(work: _Work, target_psnr: float) -> bytes:
  """The smallest file found that reaches `target_psnr` dB: N by what earlier fits reached."""
  best: _Packed | None = None
  num_gaussians, reached = _pilot(work)
  for index in range(MAX_FITS):
    # A decibel is a factor of 10^0.1 in the error; 0.4 dB more for what quantisation costs after the pilot.
    lacking = target_psnr + 0.1 - reached + (0.4 if index == 0 else 0)
    num_gaussians = _count_of_table(num_gaussians * 10 ** (lacking / (10 * FALL)), work)
    packed = _packed(work, num_gaussians)
    reached = packed.psnr
    if reached >= target_psnr and (best is None or len(packed.data) < len(best.data)):
      best = packed
    if target_psnr <= reached < target_psnr + 0.5 or (num_gaussians == _most(work) and reached < target_psnr):
      break
  if best is None:
    raise ValueError(f"got a target of {target_psnr:g} dB, reached {reached:.2f}; lower it, or raise the effort")
  return best.data


def _to_quality(work: _Work, quality: float) -> bytes:
  """The file at which one more Gaussian would lower the squared error by the worth that `quality` gives it."""
  pixels = work.image.shape[0] * work.image.shape[1]
  count, psnr = _pilot(work)
  error = 10 ** (-psnr / 10) * count**FALL  # of one Gaussian, by the power law
  worth = SLOPE_AT_50 * 10 ** ((50 - quality) / 23) * KODAK_PIXELS / pixels
  return _packed(work, _count_of_table((FALL * error / worth) ** (1 / (1 + FALL)), work)).data


class Stages(NamedTuple):
  """What becomes of a fit on its way into a file: dB at each stage, and what is written."""

  fitted: float
  nearest: float  # every number at the nearest code, nothing made good
  quantized: float
  gaussians: Gaussians  # on the grids of `steps`
  steps: Steps


def stages(image: ArrayLike, num_gaussians: int, *, effort: int = DEFAULT_EFFORT, seed: int = 0) -> Stages:
  """The stages of a file of `num_gaussians`, on the steps that `quality` would choose."""
  work = _Work(image_io.as_image(image).astype(np.float32), effort, 1, seed, {}, lambda stage, done, total: None)
  fitted, target = _fit(work, num_gaussians), work.target
  steps = quantization.balanced_steps(fitted, target)
  quantized = _quantized(work, fitted, steps)
  return Stages(
    quantization.psnr(fitted, target),
    quantization.psnr(quantization.nearest(fitted, steps), target),
    quantization.psnr(quantized, target),
    quantized,
    steps,
  )


def _count_of_table(count: float, work: _Work) -> int:
  """The next N of a table of eight an octave, so that pictures of a size share compiled programs."""
  return max(1, min(round(2 ** (math.ceil(8 * math.log2(max(count, 1))) / 8)), _most(work)))


def _most(work: _Work) -> int:
  return max(1, work.image.shape[0] * work.image.shape[1] // LEAST_PIXELS)


def _pilot(work: _Work) -> tuple[int, float]:
  """(a number of Gaussians, the dB that they reach in a short fit)."""
  count = min(PILOT_GAUSSIANS, _most(work))
  return count, quantization.psnr(_fit(work, count, steps=PILOT_STEPS, stage="pilot"), work.target)


def _packed(work: _Work, num_gaussians: int) -> _Packed:
  fitted = _fit(work, num_gaussians)
  steps = quantization.balanced_steps(fitted, work.target)
  quantized = _quantized(work, fitted, steps)
  data = _file(work, quantized, steps)
  picture = at_8_bits(decode(data)[0])
  return _Packed(data, float(metrics.psnr(jnp.asarray(picture), work.target)))


def _fit(work: _Work, num_gaussians: int, *, steps: int | None = None, stage: str = "fit") -> Gaussians:
  """The float fit, Euler shapes, on a canvas as a file can hold it."""
  total = EFFORTS[work.effort][0] if steps is None else steps
  recipe = RECIPE
  if steps is not None:  # the pilot's few steps are not worth the programs of a start that is a fit of its own
    recipe = recipe._replace(initialize=recipes.Recipe().initialize, objective=None)
  report = lambda record: work.progress_fn(stage, int(record["step"]), total)
  stop = Stop(max_steps=total)
  fitted = recipes.fit(
    work.image, num_gaussians=num_gaussians, seed=work.seed, preset=recipe, stop=stop, progress_fn=report
  ).gaussians
  canvas = geometry.canvas_of(fitted)
  background = jnp.round(canvas.background * container.FIXED) / container.FIXED
  canvas = dataclasses.replace(canvas, background=background)
  return fitted._replace(shape=geometry.to_euler(fitted.shape), canvas=canvas)


def describe(effort: int) -> str:
  """All that a file's Gaussians depend on but picture, rate and seed, in words like those of `recipes.describe`."""
  parts = (
    EFFORTS[effort],
    recipes.describe(RECIPE),
    BITS,
    SETTLED,
    rate.LAMBDA,
    rate.BLUNT,
    rate.TYPICAL,
    quantization.STAGES,
    quantization.STAGE_RATE,
    optimizers.MOST_TURN,
    quantization.EXCESS,
  )
  return ", ".join(map(str, parts))


def _without_least(gaussians: Gaussians, target: Array, count: int) -> Gaussians:
  """The set without the `count` Gaussians that cost least to remove, at least one left."""
  canvas = geometry.canvas_of(gaussians)
  rasterizer = renderer.rasterizer(gaussians, renderer.allocate(gaussians))
  cost = density.removal_cost(gaussians, rasterizer, blends.picture(gaussians, rasterizer), target)
  kept = jnp.sort(jnp.argsort(cost)[min(count, len(cost) - 1) :])
  return jax.tree.map(lambda leaf: leaf[kept], gaussians._replace(canvas=None))._replace(canvas=canvas)


def _quantized(work: _Work, fitted: Gaussians, steps: Steps) -> Gaussians:
  report = functools.partial(work.progress_fn, "quantise")
  stage_steps = EFFORTS[work.effort][1]
  return quantization.incremental(
    fitted, work.target, steps, stage_steps=stage_steps, seed=work.seed, progress_fn=report
  )


def _file(work: _Work, gaussians: Gaussians, steps: Steps) -> bytes:
  return pack(gaussians, steps, layers=work.layers, metadata=work.metadata)


def pack(gaussians: Gaussians, steps: Steps, *, layers: int = 1, metadata: dict[str, bytes] | None = None) -> bytes:
  """The `.gjx` file of a set (Euler shapes, a canvas as `decode` gives one) on the grids of `steps`."""
  canvas = geometry.canvas_of(gaussians)
  parts = _layered(quantization.codes_of(gaussians, steps), layers)
  fixed = lambda value: round(float(value) * container.FIXED)
  header = container.Header(
    height=canvas.height,
    width=canvas.width,
    channels=gaussians.colors.shape[1],
    blend=_blend_code(canvas),
    cutoff=fixed(canvas.cutoff),
    floor=fixed(canvas.floor),
    background=tuple(fixed(value) for value in canvas.background),
    steps=steps,
    layers=len(parts),
  )
  return container.write(header, parts, metadata or {})


def _blend_code(canvas: Canvas) -> int:
  """The blend's number in files. Raises ValueError for one that has none."""
  code = blends.checked(canvas.blend).code
  if code is None:
    known = ", ".join(blend.name for blend in blends.BY_CODE.values())
    raise ValueError(f"got the blend {canvas.blend.name}, which files do not hold; expected one of {known}")
  return code


def _layered(codes: Codes, layers: int) -> list[Codes]:
  """The larger Gaussians first: each layer has four times as many as the one before."""
  order = np.argsort(-(2 * codes.minor + codes.ratio), kind="stable")
  ends = sorted({max(1, len(order) // 4 ** (layers - 1 - index)) for index in range(layers)})
  return [Codes(*[field[part] for field in codes]) for part in np.split(order, ends[:-1])]


def _check_arguments(image: NDArray, quality, bpp, size, target_psnr, effort: int, layers: int) -> None:
  goals = {"quality": quality, "bpp": bpp, "size": size, "target_psnr": target_psnr}
  given = {name: value for name, value in goals.items() if value is not None}
  if len(given) > 1:
    raise ValueError(f"got {' and '.join(given)}, expected at most one of {', '.join(goals)}")
  for name, value in given.items():
    if not math.isfinite(value) or (value <= 0 and name != "quality"):
      raise ValueError(f"got {name}={value}, expected a finite number above 0")
  if quality is not None and not 0 <= quality <= 100:
    raise ValueError(f"got quality={quality}, expected 0 to 100")
  if not 0 <= effort < len(EFFORTS):
    raise ValueError(f"got effort={effort}, expected 0 to {len(EFFORTS) - 1}")
  if not 1 <= layers <= container.MAX_LAYERS:
    raise ValueError(f"got layers={layers}, expected 1 to {container.MAX_LAYERS}")
  if image.shape[2] > 32 or image.shape[0] * image.shape[1] > container.LIMITS.pixels:
    raise ValueError(f"got an image of shape {image.shape}, expected at most 32 channels and 2^27 pixels")
