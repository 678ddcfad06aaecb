"""What no preset has is right all the same: policies, optimisers, starts, colours, passes, derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import LINEAR_BLENDS, controlled, densely, draw_densely, picture, removal_cost, scene

import gaussjax
from gaussjax import geometry
from gaussjax.contrib import colors, initializers, optimizers, passes, policies, pruning, splat_jvp
from gaussjax.fitting import density, loop, recipes
from gaussjax.rendering import blends, dense, kernel, splat, tiles

SPLIT = functools.partial(policies.split, share=0.1)


def test_split_divides_the_busiest_in_the_places_of_the_least_costly():
  gaussians = scene(40, log_scale=(1.5, 0.2))
  target = jnp.asarray(np.random.default_rng(5).uniform(size=(24, 31, 3)), jnp.float32)
  cost = np.asarray(removal_cost(densely, gaussians, target))
  least = set(np.argsort(cost)[:4])
  busiest = [i for i in range(39, -1, -1) if i not in least and np.isfinite(cost[i])][:4]
  divided, fresh = jax.tree.map(np.asarray, controlled(SPLIT, gaussians, target))
  assert set(np.flatnonzero(fresh)) == least | set(busiest)
  to_euler = jax.jit(geometry.to_euler)
  scales = np.asarray(to_euler(divided.shape).log_scales).sum(1)
  before = np.asarray(to_euler(gaussians.shape).log_scales).sum(1)
  for parent in busiest:
    assert any(np.array_equal(divided.colors[child], np.asarray(gaussians.colors)[parent]) for child in least)
    large = before[parent] > np.median(before)
    np.testing.assert_allclose(before[parent] - scales[parent], 2 * np.log(1.6) if large else 0, atol=1e-4)


def test_merge_makes_one_of_two_that_are_alike_and_changes_the_picture_little():
  gaussians = scene(20, log_scale=(1.2, 0.1))

  def twin(leaf):
    leaf = np.array(leaf)
    leaf[7] = leaf[3]
    return leaf

  doubled = jax.tree.map(twin, gaussians._replace(canvas=None))._replace(canvas=gaussians.canvas)
  doubled.means[7, 0] += 0.3
  doubled = doubled._replace(log_weights=np.zeros(20, np.float32))
  merged, changed = controlled(policies.merge, doubled, draw_densely(doubled))
  assert set(np.flatnonzero(changed)) == {3, 7}
  assert list(np.flatnonzero(~geometry.visible(merged))) == [7] and len(geometry.live(merged).means) == 19
  np.testing.assert_allclose(merged.means[3], doubled.means[3] + [0.15, 0], atol=1e-4)
  np.testing.assert_allclose(merged.log_weights[3], np.log(2), atol=0.01)


def assert_metrics_are_of(result, target):
  """The set that is returned, measured anew, has the loss and the PSNR of its record, and the record is there."""
  drawn = np.asarray(gaussjax.render(result.gaussians))
  np.testing.assert_allclose(np.mean((drawn - target) ** 2), result.metrics["loss"], rtol=1e-3)
  psnr = -10 * np.log10(np.mean((np.clip(drawn, 0, 1) - target) ** 2))
  np.testing.assert_allclose(psnr, result.metrics["psnr"], atol=1e-2)
  assert any(
    (record["step"], record["loss"]) == (result.metrics["step"], pytest.approx(result.metrics["loss"], rel=1e-5))
    for record in result.history
  )


@pytest.mark.parametrize(("stop", "steps"), [({}, 160), ({"target_psnr": 5.0}, 80)])
def test_a_fit_that_begins_with_too_many_ends_within_its_number(stop, steps):
  """Also where it is stopped before they are pruned; the best of the larger sets is not the result's record."""
  target = np.asarray(jnp.clip(gaussjax.render(scene(60, 64, 64, log_scale=(1.2, 0.4))), 0, 1))
  result = pruning.fit_pruned(
    target, num_gaussians=40, preset=recipes.Recipe(), stop=gaussjax.Stop(max_steps=160, **stop)
  )
  assert len(result.state.params.means) == 60 and len(result.gaussians.means) == 40
  assert_metrics_are_of(result, target)
  if not stop:
    assert int(result.state.step) == 160 and result.metrics["step"] >= 80
    assert [record["step"] for record in result.history] == list(range(0, 161, 10))
  else:
    assert int(result.state.step) == 0


def test_what_a_fit_that_prunes_refuses():
  fit = functools.partial(pruning.fit_pruned, picture(), num_gaussians=9)
  for wrong in ({"provision": 0.5}, {"provision": np.nan}, {"provision": 1e9}, {"until": 1.0}):
    with pytest.raises(ValueError, match=f"got .*{next(iter(wrong))}.*expected"):
      fit(**wrong)
  with pytest.raises(ValueError, match="expected weighted_average"):
    fit(preset=recipes.Recipe(blend=blends.accumulated_sum, policy=None))


BOTH = functools.partial(policies.sequence, policies=(policies.merge, density.relocate))


def test_policies_follow_one_another():
  gaussians = scene(40)
  changed, fresh = controlled(BOTH, gaussians, np.zeros((24, 31, 3), np.float32))
  assert fresh.sum() >= 4 and changed.means.shape == gaussians.means.shape


def test_a_policy_that_splits_wants_second_moments():
  by_nothing = lambda key, scene: policies.split(key, scene._replace(opt_state=()))
  with pytest.raises(ValueError, match="expected adam or adan"):
    controlled(by_nothing, scene(40), np.zeros((24, 31, 3), np.float32))


def test_superpixels_take_the_place_shape_and_colour_of_what_they_cover():
  image = jnp.zeros((40, 60, 3)).at[10:20, 20:50].set(jnp.array([1.0, 0.5, 0.0]))
  gaussians = initializers.superpixels(jax.random.key(0), image, 24)
  assert gaussians.means.shape == (24, 2) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gaussians))
  x, y = np.asarray(gaussians.means).T
  inside = (x > 22) & (x < 48) & (y > 12) & (y < 18)
  assert inside.any()
  np.testing.assert_allclose(np.asarray(gaussians.colors)[inside], [[1, 0.5, 0]] * inside.sum(), atol=0.1)


def test_passes_add_what_is_kept_and_stay_within_the_budget():
  target = np.clip(np.asarray(gaussjax.render(scene(60, 64, 64, log_scale=(1.2, 0.4)))), 0, 1)
  seen = []
  result, report = passes.fit_passes(
    target, num_gaussians=62, passes=4, steps=160, progress_fn=lambda record: seen.append(record["step"])
  )
  assert report[0].num_gaussians == 59 and len(report) == 4
  assert len(seen) == 4 * 5  # both ends of each pass, and every tenth step
  assert len(result.gaussians.means) == [one.num_gaussians for one in report if one.kept][-1] <= 62
  assert sum(one.kept for one in report) >= 3
  kept = [one.psnr for one in report if one.kept]
  assert kept == sorted(kept) and result.metrics["psnr"] >= kept[-1] - 1e-3
  assert result.metrics["psnr"] > report[0].psnr + 1
  assert [record["step"] for record in result.history] == sorted(record["step"] for record in result.history)
  assert_metrics_are_of(result, target)
  with pytest.raises(ValueError, match="got passes=0"):
    passes.fit_passes(target, num_gaussians=5, passes=0)


def test_a_pass_that_does_not_improve_is_taken_back_and_reported():
  """A flat picture is met by the first set already: nothing can raise its PSNR."""
  result, report = passes.fit_passes(np.full((64, 64, 3), 0.5), num_gaussians=62, passes=4, steps=40)
  assert [one.kept for one in report] == [False] * 4
  assert len(result.gaussians.means) == 59


def test_adan_fits_with_density_control():
  recipe, stop = recipes.Recipe(optimizer=optimizers.adan), gaussjax.Stop(max_steps=60)
  result = gaussjax.fit(picture(), num_gaussians=20, preset=recipe, stop=stop)
  assert result.metrics["psnr"] > result.history[0]["psnr"] + 5


def test_lbfgs_gains_and_never_rises():
  recipe = recipes.Recipe(optimizer=optimizers.lbfgs, policy=None)
  history = gaussjax.fit(picture(), num_gaussians=20, preset=recipe, stop=gaussjax.Stop(max_steps=40)).history
  losses = [record["loss"] for record in history]
  assert losses == sorted(losses, reverse=True) and history[-1]["psnr"] > history[0]["psnr"] + 5


def test_a_memory_of_the_whole_set_refuses_density_control():
  params = scene(20)
  state = optimizers.lbfgs(recipes.rates(recipes.Recipe(), 24, 31), None).init(params)
  with pytest.raises(ValueError, match="not by Gaussian"):
    loop.forget(state, state, jnp.arange(20) == 3)


def test_adan_is_the_papers():
  gradients = np.random.default_rng(3).normal(size=(6, 4))
  optimizer = optimizers.scale_by_adan(0.9, 0.7, 0.8)
  state, (mean, change, square), last = optimizer.init(jnp.zeros(4)), np.zeros((3, 4)), gradients[0]
  for step, gradient in enumerate(gradients, 1):
    found, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state)
    mean = 0.9 * mean + 0.1 * gradient
    change = 0.7 * change + 0.3 * (gradient - last)
    square = 0.8 * square + 0.2 * (gradient + 0.7 * (gradient - last)) ** 2
    first, second, third = mean / (1 - 0.9**step), change / (1 - 0.7**step), square / (1 - 0.8**step)
    np.testing.assert_allclose(found, (first + 0.7 * second) / np.sqrt(third), rtol=2e-5)
    last = gradient


def test_the_jvp_is_jaxs_and_the_adjoint_of_the_gradient():
  gaussians, rng, tau = scene(30, 37, 53), np.random.default_rng(0), kernel.tail(3.5)
  placed = jax.jit(geometry.geometry)(gaussians)
  lists = tiles.allocate(placed, tiles.empty(placed, 37, 53), cutoff=3.5)
  placed_dot = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), placed)
  values, values_dot = (jnp.asarray(rng.normal(size=(30, 2)), jnp.float32) for _ in range(2))
  image = jnp.asarray(rng.normal(size=(37, 53, 2)), jnp.float32)
  found = jax.jit(splat_jvp.splat_jvp, static_argnums=5)(placed, values, placed_dot, values_dot, lists, tau)
  by_dense = lambda placed, values: dense.dense(placed, 37, 53, tau=tau).splat(values)
  push = jax.jit(lambda at, along: jax.jvp(by_dense, at, along)[1])
  expected = push((placed, values), (placed_dot, values_dot))
  np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
  pull = jax.jit(lambda *at: jax.vjp(lambda p, v: splat.splat(p, v, lists, tau), *at)[1](image))
  pulled = jax.tree.leaves(pull(placed, values))
  inner = sum(np.vdot(a, b) for a, b in zip(pulled, [*jax.tree.leaves(placed_dot), values_dot], strict=True))
  np.testing.assert_allclose(inner, np.vdot(found, image), rtol=1e-3)


def test_colours_solved_for_at_the_start_and_the_end_lower_the_error():
  image, plain = picture(), recipes.Recipe()
  squares = lambda gaussians: float(np.mean((gaussjax.render(gaussians) - image) ** 2))
  start = functools.partial(colors.solved, initialize=plain.initialize, iterations=5)
  before, after = (
    recipes.start(jax.random.key(0), jnp.asarray(image), 20, recipes.Recipe(initialize))
    for initialize in (plain.initialize, start)
  )
  assert squares(after) < 0.75 * squares(before)
  np.testing.assert_array_equal(after.means, before.means)
  refined = colors.refine_colors(before, image, iterations=5)
  np.testing.assert_allclose(refined.colors, after.colors, atol=1e-4)
  perfect = scene(20, 20, 26)
  assert colors.refine_colors(perfect, np.asarray(gaussjax.render(perfect)), iterations=5) is perfect


@pytest.mark.parametrize("blend", LINEAR_BLENDS)
def test_a_picture_of_the_same_shapes_is_met(blend):
  gaussians = scene(8, log_scale=(1.5, 0.3), blend=blend)
  target = draw_densely(gaussians._replace(colors=np.random.default_rng(3).uniform(size=(8, 3)).astype(np.float32)))
  error = lambda g: np.mean((np.asarray(draw_densely(g)) - target) ** 2)
  solve = jax.jit(lambda g, n: colors.solve_colors(g, densely(g), target, iterations=n))
  errors = [error(gaussians)] + [error(solve(gaussians, n)) for n in (2, 8, 40)]
  assert errors[3] < 1e-5 * errors[0]
  assert errors == sorted(errors, reverse=True)


def test_an_ordered_blend_is_refused():
  gaussians = scene(3, blend=blends.alpha_composite)
  with pytest.raises(ValueError, match="expected one that is linear"):
    jax.eval_shape(lambda g: colors.solve_colors(g, densely(g), np.zeros((24, 31, 3))), gaussians)
