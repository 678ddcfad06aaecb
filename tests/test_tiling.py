"""The fast renderer draws what the dense one draws: values, gradients, whatever the age of its lists."""

import dataclasses
import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from scenes import BLENDS, PARAMETERIZATIONS, densely, draw_densely, removal_cost, scene

import gaussjax
from gaussjax import geometry
from gaussjax.fitting import optimizers, recipes
from gaussjax.rendering import blends, dense, kernel, renderer, splat, tiles, warp

CUTOFF = 3.5
TAU = kernel.tail(CUTOFF)
PLACE = jax.jit(geometry.geometry)
UPDATE = jax.jit(functools.partial(tiles.update, cutoff=CUTOFF))
REFRESH = jax.jit(functools.partial(tiles.refresh, cutoff=CUTOFF))

# Most tests draw sets of one size at one size, which are no multiples of anything, so that they share programs.
usual = functools.partial(scene, 40, 37, 53)


def lists_of(gaussians, *, tile=tiles.TILE, skin=0.0):
  canvas = gaussians.canvas
  placed = PLACE(gaussians)
  ordered = canvas.blend.ordered
  like = tiles.empty(placed, canvas.height, canvas.width, tile=tile, max_blocks=int(ordered))
  return tiles.allocate(placed, like, cutoff=canvas.cutoff, skin=skin)


@jax.jit
def draw_tiled(gaussians, lists):
  placed = geometry.geometry(gaussians)
  return blends.picture(gaussians, splat.tiled(placed, lists, tau=kernel.tail(gaussians.canvas.cutoff)))


@functools.partial(jax.jit, static_argnums=0)
def picture_and_gradient(draw, cotangent, gaussians, *lists):
  """The picture, and the gradient of its product with `cotangent`."""

  def total(gaussians):
    picture = draw(gaussians, *lists)
    return jnp.sum(cotangent * picture), picture

  (_, picture), gradient = jax.value_and_grad(total, has_aux=True)(gaussians)
  return picture, gradient


def assert_same(gaussians, *several_lists, value_atol=1e-5, gradient_rtol=1e-4):
  """Values to rounding, and each field's gradient of a random linear function to its norm."""
  canvas = gaussians.canvas
  shape = (canvas.height, canvas.width, gaussians.colors.shape[1])
  cotangent = jnp.asarray(np.random.default_rng(1).normal(size=shape), gaussians.means.dtype)
  expected, expected_gradient = picture_and_gradient(draw_densely, cotangent, gaussians)
  for lists in several_lists:
    found, gradient = picture_and_gradient(draw_tiled, cotangent, gaussians, lists)
    np.testing.assert_allclose(found, expected, atol=value_atol)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
      assert np.linalg.norm(a - b) <= gradient_rtol * max(np.linalg.norm(b), 1e-3)


TABLE = {
  "one pixel": scene(3, 1, 1),
  "one row": scene(9, 1, 70),
  "not multiples of the tile": usual(),
  "multiples of the tile": scene(40, 32, 48),
  "one gaussian": scene(1, 40, 40, log_scale=(2, 0.5)),
  "at the floor": usual(log_scale=(-3, 0.5)),
  "beyond the image": usual(log_scale=(5, 0.5)),
  "crowded": scene(400, 20, 20, log_scale=(1, 0.5)),
  "sum": usual(blend=BLENDS[1]),
  "ordered and crowded": scene(150, 20, 20, blend=BLENDS[2]),
  "cholesky": usual(parameterize=PARAMETERIZATIONS[1]),
  "log cholesky": usual(parameterize=PARAMETERIZATIONS[2]),
  "narrow cut-off": usual(cutoff=2.0),
  **{f"{channels} channels": usual(channels=channels) for channels in (1, 8)},
}


@pytest.mark.parametrize("case", TABLE)
def test_tiled_is_dense(case):
  assert_same(TABLE[case], lists_of(TABLE[case]))


@pytest.mark.parametrize(
  ("tile", "blend"), [((8, 8), BLENDS[0]), ((64, 64), BLENDS[0]), ((5, 19), BLENDS[1]), ((5, 19), BLENDS[2])]
)
def test_for_every_tile_and_skin(blend, tile):
  gaussians = usual(blend=blend)
  wide = lists_of(gaussians, tile=tile, skin=3.0)
  narrow = tiles.allocate(PLACE(gaussians), wide, cutoff=CUTOFF)
  assert narrow.required[1] < wide.required[1] or tile == (64, 64)
  assert_same(gaussians, wide, narrow)


def test_at_extreme_aspect_ratios():
  """1:200, against float64, since there the dense renderer has rounding errors of its own."""
  aspect = 200
  gaussians = usual()
  log_scales = np.float32([[np.log(0.5 * aspect), np.log(0.5)]] * 40)
  gaussians = gaussians._replace(shape=gaussians.shape._replace(log_scales=log_scales))
  np.testing.assert_allclose(draw_tiled(gaussians, lists_of(gaussians)), oracle.render(gaussians), atol=2e-4)
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), gaussians)
    assert_same(wide, lists_of(wide), value_atol=1e-12, gradient_rtol=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_lists_hold_each_tile_that_a_support_meets_and_no_other(seed):
  gaussians = scene(60, 45, 70, seed=seed, log_scale=(1, 1))
  lists = jax.tree.map(np.asarray, lists_of(gaussians))
  weights = oracle.weights(gaussians) > 1e-6
  listed = np.zeros((60, 3, 5), bool)
  for tile in range(15):
    listed[lists.ids[lists.starts[tile] : lists.starts[tile + 1]], tile // 5, tile % 5] = True
  met = np.pad(weights, ((0, 0), (0, 3), (0, 10))).reshape(60, 3, 16, 5, 16).any((2, 4))
  assert not (met & ~listed).any()
  # The rest meet the rectangle of a tile's pixel centres between its pixels, or beyond the image.
  assert (listed & ~met).sum() < 0.15 * met.sum()


def test_lists_built_on_the_host_are_those_built_within_jit():
  gaussians = scene(300, 85, 130)
  host = lists_of(gaussians, skin=0.7)
  jitted = UPDATE(PLACE(gaussians), host, jnp.float32(0.7))
  assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), host) == jax.tree.map(
    lambda leaf: (leaf.shape, leaf.dtype), jitted
  )
  host, jitted = jax.tree.map(np.asarray, (host, jitted))
  for name in ("starts", "order", "required", "means"):
    np.testing.assert_array_equal(getattr(host, name), getattr(jitted, name))
  used = host.required[1]
  np.testing.assert_array_equal(host.ids[:used], jitted.ids[:used])
  for name in ("roots", "skins"):
    np.testing.assert_allclose(getattr(host, name), getattr(jitted, name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("field", ["means", "log_scales"])
def test_a_bad_number_is_listed_where_it_will_be_seen(field):
  gaussians = usual()
  value = np.array(gaussians.means if field == "means" else gaussians.shape.log_scales)
  value[3] = np.nan
  if field == "means":
    bad = gaussians._replace(means=value)
  else:
    bad = gaussians._replace(shape=gaussians.shape._replace(log_scales=value))
  lists = lists_of(bad)
  assert 3 in np.asarray(lists.ids)[: lists.starts[1]]
  assert jnp.isnan(draw_tiled(bad, lists)).any()


def test_lists_stay_exact_until_outrun():
  gaussians = usual()
  lists = lists_of(gaussians, skin=1.0)
  shift = np.random.default_rng(0).uniform(-0.6, 0.6, (40, 2)).astype(np.float32)
  within = gaussians._replace(means=np.asarray(gaussians.means) + shift)
  drift = jax.jit(functools.partial(tiles.drift, cutoff=CUTOFF))
  assert (drift(PLACE(within), lists) <= lists.skins).all()
  assert_same(within, lists)


@pytest.mark.parametrize("change", ["means", "log_scales", "thetas"])
def test_refresh_notices_every_kind_of_change(change):
  gaussians = usual()
  fields = {"means": gaussians.means, **gaussians.shape._asdict()}
  fields = {name: np.array(field) for name, field in fields.items()}
  made_of = lambda means, **shape: gaussians._replace(means=means, shape=gaussians.shape._replace(**shape))
  fields["log_scales"][7] = [2.5, 0]
  gaussians = made_of(**fields)
  neighbors = tiles.Neighbors(lists_of(gaussians, skin=1.0), jnp.float32(1.0), jnp.int32(0), 48, 64)
  kept, _ = REFRESH(PLACE(gaussians), neighbors)
  assert kept.age == 1 and kept.skin == 1.0
  changed = fields[change].copy()
  changed[7] += 9 if change == "means" else 1
  moved = made_of(**fields | {change: changed})
  fresh, overflow = REFRESH(PLACE(moved), kept)
  if not overflow:
    assert fresh.age == 1 and fresh.skin != 1.0
    assert_same(moved, fresh.lists)
  bad = np.array(moved.means)
  bad[0] = np.nan
  stale, _ = REFRESH(PLACE(moved._replace(means=bad)), kept)
  assert stale.age == 1  # a NaN counts as stale


def test_overflow_is_seen_and_mended():
  few, many = usual(log_scale=(0, 0.1)), usual(log_scale=(6, 0.1))
  placed = PLACE(few)
  lists = tiles.allocate(placed, tiles.empty(placed, 37, 53, size=150), cutoff=CUTOFF)
  assert lists.ids.shape == (150,) and not tiles.overflowed(lists)
  crowded = UPDATE(PLACE(many), lists, jnp.float32(0))
  assert tiles.overflowed(crowded)
  grown = tiles.allocate(PLACE(many), lists, cutoff=CUTOFF)
  assert grown.ids.shape[0] >= 400 and not tiles.overflowed(grown)
  assert_same(many, grown)


@pytest.mark.parametrize("log_scale", [0, 1.5, 3])
def test_the_first_lists_are_large_enough(log_scale):
  gaussians = scene(800, 300, 500, log_scale=(log_scale, 0.7))
  means = np.array(gaussians.means)
  means[:50] = geometry.PARKED
  gaussians = gaussians._replace(means=means)
  placed = PLACE(gaussians)
  expected = tiles.expected_pairs(placed, 300, 500, cutoff=CUTOFF)
  assert expected == pytest.approx(int(lists_of(gaussians).required[1]), rel=0.05)


def test_more_pairs_than_any_memory_holds_are_refused(monkeypatch, over_lists):
  monkeypatch.setattr(tiles, "MAX_PAIRS", 10_000)
  with pytest.raises(ValueError, match="expected fewer or smaller"):
    lists_of(scene(701, 64, 64, log_scale=(12, 0.1)))
  with pytest.raises(ValueError, match="expected fewer or smaller"):
    gaussjax.render(scene(701, 64, 64, log_scale=(12, 0.1)))
  counts = jnp.full(70_001, 2**20, jnp.int32)  # 7e10, which wraps in 32 bits
  assert tiles.saturating_sum(counts) == 10_001


def operands():
  """(a placed set, values of its Gaussians, an image, lists)."""
  gaussians, rng = usual(), np.random.default_rng(0)
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return PLACE(gaussians), normal(40, 2), normal(37, 53, 2), lists_of(gaussians)


def test_the_adjoint():
  placed, values, image, lists = operands()
  densely = lambda values, placed: dense.dense(placed, 37, 53, tau=TAU).splat(values)
  pull = jax.jit(lambda values, placed, image: jax.vjp(densely, values, placed)[1](image)[0])
  pulled = jax.jit(splat.splat_adjoint, static_argnums=3)(placed, image, lists, TAU)
  np.testing.assert_allclose(pulled, pull(values, placed, image), atol=1e-4)
  drawn = jax.jit(splat.splat, static_argnums=3)(placed, values, lists, TAU)
  np.testing.assert_allclose(np.vdot(drawn, image), np.vdot(values, pulled), rtol=1e-4)


def test_the_composite_wants_lists_made_for_it():
  placed, values, _, lists = operands()
  with pytest.raises(ValueError, match="max_blocks"):
    splat.composite(placed, values, jnp.ones(40), lists, TAU)


@pytest.mark.parametrize("blend", [BLENDS[0], BLENDS[2]])
def test_a_stack_of_sets_is_drawn_like_each_alone(blend):
  sets = [usual(blend=blend, seed=seed) for seed in range(3)]
  like = lists_of(sets[0])
  for one in sets:
    like = tiles.allocate(PLACE(one), like, cutoff=CUTOFF)
  lists = [tiles.allocate(PLACE(one), like, cutoff=CUTOFF) for one in sets]
  stack = lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

  def total(gaussians, lists):
    picture = draw_tiled(gaussians, lists)
    return jnp.sum(jnp.square(picture)), picture

  gradient = jax.grad(total, has_aux=True)
  gradients, pictures = jax.jit(jax.vmap(gradient))(stack(sets), stack(lists))
  alone = jax.jit(gradient)
  for i, one in enumerate(sets):
    np.testing.assert_allclose(pictures[i], draw_densely(one), atol=1e-5)
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(alone(one, lists[i])[0]), strict=True):
      np.testing.assert_allclose(a[i], b, atol=1e-4 * np.abs(b).max())


def target(height=48, width=64, seed=0):
  return np.clip(np.asarray(draw_densely(scene(12, height, width, log_scale=(2.2, 0.5), seed=seed))), 0, 1)


def test_a_fit_takes_the_dense_trajectory(monkeypatch, x64):
  """At this rate means move by 10 pixels a step: lists that went stale unseen would show at once.

  In float64 and from ellipses, since Adam makes whole steps of what is rounding in a gradient of zero, such as that
  of a circle's angle.
  """
  del x64
  ellipses = scene(60, 48, 64, dtype=np.float64)._replace(canvas=None)
  recipe = recipes.Recipe(lambda *_: ellipses, learning_rate=0.2)
  histories = []
  for evaluations in (0, 2**40):
    monkeypatch.setattr(renderer, "DENSE_EVALUATIONS", evaluations)
    result = gaussjax.fit(target().astype(float), num_gaussians=60, preset=recipe, stop=gaussjax.Stop(max_steps=20))
    assert (result.state.neighbors.lists is not None) == (evaluations == 0)
    histories.append([record["loss"] for record in result.history])
  np.testing.assert_allclose(*histories, rtol=1e-7)  # how many threads sum decides what is rounded


@pytest.mark.usefixtures("over_lists")
def test_a_stack_of_images_is_fitted_like_each_alone():
  recipe = recipes.Recipe()
  fitter = recipes.make_fitter(recipe, 32, 40)
  images = [jnp.asarray(target(32, 40, seed)) for seed in range(2)]
  params = [recipes.start(jax.random.key(7), image, 30, recipe) for image in images]
  like = renderer.allocate(params[0])
  like = dataclasses.replace(like, lists=tiles.empty(geometry.geometry(params[0]), 32, 40, size=900))
  states = [fitter.init(one)._replace(neighbors=renderer.allocate(one, like=like)) for one in params]
  stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
  step = jax.jit(jax.vmap(fitter.step, in_axes=(0, 0, None)))
  batch, alone = stack(states), states[1]
  for i in range(5):
    batch, info = step(batch, stack(images), jnp.float32(i / 5))
    alone, _ = jax.jit(fitter.step)(alone, images[1], jnp.float32(i / 5))
  assert not info.overflow.any() and (batch.step == 5).all()
  np.testing.assert_allclose(batch.params.means[1], alone.params.means, atol=1e-2)


@pytest.mark.usefixtures("over_lists")
def test_a_second_tiled_fit_compiles_nothing():
  # A constant rate makes the longer fit's first steps those of the shorter: the capacity grows alike.
  recipe = recipes.Recipe(schedule=optimizers.constant)
  fit = functools.partial(gaussjax.fit, target(32, 40), num_gaussians=30, preset=recipe)
  fit(stop=gaussjax.Stop(max_steps=40))
  compiled = []
  listener = lambda name, seconds, **_: compiled.append(name) if "backend_compile" in name else None
  jax.monitoring.register_event_duration_secs_listener(listener)
  try:
    fit(stop=gaussjax.Stop(max_steps=23))
  finally:
    jax.monitoring.unregister_event_duration_listener(listener)
  assert compiled == []


@pytest.mark.parametrize("drawn_by", renderer.RENDERERS)
def test_a_set_of_another_size_is_drawn_without_compiling(monkeypatch, drawn_by):
  """Nor is what the host prepares: in numpy nothing is compiled for each size."""
  height, width = 37, 53
  if drawn_by == "warp" and not warp.available():
    pytest.skip("the extra gaussjax[warp] is not installed")
  monkeypatch.setattr(renderer, "_chosen", lambda *_: drawn_by)
  gaussjax.render(scene(50, height, width))
  compiled = []
  listener = lambda name, seconds, **_: compiled.append(name) if "backend_compile" in name else None
  several = [scene(count, height, width) for count in (49, 51, 77)]
  jax.monitoring.register_event_duration_secs_listener(listener)
  try:
    for gaussians in several:
      gaussjax.render(gaussians)
  finally:
    jax.monitoring.unregister_event_duration_listener(listener)
  assert compiled == []


def test_drawing_larger_and_cropped_uses_lists_too(request):
  gaussians = scene(50, 37, 53)
  arguments = {"height": 91, "viewport": (3.0, 2.0, 45.0, 30.0)}
  dense = gaussjax.render(gaussians, **arguments)
  request.getfixturevalue("over_lists")
  np.testing.assert_allclose(gaussjax.render(gaussians, **arguments), dense, atol=1e-5)


@pytest.fixture
def accelerated(monkeypatch, over_lists):
  """As on an accelerator, which the tests do without: blocks in a flat list, several chunks, lists made on it."""
  del over_lists
  monkeypatch.setattr(splat, "flat", lambda: True)
  monkeypatch.setattr(splat, "CHUNK_EVALUATIONS", {"cpu": 5 * tiles.BLOCK * 256})
  monkeypatch.setattr(tiles, "on_device", lambda: True)


FLAT = {
  "weighted average": usual,
  "composite": functools.partial(usual, blend=blends.alpha_composite),
  "long lists and empty ones": functools.partial(scene, 150, 90, 53, log_scale=(0.5, 0.3), seed=5),
  "one pixel": functools.partial(scene, 3, 1, 1),
}


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize("case", FLAT)
def test_the_flat_list_of_blocks_is_dense(case):
  gaussians = FLAT[case]()
  gaussians = gaussians._replace(means=gaussians.means.at[::3].set(gaussians.means[0]))  # as details crowd
  draw = lambda gaussians, lists: draw_tiled.__wrapped__(gaussians, lists)
  cotangent = jnp.asarray(np.random.default_rng(1).normal(size=draw_densely(gaussians).shape), jnp.float32)
  expected, expected_gradient = picture_and_gradient(draw_densely, cotangent, gaussians)
  found, gradient = picture_and_gradient(draw, cotangent, gaussians, lists_of(gaussians, skin=1.0))
  np.testing.assert_allclose(found, expected, atol=1e-5)
  for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4 * max(1e-3, np.abs(b).max()))


@pytest.mark.usefixtures("accelerated")
def test_removal_costs_the_same_over_the_flat_list():
  gaussians = usual()
  target = np.clip(np.asarray(draw_densely(gaussians)) + 0.1, 0, 1)
  lists = lists_of(gaussians)
  found = removal_cost(lambda g: splat.tiled(geometry.geometry(g), lists, tau=TAU), gaussians, target)
  expected = np.asarray(removal_cost(densely, gaussians, target))
  np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected[expected > -np.inf]).max())


@pytest.mark.usefixtures("accelerated")
def test_lists_made_on_the_device_are_those_of_the_host(monkeypatch):
  gaussians, larger = usual(), usual(log_scale=(2.5, 0.3))
  first = renderer.allocate(gaussians, renderer="tiles")
  with monkeypatch.context() as patched:
    patched.setattr(tiles, "_on_host", None)
    again = renderer.allocate(gaussians, like=first)
  grown = renderer.allocate(larger, like=again)
  monkeypatch.setattr(tiles, "on_device", lambda: False)
  for found, by_host in ((again, first), (grown, renderer.allocate(larger, like=first))):
    end = int(by_host.lists.starts[-1])
    assert found.lists.ids.shape == by_host.lists.ids.shape
    np.testing.assert_array_equal(found.lists.ids[:end], by_host.lists.ids[:end])
    np.testing.assert_array_equal(found.lists.starts, by_host.lists.starts)
    np.testing.assert_array_equal(found.lists.required, by_host.lists.required)


def primitives(jaxpr):
  """The names of all primitives in a program, also of those within others."""
  for equation in jaxpr.eqns:
    yield equation.primitive.name
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from primitives(inner)


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize("blend", BLENDS, ids=lambda blend: blend.name)
def test_a_gpu_draws_without_asking_the_host(blend):
  """Loops are of known length (scan), nothing branches, nothing is called: no trip waits for an answer."""
  gaussians = usual(blend=blend)
  neighbors = renderer.allocate(gaussians)
  assert neighbors.renderer == "tiles"
  loss = lambda gaussians, neighbors: jnp.sum(gaussjax.render(gaussians, neighbors=neighbors))
  traced = jax.jit(jax.value_and_grad(loss)).trace(gaussians, neighbors)
  found = set(primitives(traced.jaxpr.jaxpr))
  assert "scan" in found and not found & {"while", "cond", "pure_callback", "io_callback", "ffi_call"}, found
  lowered = traced.lower(lowering_platforms=("cuda",)).as_text()
  assert "stablehlo.while" in lowered and "custom_call" not in lowered
