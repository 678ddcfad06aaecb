"""Native code draws what the dense renderer draws: values, gradients, what removals cost, on any machine."""

import functools
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from scenes import LINEAR_BLENDS, densely, draw_densely, scene
from scipy import ndimage

import gaussjax
from gaussjax import geometry, startup
from gaussjax.fitting import density, loop, recipes
from gaussjax.rendering import bands, blends, kernel, renderer, scanlines

TESTS = Path(__file__).parent

if not (shutil.which("c++") or shutil.which("g++")) and not scanlines.available():
  pytest.skip("built only where there is a C++ compiler", allow_module_level=True)


def by_scanlines(gaussians):
  canvas = gaussians.canvas
  tau = kernel.tail(canvas.cutoff)
  return scanlines.scanlines(geometry.geometry(gaussians), canvas.height, canvas.width, tau=tau)


def drawn(rasterizer_of, gaussians):
  """(the picture, the gradient of a loss in which every pixel counts differently)."""
  rng = np.random.default_rng(0)
  canvas = gaussians.canvas
  image = jnp.asarray(rng.normal(size=(canvas.height, canvas.width, gaussians.colors.shape[1])), jnp.float32)

  def loss(gaussians):
    picture = blends.picture(gaussians, rasterizer_of(gaussians))
    return jnp.sum(picture * image), picture

  (_, picture), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(gaussians)
  return picture, jax.tree.leaves(gradient)


@pytest.fixture(params=[4, 8, 16])
def lanes(request, monkeypatch):
  """As on machines with vectors of so many numbers."""
  monkeypatch.setattr(scanlines, "LANES", request.param)


# Not made before a test asks, since the processes that tests start import this file.
later = functools.partial(functools.partial, scene)
SCENES = {
  "weighted average": later(60, 37, 53),
  "sum": later(60, 37, 53, blend=LINEAR_BLENDS[1]),
  "one channel, narrow cut-off": later(40, 21, 16, channels=1, cutoff=2.5),
  "more channels than one walk takes": later(40, 33, 17, channels=9),
  "at the floor": later(200, 40, 64, log_scale=(-3.0, 1.0)),
  "larger than the picture": later(20, 40, 20, log_scale=(4.0, 1.0)),
  # Not thinner: at the cut-off the gradient steps by tau, and rounding says on which side of it a pixel is.
  "needles": later(40, 40, 70, log_scale=(0.5, 1.8)),
  "one pixel": later(3, 1, 1),
  "one row": later(9, 1, 70),
  "one column": later(9, 70, 1),
}


@functools.cache
def expected_of(name):
  """The gradient by the dense renderer, for which lanes are nothing."""
  return drawn(densely, SCENES[name]())[1]


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize("name", SCENES)
def test_the_picture_and_its_gradient(name):
  gaussians = SCENES[name]()
  picture, found = drawn(by_scanlines, gaussians)
  np.testing.assert_allclose(picture, oracle.render(gaussians), atol=2e-5)
  expected = expected_of(name)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=3e-5 * max(1, np.abs(b).max()))


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize("sloped", [False, True])
@pytest.mark.parametrize(("channels", "first"), [(1, 0), (3, 33), (6, 0)])
def test_the_mean_square_error_in_one_walk(channels, first, sloped):
  """The gradient by the background too; rows before the first count as alike."""
  gaussians = scene(60, 70, 53, channels=channels, sloped=sloped)
  target = jnp.asarray(np.random.default_rng(0).uniform(size=(70, 53, channels)), jnp.float32)
  of = lambda rasterizer_of: jax.jit(
    jax.value_and_grad(lambda g: 3 * blends.mean_square(g, rasterizer_of(g), target, first))
  )
  (found, gradient), (expected, true) = of(by_scanlines)(gaussians), of(densely)(gaussians)
  squares = np.square(oracle.render(gaussians) - target)[first:].sum() / target.size
  np.testing.assert_allclose([found, expected], 3 * squares, rtol=1e-5)
  assert np.abs(true.canvas.background).min() > 0
  for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(true), strict=True):
    np.testing.assert_allclose(a, b, atol=3e-5 * np.abs(b).max())
  broken = gaussians._replace(means=gaussians.means.at[3].set(jnp.nan))
  assert np.isnan(of(by_scanlines)(broken)[0])


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize("sloped", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 6, 7])
def test_what_removal_costs(channels, sloped):
  gaussians = scene(50, 37, 53, channels=channels, sloped=sloped)
  picture = np.asarray(draw_densely(gaussians))
  noise = np.random.default_rng(0).normal(size=picture.shape)
  target = np.clip(picture + 0.1 * noise, 0, 1).astype(np.float32)
  cost = lambda rasterizer: jax.jit(lambda g: density.removal_cost(g, rasterizer(g), picture, target))(gaussians)
  found, expected = (np.asarray(cost(rasterizer)) for rasterizer in (by_scanlines, densely))
  assert ((found == -np.inf) == (expected == -np.inf)).all() and (expected == -np.inf).any()
  np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected[expected > -np.inf]).max())


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize("size", [(70, 101, 3), (161, 130, 1), (3, 16, 4)])
def test_the_blurs_that_gain_most(size):
  rng, scales = np.random.default_rng(0), np.array([0.7, 1.9, 4.1, 9.0, 21.0], np.float32)
  residual = (rng.normal(size=size) + rng.normal(size=(1, size[1], 1))).astype(np.float32)  # has no favourite scale
  by_scale = np.stack([ndimage.gaussian_filter(residual, (scale, scale, 0), mode="constant") for scale in scales])
  gains = 4 * np.pi * scales[:, None, None] ** 2 * np.sum(by_scale**2, axis=-1)
  for several in ([0, 1], [2], [3], [4], [0, 1, 2, 3, 4]):
    found = jax.jit(density.best_blurs)(jnp.asarray(residual), jnp.asarray(scales[several]))
    gain, which, blurred = map(np.asarray, found)
    most = gains[several].max(axis=0)
    np.testing.assert_allclose(gain, most, atol=0.02 * most.max())
    expected = np.take_along_axis(by_scale[several], which[None, ..., None], 0)[0]
    np.testing.assert_allclose(blurred, expected, atol=0.01 * np.abs(expected).max())
    assert np.mean(which == gains[several].argmax(axis=0)) > 0.98
  assert scanlines.best_blurs(jnp.zeros((9, scanlines.LANES - 1, 1)), jnp.ones(1)) is None
  broken = jax.jit(density.best_blurs)(jnp.full(size, jnp.nan), jnp.asarray(scales))
  assert not np.any(broken[1]) and not np.any(broken[2]) and np.all(broken[0] == -np.inf)


def test_it_is_what_draws_where_it_serves():
  gaussians = scene(50)
  assert renderer.allocate(gaussians).renderer == "scanlines"
  assert renderer.allocate(scene(50, blend=blends.alpha_composite)).renderer == "dense"
  assert renderer.allocate(scene(50), renderer="tiles").lists is not None
  np.testing.assert_allclose(jax.jit(gaussjax.render)(gaussians), oracle.render(gaussians), atol=1e-5)
  own = gaussjax.Blend("own", lambda on, colors, background: on.composite(colors, colors[:, 0])[0])
  with pytest.raises(ValueError, match="ordered=True"):
    gaussjax.render(scene(5, blend=own))
  for asked, words in (("scanlines", "float32"), ("fast", "one of")):
    with pytest.raises(ValueError, match=words):
      renderer.allocate(scene(5, blend=blends.alpha_composite), renderer=asked)


def test_a_stack_of_sets_is_drawn_like_each_alone():
  sets = [scene(30, seed=seed) for seed in range(3)]
  stack = jax.tree.map(lambda *leaves: np.stack(leaves), *sets)
  loss = lambda gaussians: jnp.sum(jnp.square(gaussjax.render(gaussians)))
  gradients, alone = jax.jit(jax.vmap(jax.grad(loss)))(stack), jax.jit(jax.grad(loss))
  for i, one in enumerate(sets):
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(alone(one)), strict=True):
      np.testing.assert_allclose(a[i], b, atol=1e-4 * np.abs(b).max())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["means", "colors"])
def test_a_bad_number_is_seen(field, bad):
  gaussians = scene(30)
  gaussians = gaussians._replace(means=gaussians.means.at[3].set(9.0))
  gaussians = gaussians._replace(**{field: getattr(gaussians, field).at[3, 1].set(bad)})
  picture, gradient = drawn(by_scanlines, gaussians)
  assert not jnp.isfinite(picture).all()
  assert not all(jnp.isfinite(leaf).all() for leaf in gradient)


def test_no_gaussians_and_none_in_sight_are_the_background():
  gaussians = scene(5)
  far = gaussians._replace(means=gaussians.means + 1e6)
  for unseen in (gaussjax.take(gaussians, []), far):
    picture, (*gradient, _) = drawn(by_scanlines, unseen)
    np.testing.assert_allclose(picture, jnp.broadcast_to(unseen.canvas.background, picture.shape))
    assert all((leaf == 0).all() for leaf in gradient)


DIGEST = """
import hashlib, os, sys
cores = sorted(os.sched_getaffinity(0))
os.sched_setaffinity(0, cores[: int(sys.argv[1])])
import jax
from test_scanlines import by_scanlines, drawn
from scenes import scene
leaves = jax.tree.leaves(drawn(by_scanlines, scene(500, 150, 90)))
print(hashlib.sha256(b"".join(bytes(memoryview(leaf)) for leaf in leaves)).hexdigest())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are pinned on Linux")
def test_the_bits_do_not_depend_on_the_number_of_cores():
  run = functools.partial(subprocess.run, capture_output=True, text=True, check=True)
  environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
  one, all_cores = (run([sys.executable, "-c", DIGEST, n], env=environment).stdout for n in ("1", "64"))
  assert one == all_cores and one


def test_band_by_band_is_the_whole(monkeypatch):
  """Also where the last band begins within the one before it, and for a background that is fitted."""
  gaussians, recipe = scene(60, 50, 31), recipes.Recipe()
  target = jax.random.uniform(jax.random.key(0), (50, 31, 3))
  neighbors = renderer.allocate(gaussians)

  def found():
    loss = jax.value_and_grad(lambda g: recipes.distortion(recipe.loss, g, neighbors, target))
    state = loop.State(gaussians, None, 0, 0, neighbors)
    # Not the sampled median: bands sample other pixels.
    return jax.jit(loss)(gaussians), recipes._measure(recipe.loss, state, target) | {"w_median": 0}

  whole = found()
  assert bands.split(neighbors) == (1, 50)
  monkeypatch.setattr(bands, "BAND_PIXELS", 12 * 31)
  jax.clear_caches()
  assert bands.split(neighbors) == (5, 12)
  for a, b in zip(jax.tree.leaves(found()), jax.tree.leaves(whole), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5)


def test_code_for_a_later_interface_is_left_alone(monkeypatch):
  """XLA would have no devices at all."""
  native = sys.modules["gaussjax.rendering._scanlines"]
  assert startup.interface_of_xla() >= (native.API_MAJOR, native.API_MINOR)
  monkeypatch.setattr(native, "API_MINOR", 10_000)
  assert scanlines._native.__wrapped__() is None


MESH = """
import sys
import jax, numpy as np
jax.distributed.initialize(f"localhost:{sys.argv[1]}", 2, int(sys.argv[2]))
import gaussjax
assert jax.device_count() == 8 and jax.local_device_count() == 4
rows, columns = np.mgrid[:61, :40]
image = np.stack([np.sin(columns / 9) * np.cos(rows / 7) / 2 + 0.5, columns / 40, rows / 61], -1)
mesh = jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
fit = lambda **on: gaussjax.fit(
  image.astype(np.float32), num_gaussians=40, stop=gaussjax.Stop(max_steps=12), **{"preset": "fast"} | on
)
alone, shared = fit(), fit(mesh=mesh)
for a, b in zip(alone.history, shared.history, strict=True):
  np.testing.assert_allclose(b["loss"], a["loss"], rtol=1e-4)
for a, b in zip(jax.tree.leaves(alone.gaussians), jax.tree.leaves(shared.gaussians), strict=True):
  np.testing.assert_allclose(np.asarray(b), np.asarray(a), atol=1e-2)
assert len(shared.gaussians.means.sharding.device_set) == 8
try:
  fit(mesh=mesh, preset=gaussjax.Recipe(loss=gaussjax.losses.dssim))
except ValueError as error:
  assert "PIXELWISE" in str(error)
else:
  raise AssertionError("a loss that does not go by pixels was shared out")
"""


def test_eight_devices_of_two_processes_share_out_a_picture():
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = str(free.getsockname()[1])
  environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "PYTHONPATH": str(TESTS.parent)}
  start = functools.partial(subprocess.Popen, env=os.environ | environment, stderr=subprocess.PIPE, text=True)
  both = [start([sys.executable, "-c", MESH, port, index]) for index in ("0", "1")]
  try:
    said = [process.communicate(timeout=400)[1] for process in both]
  finally:
    for process in both:
      process.kill()
  assert [process.returncode for process in both] == [0, 0], said
