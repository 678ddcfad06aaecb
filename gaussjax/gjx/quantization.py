"""A fitted set onto the grids of a file: which steps, and how what quantisation costs is made good.

It is incremental (Zhou et al., "Incremental network quantization", 2017): a share of the Gaussians goes onto the
grid and stays there, the rest are fitted on and make good what that cost, until all are on it; the colours follow
the geometry.
"""

import functools
import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gaussjax import geometry, numerics
from gaussjax.fitting import checkpoints, loop, optimizers, recipes, resumption
from gaussjax.gjx import contexts, descent, grids, rate
from gaussjax.gjx.grids import Steps
from gaussjax.quality import losses, metrics
from gaussjax.rendering import bands, blends, buckets, renderer
from gaussjax.types import Array, Gaussians, Stop

# Shares of the Gaussians whose (geometry, colours) are on the grid while the rest are fitted.
# Smaller ones at the end: the fewer are left, the less they can make good.
STAGES = tuple((1 - (1 - i / 12) ** 1.5, 0.0) for i in range(1, 13)) + tuple((1.0, i / 5) for i in range(1, 5))
GEOMETRY_DONE = next(index for index, (geometry, _) in enumerate(STAGES) if geometry == 1)
SMALL_SIDE = 128  # pixels: pictures of less are small
STAGE_RATE = 0.003  # learning rate of the colours in a stage

MAX_GUESSES = 6  # of a step or of how many are made longer, before what is left of the range is halved
EXCESS = 0.03  # what quantising one number of each Gaussian may add to the squared error, as a share


def finest(gaussians: Gaussians) -> Steps:
  """Steps below which a set's numbers do not fit: the cells of a picture of its size, the codes of its colours."""
  canvas = geometry.canvas_of(gaussians)
  side = (1 + 2 * grids.MARGIN) * max(canvas.height, canvas.width) / (contexts.MAX_CELL - 1)
  position = grids.code_of(side / 2**grids.SPLIT) + 1
  codes = grids.codes_of(
    gaussians, grids.FINEST._replace(position=max(grids.FINEST.position, position), color=grids.STEP_ZERO)
  )
  # Half of what a code may be, since quantisation goes on with the colours.
  spare = 2 * int(np.abs(codes.colors).max()) + 1
  color = math.ceil(grids.STEP_ZERO + 8 * math.log2(spare / contexts.MAX_COLOR_CODE))
  return grids.FINEST._replace(position=max(grids.FINEST.position, position), color=max(grids.FINEST.color, color))


def coarser(steps: Steps, times: int, least: Steps) -> Steps:
  """One step after another longer by an eighth of an octave, so many times in all (shorter: less than 0 times).

  None goes below `least` nor above what a byte holds. Steps of log-scales are at most 2: with coarser ones a large
  scale might be rounded up to more than readers accept.
  """
  eighths = [(times + first) // len(steps) for first in range(len(steps))]
  longer = [min(255, max(code + n, low)) for code, n, low in zip(steps, eighths, least, strict=True)]
  fewer = steps.turn - eighths[steps._fields.index("turn")]  # bins of a turn
  log_scale = min(longer[steps._fields.index("log_scale")], COARSEST_LOG_SCALE)
  return Steps(*longer)._replace(log_scale=log_scale, turn=min(least.turn, max(0, fewer)))


COARSEST_LOG_SCALE = 136  # the code of 2

# Where each step's search ends, and how many numbers of a Gaussian have it.
_SEARCHED = {
  "position": (156, 2),
  "log_scale": (COARSEST_LOG_SCALE, 2),
  "turn": (136, 1),
  "color": (144, 3),
  "weight": (144, 1),
}
# Codes by which the step of log-scales is finer than that of positions, at most. A few Gaussians that are felt more
# than all others had made it finer for all.
_SCALES_FINER = 16
_FINE_FOR_TURN = 88  # of log-scales, while the angle's step is looked for: bins are of a ratio of codes


def balanced_steps(fitted: Gaussians, target: Array, error: float | None = None) -> Steps:
  """Steps with which each number of a Gaussian adds EXCESS of the squared `error`, that of the set if None."""
  target = bucketed(target)
  like = renderer.allocate(_in_bucket(fitted, target))
  squared_error = lambda gaussians: _error_of(gaussians, target, like)
  quantized = functools.cache(lambda steps: squared_error(grids.nearest(fitted, steps)))
  base = squared_error(fitted) if error is None else error
  found, least = {}, finest(fitted)
  for name, (coarse, numbers) in _SEARCHED.items():
    if name == "weight" and fitted.log_weights is None:
      found[name] = grids.STEP_ZERO
      continue
    others = least._replace(log_scale=_FINE_FOR_TURN) if name == "turn" else least
    more = lambda code, others=others, name=name: quantized(others._replace(**{name: code})) - quantized(others)
    most = numbers * EXCESS * base
    found[name] = _coarsest(more, getattr(least, name), coarse, getattr(rate.TYPICAL, name), most)
  bound = min(found["position"] - _SCALES_FINER, COARSEST_LOG_SCALE)
  found["log_scale"] = max(found["log_scale"], bound)
  return Steps(**found)


def _coarsest(more: Callable[[int], float], fine: int, coarse: int, guess: int, most: float) -> int:
  """The code from `fine` towards `coarse` with the largest step whose error is less than `most` `more`.

  Errors go with the square of the step, which says where to look next; eight codes are an octave.
  """
  onwards, tries = 1 if coarse > fine else -1, 0
  while abs(coarse - fine) > 1:
    first, last = min(fine, coarse) + 1, max(fine, coarse) - 1
    code = min(max(guess, first), last) if tries < MAX_GUESSES else (fine + coarse) // 2
    error, tries = more(code), tries + 1
    away = 4 * math.log2(max(most, numerics.MIN_MSE) / max(most / 2**16, error, numerics.MIN_MSE))
    fine, coarse = (code, coarse) if error < most else (fine, code)
    guess = code + onwards * (max(1, math.floor(away)) if error < most else min(-1, math.ceil(away)))
  return fine


def bucketed(target: Array) -> Array:
  """A target in the bucket of its picture."""
  height, width, _ = target.shape
  alone = buckets.size(height, width) == (height, width)
  return target if alone else renderer.target(buckets.padded(np.asarray(target)))


def _in_bucket(gaussians: Gaussians, target: Array) -> Gaussians:
  return buckets.on(gaussians, *target.shape[:2])


def _error_of(gaussians: Gaussians, target: Array, like: renderer.Neighbors | None = None) -> float:
  """The mean squared error of a set's clipped picture against a target in its bucket."""
  placed = _in_bucket(gaussians, target)
  return float(_squared_error(placed, renderer.allocate(placed, like=like), target))


@jax.jit
def _squared_error(gaussians: Gaussians, neighbors: renderer.Neighbors, target: Array) -> Array:
  found = bands.mean(bands.of_pixels(metrics.mse), gaussians, neighbors, jnp.clip(target, 0, 1))
  return found / buckets.share(target)


def psnr(gaussians: Gaussians, target: Array) -> float:
  """dB of a set at its fitted size against `target` `[H, W, C]`, of floats, not of 8 bits."""
  return decibels(_error_of(gaussians, bucketed(target)))


def decibels(error: float) -> float:
  """The PSNR of a mean squared error, as metrics.psnr_of on the host."""
  return -10 * math.log10(max(error, numerics.MIN_MSE))


Loss = Callable[[Array, Array], Array]  # (prediction, target) -> []


class Quantizer(Protocol):
  """How a fitted set comes onto the grids of a file. A file holds the nearest codes of what it returns.

  One that also takes `checkpoint=None` is handed a Checkpoint by an encoding that has one, to go on from what it
  finds there to the same set. Of others an encoding that goes on begins anew with what it was rounding.
  """

  def __call__(
    self,
    fitted: Gaussians,
    target: Array,
    steps: Steps,
    *,
    stage_steps: int,
    seed: int,
    loss: Loss,
    progress_fn: Callable[[int, int], None],
  ) -> Gaussians:
    """A set near the grids of `steps` that looks as like `target` `[H, W, C]` as may be by `loss`.

    `fitted` has Euler shapes and no log-weights, and so has the result; parked Gaussians (`geometry.park`) are to
    stay parked, and are no part of a file. `stage_steps` is the time that it may take, `seed` is for what it
    draws by lot, and `progress_fn` receives (steps done, steps in all).
    """
    ...


def incremental(
  fitted: Gaussians,
  target: Array,
  steps: Steps,
  *,
  stage_steps: int,
  seed: int = 0,
  loss: Loss = losses.l2,
  progress_fn: Callable[[int, int], None] = lambda done, total: None,
  checkpoint: checkpoints.Checkpoint | None = None,
) -> Gaussians:
  """A Quantizer: onto the grids share after share, so that the rest can make good what that costs.

  Where the squared error of a plain weighted average counts, numbers then move code by code (descent.py).
  `stage_steps` steps of descent towards `target` `[H, W, C]` follow each share; `seed` says whose turn is when.
  With `checkpoint` it goes on from the last share that it finds there. Raises ValueError for what is another's.
  """
  grid, size = grids.grid(steps), grids.picture_size(fitted)
  about = functools.partial(_about, fitted, target, steps, stage_steps, seed)
  canvas, image, descends = geometry.canvas_of(fitted), target, _descends(fitted, loss)
  parts = len(STAGES) + 2 * descends
  report = lambda part, share: progress_fn(round((part + share) * stage_steps), parts * stage_steps)
  descend = functools.partial(descent.descended, target=image, steps=steps, seed=seed)
  target = bucketed(target) if loss in recipes.IN_BUCKETS else target
  fitter, count = _stage_fitter(*target.shape[:2], loss), len(fitted.means)
  # By numpy, as all that is drawn on the host: a permutation by JAX is a program to trace and compile.
  rank = jnp.asarray(np.random.default_rng(seed).permutation(count), jnp.int32)
  state = fitter.init(_in_bucket(fitted, target))
  nothing_learnt, everyone = state.opt_state, jnp.ones(count, bool)
  last = len(STAGES) + descends
  state, done, keep = _resumed(checkpoint, about, state, last)
  # Compared as integers: an array of weak type is another program.
  among = lambda share: rank < jnp.int32(math.ceil(share * count))
  shares = _Shares(*map(among, ((0.0, 0.0), *STAGES)[min(done, len(STAGES))]))
  for index, stage in enumerate(STAGES[done:], done):
    larger = _Shares(*map(among, stage))
    params = _quantized(state.params, grid, size, shares, larger)
    if descends and index == GEOMETRY_DONE:
      told = functools.partial(report, index)
      params = descend(params._replace(canvas=canvas), colors=False, progress_fn=told)._replace(
        canvas=params.canvas
      )
    shares = larger
    moments = loop.forget(state.opt_state, nothing_learnt, everyone)
    neighbors = renderer.allocate(params, like=state.neighbors)
    state = state._replace(params=params, opt_state=moments, step=jnp.zeros((), jnp.int32), neighbors=neighbors)
    part = index + (descends and index >= GEOMETRY_DONE)
    made = lambda record, part=part: report(part, int(record["step"]) / stage_steps)
    host = loop.Host(_measure, lambda: 0.0, neighbors=recipes.NEIGHBORS, progress_fn=made)
    key, stop = jax.random.key(index), Stop(max_steps=stage_steps)
    state = loop.run(key, fitter, loop.begin(state), (target, shares, grid), stop=stop, host=host).state
    keep(index + 1, state)
  if done > len(STAGES):
    return state.params._replace(canvas=canvas)
  ended = _quantized(state.params, grid, size, shares, _Shares(everyone, everyone))._replace(canvas=canvas)
  if descends:
    ended = descend(ended, progress_fn=functools.partial(report, parts - 1))
    keep(last, state._replace(params=_in_bucket(ended, target)))
  return ended


def descends(loss: Loss, blend: blends.Blend, *, weighted: bool) -> bool:
  """Whether numbers of sets without slopes move once `incremental` has rounded them."""
  return loss is losses.l2 and blend is blends.weighted_average and not weighted


def _descends(fitted: Gaussians, loss: Loss) -> bool:
  blend, weighted = geometry.canvas_of(fitted).blend, fitted.log_weights is not None
  return fitted.slopes is None and descends(loss, blend, weighted=weighted)


def _about(fitted: Gaussians, target: Array, steps: Steps, stage_steps: int, seed: int) -> dict:
  """What a checkpoint knows of the rounding that it is of."""
  return {
    "set": digest(fitted),
    "target": digest(target),
    "steps": [int(code) for code in steps],
    "stage_steps": int(stage_steps),
    "seed": int(seed),
  }


def digest(arrays: Any) -> str:
  """By which the arrays of a tree are told from others."""
  found = hashlib.sha256()
  for leaf in map(np.asarray, jax.tree.leaves(arrays)):
    found.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
  return found.hexdigest()


def _resumed(
  checkpoint: checkpoints.Checkpoint | None, describe: Callable[[], dict], begun: loop.State, last: int
) -> tuple[loop.State, int, Callable[[int, loop.State], None]]:
  """(the state to go on from, how many stages of `last` are done, what keeps the state after so many)."""
  if checkpoint is None:
    return begun, 0, lambda done, state: None
  about = describe() | {"label": str(checkpoint.label)}
  # The whole of it: moments are forgotten between stages, but their counters and a rate that was halved go on.
  stored = lambda state: state._replace(neighbors=resumption.storable(state.neighbors))
  found = checkpoints.resume(checkpoint.folder, stored(begun), about)
  state, done = begun, 0
  if found is not None:
    state, notes = found
    done = notes["stages"]
  stage_steps = about["stage_steps"]
  write = checkpoints.writer(checkpoint, about, done * stage_steps)

  def keep(done: int, state: loop.State) -> None:
    write(done * stage_steps, stored(state), {"stages": done}, done == last)

  return state, done, keep


class _Shares(NamedTuple):
  """Which Gaussians are on the grid."""

  geometry: Array  # [N] bool
  colors: Array  # [N] bool


def _measure(state: loop.State, target) -> loop.Record:
  """Nothing: a stage goes on to its end."""
  return {"loss": 0.0, "psnr": 0.0}


@jax.jit
def _quantized(params: Gaussians, grid: grids.Grid, size: Array, before: _Shares, after: _Shares) -> Gaussians:
  """The set with those put on the grid that are in `after` and were not before. `size` `[2]` is the picture's."""
  on_grid, _ = grids.quantize(params, grid, size)
  placed = functools.partial(_choose, after.geometry & ~before.geometry)
  shape = jax.tree.map(placed, on_grid.shape, params.shape)
  colors = _choose(after.colors & ~before.colors, on_grid.colors, params.colors)
  means, weights = jax.tree.map(placed, (on_grid.means, on_grid.log_weights), (params.means, params.log_weights))
  return params._replace(means=means, shape=shape, colors=colors, log_weights=weights)


def _choose(mask: Array, first: Array, second: Array) -> Array:
  return jnp.where(mask.reshape(-1, *[1] * (first.ndim - 1)), first, second)


def unit_of_length(height: int, width: int) -> float:
  """The unit in which means move, in pixels: in a small picture a share of it, or steps are beyond its border."""
  return min(1.0, math.sqrt(height * width) / SMALL_SIDE)


@functools.lru_cache(maxsize=16)  # the same functions again, so that jit finds its programs
def _stage_fitter(height: int, width: int, loss: Loss) -> loop.Fitter:
  """The descent in which what is on the grid has no gradient."""

  def loss_fn(params: Gaussians, neighbors: renderer.Neighbors, target: tuple[Array, _Shares, grids.Grid]) -> Array:
    image, shares, grid = target
    hold = lambda mask: lambda leaf: _choose(mask, jax.lax.stop_gradient(leaf), leaf)
    still = hold(shares.geometry)
    means, shape, weights = jax.tree.map(still, (params.means, params.shape, params.log_weights))
    colors = hold(shares.colors)(params.colors)
    params = params._replace(means=means, shape=shape, log_weights=weights, colors=colors)
    distortion = recipes.distortion(loss, params, neighbors, image)
    return rate.lagrangian(distortion, params, grid)

  rates = recipes.rates(recipes.Recipe(learning_rate=STAGE_RATE, lengths_in=unit_of_length), height, width)
  schedule = functools.partial(optimizers.cosine, final=0.1)
  # A stage begins with full steps: they must not throw a line off its place for good.
  optimizer = optimizers.adam(rates, schedule, most_turn=optimizers.MOST_TURN)
  return loop.fitter(loss_fn, optimizer, neighbors=recipes.NEIGHBORS)
