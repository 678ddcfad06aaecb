"""Pictures of many sizes in buckets: what is beyond the picture counts for nothing, and programs are shared."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import picture, scene

import gaussjax
from gaussjax.fitting import density, initializers, recipes
from gaussjax.gjx import encoding, grids, packing, quantization, search
from gaussjax.rendering import bands, blends, buckets, renderer

HEIGHT, WIDTH = 70, 97
GAUSSIANS = scene(60, HEIGHT, WIDTH, log_scale=(1.5, 0.4))
IMAGE = picture(HEIGHT, WIDTH, seed=1).astype(np.float32)
STEPS = grids.Steps(position=118, log_scale=102, turn=162, color=104, weight=124)


def test_buckets_are_little_larger_and_stay_what_they_are():
  sides = np.arange(64, 2049)
  found = np.array([buckets.size(side, 500)[0] for side in sides])
  assert (found >= sides).all() and (found <= sides * 9 / 8).all() and len(set(found)) == 41
  assert (found == [buckets.size(side, 500)[0] for side in found]).all()
  for size in ((512, 768), (768, 512), (15, 700), (3000, 4000)):  # the benchmark's, a small and a large picture
    assert buckets.size(*size) == size


@pytest.mark.parametrize("name", ["scanlines", "dense", "tiles"])
def test_what_is_beyond_the_picture_counts_for_nothing(name):
  """Error and gradients, what removals cost and where births go are those of the picture by itself."""

  @jax.jit
  def looked_at(gaussians, neighbors, target):
    def error(gaussians):
      return bands.mean(blends.mean_square, gaussians, neighbors, target) / buckets.share(target)

    on = renderer.rasterizer(gaussians, neighbors)
    drawn = blends.picture(gaussians, on)
    cost = density.removal_cost(gaussians, on, drawn, target)
    born = density.births(jax.random.key(0), drawn, target, 6, budget=jnp.int32(60))
    return jax.value_and_grad(error)(gaussians), cost, born

  found = []
  for image in (IMAGE, buckets.padded(IMAGE)):
    gaussians, target = buckets.on(GAUSSIANS, *image.shape[:2]), renderer.target(image)
    try:
      neighbors = renderer.allocate(gaussians, renderer=name)
    except ValueError:
      pytest.skip("the native renderer was not built")
    found.append(looked_at(gaussians, neighbors, target))
  assert image.shape[:2] == (72, 104)
  (alone, cost, born), (within, cost_within, born_within) = found
  without_canvas = lambda found: (found[0], found[1]._replace(canvas=None), found[1].canvas.background)
  for one, other in zip(
    jax.tree.leaves(without_canvas(alone)), jax.tree.leaves(without_canvas(within)), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6 * float(jnp.abs(one).max()))
  seen = np.isfinite(cost)
  np.testing.assert_allclose(cost_within[seen], cost[seen], rtol=1e-3, atol=1e-5)
  assert (np.asarray(cost_within)[~seen] <= 0).all()
  np.testing.assert_array_equal(np.sort(born.means, axis=0), np.sort(born_within.means, axis=0))


@pytest.mark.parametrize("initialize", [initializers.structure_tensor, initializers.gradient_sampled])
def test_starts_are_within_the_picture(initialize):
  target = renderer.target(buckets.padded(IMAGE))
  recipe = recipes.Recipe(initialize=initialize)
  begun = recipes.start(jax.random.key(0), target, 60, recipe)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(begun))
  means = np.asarray(begun.means)
  assert (means >= 0).all() and (means <= [WIDTH, HEIGHT]).all()
  np.testing.assert_allclose(begun.canvas.background, IMAGE.mean((0, 1), np.float64), rtol=1e-5)


def test_quantising_knows_the_picture_and_not_its_bucket():
  nearest = grids.nearest(GAUSSIANS, STEPS)
  again, _ = jax.jit(grids.quantize)(GAUSSIANS, grids.grid(STEPS))
  np.testing.assert_array_equal(nearest.means, again.means)
  assert (nearest.canvas.height, nearest.canvas.width) == (HEIGHT, WIDTH)
  alone = np.mean(np.square(np.clip(np.asarray(gaussjax.render(GAUSSIANS)), 0, 1) - IMAGE))
  assert abs(quantization.psnr(GAUSSIANS, renderer.target(IMAGE)) + 10 * np.log10(alone)) < 1e-3


@pytest.fixture
def compiled():
  """How often a program of each name was compiled, or found in the cache on disk, so far.

  Programs of tests before are let go of: a process with very many does so by itself, between the two encodings too.
  """
  jax.clear_caches()
  names = collections.Counter()

  def count(event, seconds, **about):
    if event.endswith("backend_compile_duration"):
      names[about.get("fun_name", "")] += 1

  jax.monitoring.register_event_duration_secs_listener(count)
  yield names
  jax.monitoring.unregister_event_duration_listener(count)


def test_a_picture_of_another_size_needs_no_program_of_its_own(compiled):
  """And its file is as good, and has the Gaussians that were asked for: places beyond those are not in it."""
  effort = encoding.Effort(60, 2)
  for height, width, count in ((HEIGHT, WIDTH, 60), (HEIGHT - 5, WIDTH + 4, 58)):
    image = picture(height, width)
    compiled.clear()
    stages = search.stages(image, count, effort=effort)
    data = packing.pack(stages.gaussians, stages.steps)
    programs = set(compiled)
    gaussians, header = gaussjax.decode(data)
    assert (header.height, header.width) == (height, width)
    assert len(gaussians.means) == count and len(stages.gaussians.means) == 70  # the table's for the whole bucket
    assert -10 * np.log10(np.mean(np.square(np.asarray(gaussjax.render(gaussians)) - image))) > 28
  # What makes a target's memory that of the renderer is of each size.
  assert programs <= {"jit(stage)", "jit(_device_put_reshard)"}


def test_a_recipe_of_ones_own_sees_the_picture_alone():
  seen = []

  def loss(prediction, target):
    seen.append(target.shape)
    return jnp.mean(jnp.square(prediction - target))

  recipe = recipes.Recipe(loss=loss)
  found = recipes.fitted(IMAGE, recipes.Asked(20, preset=recipe, stop=gaussjax.Stop(max_steps=2)))
  assert set(seen) == {IMAGE.shape}
  assert found.canvas.height == HEIGHT
