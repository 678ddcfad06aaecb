"""What every search for a file shares: what is asked of it, the time it may take, and a set's way into bytes."""

import functools
import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gaussjax import arguments, geometry
from gaussjax.fitting import checkpoints, density, optimizers, recipes
from gaussjax.gjx import container, grain, grids, packing, quantization, rate
from gaussjax.gjx.grain import Grain
from gaussjax.gjx.grids import Steps
from gaussjax.quality import losses
from gaussjax.rendering import renderer
from gaussjax.types import Array, Gaussians

# Many Gaussians of a short fit are new, so moments soon forget.
RECIPE = recipes.Recipe(
  objective=rate.lagrangian,
  lengths_in=quantization.unit_of_length,
  ratios=recipes.Recipe().ratios._replace(log_scales=6),
  optimizer=functools.partial(optimizers.adam, b2=0.95, most_turn=optimizers.MOST_TURN),
  project=grids.contain,
)


# What a file may be tuned for, the squared error or what is seen: the loss, where Gaussians go, and the share of
# the texture it lacks that comes back as grain.
TUNES = {"psnr": (losses.l2, density.relocate, 0.0), "visual": (losses.visual, density.relocate_by_eye, 0.5)}


class Effort(NamedTuple):
  """How long an encoding takes, and what it is made of: the parts may be a user's own. Hashable.

  The recipe's blend must have a code in files (`Blend.code`). Its loss is what the file is tuned for.
  """

  steps: int  # of a fit, in place of the recipe's
  stage_steps: int  # of each stage of quantisation
  recipe: recipes.Recipe = RECIPE
  quantizer: quantization.Quantizer = quantization.incremental
  seed: int = 0  # of what is drawn by lot, 0 to 2^32 - 1
  # Files, of other seeds and for a size of other numbers of Gaussians; the best is kept. More of few Gaussians.
  tries: int = 1
  grain: float = 0.0  # 0 to 1: how much of the texture that the Gaussians lack the reader is to draw by itself

  @classmethod
  def level(cls, level: int, tune: str = "psnr", grain: float | None = None) -> "Effort":
    """One of the efforts 0 to 9, tuned for `psnr` or to the eye, `visual`. Raises ValueError for others.

    `grain` is 0 for `psnr` and 0.5 for `visual` unless it is given.
    """
    if tune not in TUNES:
      raise ValueError(f"got tune={arguments.shown(tune)}, expected one of {', '.join(TUNES)}")
    chosen = EFFORTS[arguments.whole("effort", level, least=0, most=len(EFFORTS) - 1)]
    loss, policy, usual = TUNES[tune]
    recipe = chosen.recipe._replace(loss=loss, policy=policy)
    return chosen._replace(recipe=recipe, grain=usual if grain is None else grain)


EFFORTS = (
  Effort(120, 4),
  Effort(180, 5),
  Effort(250, 7),
  Effort(330, 8),
  Effort(420, 9),
  Effort(700, 10),
  Effort(1000, 12),
  Effort(1500, 16),
  Effort(2500, 22),
  Effort(2500, 22, tries=2),
)
MAX_TRIES = 100
DEFAULT_EFFORT = 5
DEFAULT_QUALITY = 50.0
MOST_PSNR = 99.0  # dB: all but the same 8 bits in every pixel

# Bytes of a file that are not its Gaussians', but for the background's, about; all of them in a short frame.
FRAME, SHORT_FRAME = 24, 12

FALL = 0.92  # the squared error falls by this power of N, measured

# Times that balanced steps are made coarser, one step after another: three octaves finer to seven coarser.
FINER, COARSER = -96, 224

NUMBERS = 8  # of a Gaussian of three channels

Progress = Callable[[str, int, int], None]  # (what is being done, steps done, steps in all)


class Goal(NamedTuple):
  """What is asked of a file: a size, or a PSNR, or else a quality."""

  size: int | None = None  # bytes, not to be exceeded
  psnr: float | None = None  # dB at 8 bits, to be reached
  quality: float = DEFAULT_QUALITY  # 0 to 100


class Work(NamedTuple):
  """What the search for a file does not change."""

  image: NDArray  # [H, W, C] float32, what is to be drawn
  effort: Effort
  layers: int
  metadata: dict[str, bytes]
  progress_fn: Progress
  part: Callable[[str], checkpoints.Checkpoint | None] = lambda name: None  # the checkpoint of a long part, by name
  grain: Grain | None = None

  @property
  def target(self) -> Array:
    """The image on the device."""
    return renderer.target(self.image)

  @property
  def pixels(self) -> int:
    """H W."""
    return self.image.shape[0] * self.image.shape[1]


def quantized(work: Work, fitted: Gaussians, steps: Steps) -> Gaussians:
  """The set on the grids of `steps`, by the quantizer of the effort."""
  effort, report = work.effort, functools.partial(work.progress_fn, "quantise")
  checkpoint = work.part("-".join(["quantise", *map(str, (len(fitted.means), *steps))]))
  quantizer: Callable[..., Gaussians] = effort.quantizer
  if checkpoint is not None and "checkpoint" in inspect.signature(quantizer).parameters:
    quantizer = functools.partial(quantizer, checkpoint=checkpoint)
  return quantizer(
    fitted,
    work.target,
    steps,
    stage_steps=effort.stage_steps,
    seed=work.effort.seed,
    loss=effort.recipe.loss,
    progress_fn=report,
  )


def parts(
  checkpoint: checkpoints.Checkpoint | None, work: Work, image: NDArray | Gaussians, goal: Goal
) -> Callable[[str], checkpoints.Checkpoint | None]:
  """The `part` of a work. Raises ValueError for checkpoints of another image, goal, effort or layers."""
  if checkpoint is None:
    return work.part
  if goal.size is not None:
    asked = f"{goal.size} bytes"
  else:
    asked = f"quality {goal.quality!r}" if goal.psnr is None else f"{goal.psnr!r} dB"
  effort = f"effort of {work.effort.steps} and {work.effort.stage_steps} steps"
  effort += f", {work.effort.tries} tries" * (work.effort.tries > 1)
  effort += " to the eye" * (work.effort.recipe.loss is losses.visual) + f", seed {work.effort.seed}"
  effort += f", grain {work.effort.grain!r}" * (work.effort.grain > 0)
  of = f"image {quantization.digest(image)[:16]}, {asked}, {effort}, {work.layers} layers"
  return checkpoints.parts(checkpoint, of)


def file(work: Work, gaussians: Gaussians, steps: Steps) -> bytes:
  """The bytes of a set."""
  return packing.pack(gaussians, steps, layers=work.layers, metadata=work.metadata, strengths=work.grain)


def with_grain(work: Work, fitted: Gaussians) -> Work:
  """The work with the texture that a fit lacks, as much of it as the effort has come back."""
  if work.effort.grain == 0:
    return work
  drawn = np.asarray(renderer.render(fitted))
  return work._replace(grain=grain.measured(work.image, drawn, work.effort.grain))


def is_short(work: Work, size: float) -> bool:
  """Whether a file of about `size` bytes may have a short frame."""
  plain = work.layers == 1 and work.image.shape[2] in container.SHORT_SIGNATURES and not work.metadata
  return plain and size <= container.MOST_SHORT and not work.effort.grain


def frame(work: Work, size: int | None = None) -> float:
  """Bytes of a file that are not its Gaussians', about; of one of at most `size` bytes, if that is known."""
  if size is not None and is_short(work, size):
    return SHORT_FRAME
  grained = grain.typical_bytes(*work.image.shape[:2]) if work.effort.grain else 0
  return FRAME + work.image.shape[2] + sum(len(data) + 10 for data in work.metadata.values()) + grained


def reached(work: Work, data: bytes) -> float:
  """dB of a file's picture at 8 bits."""
  return psnr_of(_drawn(data), np.clip(work.image, 0, 1))


def psnr_of(drawn: NDArray, image: NDArray) -> float:
  """dB of a picture in [0, 1], as metrics.psnr on the host: a first call there has eight programs to compile."""
  return quantization.decibels(np.mean(np.square(drawn - image, dtype=np.float64)))


def loss(work: Work, data: bytes) -> float:
  """Of a file's picture at 8 bits, by what the file is tuned for."""
  return float(work.effort.recipe.loss(jnp.asarray(_drawn(data)), jnp.clip(work.target, 0, 1)))


def _drawn(data: bytes) -> NDArray:
  return packing.at_8_bits(packing.decode(data)[0])


def check_reachable(psnr: float, image: NDArray) -> None:
  """Raises ValueError for a goal in dB that no picture of 8 bits can reach."""
  most = most_psnr(image)
  if psnr > most:
    raise ValueError(
      f"got target_psnr={psnr:g}, expected at most {most:.1f}: 8 bits come no nearer to this picture"
    )


def most_psnr(image: NDArray) -> float:
  """dB that 8 bits can reach of an image `[H, W, C]`, at most MOST_PSNR."""
  visible = np.clip(image, 0, 1)
  error = float(np.mean(np.square(np.round(visible * 255) / 255 - visible, dtype=np.float64)))
  return min(MOST_PSNR, quantization.decibels(error))


def steps_within(work: Work, fitted: Gaussians, balanced: Steps, most: float) -> Steps:
  """The finest steps, coarser or finer than the `balanced` ones, with which the nearest codes take `most` bytes.

  Or the coarsest that are tried.
  """
  least, low, high, guess = quantization.finest(fitted), FINER, COARSER, 0
  # Bytes that one time more saves: an eighth of a bit of a quarter of the numbers.
  per_time = len(geometry.shown(fitted)) * NUMBERS / len(balanced) / 8 / 8
  for tries in itertools.count():
    excess = len(file(work, fitted, quantization.coarser(balanced, guess, least))) - most
    low, high = (low, guess) if excess <= 0 else (guess, high)
    if high - low <= 1:
      break
    near = guess + (math.ceil(excess / per_time) or -1)
    guess = min(max(near, low + 1), high - 1) if tries < quantization.MAX_GUESSES else (low + high) // 2
  return quantization.coarser(balanced, high, least)


def goal(
  pixels: int, *, quality: float | None, bpp: float | None, size: int | None, target_psnr: float | None
) -> Goal:
  """What the arguments of an encoding ask for. Raises ValueError for what makes no sense."""
  goals = {"quality": quality, "bpp": bpp, "size": size, "target_psnr": target_psnr}
  given = [name for name, value in goals.items() if value is not None]
  if len(given) > 1:
    raise ValueError(f"got {' and '.join(given)}, expected at most one of {', '.join(goals)}")
  if bpp is not None:
    bits = min(_above_0("bpp", bpp), 8.0 * container.LIMITS.file_bytes) * pixels
    return Goal(size=math.floor(bits / 8))
  if size is not None:
    return Goal(size=arguments.whole("size", size, least=1))
  if target_psnr is not None:
    return Goal(psnr=_above_0("target_psnr", target_psnr))
  asked = arguments.real("quality", DEFAULT_QUALITY if quality is None else quality)
  if not 0 <= asked <= 100:
    raise ValueError(f"got quality={asked:g}, expected 0 to 100")
  return Goal(quality=asked)


def effort_of(effort: int | Effort) -> Effort:
  """One of EFFORTS, or the Effort itself. Raises ValueError for one that cannot make a file."""
  if not isinstance(effort, Effort):
    return Effort.level(effort)
  arguments.whole("effort.steps", effort.steps, least=1, most=arguments.MAX_STEPS)
  arguments.whole("effort.stage_steps", effort.stage_steps, least=1, most=arguments.MAX_STEPS)
  arguments.whole("effort.tries", effort.tries, least=1, most=MAX_TRIES)
  if not 0 <= arguments.real("effort.grain", effort.grain) <= 1:
    raise ValueError(f"got effort.grain={effort.grain:g}, expected 0 to 1")
  arguments.whole("effort.seed", effort.seed, least=0, most=arguments.MAX_SEED + 1 - effort.tries)
  recipes.of(effort.recipe)
  packing.blend_code(effort.recipe.blend)
  if effort.recipe.sloped:
    raise ValueError("got an effort whose recipe is sloped=True, expected False: .gjx does not hold slopes")
  return effort


def _above_0(name: str, value: Any) -> float:
  """An argument that is a finite number above 0. Raises ValueError for others."""
  found = arguments.real(name, value)
  if not 0 < found < math.inf:
    raise ValueError(f"got {name}={arguments.shown(value)}, expected a finite number above 0")
  return found
