"""What must hold of a fit: finite numbers, scales within bounds, coverage. Bits inside jit, words on the host."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from gaussjax import geometry
from gaussjax.types import Array, Gaussians

# A scale beyond this many times the longer side is a divergence, not a fit: the picture holds no such Gaussian.
MAX_SCALE = 1000.0

SAMPLED = 64  # of a picture's rows and of its columns that a median is of, at least

COVERED = 0.01  # a pixel counts as covered where the sum of weights W(p) exceeds this


class Health(NamedTuple):
  """One bit for each thing that can go wrong in a step."""

  loss: Array  # [] bool, finite
  gradients: Array  # [] bool, all finite
  parameters: Array  # [] bool, all finite after the step
  scales: Array  # [] bool, all within bounds after the step


def health(loss: Array, gradients: Gaussians, params: Gaussians) -> Health:
  """The bits of a step: its loss, its gradients, and the parameters after it."""
  return Health(jnp.isfinite(loss), all_finite(gradients), all_finite(params), jnp.all(scales_in_bounds(params)))


def all_finite(tree: Gaussians) -> Array:
  """Whether every number is finite: one sum a leaf, since a sum keeps any NaN or Inf."""
  return jnp.all(jnp.array([jnp.isfinite(jnp.sum(jnp.abs(leaf))) for leaf in jax.tree.leaves(tree)]))


def scales_in_bounds(gaussians: Gaussians) -> Array:
  """`[N]` bool: the largest scale is at most MAX_SCALE times the longer side (the floor sees to the least)."""
  canvas = geometry.canvas_of(gaussians)
  return geometry.scales(gaussians)[:, 0] <= MAX_SCALE * max(canvas.height, canvas.width)


def describe(step: int, loss: Array, gradients: Gaussians, params: Gaussians) -> str:
  """What `health` found, in words: the arguments are those of the failed step, the result names each field."""
  found = [] if np.isfinite(loss) else [f"the loss is {float(loss)}"]
  for kind, tree in (("gradient", gradients), ("value", params)):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      leaf = np.asarray(leaf)
      bad = ~np.isfinite(leaf.reshape(leaf.shape[0], -1)).all(axis=1)
      if bad.any():
        name = jax.tree_util.keystr(path).lstrip(".")
        found.append(f"{kind} of {name} is not finite in {bad.sum()} of {len(bad)} Gaussians")
  outside = int(np.sum(~np.asarray(scales_in_bounds(params))))
  if outside and not found:
    found.append(f"scales of {outside} of {len(params.means)} Gaussians exceed {MAX_SCALE:g} x the longer side")
  return f"step {step}: " + "; ".join(found) + ". Lower the learning rate, or look for bad values in the target."


def check(loss: Array, gradients: Gaussians, params: Gaussians) -> None:
  """The same as chex assertions, for a step wrapped in `chex.chexify`."""
  chex.assert_tree_all_finite(loss)
  chex.assert_tree_all_finite(gradients)
  chex.assert_tree_all_finite(params)
  checkify.check(jnp.all(scales_in_bounds(params)), "scales out of bounds")


def sample(weights: Array) -> Array:
  """Evenly spread pixels of `weights` `[H, W]`: to sort all of them for a median takes as long as several steps."""
  down, right = (max(1, side // SAMPLED) for side in weights.shape)
  return weights[::down, ::right].ravel()


def diagnostics(gaussians: Gaussians, sampled: Array, covered: Array) -> dict[str, Array]:
  """Scalars that show collapse and lack of coverage.

  `sampled` are some of the sums of weights W(p) without the background's share, `covered` [] is the share of the
  pixels where W(p) exceeds COVERED.
  """
  canvas = geometry.canvas_of(gaussians)
  min_scale = jnp.min(geometry.scales(gaussians))
  return {
    "min_scale_px": min_scale,
    "min_scale": min_scale / max(canvas.height, canvas.width),
    "w_median": jnp.median(sampled),
    "covered": covered,
  }
