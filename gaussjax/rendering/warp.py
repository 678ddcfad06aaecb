"""The renderer of NVIDIA Warp, the extra `gaussjax[warp]`: kernels for GPUs, in float32.

It draws over the lists of tiles.py, forward by tile, backward by Gaussian. Its sums are those of dense.py to
rounding. On a CPU it is right and slow, which is what tests need. What composites in order is drawn by splat.py.
"""

import functools
import importlib
import importlib.util
import math
from collections.abc import Mapping
from types import ModuleType

import jax
import jax.numpy as jnp

from gaussjax.geometry import Geometry
from gaussjax.rendering import kernel, splat as over_lists
from gaussjax.rendering.sharding import varying_like
from gaussjax.rendering.tiles import TILE, TileLists
from gaussjax.types import Array

LANES = 128  # threads for each Gaussian of the backward pass
WARNING = 30  # of Warp's levels: what it says of itself when it starts would be in the output of commands


@functools.cache
def _kernels() -> ModuleType | None:
  """The kernels' module; None where Warp is not installed, or does not start."""
  if importlib.util.find_spec("warp") is None:
    return None
  try:
    warp = importlib.import_module("warp")
    warp.config.log_level = max(warp.config.log_level, WARNING)
    warp.init()
    return importlib.import_module("gaussjax.rendering.warp_kernels")
  except Exception:  # of whatever kind, it costs only speed
    return None


def _module() -> ModuleType:
  """The kernels' module. Raises ImportError without Warp."""
  return _kernels() or importlib.import_module("gaussjax.rendering.warp_kernels")


def available() -> bool:
  """Whether Warp is installed, and starts."""
  return _kernels() is not None


def serves(dtype: jnp.dtype) -> bool:
  """Whether it draws sets of a dtype where JAX now is: on a GPU of NVIDIA's, and on a CPU."""
  backend = jax.default_backend()
  if dtype != jnp.float32 or backend not in ("cpu", "gpu") or not available():
    return False
  return backend == "cpu" or importlib.import_module("warp").is_cuda_available()


def _call(name: str, count: int, threads: tuple[int, int], results: Mapping[str, tuple[int, ...]], *arguments):
  """What the kernel `name` for `count` values makes: arrays, of shapes by name, without the values' axis.

  `threads` are (blocks, threads of each). Warp has the arguments that are no arrays from its own table, by a number
  in the program, so that a program from a cache is called with those of this process.
  """
  import warp

  compiled = getattr(_module().of_length(count), name)
  called = warp.jax_kernel(compiled, num_outputs=len(results), block_dim=threads[1])
  arrays = [argument for argument in arguments if isinstance(argument, jax.Array)]
  return varying_like(tuple(called(*arguments, launch_dims=threads, output_dims=results)), arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def splat(geometry: Geometry, values: Array, lists: TileLists, tau: float) -> Array:
  """sum_i w_i(p) values_i: `values` `[N, D]` -> `[H, W, D]`. Lists of tiles of TILE."""
  height, width, count = lists.height, lists.width, values.shape[1]
  rows = jnp.concatenate([geometry.means, geometry.whitening, values / (1 - tau)], 1)
  threads = lists.order.shape[0], math.prod(TILE) // _module().pixels_each(count)
  arrays = rows, lists.ids, lists.starts, lists.order
  return _call("draw", count, threads, {"drawn": (height, width)}, *arrays, height, width, tau)[0]


def _splat_forward(geometry: Geometry, values: Array, lists: TileLists, tau: float):
  return splat(geometry, values, lists, tau), (geometry, values, lists)


def _splat_backward(tau: float, residuals, cotangent: Array):
  geometry, values, lists = residuals
  count = (values.shape[0],)
  results = {"d_means": count, "d_whitening": count, "d_values": count}
  arrays = geometry.means, geometry.whitening, values, cotangent
  pulled = _call("gradient", values.shape[1], (*count, LANES), results, *arrays, lists.height, lists.width, tau)
  d_geometry = kernel.cotangent(geometry, pulled[0], pulled[1])
  return d_geometry, pulled[2], jax.tree.map(over_lists.no_gradient, lists)


splat.defvjp(_splat_forward, _splat_backward)


def warped(geometry: Geometry, lists: TileLists, *, tau: float) -> kernel.Rasterizer:
  """The rasterizer of Warp, over neighbour lists that are valid for `geometry`."""
  geometry = geometry._replace(log_weights=jnp.asarray(geometry.log_weights))

  def removal(colors: Array, total: Array, drawn: Array, target: Array) -> tuple[Array, Array]:
    count, factors = (colors.shape[0],), jnp.exp(geometry.log_weights)
    arrays = (
      geometry.means,
      geometry.whitening,
      colors,
      kernel.gradients(geometry),
      factors,
      total[..., 0],
      drawn,
      target,
    )
    results = {"rise": count, "seen": count}
    size = lists.height, lists.width
    rise, seen = _call("removal", colors.shape[1], (*count, LANES), results, *arrays, *size, tau)
    return rise, seen

  return kernel.Rasterizer(
    lambda values: splat(geometry, values, lists, tau),
    lambda values, opacities: over_lists.composite(geometry, values, opacities, lists, tau),
    removal,
    geometry,
    tau,
  )
