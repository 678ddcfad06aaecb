"""Coordinate descent over codes: exact rises, native sweeps as in Python, sets that stay on their grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import scene

import gaussjax
from gaussjax import geometry
from gaussjax.gjx import descent, grids, rate
from gaussjax.gjx.grids import Steps

STEPS = Steps(position=118, log_scale=102, turn=162, color=104, weight=124)
HEIGHT, WIDTH = 40, 52

needs_native = pytest.mark.skipif(not descent.available(), reason="the native code was not built")


def given(count=24, *, channels=3, seed=0):
  """(a set on its grid with two parked Gaussians, a target near its picture)."""
  gaussians = scene(count, HEIGHT, WIDTH, channels=channels, log_scale=(1.6, 0.5), seed=seed)
  gaussians = gaussians._replace(log_weights=None)
  picture = np.asarray(gaussjax.render(gaussians))
  gaussians = geometry.park(gaussians, jnp.arange(count) < 2)
  noise = np.random.default_rng(seed).normal(0, 0.05, picture.shape)
  return grids.nearest(gaussians, STEPS), jnp.asarray(np.float32(picture + noise))


def error(gaussians, target):
  return float(np.sum(np.square(np.asarray(gaussjax.render(gaussians), np.float64) - target)))


def prepared(gaussians, target):
  """What a sweep is of: (the picture, tables of options, sums, order)."""
  shown = np.asarray(geometry.visible(gaussians))
  picture = descent._Picture.of(geometry.canvas_of(gaussians), np.asarray(target), 1000)
  codes = grids.codes_of(gaussians, STEPS)
  moves = descent._moves(gaussians, codes, grids.grid(STEPS), colors=True)
  options = [gaussians, *(grids.nearest(move, STEPS) for move in moves)]
  tables = np.stack([descent._numbers(picture, option, shown) for option in options])
  return picture, options, tables, np.random.default_rng(0).permutation(len(shown))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_squared_error_falls_on_the_grid(channels):
  gaussians, target = given(channels=channels)
  moved = descent.descended(gaussians, target, STEPS)
  assert error(moved, target) < 0.97 * error(gaussians, target)
  for mine, theirs in zip(
    grids.codes_of(moved, STEPS), grids.codes_of(grids.nearest(moved, STEPS), STEPS), strict=True
  ):
    np.testing.assert_array_equal(mine, theirs)
  rendered, rounded = (gaussjax.render(one) for one in (moved, grids.nearest(moved, STEPS)))
  np.testing.assert_allclose(rendered, rounded, atol=1e-5)
  np.testing.assert_array_equal(geometry.visible(moved), geometry.visible(gaussians))
  assert moved.canvas is gaussians.canvas and moved.log_weights is None


def test_colors_stay_where_they_are_not_to_move():
  gaussians, target = given()
  odd = gaussians._replace(colors=gaussians.colors + 0.001)
  moved = descent.descended(odd, target, STEPS, colors=False)
  np.testing.assert_array_equal(moved.colors, odd.colors)
  assert error(moved, target) < error(odd, target)


def test_rises_are_what_a_render_finds():
  """One move of one Gaussian at a time, of every kind."""
  gaussians, target = given(9)
  picture, options, tables, _ = prepared(gaussians, target)
  sums = descent._drawn(picture, tables[0])
  drawn = np.moveaxis(sums[:-1] / sums[-1], 0, -1)
  np.testing.assert_allclose(drawn, gaussjax.render(gaussians), atol=2e-5)
  before, found = error(gaussians, target), 0
  for index in (3, 7):
    box = descent._box(picture, tables[:, index])
    rises, _ = descent._rises(picture, tables[:, index], box, sums)
    for kind, rise in enumerate(rises):
      chosen = np.where(np.arange(9) == index, kind, 0)
      expected = error(descent._taken(options, chosen), target) - before
      assert rise == pytest.approx(expected, abs=2e-4), (kind, index)
      found += abs(expected) > 1e-3
  assert found > 20


@needs_native
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_native_sweeps_choose_as_those_in_python(channels, monkeypatch):
  gaussians, target = given(30, channels=channels, seed=channels)
  picture, _, tables, order = prepared(gaussians, target)
  costs = np.random.default_rng(1).normal(0, 0.02, tables.shape[:2]).astype(np.float32)
  results = []
  for native in (descent._native, None):
    monkeypatch.setattr(descent, "_native", native)
    sums = descent._drawn(picture, tables[0])
    results.append((descent._sweep(picture, tables, costs, order, sums), sums))
  (chosen, sums), (expected, slowly) = results
  assert np.count_nonzero(expected) > 10
  np.testing.assert_array_equal(chosen, expected)
  np.testing.assert_allclose(sums, slowly, rtol=1e-4, atol=1e-5)


@needs_native
def test_native_sweeps_refuse_arrays_that_do_not_belong_together():
  gaussians, target = given(5)
  picture, _, tables, order = prepared(gaussians, target)
  sums, chosen = descent._drawn(picture, tables[0]), np.zeros(5, np.int64)
  costs, sizes = np.zeros(tables.shape[:2], np.float32), (HEIGHT, WIDTH, 3, picture.tau, 12.25)
  right = [tables, costs, order, sums, picture.target, chosen]
  descent._native.sweep(*sizes, *right)
  for at, wrong in enumerate((tables[:, :4], costs[1:], order[:3], sums[:, 1:], picture.target[:2], chosen[:2])):
    with pytest.raises(ValueError, match="belong together"):
      descent._native.sweep(*sizes, *right[:at], np.ascontiguousarray(wrong), *right[at + 1 :])
  with pytest.raises(ValueError, match="belong together"):
    descent._native.sweep(*sizes, *right[:2], order + 1, *right[3:])


def test_few_gaussians_are_looked_at_on_a_smaller_picture():
  """Its sums are those of the whole one in the middle of each block, and its target the blocks' means."""
  gaussians = scene(3, 200, 320, log_scale=(3.0, 0.2))._replace(log_weights=None)
  canvas, shown = geometry.canvas_of(gaussians), np.ones(3, bool)
  target = np.random.default_rng(0).uniform(size=(200, 320, 3)).astype(np.float32)
  whole, smaller = (descent._Picture.of(canvas, target, count) for count in (1000, 3))
  assert (whole.times, smaller.times) == (1, 4) and smaller.target.shape == (3, 50, 80)
  np.testing.assert_allclose(smaller.target[:, 7, 9], target[28:32, 36:40].mean(axis=(0, 1)), rtol=1e-5)
  drawn, coarse = (descent._drawn(one, descent._numbers(one, gaussians, shown)) for one in (whole, smaller))
  blocks = drawn.reshape(4, 50, 4, 80, 4)[:, :, 1:3, :, 1:3].mean(axis=(2, 4))
  np.testing.assert_allclose(coarse, blocks, atol=2e-3)


def test_bits_of_options_are_those_of_the_rate():
  """Summed over Gaussians that move by little, they are about what the estimate of all says."""
  gaussians = scene(200, HEIGHT, WIDTH, log_scale=(0.5, 0.5))._replace(log_weights=None)
  grid = grids.grid(STEPS)
  assert rate.differences(gaussians, [gaussians], grid) == pytest.approx(0, abs=1e-4)
  further = gaussians._replace(colors=gaussians.colors * 1.01)
  told = float(rate.differences(gaussians, [further], grid).sum())
  alone = jax.jit(rate.estimate)
  one = lambda index: further._replace(colors=gaussians.colors.at[index].set(further.colors[index]))
  expected = sum(float(alone(one(index), grid) - alone(gaussians, grid)) for index in range(0, 200, 10)) * 10
  assert told > 0 and told == pytest.approx(expected, rel=0.6)
