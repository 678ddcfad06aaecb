"""The kernels of NVIDIA Warp draw what the oracle and the dense renderer draw, on Warp's CPU device.

They need the extra `gaussjax[warp]`, which the tests' environment does without: pip install warp-lang to run these.
"""

import dataclasses
import functools
import os
import re
import struct
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from scenes import densely, draw_densely, removal_cost, scene

import gaussjax
from gaussjax import geometry
from gaussjax.rendering import blends, renderer, tiles

wp = pytest.importorskip("warp", reason="the extra gaussjax[warp] is not installed")

from gaussjax.rendering import warp_kernels  # noqa: E402

wp.config.kernel_cache_dir = os.path.join(os.environ["XDG_CACHE_HOME"], "warp")


def by_warp(gaussians, neighbors=None):
  return renderer.rasterizer(gaussians, neighbors or renderer.allocate(gaussians, renderer="warp"))


def weigh(picture):
  """A loss in which every pixel counts differently."""
  weights = np.random.default_rng(0).normal(size=picture.shape)
  return jnp.sum(picture * jnp.asarray(weights, jnp.float32))


@functools.partial(jax.jit, static_argnums=0)
def drawn(rasterizer_of, gaussians, *neighbors):
  """(the picture, the gradient of `weigh`)."""

  def loss(gaussians):
    picture = blends.picture(gaussians, rasterizer_of(gaussians, *neighbors))
    return weigh(picture), picture

  (_, picture), gradient = jax.value_and_grad(loss, has_aux=True)(gaussians)
  return picture, gradient


def close(found, expected):
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, atol=3e-5 * max(1, np.abs(b).max()))


SCENES = {
  "weighted average, tiles cut by the border": (60, 37, 53),
  "sum": (60, 37, 53, {"blend": blends.accumulated_sum}),
  "slopes": (60, 37, 53, {"sloped": True}),
  "one channel, narrow cut-off": (40, 21, 16, {"channels": 1, "cutoff": 2.5}),
  "32 channels": (20, 33, 17, {"channels": 32}),
  "at the floor, most tiles empty": (30, 70, 90, {"log_scale": (-3.0, 1.0)}),
  "larger than the picture": (20, 40, 20, {"log_scale": (4.0, 1.0)}),
  "needles": (40, 40, 70, {"log_scale": (0.5, 1.8)}),
  "one Gaussian": (1, 20, 20),
  "one pixel": (3, 1, 1),
  "one row": (9, 1, 70),
}


@pytest.mark.parametrize("name", SCENES)
def test_the_picture_and_its_gradient(name):
  *sizes, options = SCENES[name] if isinstance(SCENES[name][-1], dict) else (*SCENES[name], {})
  gaussians = scene(*sizes, **options)
  picture, found = drawn(by_warp, gaussians, renderer.allocate(gaussians, renderer="warp"))
  np.testing.assert_allclose(picture, oracle.render(gaussians), atol=2e-5)
  close(found, drawn(densely, gaussians)[1])


@pytest.mark.parametrize("field", ["means", "shape", "colors", "log_weights", "slopes"])
def test_gradients_are_those_of_finite_differences(field):
  """Of the oracle in float64, in a random direction; the cut-off is so far out that its step is below rounding."""
  gaussians = scene(12, 20, 26, cutoff=6.0, sloped=True)
  _, gradient = drawn(by_warp, gaussians, renderer.allocate(gaussians, renderer="warp"))
  rng = np.random.default_rng(1)
  leaves, tree = jax.tree.flatten(getattr(gaussians, field))
  ways = [rng.normal(size=leaf.shape) for leaf in leaves]
  weights = np.random.default_rng(0).normal(size=(20, 26, 3))

  def at(step):
    moved = [np.asarray(leaf, np.float64) + step * way for leaf, way in zip(leaves, ways, strict=True)]
    return np.sum(weights * oracle.render(gaussians._replace(**{field: tree.unflatten(moved)})))

  expected = (at(1e-5) - at(-1e-5)) / 2e-5
  found = sum(np.sum(a * way) for a, way in zip(jax.tree.leaves(getattr(gradient, field)), ways, strict=True))
  np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_blocks_of_many_threads_find_the_same(monkeypatch):
  """As on a GPU: 128 threads for each Gaussian, whose sums are reduced. Warp runs them as fibers."""
  gaussians = scene(25, 37, 53)
  monkeypatch.setattr(wp.config, "enable_cpu_blocks", True)
  picture, found = drawn(lambda *on: by_warp(*on), gaussians, renderer.allocate(gaussians, renderer="warp"))
  np.testing.assert_allclose(picture, oracle.render(gaussians), atol=2e-5)
  close(found, drawn(densely, gaussians)[1])


def test_what_removal_costs():
  gaussians = scene(50, 37, 53)
  picture = np.asarray(draw_densely(gaussians))
  noise = np.random.default_rng(0).normal(size=picture.shape)
  target = np.clip(picture + 0.1 * noise, 0, 1).astype(np.float32)
  neighbors = renderer.allocate(gaussians, renderer="warp")
  found, expected = (
    np.asarray(removal_cost(by, gaussians, target)) for by in (lambda g: by_warp(g, neighbors), densely)
  )
  assert ((found == -np.inf) == (expected == -np.inf)).all() and (expected == -np.inf).any()
  np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected[expected > -np.inf]).max())


def test_a_stack_is_one_launch_and_like_each_alone():
  sets = [scene(30, seed=seed) for seed in range(3)]
  like = renderer.allocate(sets[0], renderer="warp")
  like = dataclasses.replace(like, lists=tiles.empty(geometry.geometry(sets[0]), 24, 31, size=900))
  neighbors = [renderer.allocate(one, like=like) for one in sets]
  stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
  both = jax.jit(jax.vmap(functools.partial(drawn, by_warp)))
  pictures, gradients = both(stack(sets), stack(neighbors))
  for i, one in enumerate(sets):
    np.testing.assert_allclose(pictures[i], oracle.render(one), atol=2e-5)
    close(jax.tree.map(lambda leaf, i=i: leaf[i], gradients), drawn(densely, one)[1])
  text = jax.jit(jax.vmap(lambda g, n: drawn(by_warp, g, n)[0])).lower(stack(sets), stack(neighbors)).as_text()
  assert text.count("custom_call @gaussjax_draw") == 1


def test_it_draws_where_it_is_asked_for(monkeypatch):
  gaussians = scene(40, blend=blends.alpha_composite)
  neighbors = renderer.allocate(gaussians, renderer="warp")
  # What is ordered is composited over the same lists.
  np.testing.assert_allclose(gaussjax.render(gaussians, neighbors=neighbors), oracle.render(gaussians), atol=2e-5)
  assert renderer.allocate(scene(40)).renderer != "warp"
  monkeypatch.setattr(renderer, "BY_DEFAULT", ("warp",))
  assert renderer.allocate(scene(40)).renderer == "warp"
  np.testing.assert_allclose(jax.jit(gaussjax.render)(scene(40)), oracle.render(scene(40)), atol=2e-5)
  image = np.clip(np.asarray(draw_densely(scene(6, 32, 40, log_scale=(1.8, 0.3)))), 0, 1)
  fitted = gaussjax.fit(image, num_gaussians=20, preset="fast", stop=gaussjax.Stop(max_steps=21))
  assert fitted.state.neighbors.renderer == "warp"
  np.testing.assert_allclose(gaussjax.render(fitted.gaussians), oracle.render(fitted.gaussians), atol=1e-4)
  gain = fitted.history[-1]["psnr"] - fitted.history[0]["psnr"]
  assert gain > 1, gain
  with pytest.raises(ValueError, match="float32, where Warp"), jax.enable_x64(True):
    renderer.allocate(scene(5, dtype=np.float64), renderer="warp")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["means", "colors"])
def test_a_bad_number_is_seen(field, bad):
  gaussians = scene(30)
  gaussians = gaussians._replace(means=gaussians.means.at[3].set(9.0))
  gaussians = gaussians._replace(**{field: getattr(gaussians, field).at[3, 1].set(bad)})
  neighbors = renderer.allocate(gaussians, renderer="warp")
  _, gradient = drawn(by_warp, gaussians, neighbors)
  assert not jnp.isfinite(jax.jit(lambda g, n: gaussjax.render(g, neighbors=n))(gaussians, neighbors)).all()
  assert not all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_none_and_none_in_sight_are_the_background():
  gaussians = scene(5)
  for unseen in (gaussjax.take(gaussians, []), gaussians._replace(means=gaussians.means + 1e6)):
    picture, gradient = drawn(by_warp, unseen, renderer.allocate(unseen, renderer="warp"))
    np.testing.assert_allclose(picture, jnp.broadcast_to(unseen.canvas.background, picture.shape))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient._replace(canvas=None)))


FRAME_SIZE = 0x11  # of a function's stack, among the attributes that NVIDIA's compiler writes


def frames(binary):
  """Bytes of stack of each function of a compiled module, from its section .nv.info."""
  (start,), (size, count, names) = struct.unpack_from("<Q", binary, 40), struct.unpack_from("<HHH", binary, 58)
  sections = [struct.unpack_from("<IIQQQQ", binary, start + size * i) for i in range(count)]
  text = binary[sections[names][4] :]
  (info,) = (s for s in sections if text[s[0] : text.index(b"\0", s[0])] == b".nv.info")
  at, end = info[4], info[4] + info[5]
  while at < end:
    kind, attribute, length = struct.unpack_from("<BBH", binary, at)
    if attribute == FRAME_SIZE:
      yield struct.unpack_from("<II", binary, at + 4)[1]
    at += 4 + (length if kind == 4 else 0)


@pytest.mark.parametrize("architecture", [80, 90, 120])
def test_kernels_compile_for_a_gpu_without_one(architecture, tmp_path):
  """To programs that keep all sums in registers."""
  for one in warp_kernels.of_length(4):
    (path,) = wp.compile_aot_module(one.module, arch=architecture, module_dir=tmp_path, use_ptx=False)
    assert path.suffix == ".cubin" and path.read_bytes().startswith(b"\x7fELF")
    found = list(frames(path.read_bytes()))
    assert found and not any(found), found
    assert path.with_name(f"{path.name.split('.')[0]}.cu").read_text().count("atomic_add") == 0


def test_a_step_is_lowered_for_cuda_without_one():
  """No callback to Python beside Warp's launches, of which there are two."""
  gaussians = scene(40)
  neighbors = renderer.allocate(gaussians, renderer="warp")
  traced = jax.jit(lambda *on: drawn(by_warp, *on)).trace(gaussians, neighbors)
  text = traced.lower(lowering_platforms=("cuda",)).as_text()
  called = sorted(re.findall(r"custom_call @(\w+)", text))
  assert len(called) == 2 and called[0].startswith("gaussjax_draw_4") and "gradient_4" in called[1], called


CACHED = """
import sys
import jax, numpy as np
import oracle
from gaussjax.rendering import renderer
from scenes import scene
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if "cache_hit" in name else None)
gaussians = scene(60, 37, 53, cutoff=float(sys.argv[1]))
neighbors = renderer.allocate(scene(60, 37, 53), renderer="warp")  # of a support that holds both
found = jax.jit(lambda g, n: renderer.rasterizer(g, n).splat(g.colors))(gaussians, neighbors)
expected = np.einsum("nhw,nc->hwc", oracle.weights(gaussians), np.asarray(gaussians.colors, np.float64))
np.testing.assert_allclose(found, expected, atol=2e-5)
print(len(hits))
"""


def test_a_program_from_the_cache_draws_with_the_numbers_of_its_process(tmp_path):
  """What is no array is not in XLA's program, which is found again for another cut-off too."""
  found = []
  for cutoff in ("3.5", "2.5"):
    environment = os.environ | {
      "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
      "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-c", CACHED, cutoff]
    found.append(int(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout))
  assert found[0] == 0 and found[1] > 0
