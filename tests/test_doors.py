"""The public face as a researcher uses it: the fast renderer in a loss of one's own, and parts of one's own."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import BLENDS, quick_effort, scene

import gaussjax
from gaussjax.rendering import renderer

ROOT = Path(__file__).parent.parent


def test_the_examples_of_readme_run(tmp_path, monkeypatch):
  """As they stand, but for smaller numbers: a fit, a loop of one's own, a file.

  The file is made of a fit that has no rate in view, of as many Gaussians, and by the nearest codes, which compiles
  in a third of the time; test_cli.py encodes as users do.
  """
  code = "".join(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S))
  for large, small in (("num_gaussians=2000)", "num_gaussians=20, stop=STOP)"), ("range(200)", "range(3)")):
    assert large in code
    code = code.replace(large, small)
  code = code.replace("bpp=0.2)", "bpp=1.65, effort=EFFORT)")
  picture = np.clip(np.asarray(gaussjax.render(scene(12, 24, 32, log_scale=(2.0, 0.3)))), 0, 1)
  monkeypatch.chdir(tmp_path)
  gaussjax.write_image("photo.png", picture)
  names = {"STOP": gaussjax.Stop(max_steps=10), "EFFORT": quick_effort(10)}
  exec(compile(code, "README.md", "exec"), names)  # the examples are ours
  assert gaussjax.read_image("large.png").shape == (48, 64, 3)
  assert bool(jnp.isfinite(names["state"][0].means).all()) and len(names["gaussians"].means) > 0


@pytest.mark.parametrize("blend", BLENDS)
def test_neighbours_draw_the_picture_within_jit_grad_and_vmap(over_lists, blend):
  gaussians = scene(40, blend=blend)
  draw = lambda g, n: gaussjax.render(g, neighbors=n)
  view = {"height": 31, "width": 37, "viewport": (2.0, 1.0, 29.0, 20.0)}
  neighbors, viewing = gaussjax.allocate(gaussians), gaussjax.allocate(gaussians, **view)
  whole, part = gaussjax.render(gaussians), gaussjax.render(gaussians, **view)
  assert whole.shape == (24, 31, 3) and part.shape == (31, 37, 3)
  np.testing.assert_allclose(draw(gaussians, neighbors), whole, atol=1e-5)
  np.testing.assert_allclose(jax.jit(draw)(gaussians, viewing), part, atol=1e-5)

  def loss(gaussians, neighbors):
    neighbors, overflow = gaussjax.refresh(gaussians, neighbors)
    picture = gaussjax.render(gaussians, neighbors=neighbors)
    return jnp.sum(jnp.square(picture)), (picture, overflow)

  dense = jax.jit(jax.grad(lambda g: jnp.sum(jnp.square(gaussjax.render(g)))))(gaussians)
  found, (picture, overflow) = jax.jit(jax.grad(loss, has_aux=True))(gaussians, neighbors)
  assert not overflow
  np.testing.assert_allclose(picture, whole, atol=1e-5)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(dense), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-4 * np.abs(b).max())
  if blend is not BLENDS[0]:  # how stacks of others are drawn is in test_tiling.py
    return
  both = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), (gaussians, neighbors))
  stacked, _ = jax.jit(jax.vmap(jax.grad(loss, has_aux=True)))(*both)
  np.testing.assert_allclose(stacked.means[1], found.means, atol=1e-4 * np.abs(found.means).max())


def test_neighbours_serve_outside_of_jit_too():
  gaussians = scene(40)
  neighbors = gaussjax.allocate(gaussians)
  total = lambda sets: jnp.sum(jax.vmap(lambda g: gaussjax.render(g, neighbors=neighbors))(sets))
  both = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), gaussians)
  eagerly = jax.grad(total)(both).colors
  np.testing.assert_allclose(eagerly, jax.jit(jax.grad(total))(both).colors, rtol=1e-4, atol=1e-5)


def test_neighbours_that_do_not_hold_are_never_a_subtly_wrong_picture(over_lists):
  gaussians = scene(40)
  neighbors = gaussjax.allocate(gaussians)
  moved = gaussians._replace(means=np.asarray(gaussians.means)[::-1])
  draw = lambda g, n: gaussjax.render(g, neighbors=n)
  assert jnp.isnan(jax.jit(draw)(moved, neighbors)).all()
  # Outside of a trace they are made anew.
  np.testing.assert_allclose(draw(moved, neighbors), gaussjax.render(moved), atol=1e-5)
  huge = gaussians._replace(shape=gaussians.shape._replace(log_scales=gaussians.shape.log_scales + 3))
  grown = gaussjax.allocate(huge, like=neighbors)
  assert grown.lists.ids.shape >= neighbors.lists.ids.shape
  fresh, overflow = jax.jit(gaussjax.refresh)(huge, grown)
  assert not overflow
  np.testing.assert_allclose(jax.jit(draw)(huge, fresh), gaussjax.render(huge), atol=1e-5)


def test_without_neighbours_a_trace_is_dense_up_to_a_size(monkeypatch, over_lists):
  gaussians = scene(40)
  np.testing.assert_allclose(jax.jit(gaussjax.render)(gaussians), gaussjax.render(gaussians), atol=1e-5)
  monkeypatch.setattr(renderer, "TRACED_EVALUATIONS", 100)
  with pytest.raises(ValueError, match=r"neighbors = gaussjax.allocate"):
    jax.grad(lambda g: jnp.sum(gaussjax.render(g)))(gaussians)
  with pytest.raises(ValueError, match="allocate before jit"):
    jax.jit(gaussjax.allocate)(gaussians)
  with pytest.raises(ValueError, match="beside neighbours"):
    gaussjax.render(gaussians, 12, 12, neighbors=gaussjax.allocate(gaussians))


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    ({"height": 2.5}, "whole number"),
    ({"height": True}, "whole number"),
    ({"height": 10**6, "width": 10**6}, "draw it in parts"),
    ({"viewport": (0, 0, 5)}, "viewport"),
    ({"viewport": (0, 0, 1e400, 4)}, "viewport"),
    ({"background": [0.1, 0.2]}, "background"),
  ],
)
def test_renders_that_make_no_sense_are_refused(arguments, words):
  with pytest.raises(ValueError, match=words):
    gaussjax.render(scene(3), **arguments)


def test_sets_that_make_no_sense_are_refused():
  good = scene(3)
  bare = lambda *args: None
  for bad, words in (
    (good._replace(colors=good.colors[:2]), "colors of shape"),
    (good._replace(means=good.means.T), "means of shape"),
    (good._replace(log_weights=jnp.zeros(4)), "log_weights"),
    (good._replace(canvas=gaussjax.Canvas(24, 31, jnp.zeros(3), bare)), "gaussjax.Blend"),
    (good._replace(canvas=None), "canvas"),
  ):
    with pytest.raises(ValueError, match=words):
      gaussjax.render(bad)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_draws_finite_pictures(over_lists, dtype):
  gaussians = scene(40)
  half = jax.tree.map(lambda leaf: leaf.astype(dtype), gaussians)
  drawn = gaussjax.render(half)
  assert drawn.dtype == dtype
  np.testing.assert_allclose(drawn.astype(np.float32), gaussjax.render(gaussians), atol=0.2)
  neighbors = gaussjax.allocate(half)
  total = lambda g: jnp.sum(gaussjax.render(g, neighbors=neighbors).astype(jnp.float32))
  gradient = jax.jit(jax.grad(total))(half)
  assert all(jnp.isfinite(leaf).all() and leaf.dtype == dtype for leaf in jax.tree.leaves(gradient))


def test_no_gaussians_are_the_background():
  gaussians = scene(5)
  none = gaussjax.take(gaussians, [])
  np.testing.assert_allclose(gaussjax.render(none), jnp.broadcast_to(none.canvas.background, (24, 31, 3)))


def test_sets_are_taken_apart_and_put_together():
  gaussians = scene(12)
  whole = gaussjax.render(gaussians)
  mask = np.arange(12) % 3 == 0
  parts = [gaussjax.take(gaussians, mask), gaussjax.take(gaussians, np.flatnonzero(~mask))]
  np.testing.assert_allclose(gaussjax.render(gaussjax.concatenate(parts)), whole, atol=1e-5)
  assert len(gaussjax.take(gaussians, slice(2, 5)).means) == 3
  unweighted = scene(12, seed=1)._replace(log_weights=None)
  mixed = gaussjax.where(mask, gaussians, unweighted)
  np.testing.assert_array_equal(mixed.means[mask], gaussians.means[mask])
  np.testing.assert_array_equal(mixed.log_weights[~mask], 0)
  for wrong in (np.arange(3.0), np.zeros(5, bool), [12], [[0]], "x"):
    with pytest.raises(ValueError, match="expected"):
      gaussjax.take(gaussians, wrong)
  with pytest.raises(ValueError, match="one shape and canvas"):
    gaussjax.concatenate([gaussians, scene(3, 10, 10)])
  with pytest.raises(ValueError, match="one size"):
    gaussjax.where(mask[:5], gaussians, gaussians)


class Absolute:
  """A loss that is an object, and no function with a name."""

  def __call__(self, prediction, target):
    return jnp.mean(jnp.abs(prediction - target))


def test_parts_from_outside_of_the_package_work_wherever_built_in_ones_do(tmp_path):
  """A blend, a start, a policy and a loss of one's own, by functions that the package has never seen."""
  squared = gaussjax.Blend("squared", lambda on, colors, background: jnp.square(on.splat(colors)) + background)

  def corner(key, image, num_gaussians):
    means = jax.random.uniform(key, (num_gaussians, 2), image.dtype) * 8
    shape = gaussjax.Euler(jnp.zeros_like(means), jnp.zeros(num_gaussians, image.dtype))
    return gaussjax.Gaussians(means, shape, jnp.full((num_gaussians, image.shape[-1]), 0.3, image.dtype))

  def recentre(key, scene):
    first = jnp.arange(len(scene.gaussians.means)) == 0
    return scene.gaussians._replace(means=jnp.where(first[:, None], 5.0, scene.gaussians.means)), first

  image = np.asarray(gaussjax.render(scene(6, 20, 26, log_scale=(1.8, 0.3)))).clip(0, 1)
  recipe = gaussjax.Recipe(initialize=corner, blend=squared, loss=Absolute(), policy=recentre, steps=40)
  result = gaussjax.fit(image, num_gaussians=9, preset=recipe)
  assert result.metrics["loss"] < 0.9 * result.history[0]["loss"]
  np.testing.assert_allclose(
    result.metrics["loss"], np.abs(np.asarray(gaussjax.render(result.gaussians)) - image).mean(), rtol=1e-4
  )
  with pytest.raises(ValueError, match="squared"):
    gaussjax.save(tmp_path / "set.npz", result.gaussians)
  with pytest.raises(ValueError, match="squared"):
    gaussjax.encode(result.gaussians)
  again = functools.partial(gaussjax.fit, image, num_gaussians=9, stop=gaussjax.Stop(max_steps=2))
  with pytest.raises(ValueError, match="gaussjax.Blend"):
    again(preset=recipe._replace(blend=lambda *parts: None))


SHARDED = """
import functools, sys
import jax, jax.numpy as jnp, numpy as np
import gaussjax
from gaussjax.rendering import renderer, scanlines
from scenes import scene
sets = [scene(30, seed=seed) for seed in range(2)]
plain = jax.jit(jax.grad(lambda gaussians: jnp.mean(jnp.square(gaussjax.render(gaussians)))))
expected = [plain(one) for one in sets]
if sys.argv[1] == "tiles":
  renderer.DENSE_EVALUATIONS = 0
  scanlines.serves = lambda *_: False
mesh = jax.make_mesh((2,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
like = gaussjax.allocate(sets[0])
like = gaussjax.allocate(sets[1], like=like)
neighbors = [gaussjax.allocate(one, like=like) for one in sets]
assert like.renderer == sys.argv[1]
def loss(gaussians, neighbors):
  neighbors, _ = gaussjax.refresh(gaussians, neighbors)
  return jnp.mean(jnp.square(gaussjax.render(gaussians, neighbors=neighbors)))
stack = lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
spec = jax.sharding.PartitionSpec("devices")
both = jax.shard_map(jax.vmap(jax.grad(loss)), mesh=mesh, in_specs=spec, out_specs=spec)
found = jax.jit(both)(stack(sets), stack(neighbors))
for i in range(2):
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected[i]), strict=True):
    np.testing.assert_allclose(a[i], b, atol=1e-4 * np.abs(b).max())
"""


@pytest.mark.parametrize("drawn_by", ["tiles", "scanlines"])
def test_neighbours_work_under_shard_map(drawn_by):
  """On two virtual devices, which a process must ask for before it starts."""
  environment = {
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
  }
  done = subprocess.run(
    [sys.executable, "-c", SHARDED, drawn_by], env=os.environ | environment, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
