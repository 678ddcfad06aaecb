"""Density control: who is moved, to where, and that the rest of the fit does not notice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import PARAMETERIZATIONS, densely, scene, seen_by_policies as scene_of

import gaussjax
from gaussjax import geometry
from gaussjax.contrib import policies
from gaussjax.fitting import density, initializers, loop, optimizers, recipes
from gaussjax.rendering import blends, splat, tiles


@pytest.mark.parametrize("tiled", [False, True])
def test_removal_costs_what_drawing_without_it_shows(tiled):
  gaussians = scene(12, 24, 31)
  placed = densely(gaussians)
  if tiled:
    drawn = geometry.geometry(gaussians)
    lists = tiles.allocate(drawn, tiles.empty(drawn, 24, 31), cutoff=gaussians.canvas.cutoff)
    placed = splat.tiled(drawn, lists, tau=placed.tail)
  target = jnp.asarray(np.random.default_rng(5).uniform(size=(24, 31, 3)), jnp.float32)
  picture = blends.picture(gaussians, placed)
  found = np.asarray(density.removal_cost(gaussians, placed, picture, target))
  squares = lambda g: float(jnp.sum(jnp.square(blends.picture(g, densely(g)) - target)))
  for index, cost in enumerate(found):
    without = geometry.park(gaussians, jnp.arange(12) == index)
    if np.isneginf(cost):
      np.testing.assert_array_equal(gaussjax.render(without), gaussjax.render(gaussians))
    else:
      np.testing.assert_allclose(cost, squares(without) - squares(gaussians), rtol=2e-3, atol=2e-3)
  assert np.isfinite(found).sum() > 6


@pytest.mark.parametrize("parameterize", PARAMETERIZATIONS)
def test_the_least_costly_moves_to_the_error_and_no_other_does(parameterize):
  """The target has a spot that the set does not."""
  gaussians = scene(40, log_scale=(1.5, 0.2), parameterize=parameterize)
  placed = densely(gaussians)
  picture = blends.picture(gaussians, placed)
  target = picture.at[5:8, 20:23].add(0.5)
  least = int(jnp.argmin(density.removal_cost(gaussians, placed, picture, target)))
  moved_set, moved = density.relocate(jax.random.key(0), scene_of(gaussians, target), share=1 / 40)
  assert moved.sum() == 1 and moved[least]
  assert jax.tree.structure(moved_set) == jax.tree.structure(gaussians)
  np.testing.assert_allclose(moved_set.means[least], [21.5, 6.5])
  assert jnp.all(moved_set.colors[least] > picture[6, 21] + 0.2)
  others = lambda g: jax.tree.map(lambda leaf: np.delete(np.asarray(leaf), least, 0), g._replace(canvas=None))
  for a, b in zip(jax.tree.leaves(others(moved_set)), jax.tree.leaves(others(gaussians)), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("progress", "moved"), [(0.0, 20), (0.5, 5), (1.0, 0)])
def test_fewer_move_as_the_fit_goes_on(progress, moved):
  gaussians = scene(40, log_scale=(1.5, 0.2))
  target = jnp.asarray(np.random.default_rng(5).uniform(size=(24, 31, 3)), jnp.float32)
  seen = scene_of(gaussians, target)._replace(progress=jnp.float32(progress))
  changed, fresh = density.relocate(jax.random.key(0), seen, share=0.5, fall=2.0)
  assert fresh.sum() == moved
  np.testing.assert_array_equal(fresh, jnp.any(changed.means != gaussians.means, axis=1))


def test_births_have_the_size_and_amplitude_of_what_is_missing():
  """A residual that is one Gaussian of a size of the bank is met by the first birth at once."""
  y, x = np.mgrid[:64, :64] + 0.5
  scale = density.BIRTH_SCALES[2] * 64 / np.sqrt(16)
  spot = 0.4 * np.exp(-((x - 30.5) ** 2 + (y - 20.5) ** 2) / (2 * scale**2))
  missing = jnp.asarray(spot[..., None] * np.array([1.0, -1.0, 0.5]), jnp.float32)
  born = density.births(jax.random.key(0), jnp.full((64, 64, 3), 0.5), missing + 0.5, 3, budget=16)
  np.testing.assert_allclose(born.means[0], [30.5, 20.5])
  np.testing.assert_allclose(np.exp(born.shape.log_scales[0]), scale, rtol=1e-4)
  np.testing.assert_allclose(born.colors[0] - 0.5, [0.4, -0.4, 0.2], rtol=0.02)


def test_a_perfect_fit_does_not_break_it():
  gaussians = scene(40)
  target = blends.picture(gaussians, densely(gaussians))
  for policy in (density.relocate, policies.split, policies.merge, policies.prune):
    changed, _ = policy(jax.random.key(0), scene_of(gaussians, target))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(changed)), policy


def test_moved_gaussians_get_fresh_moments_and_the_others_keep_theirs():
  params = scene(6)
  optimizer = optimizers.adam(recipes.rates(recipes.Recipe(), 24, 31), optimizers.cosine)
  _, state = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params, progress=0.5)
  moved = jnp.arange(6) == 2
  forgotten = loop.forget(state, optimizer.init(params), moved)
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
  for policy in (None, density.relocate):
    recipe = recipes.Recipe(initializers.random, policy=policy)
    fits.append(gaussjax.fit(target, num_gaussians=60, preset=recipe, stop=gaussjax.Stop(max_steps=150)))
  assert len(fits[1].gaussians.means) == 60
  assert fits[1].metrics["psnr"] > fits[0].metrics["psnr"] + 0.5


def test_only_the_weighted_average_is_controlled():
  assert recipes.controls_density(recipes.Recipe())
  with pytest.raises(ValueError, match="policy=None"):
    recipes.of(recipes.Recipe(blend=blends.accumulated_sum))
  with pytest.raises(ValueError, match="initialize="):
    recipes.of(recipes.PRESETS["fast"]._replace(blend=blends.accumulated_sum, policy=None))
  assert not recipes.controls_density(recipes.Recipe(policy=None))


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


def test_a_start_in_two_scales_is_near_the_picture_at_once():
  large, small = scene(8, 96, 96, log_scale=(2.8, 0.2)), scene(60, 96, 96, log_scale=(1.0, 0.2), seed=1)
  picture = 0.6 * gaussjax.render(large) + 0.4 * gaussjax.render(small)
  errors = []
  for initialize in (initializers.gradient_sampled, recipes.multi_scale):
    gaussians = recipes.start(jax.random.key(0), picture, 80, recipes.Recipe(initialize))
    assert len(gaussians.means) == 80
    errors.append(float(jnp.mean(jnp.square(gaussjax.render(gaussians) - picture))))
  assert errors[1] < 0.75 * errors[0]
  tiny = recipes.multi_scale(jax.random.key(0), picture[:20, :20], 10)
  assert len(tiny.means) == 10
