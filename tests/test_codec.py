"""The range coder, the container and the grids: round trips, an independent reader, golden bytes, damage."""

import dataclasses
import hashlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, strategies as st
from scenes import scene

import gaussjax
from experiments import fuzz_format
from gaussjax import geometry
from gaussjax.gjx import container, contexts, encoding, grids, quantization, range_coder, search
from gaussjax.gjx.grids import Codes, Steps

STEPS = Steps(120, 100, 170, 110)
# A blend of another's, with a built-in one's name, and a recipe of it.
MINE = gaussjax.Blend("weighted_average", lambda on, colors, background: on.splat(colors) + background)
OWN_BLEND = encoding.RECIPE._replace(blend=MINE, policy=None, initialize=gaussjax.Recipe().initialize)


def random_codes(rng, count, channels, grid):
  ratio = rng.integers(0, 40, count)
  return Codes(
    cells=rng.integers(0, 40, (count, 2)),
    parts=rng.integers(0, grids.PARTS, count),
    minor=np.round(rng.normal(8, 6, count)).astype(np.int64),
    ratio=ratio,
    turn=rng.integers(0, 1 << 20, count) % grids.bins(ratio, grid),
    colors=np.round(rng.laplace(0, 8, (count, channels))).astype(np.int64),
  )


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-70000, 70000)), max_size=80))
def test_numbers_of_every_kind_come_back(numbers):
  def through(coder):
    coded = []
    for kind, value in numbers:
      size = abs(value)
      if kind == 0:
        coded.append(coder.signed(0, value))
      elif kind == 1:
        coded.append(coder.golomb(size))
      elif kind == 2:
        coded.append(coder.uniform(size + 1, size // 2))
      elif kind == 3:
        coded.append(coder.even(17, size))
      else:
        coded.append(coder.bit(30, size & 1))
    return coded

  encoder = range_coder.Encoder(range_coder.Models(40))
  expected = through(encoder)
  assert expected == [
    (value, abs(value), abs(value) // 2, abs(value), abs(value) & 1)[kind] for kind, value in numbers
  ]
  assert through(range_coder.Decoder(range_coder.Models(40), encoder.finish())) == expected


def test_the_coder_reaches_the_entropy():
  values = np.round(np.random.default_rng(0).laplace(0, 3, 4000)).astype(int).tolist()
  encoder = range_coder.Encoder(range_coder.Models(range_coder.SIGNED_MODELS))
  for value in values:
    encoder.signed(0, value)
  shares = np.unique(values, return_counts=True)[1] / len(values)
  assert 8 * len(encoder.finish()) < 1.03 * -(shares * np.log2(shares)).sum() * len(values)


@pytest.mark.parametrize(("channels", "layers"), [(1, 1), (3, 3), (4, 2)])
def test_files_come_back_and_an_independent_reader_agrees(channels, layers):
  rng, grid = np.random.default_rng(channels), grids.grid(STEPS)
  parts = [contexts.ordered(random_codes(rng, 7 * 2**i, channels, grid)) for i in range(layers)]
  background = tuple(range(-channels, 0))
  header = container.Header(30, 40, channels, channels % 2, 3500, 300, background, STEPS, layers)
  data = container.write(header, parts, {"icc": b"profile"})
  contents = container.read(data)
  assert contents.header == header and contents.metadata == {"icc": b"profile"}
  assert sum(size for _, size in contents.sizes) + len(container.SIGNATURE) == len(data)
  for mine, theirs in zip(contents.layers, parts, strict=True):
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)
  found, gaussians = reference.decode(data)
  together = Codes(*[np.concatenate(field) for field in zip(*parts, strict=True)])
  names = ("cell", "part", "minor", "ratio", "turn", "codes")
  for name, field in zip(names, together, strict=True):
    np.testing.assert_array_equal([gaussian[name] for gaussian in gaussians], field)
  drawn = np.clip(gaussjax.render(gaussjax.decode(data)[0]), 0, 1)
  difference = np.abs(drawn - reference.render(found, gaussians))
  assert difference.max() < 1 / 255 and difference.mean() < 0.001
  meter = contexts.field_bits(parts, channels, STEPS)
  assert sum(meter.values()) / 8 < len(data) < sum(meter.values()) / 8 + 150


def test_few_gaussians_come_back_whatever_predicts_them():
  """Least squares through two or three points may slope more than a file holds."""
  rng, grid = np.random.default_rng(0), grids.grid(STEPS)
  for count in (1, 2, 3, 4) * 30:
    codes = random_codes(rng, count, 1, grid)._replace(minor=50 + rng.integers(0, 2, count))
    codes = contexts.ordered(codes._replace(ratio=rng.integers(0, 2000, count), turn=np.zeros(count, np.int64)))
    data = container.write(container.Header(30, 40, 1, 0, 3500, 300, (0,), STEPS, 1), [codes])
    jax.tree.map(np.testing.assert_array_equal, container.read(data).layers[0], codes)


def test_the_bytes_are_golden():
  """A change of this digest is a change of the format: files that people have would no longer be read."""
  data = fuzz_format.small_file()
  assert hashlib.sha256(data).hexdigest() == "020ec7360a6e11a0030e210a6195fb073b77000bd6032fc33ab3c625a4c310f3"


def test_files_of_another_version_are_refused():
  found, _ = container.chunks(data := fuzz_format.small_file())
  _, header, size = found[0]
  rest = data[len(container.SIGNATURE) + size :]
  for version, least, words in ((1, 1, "version 1,"), (3, 3, "version 3 and later")):
    changed = container.chunk(container.HEADER, bytes([version, least]) + header[2:])
    with pytest.raises(gaussjax.FormatError, match=words):
      gaussjax.decode(container.SIGNATURE + changed + rest)
  newer = container.chunk(container.HEADER, bytes([3]) + header[1:])
  assert len(gaussjax.decode(container.SIGNATURE + newer + rest)[0].means) > 0


@pytest.mark.parametrize("seed", range(3))
def test_codes_give_back_the_quantised_set_and_quantising_is_idempotent(seed):
  gaussians = scene(50, 60, 80, seed=seed)._replace(log_weights=None)
  grid = grids.grid(STEPS)
  quantize = jax.jit(grids.quantize)
  quantized, codes = quantize(gaussians, grid)
  codes = Codes(*[np.asarray(field).astype(np.int64) for field in codes])
  dequantized = grids.dequantize(codes, grid, gaussians.canvas)
  tolerance = {"atol": 2e-3, "rtol": 1e-4}
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), dequantized, quantized)
  again, same = quantize(quantized, grid)
  for first, second in zip(codes, same, strict=True):
    assert np.mean(first != np.asarray(second)) < 0.1  # but for means clipped at the margin, and the thinnest
  # Finer steps come nearer: nothing is lost but by quantisation.
  fine, _ = quantize(gaussians, grids.grid(Steps(80, 64, 200, 60)))
  inside = jnp.all((gaussians.means > -3) & (gaussians.means < jnp.array([83, 63])), 1)
  np.testing.assert_allclose(fine.means[inside], gaussians.means[inside], atol=0.1)
  np.testing.assert_allclose(fine.colors, gaussians.colors, atol=0.01)


def test_steps_grow_one_after_another():
  steps, least = Steps(120, 100, 180, 110), Steps(80, 64, 208, 48)
  grown = [quantization.coarser(steps, times, least) for times in range(-8, 9)]
  assert grown[8] == steps and grown[0] == Steps(118, 98, 182, 108) and grown[16] == Steps(122, 102, 178, 112)
  assert all(np.abs(np.subtract(one, other)).sum() == 1 for one, other in itertools.pairwise(grown))
  assert quantization.coarser(steps, -1000, least) == least and quantization.coarser(steps, 1000, least) == (
    255,
    136,
    0,
    255,
  )


def test_cut_off_files_are_refused_or_drawn_in_part():
  data = fuzz_format.small_file()
  first = len(data) - container.read(data).sizes[-1][1] - container.read(data).sizes[-2][1]
  for cut in fuzz_format.truncations(data):
    if cut == data[: -container.read(data).sizes[-1][1]]:
      continue  # only the note is missing
    with pytest.raises(gaussjax.FormatError):
      gaussjax.decode(cut)
  whole, _ = gaussjax.decode(data)
  part, _ = gaussjax.decode(data[: first + 9], partial=True)
  np.testing.assert_array_equal(part.means, whole.means[: len(part.means)])
  assert len(part.means) == fuzz_format.COUNT // 2


def test_damaged_files_are_refused_or_finite():
  data = fuzz_format.small_file()
  header = container.read(data).header
  outcomes = [fuzz_format.outcome(damaged, header) for damaged in fuzz_format.mutations(data, 250, seed=1)]
  assert set(outcomes) == {"refused", "read", "drawn"}


def test_a_million_gaussians_in_one_pixel_are_refused():
  header = container.Header(1, 1, 1, 0, 3500, 300, (0,), STEPS, 1)
  data = container.write(header, [random_codes(np.random.default_rng(0), 3, 1, grids.grid(STEPS))])
  kinds, bodies = zip(*fuzz_format.chunks(data), strict=True)
  claimed = container.varint(1_000_000) + bodies[1][1:]
  with pytest.raises(gaussjax.FormatError, match="1 byte each"):
    gaussjax.decode(fuzz_format.signed(kinds, [bodies[0], claimed]))
  with pytest.raises(gaussjax.FormatError, match="tiles"):
    container.check_drawable(header._replace(height=1 << 13, width=1 << 13), np.full(999, 1e5), np.zeros((999, 2)))


def test_goals_that_make_no_sense_are_refused():
  image = np.zeros((8, 8, 3))
  for options, words in (
    ({"bpp": 1, "size": 9}, "at most one"),
    ({"quality": 101}, "0 to 100"),
    ({"quality": float("nan")}, "expected a number"),
    ({"quality": True}, "quality=True"),
    ({"bpp": -1}, "above 0"),
    ({"bpp": 1.0}, "8 bytes to fill .1 bits a pixel., expected at least 112"),
    ({"size": 10}, "to fill"),
    ({"size": 600.5}, "size=600.5, expected a whole number"),
    ({"size": 200, "metadata": {"icc": bytes(1000)}}, "at least 1122"),
    ({"metadata": {"xmp": b""}}, "got metadata xmp"),
    ({"metadata": {"text": "words"}}, "type str, expected bytes"),
    ({"target_psnr": 4000}, "at most 99.0"),
    ({"effort": 10}, "effort"),
    ({"effort": 2.0}, "effort=2.0, expected a whole number"),
    ({"effort": encoding.Effort(0, 8)}, "effort.steps=0"),
    ({"effort": encoding.Effort(9, 8, encoding.RECIPE._replace(weighted=True))}, "weighted=False"),
    ({"effort": encoding.Effort(9, 8, OWN_BLEND)}, "no code in files"),
    ({"layers": 5}, "layers"),
    ({"effort": encoding.Effort(9, 8, seed=-1)}, "effort.seed"),
  ):
    with pytest.raises(ValueError, match=words):
      search.encode(image, **options)
  for shape, words in (
    ((8, 8, 33), "33 channels"),
    ((12000, 12000), "144,000,000 pixels"),
    ((16, 16, 32), "at least 416"),
  ):
    with pytest.raises(ValueError, match=words):
      search.encode(np.broadcast_to(np.float32(0), shape), size=200)
  with pytest.raises(ValueError, match="at most 58.9"):
    search.encode(np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64), target_psnr=60)


def test_numbers_of_any_type_are_taken():
  asked = {"quality": None, "size": None, "target_psnr": None}
  assert encoding.goal(8000, **asked, bpp=np.float32(0.5)).size == 500
  assert encoding.goal(100, **asked, bpp=1e300).size > 10**9
  assert encoding.goal(100, **asked | {"size": np.int64(600)}, bpp=None).size == 600
  assert encoding.goal(100, **asked | {"target_psnr": jnp.float32(30)}, bpp=None).psnr == 30
  assert encoding.effort_of(np.uint8(3)) == encoding.EFFORTS[3]


def plain(fitted, target, steps, *, progress_fn, **options):
  """A quantizer as a user may write one: every number at the nearest code, and that is it."""
  assert target.shape == (24, 31, 3) and set(options) == {"stage_steps", "seed", "loss"}
  progress_fn(1, 1)
  return quantization.nearest(fitted, steps)


EFFORT = encoding.Effort(1, 1, quantizer=plain)
PLAIN = scene(12, log_scale=(1.5, 0.4), seed=3)._replace(log_weights=None)


@pytest.mark.parametrize("parameterize", [geometry.to_euler, geometry.to_cholesky])
def test_a_set_becomes_a_file_that_looks_like_it(parameterize):
  given = PLAIN._replace(means=jnp.clip(PLAIN.means, 0, 24), shape=parameterize(PLAIN.shape))
  picture = np.clip(gaussjax.render(given), 0, 1)
  stages, sizes = [], []
  for options, least in (({"target_psnr": 28}, 28), ({}, 40), ({"target_psnr": 48}, 48)):
    data = gaussjax.encode(given, effort=EFFORT, layers=2, progress_fn=lambda *at: stages.append(at), **options)
    gaussians, header = gaussjax.decode(data)
    assert len(gaussians.means) == 12 and header.layers == 2
    error = np.mean((np.clip(gaussjax.render(gaussians), 0, 1) - picture) ** 2)
    assert least - 0.2 < -10 * np.log10(error) < least + 8
    sizes.append(len(data))
  assert sizes == sorted(sizes) and set(stages) == {("quantise", 1, 1)}
  assert len(gaussjax.encode(given, effort=EFFORT, size=sizes[0])) <= sizes[0]
  with pytest.raises(ValueError, match="30 bytes for 12 Gaussians, expected at least"):
    gaussjax.encode(given, effort=EFFORT, size=30)


def test_gaussians_that_no_pixel_sees_are_left_out_and_those_seen_from_afar_are_not():
  far = PLAIN.means.at[:3].set(jnp.array([-900.0, 5.0]))
  assert (
    len(gaussjax.decode(gaussjax.encode(PLAIN._replace(means=far), effort=EFFORT, target_psnr=5))[0].means) == 9
  )
  long = PLAIN.shape._replace(log_scales=PLAIN.shape.log_scales.at[:3, 0].set(6.0), thetas=PLAIN.shape.thetas * 0)
  with pytest.raises(ValueError, match="means are too far outside"):
    gaussjax.encode(PLAIN._replace(means=far, shape=long), effort=EFFORT)


def test_sets_that_the_format_does_not_hold_are_refused():
  canvas = PLAIN.canvas
  held = lambda **changes: PLAIN._replace(canvas=dataclasses.replace(canvas, **changes))
  for refused, words in (
    (PLAIN._replace(canvas=None), "without a canvas"),
    (PLAIN._replace(log_weights=jnp.full(12, 0.1)), "fit with weighted=False"),
    (PLAIN._replace(colors=PLAIN.colors.at[0].set(jnp.nan)), "colors with 3 values that are NaN"),
    (PLAIN._replace(colors=PLAIN.colors * 1e5), "colours of up to"),
    (PLAIN._replace(means=PLAIN.means - 1e5), "no pixel sees"),
    (PLAIN._replace(means=PLAIN.means[:5]), r"log_scales of shape \(12, 2\), expected \(5, 2\)"),
    (held(blend=gaussjax.rendering.blends.alpha_composite), "alpha_composite, which has no code in files"),
    (held(blend=MINE), "no code in files"),
    (held(cutoff=9.0), "cutoff=9"),
    (held(floor=0.0123456), "multiple of 0.001"),
    (held(background=jnp.array([0.5, 40, 0.5])), "at most 32.767"),
    (held(height=10**5, width=10**5), "10,000,000,000 pixels"),
  ):
    with pytest.raises(ValueError, match=words):
      gaussjax.encode(refused, effort=EFFORT)
  data = gaussjax.encode(PLAIN._replace(log_weights=jnp.zeros(12)), effort=EFFORT, target_psnr=5)
  assert len(gaussjax.decode(data)[0].means) > 0


def test_large_colours_have_steps_that_hold_them():
  bright = PLAIN._replace(colors=PLAIN.colors * 9000)
  least = quantization.finest(bright)
  assert least.color > quantization.FINEST.color and quantization.finest(PLAIN) == quantization.FINEST
  codes = quantization.codes_of(bright, least).colors
  assert contexts.MAX_COLOR_CODE / 8 < np.abs(codes).max() < contexts.MAX_COLOR_CODE / 1.9


def test_a_goal_in_decibels_is_reached_and_quality_pays(monkeypatch):
  """The search over fits that follow a power law, but not the one it assumes."""
  tried = []

  def packed(work, num_gaussians):
    tried.append(num_gaussians)
    return search._Packed(bytes(5 * num_gaussians), 8.0 + 8 * np.log10(num_gaussians))

  monkeypatch.setattr(search, "_packed", packed)
  monkeypatch.setattr(search, "_pilot", lambda work: (400, 8.4 + 8 * np.log10(400)))
  image = np.zeros((300, 400, 3))
  for goal in (27.0, 31.0, 36.0):
    tried.clear()
    size = len(gaussjax.encode(image, target_psnr=goal))
    assert 0 <= 8.0 + 8 * np.log10(size / 5) - goal < 0.6 and len(tried) <= search.MAX_FITS
  tried.clear()
  with pytest.raises(ValueError, match="lower it, or raise the effort"):
    gaussjax.encode(image, target_psnr=80)
  assert len(tried) == 1 and tried[0] < 5000  # not with all the Gaussians that the picture may have
  sizes = [len(gaussjax.encode(image, quality=quality)) for quality in (0, 30, 60, 100)]
  assert sizes == sorted(sizes) and sizes[-1] > 20 * sizes[0]


@pytest.mark.parametrize(("power", "pilot"), [(0.9, 22.0), (2.4, 40.0), (4.0, 40.0), (0.1, 9.0)])
def test_quality_holds_where_the_power_law_does_not(monkeypatch, power, pilot):
  """The error and the cost together are nearly the least, after one fit by the law or a few without it."""
  tried, error = [], lambda count: 10 ** (-pilot / 10) * (256 / count) ** power

  def packed(work, num_gaussians):
    tried.append(num_gaussians)
    return search._Packed(bytes(num_gaussians), -10 * np.log10(error(num_gaussians)))

  monkeypatch.setattr(search, "_packed", packed)
  monkeypatch.setattr(search, "_pilot", lambda work: (256, pilot))
  found = len(gaussjax.encode(np.zeros((16, 16, 3))))
  counts = np.arange(1, 257)
  costs = error(counts) + search._worth(256, 50) * counts
  assert costs[found - 1] < 1.3 * costs.min()
  assert len(tried) == 1 if power == 0.9 else len(tried) <= search.MAX_FITS
