"""An image as a small file: the fit, its quantisation, and the search for the rate that was asked for."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussjax import arguments, geometry, image_io
from gaussjax.fitting import checkpoints, density, loop, recipes
from gaussjax.gjx import container, encoding, grids, packing, quantization, sets
from gaussjax.gjx.encoding import DEFAULT_EFFORT, FALL, Effort, Progress, Work
from gaussjax.gjx.grids import Steps
from gaussjax.quality import losses
from gaussjax.rendering import blends, buckets, renderer
from gaussjax.types import Array, Gaussians, Stop

# A Gaussian's of at most three channels, about; and where numbers do not move once they are rounded.
BITS, BITS_UNMOVED = 34.0, 36.0
BITS_OF_CHANNEL = 3.2  # and of each more
FEWEST = 8  # Gaussians of a file of a given size
# Fits of few Gaussians end far apart and take little time: as many files of other seeds are made as have SEVERAL
# together, but at most MOST_FILES, and the best is kept.
SEVERAL, MOST_FILES = 256, 6
SETTLED = 1.002  # a fit's bytes on a grid, against those when it has been quantised with the rate in view, at least
MAX_REMOVALS = 20
SLOPE_AT_50 = 3.4e-7  # squared error a Gaussian of a 768 x 512 picture at quality 50
KODAK_PIXELS = 768 * 512
PILOT_GAUSSIANS, PILOT_STEPS = 400, 60
MAX_FITS = 4  # for a target in dB, or where the power law does not hold
# Few Gaussians are fitted to a picture of so many pixels for each, in as many times the steps as its sides are
# shorter, but at most MOST_STEPS times.
ENOUGH_PIXELS, MOST_STEPS = 512, 2
LEAST_PIXELS = 4  # pixels for each Gaussian at the highest rate; 1 up to FEW of them
FEW = 1024
# A fit whose squared error is so many times what the power law lets expect is too poor, and N sought anew by what
# fits reached; their own power is held within bounds. A bound on what more Gaussians bring: so many times that.
POORER = 2.0
FLATTEST, STEEPEST = 0.3, 4.0
NEAR = 0.5  # octaves of N within which a fit is not worth another
SURPRISE = 1.5
FAR = 32  # times a pilot's N: beyond, the power law is asked again on the way


def encode(
  image: ArrayLike | Gaussians,
  *,
  quality: float | None = None,
  bpp: float | None = None,
  size: int | None = None,
  target_psnr: float | None = None,
  effort: int | Effort = DEFAULT_EFFORT,
  layers: int = 1,
  metadata: dict[str, bytes] | None = None,
  checkpoint: checkpoints.Checkpoint | None = None,
  progress_fn: Progress = lambda stage, done, total: None,
) -> bytes:
  """An image `[H, W, C]` (as for `fit`), or a fitted set, as the bytes of a `.gjx` file.

  At most one of: `quality`, 0 to 100, the same worth of a bit in every image (default 50), that is by how much it
  lowers the squared error, summed over the picture: in those of less than 128 x 128 pixels, which are seen
  enlarged, less will do, with the side; `bpp`, bits a pixel, or `size`, bytes, neither exceeded; `target_psnr`, dB,
  of the decoded picture at 8 bits, reached. `effort` 0 to 9 is time, or an Effort with parts of your own. `layers`,
  1 to 4, are Gaussians by size: a file that is cut off is drawn from those that are whole.

  Of a set all Gaussians that a pixel sees are kept, and the goals are about its own picture: `target_psnr` is how
  near the file comes to it, and so is `quality`, 40 dB at 50 and more for a set that is dense. It gets no grain,
  which an effort has of what a picture's Gaussians lack; PSNRs are without grain.

  With `checkpoint` the encoding goes on from what it finds in that folder, to the same bytes as without the
  interruption. What it leaves there is for the caller to remove when the bytes are safe.

  Raises ValueError for arguments that make no sense, a set that the format does not hold (a blend that has no code
  in files), a goal out of reach, the checkpoint of another encoding; FitError.
  """
  layers = arguments.whole("layers", layers, least=1, most=container.MAX_LAYERS)
  chosen, kept = encoding.effort_of(effort), dict(metadata or {})
  container.check_metadata(kept)
  given = packing.holdable(image) if isinstance(image, Gaussians) else None
  pixels = _pixels(image)
  count = pixels.shape[0] * pixels.shape[1]
  goal = encoding.goal(count, quality=quality, bpp=bpp, size=size, target_psnr=target_psnr)
  if goal.psnr is not None:
    encoding.check_reachable(goal.psnr, pixels)
  work = Work(pixels, chosen, layers, kept, progress_fn)
  work = work._replace(part=encoding.parts(checkpoint, work, pixels if given is None else given, goal))
  if given is not None:
    return sets.encode(work, given, goal)
  if goal.size is not None:
    return _to_size(work, goal.size)
  if goal.psnr is not None:
    return _to_psnr(work, goal.psnr)
  return _to_quality(work, goal.quality)


class _Packed(NamedTuple):
  data: bytes
  psnr: float  # dB, at 8 bits


def _pixels(image: ArrayLike | Gaussians) -> NDArray:
  """`[H, W, C]` float32 that the file is to show: a set's own picture. Raises ValueError for what is no image."""
  if isinstance(image, Gaussians):
    return np.asarray(renderer.render(image), np.float32)
  shape = np.shape(image)
  if len(shape) in (2, 3):  # before it is copied
    packing.check_size(*shape[:2], *(shape[2:] or (1,)))
  return image_io.as_image(image).astype(np.float32, copy=False)


def _to_size(work: Work, size: int) -> bytes:
  """The best file of at most `size` bytes: as many Gaussians as a fair share of bits allows, then the steps."""
  bits, frame = _bits(work), encoding.frame(work, size)
  usual = 8 * (size - frame) / bits
  if usual < FEWEST:
    raise ValueError(
      f"got {size} bytes to fill ({8 * size / work.pixels:.3g} bits a pixel), expected at least "
      f"{math.ceil(frame + FEWEST * bits / 8)} for this picture"
    )

  several = min(math.ceil(SEVERAL / usual), MOST_FILES)

  def make(work: Work, index: int) -> bytes:
    return _filled(work, min(round(usual * 2 ** (_octaves(index // several) / 8)), _most(work)), size)

  return _best_of(work, make, several * work.effort.tries)


def _bits(work: Work) -> float:
  """Of a Gaussian, about."""
  recipe, quantizer = work.effort.recipe, work.effort.quantizer
  moves = quantization.descends(recipe.loss, recipe.blend, weighted=recipe.weighted)
  bits = BITS if moves and quantizer is quantization.incremental else BITS_UNMOVED
  return bits + BITS_OF_CHANNEL * max(0, work.image.shape[2] - 3)


def _octaves(index: int) -> int:
  """Eighths of an octave by which the N of a try differs from the usual: textures gain by more, the flat lose."""
  return (index + 1) // 2 * (1 if index % 2 else -1)


def _filled(work: Work, num_gaussians: int, size: int) -> bytes:
  """The file of at most `size` bytes of a fit: steps as fine as they may be."""
  fitted = _fit(work, num_gaussians)
  work = encoding.with_grain(work, fitted)
  steps = encoding.steps_within(work, fitted, quantization.balanced_steps(fitted, work.target), size * SETTLED)
  return _trimmed(work, encoding.quantized(work, fitted, steps), steps, size)


def _best_of(work: Work, make: Callable[[Work, int], bytes], tries: int) -> bytes:
  """The file of the least loss of so many tries, each with its index and of a seed of its own."""
  if tries == 1:
    return make(work, 0)
  found = []
  for index in range(tries):
    part = lambda name, index=index: work.part(f"{name}-try-{index}")
    seed = (work.effort.seed + index) % (arguments.MAX_SEED + 1)
    found.append(make(work._replace(effort=work.effort._replace(seed=seed), part=part), index))
  return min(found, key=lambda data: encoding.loss(work, data))


def _trimmed(work: Work, gaussians: Gaussians, steps: Steps, size: int) -> bytes:
  """The file of at most `size` bytes of a set that takes a few bytes more, rarely: fewer Gaussians, or coarser."""
  data, count = encoding.file(work, gaussians, steps), len(gaussians.means)
  parked = count - len(geometry.shown(gaussians))
  for _ in range(MAX_REMOVALS):
    blend = geometry.canvas_of(gaussians).blend
    if len(data) <= size or parked == count - 1 or blend is not blends.weighted_average:
      break
    share = (len(data) - size) / len(data) + 0.002
    parked = min(count - 1, parked + math.ceil(share * (count - parked)))
    target = quantization.bucketed(work.target)
    seen = buckets.on(gaussians, *target.shape[:2])
    leaner = _without_least(seen, renderer.allocate(seen), target, jnp.int32(parked))
    gaussians = leaner._replace(canvas=gaussians.canvas)
    data = encoding.file(work, gaussians, steps)
  if len(data) > size:
    data = encoding.file(work, gaussians, encoding.steps_within(work, gaussians, steps, size))
  if len(data) > size:
    raise ValueError(f"got {size} bytes to fill, expected at least {len(data)} for this picture")
  return data


def _to_psnr(work: Work, target_psnr: float) -> bytes:
  """The smallest file found that reaches `target_psnr` dB: N by what earlier fits reached."""
  best: _Packed | None = None
  count, reached = pilot = _pilot(work)
  tried = set[int]()
  for index in range(MAX_FITS):
    # A decibel is a factor of 10^0.1 in the error; 0.4 dB more for what quantisation costs after the pilot.
    lacking = target_psnr + 0.1 - reached + (0.4 if index == 0 else 0)
    wanted = min(count * 10 ** (lacking / (10 * FALL)), _most(work))
    if index == 0 and wanted > FAR * count:
      wanted = math.sqrt(wanted * count)
    count = _count_of_table(wanted, work)
    if count in tried:
      break
    tried.add(count)
    packed = _packed(work, count)
    reached = packed.psnr
    if reached >= target_psnr and (best is None or len(packed.data) < len(best.data)):
      best = packed
    if target_psnr <= reached < target_psnr + 0.5 or _at_most(work, pilot, (count, reached)) < target_psnr:
      break
  if best is None:
    raise ValueError(f"got a target of {target_psnr:g} dB, reached {reached:.2f}; lower it, or raise the effort")
  return best.data


def _at_most(work: Work, pilot: tuple[int, float], fit: tuple[int, float]) -> float:
  """dB that all the Gaussians that a picture may have will reach, if the error falls as between two fits."""
  (few, before), (count, reached) = pilot, fit
  more = 10 * math.log10(_most(work) / count)
  if more == 0 or count == few:
    return reached + FALL * more
  slope = (reached - before) / (10 * math.log10(count / few))
  return reached + SURPRISE * max(FALL, slope) * more


def _to_quality(work: Work, quality: float) -> bytes:
  """The file at which one more Gaussian would lower the squared error by the worth that `quality` gives it.

  N is by the power law through the pilot. Where a fit turns out to be much poorer than that (small pictures, flat
  ones, drawings), N is sought by what fits reached: the file whose error and cost together are least.
  """
  worth = _worth(work.pixels, quality)
  count, psnr = _pilot(work)
  law = _Law(count, _error(psnr), FALL)
  fits = dict[int, _Packed]()
  for _ in range(MAX_FITS):
    count = _count_of_table(law.best_count(worth), work)
    if fits and min(abs(math.log2(count / fitted)) for fitted in fits) < NEAR:
      break
    fits[count] = _packed(work, count)
    found = _error(fits[count].psnr)
    if found < POORER * max(law.error_at(count), law._replace(fall=FLATTEST).error_at(count)):
      break
    law = law.corrected(count, found)
  cost = lambda count: _error(fits[count].psnr) + worth * count
  return fits[min(fits, key=cost)].data


def _worth(pixels: int, quality: float) -> float:
  """The squared error, a mean over the picture, that one more Gaussian must save at least."""
  enlarged = min(1.0, math.sqrt(pixels) / quantization.SMALL_SIDE)  # so are small pictures seen
  return SLOPE_AT_50 * 10 ** ((50 - quality) / 23) * KODAK_PIXELS / pixels * enlarged


class _Law(NamedTuple):
  """A power law of the squared error: with `num_gaussians` it is `error`, and it falls by the power `fall` of N."""

  num_gaussians: int
  error: float
  fall: float

  def error_at(self, count: int) -> float:
    """The error at another N."""
    return self.error * (self.num_gaussians / count) ** self.fall

  def best_count(self, worth: float) -> float:
    """The N at which one more Gaussian lowers the error by `worth`."""
    return self.num_gaussians * (self.fall * self.error / (self.num_gaussians * worth)) ** (1 / (1 + self.fall))

  def corrected(self, count: int, error: float) -> "_Law":
    """The law through what a fit reached, which falls as between that and this law's own."""
    if count == self.num_gaussians:
      return self._replace(error=error)
    fall = math.log(max(self.error, 1e-12) / error) / math.log(count / self.num_gaussians)
    return _Law(count, error, min(max(fall, FLATTEST), STEEPEST))


def _error(psnr: float) -> float:
  return 10 ** (-psnr / 10)


class Stages(NamedTuple):
  """What becomes of a fit on its way into a file: dB at each stage, and what is written."""

  fitted: float
  nearest: float  # every number at the nearest code, nothing made good
  quantized: float
  gaussians: Gaussians  # on the grids of `steps`
  steps: Steps


def stages(image: ArrayLike, num_gaussians: int, *, effort: int | Effort = DEFAULT_EFFORT) -> Stages:
  """The stages of a file of `num_gaussians`, on the steps that `quality` would choose."""
  work = Work(
    image_io.as_image(image).astype(np.float32, copy=False),
    encoding.effort_of(effort),
    1,
    {},
    lambda stage, done, total: None,
  )
  fitted, target = _fit(work, num_gaussians), work.target
  steps = quantization.balanced_steps(fitted, target)
  quantized = encoding.quantized(work, fitted, steps)
  return Stages(
    quantization.psnr(fitted, target),
    quantization.psnr(grids.nearest(fitted, steps), target),
    quantization.psnr(quantized, target),
    quantized,
    steps,
  )


def _count_of_table(count: float, work: Work) -> int:
  """The next N of a table of eight an octave, so that pictures of a size share compiled programs."""
  return max(1, min(_next_of_table(count), _most(work)))


def _next_of_table(count: float) -> int:
  eighths = math.ceil(8 * math.log2(max(count, 1)))
  below = round(2 ** ((eighths - 1) / 8))  # which may be enough, since it is rounded
  return below if below >= count else round(2 ** (eighths / 8))


def _places(recipe: recipes.Recipe, image: NDArray, num_gaussians: int, steps: int) -> int | None:
  """Places for a fit of `num_gaussians`: N for as many of each pixel of the bucket.

  So all pictures that share a bucket and a rate share programs. None, as many as Gaussians, where nothing would
  park those beyond: in very short fits, and by policies of one's own.
  """
  if not density.relocates(recipe.policy) or steps < 2 * loop.CONTROL_EVERY:
    return None
  height, width = image.shape[:2]
  return _next_of_table(num_gaussians * math.prod(buckets.size(height, width)) / (height * width))


def _most(work: Work) -> int:
  return min(max(work.pixels // LEAST_PIXELS, min(work.pixels, FEW)), container.LIMITS.gaussians)


def _pilot(work: Work) -> tuple[int, float]:
  """(a number of Gaussians, the dB that they reach in a short fit)."""
  count = min(PILOT_GAUSSIANS, _most(work))
  return count, quantization.psnr(_fit(work, count, steps=PILOT_STEPS, stage="pilot"), work.target)


def _packed(work: Work, num_gaussians: int) -> _Packed:
  """The best file of so many Gaussians on balanced steps."""

  def make(work: Work, index: int) -> bytes:
    fitted = _fit(work, num_gaussians)
    work = encoding.with_grain(work, fitted)
    steps = quantization.balanced_steps(fitted, work.target)
    return encoding.file(work, encoding.quantized(work, fitted, steps), steps)

  data = _best_of(work, make, work.effort.tries)
  return _Packed(data, encoding.reached(work, data))


def _fit(work: Work, num_gaussians: int, *, steps: int | None = None, stage: str = "fit") -> Gaussians:
  """The float fit, Euler shapes, on a canvas as a file can hold it."""
  recipe, total = work.effort.recipe, work.effort.steps if steps is None else steps
  if steps is not None:  # a pilot, which becomes no file: its bits do not matter
    recipe = recipe._replace(objective=None)
  times = _times_smaller(work, num_gaussians)
  total *= min(times, MOST_STEPS)
  image = np.asarray(_smaller(work.image, times)) if times > 1 else work.image
  report = lambda record: work.progress_fn(stage, int(record["step"]), total)
  checkpoint = work.part(f"{stage}-{num_gaussians}")
  places = _places(work.effort.recipe, image, num_gaussians, total)
  asked = recipes.Asked(
    num_gaussians, work.effort.seed, recipe, Stop(max_steps=total), checkpoint, report, places=places
  )
  fitted = recipes.fitted(image, asked)
  if times > 1:
    fitted = buckets.on(_enlarged(fitted, jnp.float32(times)), *work.image.shape[:2])
  short = encoding.is_short(work, encoding.SHORT_FRAME + num_gaussians * _bits(work) / 8)
  return packing.on_header(fitted._replace(shape=geometry.to_euler(fitted.shape)), short=short)


def _times_smaller(work: Work, num_gaussians: int) -> int:
  """How many times shorter the sides are of the picture that few Gaussians are fitted to, and show all of.

  The visual loss looks at pictures of the size that they are seen at.
  """
  if work.effort.recipe.loss is not losses.l2:
    return 1
  enough = math.floor(math.sqrt(work.pixels / (ENOUGH_PIXELS * num_gaussians)))
  return max(1, min(enough, min(work.image.shape[:2]) // buckets.LEAST_SIDE))


_smaller = jax.jit(buckets.smaller, static_argnums=1)


@jax.jit
def _enlarged(gaussians: Gaussians, times: Array) -> Gaussians:
  """The set of a picture `times` larger: with the same covariances, of which the floor is a smaller part."""
  floor = geometry.canvas_of(gaussians).floor
  shape = geometry.to_euler(gaussians.shape)
  squares = jnp.exp(2 * shape.log_scales) + (1 - times**-2) * floor**2
  shape = shape._replace(log_scales=jnp.log(times) + jnp.log(squares) / 2)
  return gaussians._replace(means=times * gaussians.means, shape=shape)


@jax.jit
def _without_least(gaussians: Gaussians, neighbors: renderer.Neighbors, target: Array, count: Array) -> Gaussians:
  """The set with the `count` Gaussians parked that cost least to remove, those first that are parked already."""
  rasterizer = renderer.rasterizer(gaussians, neighbors)
  cost = density.removal_cost(gaussians, rasterizer, blends.picture(gaussians, rasterizer), target)
  by_cost = jnp.lexsort((geometry.visible(gaussians), cost))
  return geometry.park(gaussians, jnp.argsort(by_cost) < count)
