"""A set as the bytes of a `.gjx` file, and back: what the format holds of a set, and the picture of a file."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussjax import geometry, image_io
from gaussjax.errors import DamagedError, FormatError
from gaussjax.gjx import container, contexts, grain, grids, version_2
from gaussjax.gjx.grids import Codes, Steps
from gaussjax.rendering import blends, renderer
from gaussjax.rendering.blends import Blend
from gaussjax.types import Array, Canvas, Euler, Gaussians

MAX_COLOR = 1e4  # in magnitude: beyond is damage to a reader
HELD_TO = 1e-6  # how near a thousandth the cut-off and the floor must be: another number is another picture
MAX_PIXELS = container.LIMITS.pixels  # of a picture to encode: 134 million


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
  background = np.array(header.background, np.float32) / np.float32(header.background_unit)
  canvas = Canvas(
    header.height,
    header.width,
    jax.device_put(background),
    blends.BY_CODE[header.blend],
    cutoff=header.cutoff / container.FIXED,
    floor=header.floor / container.FIXED,
  )
  together = [np.concatenate(field) for field in zip(*contents.layers, strict=True)]
  if header.version < container.VERSION:
    gaussians = version_2.dequantize(version_2.Codes(*together), version_2.grid(header.steps), canvas)
  else:
    gaussians = grids.dequantize(Codes(*together), grids.grid(header.steps), canvas)
  if gaussians.log_weights is not None and float(np.abs(gaussians.log_weights).max()) > grids.MAX_LOG_WEIGHT:
    raise FormatError("damaged: a weight is out of range")
  finite = all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(gaussians))
  if not finite or float(np.abs(gaussians.colors).max()) > MAX_COLOR:
    raise FormatError("damaged: a number is out of range")
  container.check_drawable(header, radii(gaussians), np.asarray(gaussians.means, np.float64), limits)
  return gaussians


def radii(gaussians: Gaussians) -> NDArray:
  """`[N]` pixels: how far each Gaussian (Euler shapes) reaches from its mean, at most."""
  canvas, log_scales = geometry.canvas_of(gaussians), np.asarray(gaussians.shape[0], np.float64)
  return canvas.cutoff * np.hypot(np.exp(log_scales.max(axis=1)), canvas.floor)


def at_8_bits(gaussians: Gaussians, header: container.Header | None = None) -> image_io.FloatImage:
  """`[H, W, C]` in [0, 1]: the picture as a viewer sees it, with the grain of a `header`.

  PSNRs of files are of the picture without grain, of which no pixel is meant to be the original's.
  """
  picture = renderer.render(gaussians)
  return image_io.as_image(image_io.as_uint8(picture if header is None else add_grain(picture, header)))


def add_grain(
  picture: ArrayLike, header: container.Header, *, viewport: renderer.Viewport | None = None
) -> image_io.FloatImage:
  """A render `[h, w, C]` of a file's Gaussians with the file's grain, texture that Gaussians have not: in [0, 1].

  Of the whole picture at any size, or of the same `viewport` as the render. A file without grain leaves the picture
  as it is, but for the clipping.
  """
  drawn = np.clip(np.asarray(picture), 0, 1)
  if header.grain is None:
    return drawn
  return grain.added(drawn, header.grain, header.height, header.width, viewport)


def pack(
  gaussians: Gaussians,
  steps: Steps,
  *,
  layers: int = 1,
  metadata: dict[str, bytes] | None = None,
  strengths: grain.Grain | None = None,
) -> bytes:
  """The `.gjx` file of a set (Euler shapes, a canvas as `decode` gives one) on the grids of `steps`.

  With the `strengths` of its grain. Parked Gaussians (geometry.park) are left out. Raises ValueError for a canvas
  that the format does not hold, numbers beyond what is coded, unknown metadata.
  """
  shown = geometry.shown(gaussians)
  codes = Codes(*[field[shown] for field in grids.codes_of(gaussians, steps)])
  parts = _layered(codes, grids.grid(steps), layers)
  header = header_of(geometry.canvas_of(gaussians), gaussians.colors.shape[1])
  weighted = any(part.weights.any() for part in parts)
  if not weighted:
    steps = steps._replace(weight=grids.STEP_ZERO)
  header = header._replace(steps=steps, layers=len(parts), weighted=weighted, grain=strengths)
  try:
    return container.write(header, parts, metadata, short=True)
  except DamagedError as error:
    raise ValueError(f"got Gaussians that a file cannot hold, {error}; expected smaller numbers") from None


def _layered(codes: Codes, grid: grids.Grid, layers: int) -> list[Codes]:
  """The larger Gaussians first: each layer has four times as many as the one before."""
  known = grids.known(codes, grid)
  areas = 4 * np.log(known.roots / grids.ONE) + known.ratios / grids.ONE  # logarithms
  order = np.argsort(-areas, kind="stable")
  ends = sorted({max(1, len(order) // 4 ** (layers - 1 - index)) for index in range(layers)})
  return [Codes(*[field[part] for field in codes]) for part in np.split(order, ends[:-1])]


def header_of(canvas: Canvas, channels: int) -> container.Header:
  """The header of a canvas, of one layer on the finest steps. Raises ValueError for what it does not hold."""
  check_size(canvas.height, canvas.width, channels)
  cutoff = _thousandths("cutoff", canvas.cutoff, container.CUTOFFS)
  floor = _thousandths("floor", canvas.floor, container.FLOORS)
  unit = _unit_of_background(canvas)
  background = np.round(np.asarray(canvas.background, np.float64) * unit)
  if background.shape != (channels,) or not (np.abs(background) < 1 << 15).all():
    raise ValueError(
      f"got the background {canvas.background}, expected {channels} numbers of at most 32.767 in magnitude"
    )
  return container.Header(
    height=canvas.height,
    width=canvas.width,
    channels=channels,
    blend=blend_code(canvas.blend),
    cutoff=cutoff,
    floor=floor,
    background=tuple(map(int, background)),
    steps=grids.FINEST,
    layers=1,
    background_unit=unit,
  )


def _unit_of_background(canvas: Canvas) -> int:
  """255 where the header is a short one: the usual canvas, a background within what 8 bits show."""
  background = np.asarray(canvas.background, np.float64)
  usual = (round(canvas.cutoff * container.FIXED), round(canvas.floor * container.FIXED)) == container.CANVAS
  return 255 if usual and bool(((background >= 0) & (background <= 1)).all()) else container.FIXED


def blend_code(blend: Blend) -> int:
  """A blend's number in files. Raises ValueError for one that has none."""
  if blends.BY_CODE.get(blends.checked(blend).code) != blend:
    known = " or ".join(known.name for known in blends.BY_CODE.values())
    raise ValueError(f"got the blend {blend.name}, which has no code in files; expected {known}, or save as .npz")
  return blend.code  # type: ignore[return-value]


def _thousandths(name: str, value: float, bounds: Sequence[int]) -> int:
  """A number of the header. Raises ValueError for one that is not a thousandth within `bounds`."""
  count = round(float(value) * container.FIXED) if np.isfinite(value) else -1
  low, high = bounds
  if not low <= count <= high or abs(count / container.FIXED - value) > HELD_TO:
    raise ValueError(
      f"got a canvas with {name}={value:g}, expected a multiple of 0.001, {low / container.FIXED:g} to "
      f"{high / container.FIXED:g}, which is what files hold"
    )
  return count


def check_size(height: int, width: int, channels: int) -> None:
  """Raises ValueError for a picture that is not encoded."""
  pixels = height * width
  if pixels > MAX_PIXELS:
    raise ValueError(
      f"got an image of {pixels:,} pixels, expected at most {MAX_PIXELS:,}; encode it smaller, render it larger"
    )
  if channels > contexts.MAX_CHANNELS:
    raise ValueError(f"got an image of {channels} channels, expected at most {contexts.MAX_CHANNELS}")


def holdable(gaussians: Gaussians) -> Gaussians:
  """A set as a file can hold it: Euler shapes, float32, without Gaussians that no pixel sees.

  The picture stays what it was, but for float32 and the background, in steps of 1/255 or thousandths. Raises
  ValueError for a set that a file cannot hold so, and for one that is damaged.
  """
  canvas = geometry.canvas_of(gaussians)
  _check_numbers(gaussians)
  header = header_of(canvas, gaussians.colors.shape[1])
  single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), gaussians)
  if single.log_weights is not None and not np.any(np.asarray(single.log_weights)):
    single = single._replace(log_weights=None)
  single = single._replace(slopes=None)  # all of them 0
  if not isinstance(single.shape, Euler):
    single = single._replace(shape=geometry.to_euler(single.shape))
  seen = _seen(single)
  if not seen.any():
    raise ValueError("got a set of which no pixel sees a Gaussian, expected one at least")
  single = geometry.take(single, seen)
  if len(single.means) > container.LIMITS.gaussians:
    raise ValueError(f"got {len(single.means)} Gaussians, expected at most {container.LIMITS.gaussians}")
  container.check_drawable(header, radii(single), np.asarray(single.means, np.float64))
  return on_header(single)


def on_header(gaussians: Gaussians, *, short: bool = False) -> Gaussians:
  """The set over the background as a file holds it; as a `short` frame holds it, of one brightness."""
  canvas = geometry.canvas_of(gaussians)
  background = _gray(canvas.background) if short else canvas.background
  rounded = _rounded(background, jnp.float32(_unit_of_background(canvas)))
  return gaussians._replace(canvas=dataclasses.replace(canvas, background=rounded))


@jax.jit
def _gray(background: Array) -> Array:
  colors = background[: container.COLOR_CHANNELS]
  return background.at[: len(colors)].set(jnp.mean(colors))


@jax.jit
def _rounded(background: Array, unit: Array) -> Array:
  return jnp.round(background * unit) / unit


def _seen(gaussians: Gaussians) -> NDArray:
  """`[N]` bool: whether the square around a Gaussian's support meets the picture."""
  canvas, means = geometry.canvas_of(gaussians), np.asarray(gaussians.means, np.float64)
  reach = radii(gaussians)[:, None]
  inside = (means + reach > 0) & (means - reach < [canvas.width, canvas.height])
  return inside.all(axis=1) & np.asarray(geometry.visible(gaussians))


def _check_numbers(gaussians: Gaussians) -> None:
  """Raises ValueError for a set whose fields do not belong together, or are not finite numbers of a fair size."""
  if gaussians.slopes is not None and np.any(np.asarray(gaussians.slopes)):
    raise ValueError("got a set with slopes, which .gjx does not hold; fit it without, or save it as .npz")
  fields = {"means": gaussians.means, **gaussians.shape._asdict(), "colors": gaussians.colors}
  if gaussians.log_weights is not None:
    fields["log_weights"] = gaussians.log_weights
  count, wanted = len(gaussians.means), {"means": 2, "log_scales": 2, "colors": np.shape(gaussians.colors)[-1]}
  if count == 0:
    raise ValueError("got a set of no Gaussians, expected one at least")
  for name, field in fields.items():
    expected = (count, wanted[name]) if name in wanted else (count,)
    if np.shape(field) != expected:
      raise ValueError(f"got {name} of shape {np.shape(field)}, expected {expected}")
    bad = int(np.sum(~np.isfinite(np.asarray(field, np.float32))))
    if bad:
      raise ValueError(f"got {name} with {bad} values that are NaN or infinite, expected finite ones")
  largest = float(np.abs(np.asarray(gaussians.colors, np.float32)).max())
  if largest > MAX_COLOR:
    raise ValueError(f"got colours of up to {largest:g}, expected at most {MAX_COLOR:g}")
  if gaussians.log_weights is not None:
    largest = float(np.abs(np.asarray(gaussians.log_weights, np.float32)).max())
    if largest > grids.MAX_LOG_WEIGHT:
      raise ValueError(f"got log_weights of up to {largest:g}, expected at most {grids.MAX_LOG_WEIGHT:g}")
