"""A stack of images is fitted like each alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import picture

import gaussjax
from gaussjax.fitting import initializers, loop, recipes, stacks
from gaussjax.rendering import renderer, tiles

IMAGES = [picture(40, 48, seed=seed) for seed in range(3)]
RECIPE = gaussjax.PRESETS["fast"]._replace(initialize=initializers.structure_tensor, schedule=lambda progress: 0.2)
one_of = lambda sets, i: jax.tree.map(lambda leaf: leaf[i], sets)


def test_the_first_steps_are_those_of_each_alone():
  """Later ones part, since rounding does."""
  sets, psnr = gaussjax.fit_stack(IMAGES, num_gaussians=40, preset=RECIPE, steps=8)
  assert psnr.shape == (3,) and sets.means.shape == (3, 40, 2)
  fitter = recipes.make_fitter(RECIPE, 40, 48)
  key, _ = jax.random.split(jax.random.key(0))
  for i, image in enumerate(IMAGES):
    state = fitter.init(recipes.start(key, jnp.asarray(image), 40, RECIPE))
    state, _ = loop.advance(fitter.step, state, jnp.asarray(image), jnp.int32(8), jnp.float32(8))
    np.testing.assert_allclose(one_of(sets, i).means, state.params.means, atol=0.02)


def test_a_whole_fit_with_density_control():
  images = [picture(64, 72, seed=seed) for seed in range(2)]
  sets, psnr = gaussjax.fit_stack(np.stack(images), num_gaussians=40, preset="fast", steps=40)
  assert (psnr > 28).all(), psnr
  for i, image in enumerate(images):
    np.testing.assert_allclose(psnr[i], gaussjax.metrics.psnr(gaussjax.render(one_of(sets, i)), image), atol=0.01)


def test_lists_that_overflow_are_made_larger(over_lists, monkeypatch):
  del over_lists
  monkeypatch.setattr(renderer, "FIT_ROOM", 1.0)
  monkeypatch.setattr(tiles, "capacity", lambda count: count)
  grow = RECIPE._replace(ratios=RECIPE.ratios._replace(log_scales=60), policy=None)
  made, allocate = [], stacks._allocated
  monkeypatch.setattr(stacks, "_allocated", lambda *given: made.append(given) or allocate(*given))
  sets, psnr = gaussjax.fit_stack(IMAGES[:2], num_gaussians=60, preset=grow, steps=6)
  assert len(made) > 1, "nothing overflowed"
  assert np.isfinite(psnr).all() and np.isfinite(sets.means).all()


def test_what_cannot_be_a_stack_is_refused():
  for images in ([], [IMAGES[0], IMAGES[0][1:]]):
    with pytest.raises(ValueError, match="images of one size"):
      gaussjax.fit_stack(images, num_gaussians=5)
  broken = recipes.Recipe(loss=lambda drawn, target: (drawn - target).sum() * np.nan)
  with pytest.raises(gaussjax.FitError, match="step 1 of image 0"):
    gaussjax.fit_stack(IMAGES, num_gaussians=5, preset=broken, steps=3)
