"""The estimate of the rate against the coder that it is an estimate of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gaussjax import geometry
from gaussjax.gjx import container, contexts, grids, packing, rate
from gaussjax.gjx.grids import Steps
from gaussjax.rendering.blends import weighted_average
from gaussjax.types import Canvas, Euler, Gaussians

ESTIMATE = jax.jit(rate.estimate)
STEPS = Steps(position=120, log_scale=100, turn=170, color=108, weight=108)


def smooth_set(count, noise, seed=0, *, weighted=False):
  """Gaussians whose sizes, colours and weights follow their places, but for Laplacian `noise`."""
  rng = np.random.default_rng(seed)
  means = rng.uniform(0, 1, (count, 2)) * [120, 90]
  along = np.sin(means / 40)
  scales = 1 + 0.6 * along + rng.laplace(0, noise, (count, 2))
  colors = 0.5 + 0.3 * along @ rng.uniform(-1, 1, (2, 3)) + rng.laplace(0, 0.3 * noise, (count, 3))
  shape = Euler(jnp.float32(scales), jnp.float32(rng.uniform(0, np.pi, count)))
  log_weights = jnp.float32(2 + along[:, 0] + rng.laplace(0, noise, count)) if weighted else None
  canvas = Canvas(90, 120, jnp.full(3, 0.5), weighted_average)
  return Gaussians(jnp.float32(means), shape, jnp.float32(colors), log_weights, canvas)


def coded_bits(gaussians):
  weighted = gaussians.log_weights is not None
  header = packing.header_of(geometry.canvas_of(gaussians), 3)._replace(steps=STEPS, weighted=weighted)
  layer = contexts.ordered(grids.codes_of(gaussians, STEPS))
  bits = container.field_bits(container.Contents(header, [layer], {}, []))
  return bits["scale"] + bits["color"] + bits.get("weight", 0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("noise", [0.3, 0.6, 1.2])
def test_it_counts_what_the_coder_writes(noise, weighted):
  gaussians = smooth_set(800, noise, weighted=weighted)
  # 0 to 4% more than the coder writes, up to 8% where neighbours tell little: it does not adapt to each field.
  assert float(ESTIMATE(gaussians, grids.grid(STEPS))) == pytest.approx(coded_bits(gaussians), rel=0.1)


def test_descending_along_it_makes_files_smaller():
  gaussians, grid = smooth_set(400, 0.5), grids.grid(STEPS)
  gradient = jax.jit(jax.grad(rate.estimate))
  before = coded_bits(gaussians)
  for _ in range(10):
    slope = gradient(gaussians, grid)
    move = lambda leaf, by: leaf - 0.02 * by / (jnp.max(jnp.abs(by)) + 1e-9)
    gaussians = gaussians._replace(
      shape=jax.tree.map(move, gaussians.shape, slope.shape), colors=move(gaussians.colors, slope.colors)
    )
  assert coded_bits(gaussians) < 0.98 * before


def test_neighbours_are_those_of_the_coder():
  gaussians, grid = smooth_set(300, 0.5), grids.grid(STEPS)
  near, weights, order = map(np.asarray, jax.jit(rate._neighbors)(gaussians, grid))
  margin = grids.margins(geometry.canvas_of(gaussians))
  cells = np.floor((np.asarray(gaussians.means) + margin) / (grid.position * 2**grids.SPLIT)).astype(int)
  theirs, their_weights = contexts.neighbors(cells[order], [])
  their_weights = their_weights / np.maximum(their_weights.sum(1, keepdims=True), 1)
  np.testing.assert_allclose(weights, their_weights, atol=1e-3)
  values = np.random.default_rng(1).normal(size=300)
  agree = np.isclose((weights * values[near]).sum(1), (their_weights * values[theirs]).sum(1), atol=1e-2)
  assert agree.mean() > 0.9  # the rest are ties


@pytest.mark.parametrize("count", [1, 2])
def test_few_gaussians_have_finite_gradients(count):
  gradient = jax.jit(jax.grad(rate.lagrangian, argnums=1))(jnp.float32(0.01), smooth_set(count, 0.5))
  assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))
