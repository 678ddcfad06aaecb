"""Density control: who is moved, to where, and that the rest of the fit does not notice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import PARAMETERIZATIONS, controlled, densely, draw_densely, removal_cost, scene

import gaussjax
from gaussjax import geometry
from gaussjax.contrib import policies
from gaussjax.fitting import density, initializers, loop, optimizers, recipes
from gaussjax.quality import visibility
from gaussjax.rendering import blends, splat, tiles


@jax.jit
def squares(gaussians, target):
  return jnp.sum(jnp.square(draw_densely(gaussians) - target))


@pytest.mark.parametrize("tiled", [False, True])
def test_removal_costs_what_drawing_without_it_shows(tiled):
  gaussians = scene(12)
  drawn_by = densely
  if tiled:
    drawn = jax.jit(geometry.geometry)(gaussians)
    lists = tiles.allocate(drawn, tiles.empty(drawn, 24, 31), cutoff=gaussians.canvas.cutoff)
    drawn_by = lambda g: splat.tiled(geometry.geometry(g), lists, tau=densely(g).tail)
  target = jnp.asarray(np.random.default_rng(5).uniform(size=(24, 31, 3)), jnp.float32)
  found = np.asarray(removal_cost(drawn_by, gaussians, target))
  park = jax.jit(geometry.park)
  for index, cost in enumerate(found):
    without = park(gaussians, np.arange(12) == index)
    if np.isneginf(cost):
      np.testing.assert_array_equal(gaussjax.render(without), gaussjax.render(gaussians))
    else:
      rise = float(squares(without, target)) - float(squares(gaussians, target))
      np.testing.assert_allclose(cost, rise, rtol=2e-3, atol=2e-3)
  assert np.isfinite(found).sum() > 6


MOVE_ONE = functools.partial(density.relocate, share=1 / 40)
MOVE_HALF = functools.partial(density.relocate, share=0.5, fall=2.0)


def test_by_eye_the_fainter_error_counts_where_nothing_hides_it():
  """Two spots: the stronger one among stripes, the fainter one on flat ground."""
  flat = np.full((48, 64, 3), 0.5, np.float32)
  target = flat.copy()
  target[:, 32:] += 0.3 * (-1.0) ** np.arange(32)[:, None]
  target[20:24, 8:12] += 0.1
  target[20:24, 50:54] += 0.2
  born = {}
  for name, weights in (("alike", None), ("by eye", visibility.visibility(jnp.asarray(target)))):
    born[name] = density.births(jax.random.key(0), flat, target, 1, budget=jnp.int32(40), weights=weights).means[0]
  assert born["alike"][0] > 32
  np.testing.assert_allclose(born["by eye"], [10, 22], atol=1)
  assert density.relocates(density.relocate_by_eye) and density.relocates(density.relocate)
  assert not density.relocates(None) and not density.relocates(policies.merge)


def test_by_eye_those_leave_whose_removal_is_seen_least():
  gaussians = scene(40, log_scale=(1.5, 0.2))
  picture = draw_densely(gaussians)
  target = picture + 0.1 * jax.random.normal(jax.random.key(1), picture.shape)
  column = np.clip(np.asarray(gaussians.means)[:, 0], 0, 30)
  worth = lambda image: jnp.broadcast_to(1 + 1000.0 * (jnp.arange(image.shape[1]) < 15), image.shape[:2])
  _, moved = controlled(functools.partial(density.relocate, share=0.2, worth=worth), gaussians, target)
  cost = np.asarray(removal_cost(densely, gaussians, target)) * np.where(column.astype(int) < 15, 1001, 1)
  np.testing.assert_array_equal(np.flatnonzero(moved), np.sort(np.argsort(cost)[:8]))


@pytest.mark.parametrize("parameterize", PARAMETERIZATIONS)
def test_the_least_costly_moves_to_the_error_and_no_other_does(parameterize):
  """The target has a spot that the set does not."""
  gaussians = scene(40, log_scale=(1.5, 0.2), parameterize=parameterize)
  picture = np.asarray(draw_densely(gaussians))
  target = picture.copy()
  target[5:8, 20:23] += 0.5
  least = int(np.argmin(removal_cost(densely, gaussians, target)))
  moved_set, moved = controlled(MOVE_ONE, gaussians, target)
  assert moved.sum() == 1 and moved[least]
  assert jax.tree.structure(moved_set) == jax.tree.structure(gaussians)
  np.testing.assert_allclose(moved_set.means[least], [21.5, 6.5])
  assert np.all(np.asarray(moved_set.colors)[least] > picture[6, 21] + 0.2)
  others = lambda g: jax.tree.map(lambda leaf: np.delete(np.asarray(leaf), least, 0), g._replace(canvas=None))
  for a, b in zip(jax.tree.leaves(others(moved_set)), jax.tree.leaves(others(gaussians)), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("progress", "moved"), [(0.0, 20), (0.5, 5), (1.0, 0)])
def test_fewer_move_as_the_fit_goes_on(progress, moved):
  gaussians = scene(40, log_scale=(1.5, 0.2))
  target = jnp.asarray(np.random.default_rng(5).uniform(size=(24, 31, 3)), jnp.float32)
  changed, fresh = controlled(MOVE_HALF, gaussians, target, progress)
  assert fresh.sum() == moved
  np.testing.assert_array_equal(fresh, np.any(np.asarray(changed.means) != np.asarray(gaussians.means), axis=1))


def test_births_have_the_size_and_amplitude_of_what_is_missing():
  """A residual that is one Gaussian of a size of the bank is met by the first birth at once."""
  y, x = np.mgrid[:64, :64] + 0.5
  scale = density.BIRTH_SCALES[2] * 64 / np.sqrt(16)
  spot = 0.4 * np.exp(-((x - 30.5) ** 2 + (y - 20.5) ** 2) / (2 * scale**2))
  missing = jnp.asarray(spot[..., None] * np.array([1.0, -1.0, 0.5]), jnp.float32)
  births = jax.jit(density.births, static_argnums=3)
  born = births(jax.random.key(0), jnp.full((64, 64, 3), 0.5), missing + 0.5, 3, budget=16)
  np.testing.assert_allclose(born.means[0], [30.5, 20.5])
  np.testing.assert_allclose(np.exp(born.shape.log_scales[0]), scale, rtol=1e-4)
  np.testing.assert_allclose(born.colors[0] - 0.5, [0.4, -0.4, 0.2], rtol=0.02)


def test_a_perfect_fit_does_not_break_it():
  gaussians = scene(40)
  target = draw_densely(gaussians)
  for policy in (density.relocate, policies.split, policies.merge, policies.prune):
    changed, _ = controlled(policy, gaussians, target)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(changed)), policy


def test_moved_gaussians_get_fresh_moments_and_the_others_keep_theirs():
  params = scene(6)
  optimizer = optimizers.adam(recipes.rates(recipes.Recipe(), 24, 31), optimizers.cosine)
  init = jax.jit(optimizer.init)
  update = jax.jit(functools.partial(optimizer.update, progress=0.5))
  _, state = update(jax.tree.map(np.ones_like, params), init(params), params)
  forgotten = jax.jit(loop.forget)(state, init(params), np.arange(6) == 2)
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
  picture = 0.6 * np.asarray(gaussjax.render(large))
  picture += 0.4 * np.asarray(gaussjax.render(small._replace(means=corner), background=0.0))
  target = np.clip(picture, 0, 1)
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
  assert not recipes.controls_density(recipes.Recipe(policy=None))


def test_gradient_sampling_goes_where_the_image_changes():
  image = np.zeros((60, 90, 3), np.float32)
  image[:, 45:] = 1
  gaussians = initializers.gradient_sampled(jax.random.key(0), image, 400)
  near = np.abs(np.asarray(gaussians.means)[:, 0] - 45) < 3
  assert near.mean() > 0.25  # uniform sampling would put 7% there
  log_scales = np.asarray(gaussians.shape.log_scales)
  assert np.mean(log_scales[near]) < np.mean(log_scales[~near]) - 0.3
  for shape, value in (((60, 90, 3), 0), ((1, 1, 1), 0.5), ((3, 200, 1), 0)):
    flat = np.full(shape, value, np.float32)
    found = initializers.gradient_sampled(jax.random.key(0), flat, 400)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def stripes():
  """Diagonal stripes on the left half, nothing on the right."""
  y, x = np.mgrid[:60, :90]
  return np.where(x < 45, np.sin((x + y) / 2.0) / 2 + 0.5, 0.5)[..., None].repeat(3, -1).astype(np.float32)


def test_the_structure_tensor_lays_gaussians_along_the_stripes():
  gaussians = initializers.structure_tensor(jax.random.key(0), stripes(), 300)
  inside = np.asarray(gaussians.means)[:, 0] < 38
  along = np.asarray(gaussians.shape.thetas)[inside]
  assert np.median(np.abs(np.cos(along - 3 * np.pi / 4))) > 0.99
  log_scales = np.asarray(gaussians.shape.log_scales)[inside]
  assert np.median(log_scales[:, 0] - log_scales[:, 1]) > 0.6
  assert np.isfinite(
    initializers.structure_tensor(jax.random.key(0), np.zeros((9, 9, 1), np.float32), 20).shape.thetas
  ).all()


def test_the_start_of_a_large_picture_is_that_of_a_smaller_one(monkeypatch):
  small = initializers.structure_tensor(jax.random.key(0), stripes(), 300)
  monkeypatch.setattr(initializers, "MOST_PIXELS", 60 * 90)
  large = stripes().repeat(3, 0).repeat(3, 1)
  found = initializers.structure_tensor(jax.random.key(0), large, 300)
  np.testing.assert_allclose(found.means, 3 * small.means, rtol=1e-5)
  np.testing.assert_allclose(found.shape.log_scales, small.shape.log_scales + np.log(3), rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(found.colors, small.colors, atol=1e-6)
  beyond = np.pad(large, ((0, 40), (0, 50), (0, 0)), constant_values=np.nan)
  found = initializers.structure_tensor(jax.random.key(0), beyond, 300)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
  assert (np.asarray(found.means) <= [270 + 3, 180 + 3]).all()
  crowded = initializers.structure_tensor(jax.random.key(0), large, 9000)  # of few pixels each: as it is
  assert len(np.unique(np.floor(crowded.means), axis=0)) == 9000
