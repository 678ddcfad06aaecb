"""The fit: it gains, repeats itself, compiles once, and stops with a named error when numbers go bad."""

import dataclasses

import chex
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify
from scenes import BLENDS, PARAMETERIZATIONS, picture, scene

import gaussjax
from gaussjax import arguments
from gaussjax.fitting import checkpoints, guards, initializers, loop, optimizers, recipes

# Most fits are of this picture, by 20 Gaussians for as many steps, so that they share their programs.
SHORT = gaussjax.Stop(max_steps=30)


@pytest.mark.parametrize(("parameterization", "blend"), [(0, 0), (1, 1), (2, 2)])
def test_every_variant_gains(parameterization, blend):
  parameterize, blend = PARAMETERIZATIONS[parameterization], BLENDS[blend]
  policy = recipes.Recipe().policy if blend.density else None
  recipe = recipes.Recipe(parameterize=parameterize, blend=blend, policy=policy)
  result = gaussjax.fit(picture(), num_gaussians=20, preset=recipe, stop=SHORT)
  assert result.history[-1]["psnr"] > result.history[0]["psnr"] + 2
  assert len(result.gaussians.means) == 20
  assert [record["step"] for record in result.history] == [0, 10, 20, 30]
  assert result.metrics["psnr"] == pytest.approx(result.history[-1]["psnr"], abs=1e-3)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_any_number_of_channels(channels):
  result = gaussjax.fit(picture(channels=channels), num_gaussians=10, stop=SHORT)
  assert result.gaussians.colors.shape == (10, channels)


def test_the_same_seed_gives_the_same_gaussians_and_another_does_not():
  first, second, other = (
    gaussjax.fit(picture(), num_gaussians=20, seed=s, stop=SHORT).gaussians for s in (1, 1, 2)
  )
  for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
    np.testing.assert_array_equal(a, b)
  assert not np.array_equal(first.means, other.means)


def test_a_second_fit_of_the_same_shapes_compiles_nothing():
  gaussjax.fit(picture(), num_gaussians=20, stop=SHORT)
  compiled = []
  listener = lambda name, seconds, **_: compiled.append(name) if "backend_compile" in name else None
  jax.monitoring.register_event_duration_secs_listener(listener)
  try:
    gaussjax.fit(picture(seed=3), num_gaussians=20, seed=5, stop=gaussjax.Stop(max_steps=17))
    assert compiled == []
    jax.jit(lambda number: 3 * number)(2.0)
    assert compiled  # the listener does hear
  finally:
    jax.monitoring.unregister_event_duration_listener(listener)


def test_the_start_is_what_the_initialiser_says():
  image = jnp.asarray(picture(40, 60))
  gaussians = initializers.random(jax.random.key(0), image, 500)
  np.testing.assert_allclose(gaussians.shape.log_scales, np.log(0.5 * np.sqrt(2400 / 500)), rtol=1e-6)
  assert (gaussians.means >= 0).all() and (gaussians.means <= jnp.array([60, 40])).all()
  column, row = np.floor(np.asarray(gaussians.means[7])).astype(int)
  np.testing.assert_array_equal(gaussians.colors[7], image[row, column])
  assert not np.array_equal(
    gaussians.colors, initializers.random(jax.random.key(0), image, 500, random_colors=True).colors
  )


@pytest.mark.parametrize("num_gaussians", [1, 2, 7, 24, 100])
def test_the_grid_spans_the_image(num_gaussians):
  means = np.asarray(initializers.grid(jax.random.key(0), jnp.zeros((40, 60, 3)), num_gaussians).means)
  assert len(np.unique(means, axis=0)) == num_gaussians
  np.testing.assert_allclose(means[:, 1].mean(), 20, atol=20 / np.sqrt(num_gaussians))
  np.testing.assert_allclose(means[:, 0].mean(), 30, atol=1e-4)


def test_target_psnr_and_time_end_a_fit():
  stop = gaussjax.Stop(max_steps=400, target_psnr=20.0)
  result = gaussjax.fit(picture(), num_gaussians=20, stop=stop)
  assert result.metrics["psnr"] >= 20 and int(result.state.step) < 400
  result = gaussjax.fit(picture(), num_gaussians=20, stop=gaussjax.Stop(max_steps=400, time_limit=0.0))
  assert int(result.state.step) == 0


def test_the_schedules_end_where_they_say():
  progress = jnp.array([0.0, 0.5, 1.0])
  np.testing.assert_allclose(optimizers.cosine(progress), [1, 0.525, 0.05], rtol=1e-6)
  np.testing.assert_allclose(optimizers.constant(progress), 1)


def test_the_background_is_not_trained():
  image = picture()
  result = gaussjax.fit(image, num_gaussians=20, stop=SHORT)
  np.testing.assert_allclose(result.gaussians.canvas.background, image.mean((0, 1)), rtol=1e-5)


def test_weights_are_fitted_unless_the_recipe_has_none():
  fitted = gaussjax.fit(picture(), num_gaussians=20, stop=gaussjax.Stop(max_steps=60)).gaussians
  assert np.std(fitted.log_weights) > 0.3  # at a rate that moves them: they begin alike
  assert (
    gaussjax.fit(picture(), num_gaussians=20, preset=recipes.Recipe(), stop=SHORT).gaussians.log_weights is None
  )


@dataclasses.dataclass
class Unhashable:
  """A dataclass that is not frozen compares by value, so it has no hash."""

  power: int = 2

  def __call__(self, prediction, target):
    return jnp.mean(jnp.abs(prediction - target) ** self.power)


@dataclasses.dataclass(frozen=True)
class Power:
  """A loss that is an object: it has no name."""

  power: int = 2

  def __call__(self, prediction, target):
    return jnp.mean(jnp.abs(prediction - target) ** self.power)


BAD_ARGUMENTS = {
  "nan": ({"image": np.full((20, 26, 3), np.nan)}, "NaN"),
  "no pixels": ({"image": np.zeros((0, 5, 3))}, "no dimension of 0"),
  "one dimension": ({"image": np.zeros(5)}, "expected \\[H, W\\]"),
  "integers": ({"image": np.zeros((5, 5, 3), int)}, "expected uint8"),
  "no gaussians": ({"num_gaussians": 0}, "expected at least 1"),
  "half a gaussian": ({"num_gaussians": 2.5}, "num_gaussians=2.5, expected a whole number"),
  "a float of gaussians": ({"num_gaussians": 9.0}, "expected a whole number"),
  "true gaussians": ({"num_gaussians": True}, "expected a whole number"),
  "numpy's true": ({"num_gaussians": np.True_}, "expected a whole number"),
  "several numbers": ({"num_gaussians": np.arange(3)}, "got num_gaussians=\\[0 1 2\\], expected a whole number"),
  "more than there can be": ({"num_gaussians": 10**12}, "expected at most 16777216"),
  "seed below 0": ({"seed": -1}, "seed=-1, expected at least 0"),
  "seed beyond 32 bits": ({"seed": 2**32}, "expected at most 4294967295"),
  "seed beyond 64 bits": ({"seed": 2**64 + 5}, "expected at most 4294967295"),
  "seed not whole": ({"seed": 1.0}, "expected a whole number"),
  "rate zero": ({"preset": recipes.Recipe(learning_rate=0.0)}, "expected a finite number above 0"),
  "rate inf": ({"preset": recipes.Recipe(learning_rate=float("inf"))}, "expected a finite number above 0"),
  "no such preset": ({"preset": "perfect"}, "expected one of fast, balanced, best"),
  "no such preset's type": ({"preset": ["fast"]}, "expected one of fast, balanced, best"),
  "no steps": ({"stop": gaussjax.Stop(max_steps=0)}, "expected at least 1"),
  "half a step": ({"stop": gaussjax.Stop(max_steps=10.5)}, "max_steps=10.5, expected a whole number"),
  "steps beyond count": ({"stop": gaussjax.Stop(max_steps=2**31)}, "expected at most"),
  "steps of the recipe": ({"preset": recipes.Recipe(steps=1e3)}, "steps=1000.0, expected a whole number"),
  "time before": ({"stop": gaussjax.Stop(time_limit=-1)}, "time_limit=-1, expected at least 0"),
  "no target": ({"stop": gaussjax.Stop(target_psnr=np.nan)}, "target_psnr=nan, expected a number"),
  "target in words": ({"stop": gaussjax.Stop(target_psnr="30")}, "target_psnr='30', expected a number"),
  "no gain": ({"stop": gaussjax.Stop(min_gain=np.float32(np.nan))}, "min_gain=nan, expected a number"),
  "a request": ({"stop": gaussjax.Stop(requested=True)}, "requested=True, expected a function"),
  "rate in words": ({"preset": recipes.Recipe(learning_rate="0.1")}, "expected a number"),
  "ratio below 0": (
    {"preset": recipes.Recipe(ratios=recipes.Recipe().ratios._replace(means=-1))},
    "ratios.means=-1, expected at least 0",
  ),
  "loss by name": ({"preset": recipes.Recipe(loss="l2")}, "loss='l2', expected a function"),
  "no loss": ({"preset": recipes.Recipe(loss=None)}, "loss=None, expected a function"),
  "loss without hash": ({"preset": recipes.Recipe(loss=Unhashable())}, "loss cannot be hashed .*frozen dataclass"),
  "another number": ({"preset": recipes.Recipe(lambda *_: scene(5))}, "5 Gaussians from .*initialize, expected 9"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_are_named(case):
  arguments, message = BAD_ARGUMENTS[case]
  with pytest.raises(ValueError, match=message):
    gaussjax.fit(**{"image": picture(), "num_gaussians": 9, "stop": SHORT} | arguments)


def test_numbers_of_numpy_are_as_good_as_pythons_and_a_loss_may_be_an_object(tmp_path):
  """All in one program: equal recipes share it."""
  stop = gaussjax.Stop(np.int32(20), np.float32(90), np.int64(1000), np.float64(-5))
  checkpoint = gaussjax.Checkpoint(tmp_path, label="squares")
  recipe = recipes.Recipe(loss=Power(), learning_rate=0.0625, ratios=recipes.Recipe().ratios._replace(means=32))
  fit = lambda recipe, count, seed: gaussjax.fit(
    picture(), num_gaussians=count, seed=seed, preset=recipe, stop=stop, checkpoint=checkpoint
  )
  first = fit(recipe, 9, 7)
  compiled = []
  listener = lambda name, seconds, **_: compiled.append(name) if "backend_compile" in name else None
  numpys = recipe._replace(
    learning_rate=np.float32(0.0625), ratios=recipe.ratios._replace(means=np.int64(32)), steps=np.int16(1600)
  )
  jax.monitoring.register_event_duration_secs_listener(listener)
  try:
    checkpoints.discard(tmp_path)
    second = fit(numpys, np.int64(9), np.uint32(7))
  finally:
    jax.monitoring.unregister_event_duration_listener(listener)
  assert compiled == []
  np.testing.assert_array_equal(first.gaussians.means, second.gaussians.means)
  assert [record["loss"] for record in first.history] == [record["loss"] for record in second.history]
  # What it has written goes on by either, and by no other label.
  assert fit(recipe, 9, 7).metrics["loss"] == second.metrics["loss"]
  checkpoint = checkpoint._replace(label="cubes")
  with pytest.raises(ValueError, match="another fit: got label squares, expected cubes"):
    fit(recipe, 9, 7)


def test_seeds_to_32_bits_are_all_different():
  starts = [arguments.whole("seed", seed, least=0, most=2**32 - 1) for seed in (0, 2**31, 2**32 - 1)]
  keys = {tuple(np.asarray(jax.random.key_data(jax.random.key(seed)))) for seed in starts}
  assert len(keys) == 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integer_images_are_scaled_by_their_type(dtype):
  image = np.full((20, 26, 3), np.iinfo(dtype).max, dtype)
  result = gaussjax.fit(image, num_gaussians=20, stop=SHORT)
  np.testing.assert_allclose(gaussjax.render(result.gaussians), 1, atol=1e-2)


def poisoned_fit(field, *, checked=False, retries=0, max_steps=100):
  """A fit whose loss turns NaN, through one field, once the colours are near to their target."""
  params = recipes.start(jax.random.key(0), jnp.asarray(picture()), 9, recipes.Recipe())

  def loss_fn(params, neighbors, target):
    del neighbors
    value = getattr(params, field, None)
    value = params.shape.thetas if value is None else value
    poison = jnp.where(jnp.sum(params.colors[0] - target) > 1e9, 0.0, value[0])
    trigger = jnp.sum(jnp.square(params.colors - 0.5))
    return trigger + jnp.where(trigger < 0.2, jnp.nan, 0.0) * jnp.sum(poison)

  measured = jax.jit(loss_fn)
  optimizer = optimizers.adam(recipes.rates(recipes.Recipe(), 20, 26), optimizers.constant)
  fitter = loop.fitter(loss_fn, optimizer, check=guards.check if checked else None)
  host = loop.Host(
    measure=lambda state, target: {"psnr": 0.0, "loss": float(measured(state.params, (), target))},
    clock=lambda: 0.0,
    advance=loop.advance_checked if checked else loop.advance,
    retries=retries,
  )
  begun, stop = loop.begin(fitter.init(params)), gaussjax.Stop(max_steps=max_steps)
  return loop.run(jax.random.key(0), fitter, begun, jnp.zeros(3), stop=stop, host=host)


@pytest.mark.parametrize("field", ["means", "thetas"])
def test_the_guard_names_the_step_the_field_and_the_count(field):
  with pytest.raises(
    gaussjax.FitError, match=rf"step \d+: the loss is nan; gradient of .*{field} is not finite in \d of 9"
  ):
    poisoned_fit(field, retries=3)


def test_a_step_that_is_not_finite_takes_the_fit_back_at_half_the_rate():
  with pytest.raises(gaussjax.FitError) as at_once:
    poisoned_fit("means")
  failed = int(str(at_once.value).split(":")[0].split()[1])
  ended = poisoned_fit("means", retries=1, max_steps=failed + 1)
  assert ended.history[-1]["rollbacks"] == 1 and ended.history[0]["rollbacks"] == 0
  assert ended.state.rate == 0.5 and int(ended.state.step) == failed + 1
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ended.best))


def test_checked_stops_at_the_same_step():
  with pytest.raises(gaussjax.FitError) as unchecked:
    poisoned_fit("means")
  with pytest.raises(gaussjax.FitError, match="not finite|NaN|nan") as checked:
    poisoned_fit("means", checked=True)
  assert str(checked.value).split(":")[0] == str(unchecked.value).split(":")[0]


def test_the_result_is_the_best_that_was_measured():
  recipe = recipes.Recipe(learning_rate=0.3, schedule=optimizers.constant)  # so large that it loses the picture
  result = gaussjax.fit(picture(), num_gaussians=20, preset=recipe, stop=gaussjax.Stop(max_steps=60))
  best = min(result.history, key=lambda record: record["loss"])
  assert result.metrics["step"] == best["step"] and result.metrics["loss"] == best["loss"]
  assert result.metrics["psnr"] == pytest.approx(best["psnr"], abs=1e-3)
  assert best is not result.history[-1]
  drawn = np.asarray(gaussjax.render(result.gaussians))
  assert np.mean((drawn - picture()) ** 2) == pytest.approx(best["loss"], rel=1e-4)


def test_a_fit_ends_when_it_has_converged_or_is_asked_to():
  stop = gaussjax.Stop(max_steps=400, min_gain=3.0)
  result = gaussjax.fit(picture(), num_gaussians=20, stop=stop)
  steps = int(result.state.step)
  assert 100 <= steps < 400
  assert result.history[-1]["psnr"] - result.history[-11]["psnr"] < 3.0
  asked = iter([False, False, True])
  stop = gaussjax.Stop(max_steps=400, requested=lambda: next(asked))
  assert int(gaussjax.fit(picture(), num_gaussians=20, stop=stop).state.step) == 20


def test_a_fit_goes_on_from_its_checkpoint_to_the_same_result(over_lists, tmp_path):
  """Tiled, with density control, interrupted between two checkpoints, and the newest one damaged."""
  image, steps = picture(40, 48, seed=2), 60
  fit = lambda **more: gaussjax.fit(image, num_gaussians=60, **{"stop": gaussjax.Stop(max_steps=steps)} | more)
  whole = fit()
  assert whole.state.neighbors.lists is not None
  checkpoint = gaussjax.Checkpoint(tmp_path, every_steps=20)
  asked = iter([False] * 5)
  fit(checkpoint=checkpoint, stop=gaussjax.Stop(max_steps=steps, requested=lambda: next(asked, True)))
  newest, older = checkpoints.kept(tmp_path)
  assert (newest.name, older.name) == ("step-00000050.npz", "step-00000040.npz")
  newest.write_bytes(newest.read_bytes()[:-100])
  with pytest.raises(ValueError, match="another fit: got max_steps 60, expected 70"):
    fit(checkpoint=checkpoint, stop=gaussjax.Stop(max_steps=70))
  with pytest.raises(ValueError, match="by another recipe"):
    fit(checkpoint=checkpoint, preset=recipes.of("balanced")._replace(weighted=False))
  resumed = fit(checkpoint=checkpoint)
  for a, b in zip(jax.tree.leaves(whole.gaussians), jax.tree.leaves(resumed.gaussians), strict=True):
    np.testing.assert_array_equal(a, b)
  untimed = lambda h: [(r["step"], r["psnr"], r["loss"]) for r in h]
  assert untimed(resumed.history) == untimed(whole.history)
  seconds = [record["seconds"] for record in resumed.history]
  assert seconds == sorted(seconds)
  checkpoints.discard(tmp_path)
  assert not tmp_path.exists()


def test_scales_out_of_bounds_are_named():
  gaussians = scene(5)
  huge = gaussians._replace(shape=gaussians.shape._replace(log_scales=gaussians.shape.log_scales.at[2].set(12.0)))
  assert guards.health(jnp.float32(0), gaussians, gaussians).scales
  assert not guards.health(jnp.float32(0), gaussians, huge).scales
  assert "scales of 1 of 5" in guards.describe(3, jnp.float32(0), gaussians, huge)


def test_checked_reports_scales():
  """No fit gets there, since each step ends within bounds (geometry.contain): the check itself is called."""
  gaussians = scene(5)
  huge = gaussians._replace(shape=gaussians.shape._replace(log_scales=gaussians.shape.log_scales.at[2].set(12.0)))
  checked = chex.chexify(jax.jit(lambda g: guards.check(jnp.float32(0), g, g)), async_check=False)
  checked(gaussians)
  with pytest.raises((AssertionError, checkify.JaxRuntimeError), match="scales out of bounds"):
    checked(huge)


def test_rates_beyond_reason_end_in_finite_numbers():
  recipe = recipes.Recipe(learning_rate=3.0)
  result = gaussjax.fit(picture(), num_gaussians=9, preset=recipe, stop=gaussjax.Stop(max_steps=60))
  assert result.metrics["rollbacks"] == 0
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.state.params))


def test_a_checked_fit_that_is_well_is_the_same_fit():
  plain = gaussjax.fit(picture(), num_gaussians=20, stop=SHORT)
  recipe = recipes.of("balanced")._replace(checked=True)
  checked = gaussjax.fit(picture(), num_gaussians=20, preset=recipe, stop=SHORT)
  np.testing.assert_allclose(checked.gaussians.means, plain.gaussians.means, atol=1e-3)
