"""Gaussians whose brightness changes with the place: what they are, and who knows of them."""

import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.test_util import check_grads
from scenes import BLENDS, densely, picture, scene

import gaussjax
from gaussjax import geometry
from gaussjax.exchange import ply, svg
from gaussjax.fitting import density, recipes
from gaussjax.gjx import encoding, npz
from gaussjax.rendering import blends, renderer
from gaussjax.types import Stop


def by(name, gaussians):
  return renderer.rasterizer(gaussians, renderer.allocate(gaussians, renderer=name))


@pytest.mark.parametrize("name", ["dense", "tiles", "scanlines"])
@pytest.mark.parametrize("blend", BLENDS)
def test_every_renderer_draws_what_the_oracle_draws(name, blend):
  gaussians = scene(30, 40, 50, blend=blend, sloped=True)
  if name == "scanlines" and blend.ordered:
    name = "tiles"
  drawn = blends.picture(gaussians, by(name, gaussians))
  np.testing.assert_allclose(drawn, oracle.render(gaussians), atol=2e-5)
  flat = oracle.render(gaussians._replace(slopes=None))
  assert np.abs(drawn - flat).max() > 0.1


@pytest.mark.parametrize("name", ["tiles", "dense"])
def test_gradients_are_those_of_finite_differences(x64, name):
  del x64
  gaussians = scene(8, 20, 26, sloped=True, cutoff=6.0, dtype=np.float64)
  neighbors = renderer.allocate(gaussians, renderer=name)
  weights = np.random.default_rng(0).normal(size=(20, 26, 3))

  def loss(means, log_scales, slopes):
    moved = gaussians._replace(means=means, shape=gaussians.shape._replace(log_scales=log_scales), slopes=slopes)
    return jnp.sum(weights * blends.picture(moved, renderer.rasterizer(moved, neighbors)))

  fields = gaussians.means, gaussians.shape.log_scales, gaussians.slopes
  check_grads(loss, fields, order=1, modes=["rev"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["dense", "tiles"])
def test_removal_costs_what_drawing_without_it_shows(name):
  gaussians = scene(12, 30, 30, sloped=True)
  target = jnp.asarray(np.random.default_rng(0).uniform(size=(30, 30, 3)), jnp.float32)
  rasterizer = by(name, gaussians)
  cost = density.removal_cost(gaussians, rasterizer, blends.picture(gaussians, rasterizer), target)
  error = lambda g: float(np.square(oracle.render(g) - target).sum())
  for i in np.flatnonzero(np.isfinite(cost))[:4]:
    rise = error(geometry.park(gaussians, jnp.arange(12) == i)) - error(gaussians)
    np.testing.assert_allclose(cost[i], rise, rtol=1e-3, atol=1e-3)


def test_upwards_is_exact_and_downwards_keeps_integral_and_first_moment():
  gaussians = scene(15, sloped=True)
  large = np.asarray(gaussjax.render(gaussians, 72, 93))
  np.testing.assert_allclose(large[1::3, 1::3], gaussjax.render(gaussians), atol=2e-5)
  one = scene(1, 60, 60, blend=blends.accumulated_sum, sloped=True, cutoff=8.0, log_scale=(0.5, 0.3))
  one = one._replace(means=jnp.array([[31.0, 28.0]], jnp.float32))
  moments = []
  for side in (600, 60, 24):
    light = np.asarray(gaussjax.render(one, side, side)).mean(-1) - np.asarray(one.canvas.background).mean()
    middle = (np.arange(side) + 0.5) * (60 / side)
    area = (60 / side) ** 2
    moments.append([light.sum() * area, (light * middle).sum() * area, (light * middle[:, None]).sum() * area])
  np.testing.assert_allclose(moments[1:], [moments[0]] * 2, rtol=0.01)


def test_a_fit_with_slopes_is_nearer_at_equal_n():
  image, stop = picture(40, 50), Stop(max_steps=120)
  fits = [
    gaussjax.fit(image, num_gaussians=8, preset=recipes.PRESETS["fast"]._replace(sloped=sloped), stop=stop)
    for sloped in (False, True)
  ]
  assert fits[1].metrics["psnr"] > fits[0].metrics["psnr"] + 0.5
  assert fits[0].gaussians.slopes is None and np.abs(fits[1].gaussians.slopes).max() > 0.01


def test_sets_with_and_without_are_put_together():
  some, none = scene(5, sloped=True), scene(4)
  both = geometry.concatenate([none, some])
  np.testing.assert_array_equal(both.slopes[:4], 0)
  np.testing.assert_array_equal(both.slopes[4:], some.slopes)


def test_archives_keep_them_and_files_refuse_them():
  gaussians = scene(5, sloped=True)
  again = npz.loads(npz.dumps(gaussians))
  np.testing.assert_array_equal(again.slopes, gaussians.slopes)
  with pytest.raises(ValueError, match="slopes, which .gjx does not hold"):
    gaussjax.encode(gaussians)
  with pytest.raises(ValueError, match="slopes, which PLY cannot say"):
    ply.dumps(gaussians)
  with pytest.raises(ValueError, match="slopes, which SVG cannot say"):
    svg.dumps(scene(5, blend=blends.accumulated_sum, sloped=True))
  sloped = encoding.EFFORTS[0]._replace(recipe=encoding.RECIPE._replace(sloped=True))
  with pytest.raises(ValueError, match="sloped=True, expected False"):
    gaussjax.encode(picture(), effort=sloped)


def test_a_blend_that_does_not_know_them_is_refused():
  mine = gaussjax.Blend("mine", lambda rasterizer, colors, background: rasterizer.splat(colors) + background)
  gaussians = scene(5, blend=mine, sloped=True)
  with pytest.raises(ValueError, match="slopes with the blend mine"):
    blends.picture(gaussians, densely(gaussians))
  with pytest.raises(ValueError, match="sloped=True with the blend mine"):
    gaussjax.fit(picture(), num_gaussians=5, preset=gaussjax.Recipe(blend=mine, sloped=True, policy=None))
