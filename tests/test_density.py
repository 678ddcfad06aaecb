"""Density control: who is moved, to where, and that the rest of the fit does not notice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import PARAMETERIZATIONS, scene

import gaussjax
from gaussjax import density, drawing, fitting, initializers, optimizers, recipes, rendering


def rasterizer_of(gaussians):
  return drawing.rasterizer(gaussians, (), gaussians.canvas.height, gaussians.canvas.width)


def test_importance_is_the_sum_that_it_stands_for():
  gaussians = scene(12)
  placed = rasterizer_of(gaussians)
  picture = drawing.picture(gaussians, placed)
  found = density.importance(gaussians.colors, picture, placed)
  weights = jax.vmap(lambda one: placed.splat(one[:, None])[..., 0])(jnp.eye(12))
  weights = weights * jnp.exp(gaussians.log_weights)[:, None, None]
  shares = weights / (weights.sum(0) + placed.tail)
  seen = np.asarray(weights.sum((1, 2)) > 0)
  assert (~seen == np.isneginf(found)).all()
  distance = jnp.sum(jnp.square(gaussians.colors[:, None, None] - picture), -1)
  expected = np.asarray(jnp.sum(shares * distance, (1, 2)))
  np.testing.assert_allclose(np.asarray(found)[seen], expected[seen], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("parameterize", PARAMETERIZATIONS)
def test_a_redundant_gaussian_moves_to_the_error_and_no_other_does(parameterize):
  """Gaussian 4 repeats its surroundings; the target has a spot that the set does not."""
  gaussians = scene(40, log_scale=(1.5, 0.2), parameterize=parameterize)
  placed = rasterizer_of(gaussians)
  target = drawing.picture(gaussians, placed).at[5:8, 20:23].add(0.5)
  least = int(jnp.argmin(density.importance(gaussians.colors, drawing.picture(gaussians, placed), placed)))
  moved_set, moved = density.relocate(jax.random.key(0), gaussians, placed, target, share=1 / 40)
  assert moved.sum() == 1 and moved[least]
  assert jax.tree.structure(moved_set) == jax.tree.structure(gaussians)
  x, y = np.asarray(moved_set.means[least])
  assert 20 <= x < 23 and 5 <= y < 8
  np.testing.assert_array_equal(moved_set.colors[least], target[int(y), int(x)])
  others = lambda g: jax.tree.map(lambda leaf: np.delete(np.asarray(leaf), least, 0), g._replace(canvas=None))
  for a, b in zip(jax.tree.leaves(others(moved_set)), jax.tree.leaves(others(gaussians)), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_perfect_fit_does_not_break_it():
  gaussians = scene(40)
  placed = rasterizer_of(gaussians)
  moved_set, _ = density.relocate(jax.random.key(0), gaussians, placed, drawing.picture(gaussians, placed))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(moved_set))


def test_moved_gaussians_get_fresh_moments_and_the_others_keep_theirs():
  params = scene(6)
  optimizer = optimizers.adam(recipes.rates(recipes.Recipe(), 24, 31), optimizers.cosine)
  _, state = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params, progress=0.5)
  moved = jnp.arange(6) == 2
  forgotten = fitting.forget(state, optimizer.init(params), moved)
  for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(forgotten), strict=True):
    if old.ndim:
      assert np.all(np.asarray(new)[2] == 0) and np.any(np.asarray(old)[2] != 0)
      np.testing.assert_array_equal(np.delete(new, 2, 0), np.delete(old, 2, 0))
    else:
      assert new == old


def test_control_pays_and_keeps_the_budget():
  """On a picture of few large and many small Gaussians, with the same start."""
  rng = np.random.default_rng(0)
  large, small = scene(8, 64, 64, log_scale=(2.5, 0.2)), scene(60, 64, 64, log_scale=(0.3, 0.2), seed=1)
  corner = jnp.asarray(rng.uniform(0, 24, (60, 2)), jnp.float32)
  picture = gaussjax.render(large) * 0.6
  picture += gaussjax.render(small._replace(means=corner), background=0.0) * 0.4
  target = np.clip(np.asarray(picture), 0, 1)
  fits = []
  for relocate in (None, density.relocate):
    recipe = recipes.Recipe(initializers.random, relocate=relocate)
    fits.append(gaussjax.fit(target, num_gaussians=60, preset=recipe, stop=gaussjax.Stop(max_steps=150)))
  assert len(fits[1].gaussians.means) == 60
  assert fits[1].metrics["psnr"] > fits[0].metrics["psnr"] + 0.5


def test_only_the_weighted_average_is_controlled():
  assert recipes.controls_density(recipes.Recipe())
  assert not recipes.controls_density(recipes.Recipe(blend=rendering.accumulated_sum))
  assert not recipes.controls_density(recipes.V1)


def test_gradient_sampling_goes_where_the_image_changes():
  image = jnp.zeros((60, 90, 3)).at[:, 45:].set(1.0)
  gaussians = initializers.gradient_sampled(jax.random.key(0), image, 400)
  near = jnp.abs(gaussians.means[:, 0] - 45) < 3
  assert near.mean() > 0.25  # uniform sampling would put 7% there
  assert jnp.mean(gaussians.shape.log_scales[near]) < jnp.mean(gaussians.shape.log_scales[~near]) - 0.3
  for flat in (jnp.zeros((60, 90, 3)), jnp.full((1, 1, 1), 0.5), jnp.zeros((3, 200, 1))):
    assert all(
      np.isfinite(leaf).all()
      for leaf in jax.tree.leaves(initializers.gradient_sampled(jax.random.key(0), flat, 50))
    )


def stripes():
  """Diagonal stripes on the left half, nothing on the right."""
  y, x = np.mgrid[:60, :90]
  return jnp.asarray(np.where(x < 45, np.sin((x + y) / 2.0) / 2 + 0.5, 0.5)[..., None].repeat(3, -1), jnp.float32)


def test_the_structure_tensor_lays_gaussians_along_the_stripes():
  gaussians = initializers.structure_tensor(jax.random.key(0), stripes(), 300)
  inside = np.asarray(gaussians.means[:, 0] < 38)
  along = np.asarray(gaussians.shape.thetas)[inside]
  assert np.median(np.abs(np.cos(along - 3 * np.pi / 4))) > 0.99
  log_scales = np.asarray(gaussians.shape.log_scales)[inside]
  assert np.median(log_scales[:, 0] - log_scales[:, 1]) > 0.6
  assert np.isfinite(initializers.structure_tensor(jax.random.key(0), jnp.zeros((9, 9, 1)), 20).shape.thetas).all()


def test_superpixels_take_the_place_shape_and_colour_of_what_they_cover():
  image = jnp.zeros((40, 60, 3)).at[10:20, 20:50].set(jnp.array([1.0, 0.5, 0.0]))
  gaussians = jax.jit(initializers.superpixels, static_argnums=2)(jax.random.key(0), image, 24)
  assert gaussians.means.shape == (24, 2) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gaussians))
  x, y = np.asarray(gaussians.means).T
  inside = (x > 22) & (x < 48) & (y > 12) & (y < 18)
  assert inside.any()
  np.testing.assert_allclose(np.asarray(gaussians.colors)[inside], [[1, 0.5, 0]] * inside.sum(), atol=0.1)


def test_passes_add_what_is_kept_and_stay_within_the_budget():
  target = np.clip(np.asarray(gaussjax.render(scene(60, 64, 64, log_scale=(1.2, 0.4)))), 0, 1)
  seen = []
  result, report = gaussjax.fit_passes(
    target, num_gaussians=62, passes=4, steps=160, progress_fn=lambda record: seen.append(record["step"])
  )
  assert report[0].num_gaussians == 32 and len(report) == 4
  assert len(seen) == 4 * 5  # both ends of each pass, and every tenth step
  assert len(result.gaussians.means) == [one.num_gaussians for one in report if one.kept][-1] <= 62
  assert sum(one.kept for one in report) >= 3
  kept = [one.psnr for one in report if one.kept]
  assert kept == sorted(kept) and result.metrics["psnr"] >= kept[-1] - 1e-3
  assert result.metrics["psnr"] > report[0].psnr + 1
  assert [record["step"] for record in result.history] == sorted(record["step"] for record in result.history)
  render = gaussjax.render(result.gaussians)
  np.testing.assert_allclose(
    -10 * np.log10(np.mean((np.clip(render, 0, 1) - target) ** 2)), result.metrics["psnr"], atol=1e-2
  )
  with pytest.raises(ValueError, match="got passes=0"):
    gaussjax.fit_passes(target, num_gaussians=5, passes=0)


def test_a_pass_that_does_not_improve_is_taken_back_and_reported():
  """A flat picture is met by the first set already: nothing can raise its PSNR."""
  result, report = gaussjax.fit_passes(np.full((64, 64, 3), 0.5), num_gaussians=62, passes=4, steps=40)
  assert [one.kept for one in report] == [False] * 4
  assert len(result.gaussians.means) == 32
