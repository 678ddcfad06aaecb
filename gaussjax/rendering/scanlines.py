"""The renderer of scan lines: native code that walks each Gaussian's rows, on CPU, in float32.

It keeps no lists, so nothing overflows or goes stale, uses all cores, and compiles to next to nothing. Its sums are
those of dense.py to rounding. It is built when the package is installed, if there is a C++ compiler; where it was
not, or does not serve (`serves`), the renderers of JAX draw.
"""

import functools
import importlib
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout

from gaussjax import startup
from gaussjax.geometry import Geometry
from gaussjax.rendering import kernel
from gaussjax.rendering.sharding import varying_like
from gaussjax.types import Array

LANES = 16  # of a vector, at most; the machine may have 4 or 8
BAND_ROWS = 32  # of a picture that a thread draws at a time; as in the native code


@functools.cache
def _native() -> ModuleType | None:
  """The native code, made known to XLA; None where it was not built, or for a later version of XLA's interface."""
  try:
    native = importlib.import_module("gaussjax.rendering._scanlines")
    # Of a later one XLA says so only when it starts its devices, and then has none.
    built_for = native.API_MAJOR, native.API_MINOR
    if built_for > startup.interface_of_xla():
      return None
    for name in ("splat", "squares", "splat_gradient", "removal", "best_blurs"):
      jax.ffi.register_ffi_target(f"gaussjax_{name}", getattr(native, name), platform="cpu")
  except Exception:  # of whatever kind, it costs only speed
    return None
  return native


def available() -> bool:
  """Whether the native code was built."""
  return _native() is not None


def serves(dtype: jnp.dtype, ordered: bool) -> bool:
  """Whether it draws sets of a dtype, with an ordered blend or another, where JAX now is."""
  return not ordered and dtype == jnp.float32 and jax.default_backend() == "cpu" and available()


def planar(image: Array, place: jax.sharding.Sharding) -> Array:
  """The same `[H, W, C]`, in memory as this renderer's pictures are: what is computed of both goes by rows."""
  return jax.device_put(image, Format(Layout(major_to_minor=_layout(image)), place))


def _layout(array: Array | jax.ShapeDtypeStruct) -> tuple[int, ...]:
  """Images `[H, W, D]` are row by row D planes of W."""
  return (0, 2, 1) if len(array.shape) == 3 else tuple(range(len(array.shape)))


def _call(
  name: str, results: tuple[jax.ShapeDtypeStruct, ...], *arrays: Array, **attributes: float
) -> tuple[Array, ...]:
  """A call of native code, whose attributes are float32."""
  _native()
  called = jax.ffi.ffi_call(
    f"gaussjax_{name}",
    results,
    input_layouts=[_layout(array) for array in arrays],
    output_layouts=[_layout(result) for result in results],
    vmap_method="sequential",
  )
  given = {name: np.float32(value) for name, value in attributes.items()}
  return varying_like(tuple(called(*arrays, lanes=np.int32(LANES), **given)), arrays)


def _like(*arrays: Array) -> tuple[jax.ShapeDtypeStruct, ...]:
  return tuple(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays)


def splat(geometry: Geometry, values: Array, height: int, width: int, tau: float) -> Array:
  """sum_i w_i(p) values_i: `values` `[N, D]` -> `[H, W, D]`."""
  return _splat(*varying_like((geometry, values), (geometry, values)), height, width, tau)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _splat(geometry: Geometry, values: Array, height: int, width: int, tau: float) -> Array:
  drawn = jax.ShapeDtypeStruct((height, width, values.shape[1]), values.dtype)
  return _call("splat", (drawn,), geometry.means, geometry.whitening, values, tau=tau)[0]


def _splat_forward(geometry: Geometry, values: Array, height: int, width: int, tau: float):
  return _splat(geometry, values, height, width, tau), (geometry, values)


def _splat_backward(height: int, width: int, tau: float, residuals, cotangent: Array):
  geometry, values = residuals
  arrays = geometry.means, geometry.whitening, values
  d_means, d_whitening, d_values = _call("splat_gradient", _like(*arrays), *arrays, cotangent, tau=tau)
  return kernel.cotangent(geometry, d_means, d_whitening), d_values


_splat.defvjp(_splat_forward, _splat_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _squares(
  geometry: Geometry, values: Array, background: Array, target: Array, first: Array, tau: float
) -> Array:
  """`Rasterizer.squares`; the target is taken as given."""
  return _squares_forward(geometry, values, background, target, first, tau)[0]


def _squares_forward(geometry: Geometry, values: Array, background: Array, target: Array, first: Array, tau: float):
  """The gradient is made in the walk that makes the value: no picture is kept."""
  height, _, channels = target.shape
  each_band = jax.ShapeDtypeStruct((-(-height // BAND_ROWS), 1 + channels), target.dtype)
  arrays = geometry.means, geometry.whitening, values
  results = (each_band, *_like(*arrays))
  found, *by = _call("squares", results, *arrays, background, target, first, tau=tau)
  found = jnp.sum(found, axis=0)
  by_geometry = kernel.cotangent(geometry, by[0], by[1])
  return found[0], (by_geometry, by[2], found[1:])


def _squares_backward(tau: float, gradient: tuple[Geometry, Array, Array], cotangent: Array):
  return *jax.tree.map(lambda leaf: cotangent * leaf, gradient), None, None


_squares.defvjp(_squares_forward, _squares_backward)


def best_blurs(residual: Array, scales: Array) -> tuple[Array, Array, Array] | None:
  """`density.best_blurs` where this code serves, None elsewhere and for less than LANES pixels in a row.

  Scales of more than 4 pixels are made at half, a quarter, ... of the size, within 1% of the largest value.
  """
  height, width, channels = residual.shape
  if width < LANES or not serves(residual.dtype, False):
    return None
  like = lambda *shape: jax.ShapeDtypeStruct(shape, residual.dtype)
  results = like(height, width), jax.ShapeDtypeStruct((height, width), jnp.int32), like(height, width, channels)
  gain, which, blurred = _call("best_blurs", results, residual, scales)
  return gain, which, blurred


def scanlines(geometry: Geometry, height: int, width: int, *, tau: float) -> kernel.Rasterizer:
  """The rasterizer of scan lines."""
  geometry = geometry._replace(log_weights=jnp.asarray(geometry.log_weights))

  def composite(values: Array, opacities: Array) -> tuple[Array, Array]:
    raise ValueError("got a blend with ordered=False that composites, expected Blend(..., ordered=True)")

  def removal(colors: Array, total: Array, drawn: Array, target: Array) -> tuple[Array, Array]:
    factors = jnp.exp(geometry.log_weights)
    arrays = geometry.means, geometry.whitening, colors, kernel.gradients(geometry), factors, total, drawn, target
    cost, seen = _call("removal", _like(factors, factors), *arrays, tau=tau)
    return cost, seen

  def squares(values: Array, background: Array, target: Array, first: Array) -> Array:
    arrays = geometry, values, background, target, first
    return _squares(*varying_like(arrays, arrays), tau)

  draw = lambda values: splat(geometry, values, height, width, tau)
  return kernel.Rasterizer(draw, composite, removal, geometry, tau, squares)
