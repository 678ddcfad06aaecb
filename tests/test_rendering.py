"""The renderer against the float64 oracle, and the properties that every blend has."""

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from absl.testing import parameterized
from scenes import BLENDS, LINEAR_BLENDS, PARAMETERIZATIONS, densely, draw_densely, scene

import gaussjax
from gaussjax import image_io
from gaussjax.rendering import blends, dense, renderer


class OracleTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.product(blend=(0, 1, 2), parameterization=(0, 1, 2))
  def test_render_is_the_textbook_formula(self, blend, parameterization):
    variant = {"blend": BLENDS[blend], "parameterize": PARAMETERIZATIONS[parameterization]}
    gaussians = scene(15, 9, 14, channels=1 + blend + parameterization, **variant)
    chex.assert_trees_all_close(self.variant(gaussjax.render)(gaussians), oracle.render(gaussians), atol=2e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (17, 3), (190, 200)])  # the last over 32,768 pixels
@pytest.mark.parametrize("blend", BLENDS)
def test_sizes(height, width, blend):
  gaussians = scene(30, height, width, blend=blend, log_scale=(2, 0.8))
  np.testing.assert_allclose(gaussjax.render(gaussians), oracle.render(gaussians), atol=5e-5)


def test_chunks_leave_no_seam(monkeypatch):
  gaussians = scene(30)
  whole = draw_densely(gaussians)
  monkeypatch.setattr(dense, "CHUNK_EVALUATIONS", 30 * 7)
  anew = jax.jit(lambda g: blends.picture(g, densely(g)))  # a program of its own, since chunks are static
  np.testing.assert_allclose(anew(gaussians), whole, atol=1e-6)


@pytest.mark.parametrize("blend", LINEAR_BLENDS)
def test_with_growing_cutoff_the_kernel_becomes_the_gaussian(blend):
  errors = []
  for cutoff in (2.0, 3.5, 5.0):
    gaussians = scene(20, blend=blend, cutoff=cutoff)
    exact = oracle.render(gaussians, kernel=lambda q: np.exp(-q / 2))
    errors.append(np.abs(gaussjax.render(gaussians) - exact).mean())
  assert errors[0] > 5 * errors[1] > 25 * errors[2]


@hypothesis.given(st.integers(0, 10**6))
def test_order_does_not_matter_to_linear_blends(seed):
  gaussians = scene(12, seed=seed)
  order = np.random.default_rng(seed).permutation(12)
  canvas = gaussians.canvas
  shuffled = jax.tree.map(lambda leaf: np.asarray(leaf)[order], gaussians._replace(canvas=None))._replace(
    canvas=canvas
  )
  np.testing.assert_allclose(gaussjax.render(shuffled), gaussjax.render(gaussians), atol=1e-5)


@hypothesis.given(st.integers(-40, 40), st.integers(-40, 40))
def test_moving_the_gaussians_moves_the_picture(dx, dy):
  gaussians = scene(12)
  moved = gaussians._replace(means=np.asarray(gaussians.means) + np.float32([dx, dy]))
  view = (0.0, 0.0, 31.0, 24.0)
  shifted = (view[0] + dx, view[1] + dy, view[2] + dx, view[3] + dy)
  np.testing.assert_allclose(
    gaussjax.render(moved, viewport=shifted), gaussjax.render(gaussians, viewport=view), atol=2e-4
  )


@hypothesis.given(st.floats(-1, 2), st.integers(0, 10**6))
def test_a_constant_colour_stays_constant_under_the_weighted_average(color, seed):
  gaussians = scene(12, seed=seed)
  constant = gaussians._replace(colors=np.full((12, 3), color, np.float32))
  np.testing.assert_allclose(gaussjax.render(constant, background=color), color, atol=1e-5)


@pytest.mark.parametrize("blend", BLENDS)
def test_where_nothing_reaches_is_background_with_finite_gradients(blend):
  gaussians = scene(5, blend=blend)
  far = gaussians._replace(means=np.asarray(gaussians.means) + np.float32(1e4))
  background = np.broadcast_to(far.canvas.background, (24, 31, 3))
  np.testing.assert_allclose(gaussjax.render(far), background, atol=1e-6)
  assert_finite_gradient(far)


@pytest.mark.parametrize("blend", BLENDS)
def test_an_opaque_gaussian_centred_on_a_pixel_has_a_finite_gradient(blend):
  gaussians = scene(5, blend=blend)
  centred = gaussians._replace(means=np.full((5, 2), 10.5, np.float32), log_weights=np.ones(5, np.float32))
  assert_finite_gradient(centred)


gradient_of_sum = jax.jit(jax.grad(lambda gaussians: jnp.sum(gaussjax.render(gaussians))))


def assert_finite_gradient(gaussians):
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient_of_sum(gaussians)))


def test_a_stack_of_sets_renders_like_each_alone():
  sets = [scene(8, seed=seed) for seed in range(3)]
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *sets)
  together = jax.jit(jax.vmap(gaussjax.render))(stacked)
  np.testing.assert_allclose(together, [gaussjax.render(one) for one in sets], atol=1e-6)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("factor", [2, 3])
def test_upwards_is_exact(blend, factor):
  """At 3 times the size the middle one of each 3 x 3 pixels lies on the old pixel's centre."""
  gaussians = scene(15, blend=blend)
  large = np.asarray(gaussjax.render(gaussians, 24 * factor, 31 * factor))
  assert large.shape == (24 * factor, 31 * factor, 3)
  if factor % 2:
    middle = large[factor // 2 :: factor, factor // 2 :: factor]
    np.testing.assert_allclose(middle, gaussjax.render(gaussians), atol=1e-5)


@pytest.mark.parametrize("blend", LINEAR_BLENDS)
def test_downwards_does_not_alias(blend):
  """A grating of 3 pixels a period, 6 times smaller: against the box filter of the full render."""
  columns = np.arange(0.75, 120, 1.5, np.float32)
  y, x = np.meshgrid(np.arange(0.75, 90, 1.5, np.float32), columns, indexing="ij")
  count = x.size
  shape = gaussjax.Euler(np.full((count, 2), np.log(0.5), np.float32), np.zeros(count, np.float32))
  colors = np.broadcast_to((np.arange(columns.size) % 2)[None, :, None], (*x.shape, 1)).reshape(-1, 1)
  canvas = gaussjax.Canvas(90, 120, np.zeros(1, np.float32), blend)
  gaussians = gaussjax.Gaussians(
    np.stack([x.ravel(), y.ravel()], -1), shape, colors.astype(np.float32), None, canvas
  )
  filtered = image_io.resize(np.asarray(gaussjax.render(gaussians)), 15, 20)
  small = np.asarray(gaussjax.render(gaussians, 15, 20))
  inner = (slice(1, -1), slice(1, -1))
  np.testing.assert_allclose(small[inner], filtered[inner], atol=0.03)
  assert small[inner].std() < 0.01 < 0.3 < np.asarray(gaussjax.render(gaussians)).std()


def test_a_crop_is_a_part_of_the_whole():
  gaussians = scene(15)
  crop = gaussjax.render(gaussians, viewport=(5, 4, 25, 20))
  np.testing.assert_allclose(crop, np.asarray(gaussjax.render(gaussians))[4:20, 5:25], atol=1e-5)


def test_one_side_keeps_the_aspect_ratio():
  gaussians = scene(3, 24, 36)
  assert gaussjax.render(gaussians, height=12).shape == (12, 18, 3)
  assert gaussjax.render(gaussians, width=72).shape == (48, 72, 3)
  assert gaussjax.render(gaussians, width=10, viewport=(0, 0, 20, 10)).shape == (5, 10, 3)


@pytest.mark.parametrize("arguments", [{"height": 0}, {"viewport": (5, 0, 5, 4)}, {"viewport": (0, 0, np.nan, 4)}])
def test_senseless_sizes_are_refused(arguments):
  with pytest.raises(ValueError, match="got .* expected"):
    gaussjax.render(scene(3), **arguments)


def test_coverage_is_the_sum_of_weights():
  gaussians = scene(20)._replace(log_weights=None)
  measured = renderer.coverage(gaussians)
  np.testing.assert_allclose(measured, oracle.weights(gaussians).sum(0), atol=1e-5)
