"""The range coder, the container and the grids: round trips, an independent reader, golden bytes, damage."""

import dataclasses
import hashlib
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_2
from hypothesis import given, strategies as st
from scenes import scene

import gaussjax
from experiments import fuzz_format
from experiments.fuzz_format import random_codes
from gaussjax import geometry
from gaussjax.errors import DamagedError
from gaussjax.gjx import (
  container,
  contexts,
  encoding,
  grain,
  grids,
  initial,
  native_loops,
  packing,
  quantization,
  range_coder,
  search,
)
from gaussjax.gjx.grids import Codes, Steps
from gaussjax.quality import losses
from gaussjax.rendering import buckets

STEPS = Steps(120, 100, 170, 110, 112)
GOLDEN = Path(__file__).parent / "golden"  # of version 2
# A blend of another's, with a built-in one's name, and a recipe of it.
MINE = gaussjax.Blend("weighted_average", lambda on, colors, background: on.splat(colors) + background)
OWN_BLEND = encoding.RECIPE._replace(blend=MINE, policy=None, initialize=gaussjax.Recipe().initialize)


def header_of(channels=1, layers=1, *, steps=STEPS, weighted=False, own=False, size=(30, 40)):
  """The header of a file of random codes: with a canvas of its own, or the usual one."""
  unweighted = steps if weighted else steps._replace(weight=grids.STEP_ZERO)
  canvas = (2000, 450, tuple(range(-channels, 0))) if own else (*container.CANVAS, (99,) * channels)
  unit = container.FIXED if own else 255
  return container.Header(*size, channels, channels % 2, *canvas, unweighted, layers, weighted, unit)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-70000, 70000)), max_size=80))
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
      elif kind == 4:
        coded.append(coder.raw(17 + size % 20, size))
      else:
        coded.append(coder.bit(30, size & 1))
    return coded

  models = lambda: range_coder.Models([range_coder.HALF] * 40)
  encoder = range_coder.Encoder(models())
  expected = through(encoder)
  assert expected == [
    (value, abs(value), abs(value) // 2, abs(value), abs(value), abs(value) & 1)[kind] for kind, value in numbers
  ]
  assert through(range_coder.Decoder(models(), encoder.finish())) == expected


@pytest.mark.parametrize("edge", [0xA5000000, 0x10000000, 0x80000000])
def test_raw_bits_come_back_where_the_bounds_are_near_each_other(edge):
  """On both sides of a boundary of their first bytes, where no byte can be written: the widths that decide."""
  for apart in (0, 1, range_coder.WIDE - 1, range_coder.WIDE, range_coder.WIDE + 1, range_coder.WIDE * 7):
    low = edge - 1 - apart // 2
    high = low + apart + (apart == 0)
    for size, value in ((1, 1), (16, 0xFFFF), (16, 0), (16, 0x8001), (31, 0x5AAAAAAA), (31, (1 << 31) - 1)):
      encoder = range_coder.Encoder(range_coder.Models([]))
      encoder.low, encoder.high = low, high
      encoder.raw(size, value)
      encoder.raw(5, 19)
      data = encoder.finish()
      theirs = reference.Stream(data, {})
      decoder = range_coder.Decoder(range_coder.Models([]), data)
      for reader in (decoder, theirs):
        reader.low, reader.high = low, high
        assert (reader.raw(size), reader.raw(5)) == (value, 19)


@pytest.fixture
def each_loop(monkeypatch):
  """Calls a function by the loops of Python and by native ones: its two results. Skips without the latter."""
  native = native_loops._native
  if native is None:
    pytest.skip("the native coder was not built")

  def both(function):
    found = []
    for loops in (None, native):
      monkeypatch.setattr(native_loops, "_native", loops)
      found.append(function())
    return found

  return both


@pytest.mark.parametrize(("channels", "layers", "weighted"), [(1, 1, False), (3, 3, True), (4, 2, False)])
def test_native_loops_write_the_same_bytes_and_read_the_same_codes(each_loop, channels, layers, weighted):
  rng = np.random.default_rng(channels)
  header = header_of(channels, layers, weighted=weighted)
  codes = lambda count: contexts.ordered(random_codes(rng, count, channels, STEPS, weighted=weighted, cells=12))
  parts = [codes(40 * 2**i) for i in range(layers)]
  data, again = each_loop(lambda: container.write(header, parts))
  assert data == again
  jax.tree.map(np.testing.assert_array_equal, *each_loop(lambda: container.read(data).layers))


def test_native_loops_end_at_what_no_writer_makes_where_those_of_python_do(each_loop):
  """With the same words; or they read the same codes, and their models have learnt the same."""
  rng, seen = np.random.default_rng(0), set()
  for _ in range(150):
    channels, weighted = int(rng.integers(1, 5)), bool(rng.integers(2))
    steps = Steps(*rng.integers(0, 256, 5).tolist()) if rng.random() < 0.5 else STEPS
    lead = bytes([rng.choice([0, 255])]) * int(rng.integers(0, 50))
    streams = [lead + rng.bytes(int(rng.integers(0, 300))) for _ in range(2)]
    counts = rng.integers(1, 40, 2).tolist()

    def read(channels=channels, weighted=weighted, steps=steps, streams=streams, counts=counts):
      known = contexts.first_numbers(counts[0], 12345, [500] * channels, weighted=weighted)
      models, layers = contexts.models(channels), []
      try:
        for count, stream in zip(counts, streams, strict=True):
          coder = range_coder.Decoder(models, stream)
          layers.append(contexts.code_layer(coder, count, channels, grids.grid(steps), known, layers, None))
      except DamagedError as error:
        return str(error)
      return layers, models.probability, models.seen, known.minor.state(), coder.position

    one, other = each_loop(read)
    assert isinstance(one, str) == isinstance(other, str)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    seen.add(one if isinstance(one, str) else "read")
  assert len(seen) == 5


def test_models_begin_with_the_table():
  for channels in (1, 3, 32):
    models, size = contexts.models(channels), contexts.LAYOUT
    assert len(models.probability) == size.number + (contexts.FIELDS + channels) * size.per_number
    assert set(models.seen) == {initial.SEEN}
    shared, each = reference.tables()
    assert models.probability == shared + each * (contexts.FIELDS + channels)
    assert range_coder.LEAST <= min(models.probability) <= max(models.probability) <= range_coder.MOST
  assert (size.number, size.per_number) == (361, 775)
  models.update(0, 1)
  assert contexts.models(32).probability != models.probability  # each file begins anew


def test_the_coder_reaches_the_entropy():
  values = np.round(np.random.default_rng(0).laplace(0, 3, 4000)).astype(int).tolist()
  encoder = range_coder.Encoder(range_coder.Models([range_coder.HALF] * range_coder.SIGNED_MODELS))
  for value in values:
    encoder.signed(0, value)
  shares = np.unique(values, return_counts=True)[1] / len(values)
  assert 8 * len(encoder.finish()) < 1.03 * -(shares * np.log2(shares)).sum() * len(values)


KINDS = [(1, 1, False), (1, 4, True), (3, 3, True), (3, 1, False), (4, 2, False), (5, 4, True), (2, 2, False)]


@pytest.mark.parametrize(("channels", "layers", "weighted"), KINDS)
@pytest.mark.parametrize("own", [False, True])
def test_files_come_back_and_an_independent_reader_agrees(channels, layers, weighted, own):
  rng, header = np.random.default_rng(channels), header_of(channels, layers, weighted=weighted, own=own)
  codes = lambda count: random_codes(rng, count, channels, header.steps, weighted=weighted, cells=12)
  parts = [contexts.ordered(codes(7 * 2**i)) for i in range(layers)]
  assert any(part.weights.any() for part in parts) == weighted
  data = container.write(header, parts, {"icc": b"profile"})
  contents = container.read(data)
  assert contents.header == header and contents.metadata == {"icc": b"profile"}
  assert sum(size for _, size in contents.sizes) + len(container.SIGNATURE) == len(data)
  for mine, theirs in zip(contents.layers, parts, strict=True):
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)
  found = check_reference(reference, data)
  together = Codes(*[np.concatenate(field) for field in zip(*parts, strict=True)])
  names = ("cell", "weight", "minor", "ratio", "turn", "codes", "part")
  for name, field in zip(names, together, strict=True):
    np.testing.assert_array_equal([gaussian[name] for gaussian in found], field)
  meter = container.field_bits(contents)
  assert set(meter) == {"position", "scale", "turn", "color"} | ({"weight"} if weighted else set())
  # A layer may be filled up to a byte for each Gaussian, and takes a byte or two to end.
  assert sum(meter.values()) / 8 < len(data) < sum(meter.values()) / 8 + 45 + 10 * layers + 3 * channels


def check_reference(reader, data):
  """The Gaussians that the reader finds, whose picture must be ours."""
  found, gaussians = reader.decode(data)
  drawn = np.clip(gaussjax.render(gaussjax.decode(data)[0]), 0, 1)
  difference = np.abs(drawn - reader.render(found, gaussians))
  assert difference.max() < 1 / 255 and difference.mean() < 0.001
  return gaussians


@pytest.mark.parametrize(
  "steps",
  [
    Steps(60, 40, 220, 40, 40),  # below the finest that are written
    Steps(156, 136, 100, 144, 144),
    Steps(120, 128, 255, 100, 255),
    Steps(120, 0, 0, 0, 0),
  ],
)
def test_steps_of_every_size_are_read_alike(steps):
  rng, header = np.random.default_rng(0), header_of(3, 2, steps=steps, weighted=True)
  parts = [random_codes(rng, count, 3, steps, weighted=True, cells=60) for count in (9, 30)]
  data = container.write(header, parts)
  names = ("cell", "weight", "minor", "ratio", "turn", "codes", "part")
  _, found = reference.decode(data)
  layers = container.read(data).layers
  for name, *field in zip(names, *layers, strict=True):
    np.testing.assert_array_equal([gaussian[name] for gaussian in found], np.concatenate(field))
  for mine, theirs in zip(layers, parts, strict=True):
    jax.tree.map(np.testing.assert_array_equal, mine, contexts.ordered(theirs))


def test_a_set_of_a_smaller_picture_is_enlarged_as_it_would_be_drawn():
  gaussians = scene(12, 24, 32)
  enlarged = search._enlarged(gaussians, jnp.float32(4))
  enlarged = buckets.on(enlarged, 96, 128)
  np.testing.assert_allclose(gaussjax.render(enlarged), gaussjax.render(gaussians, 96, 128), atol=2e-4)


def test_few_gaussians_are_fitted_to_a_smaller_picture():
  """In fewer pixels than a fit of many looks at, and to the same file's picture all the same."""
  work = encoding.Work(np.zeros((64, 96, 3), np.float32), encoding.Effort.level(0), 1, {}, lambda *_: None)
  assert [search._times_smaller(work, n) for n in (1, 2, 3, 4, 100)] == [3, 2, 2, 1, 1]
  wide = work._replace(image=np.zeros((8, 4000, 3), np.float32))
  assert search._times_smaller(wide, 1) == 1
  to_the_eye = work._replace(effort=encoding.Effort.level(0, "visual"))
  assert search._times_smaller(to_the_eye, 1) == 1


def test_means_are_held_where_a_file_has_them():
  gaussians = scene(8, 40, 60)
  means = jnp.array([[-9.0, 20], [30, -9], [69, 20], [30, 49], [30, 20], [-3.5, 42.4], [0, 0], [5, 5]], jnp.float32)
  gaussians = geometry.park(gaussians._replace(means=means), jnp.arange(8) == 7)
  held = grids.contain(gaussians)
  expected = [[-3.75, 20], [30, -2.5], [63.75, 20], [30, 42.5], [30, 20], [-3.5, 42.4], [0, 0]]
  np.testing.assert_allclose(held.means[:7], expected)
  assert not geometry.visible(held)[7]
  found = grids.quantize(held, grids.grid(quantization.finest(held)))[0]
  np.testing.assert_allclose(found.means[:7], expected, atol=0.2)


def levels_of(rng, height, width, side):
  """Grain of levels at random, about as they follow each other in a picture."""
  shape = grain.regions(height, width, side)
  levels = np.clip(rng.integers(-3, 4, (2, *shape)).cumsum(1).cumsum(2), 0, grain.LEVELS - 1).astype(np.uint8)
  return grain.Grain(side, levels[0].tobytes(), levels[1].tobytes())


@pytest.mark.parametrize(("channels", "side"), [(1, 4), (2, 5), (3, 4), (4, 6), (3, 15)])
def test_grain_comes_back_and_an_independent_reader_draws_the_same(channels, side):
  rng, size = np.random.default_rng(channels), (70, 300)
  strengths = levels_of(rng, *size, side)
  header = header_of(channels, size=size)._replace(grain=strengths)
  codes = contexts.ordered(random_codes(rng, 9, channels, header.steps, cells=12))
  data = container.write(header, [codes], {"icc": b"profile"})
  contents = container.read(data)
  assert contents.header == header and dict(contents.sizes)["grain"] <= 6 + 2 * len(strengths.fine)
  assert sum(size for _, size in contents.sizes) + len(container.SIGNATURE) == len(data)
  found, gaussians = reference.decode(data)
  theirs = reference.grained(found, reference.render(found, gaussians))
  mine = gaussjax.add_grain(gaussjax.render(gaussjax.decode(data)[0]), header)
  assert np.abs(mine - theirs).max() < 1 / 255 and np.abs(mine - theirs).mean() < 0.001
  bare = np.clip(gaussjax.render(gaussjax.decode(data)[0]), 0, 1)
  colors = channels - (channels in (2, 4))
  assert np.abs(mine - bare)[..., :colors].std() > 0.001
  np.testing.assert_array_equal(mine[..., colors:], bare[..., colors:])


def test_the_pattern_of_grain_is_that_of_the_text():
  np.testing.assert_array_equal(grain.pattern(), reference.pattern())


def test_grain_of_a_part_is_that_of_the_whole():
  rng, size = np.random.default_rng(0), (80, 120)
  header = header_of(3, size=size)._replace(grain=levels_of(rng, *size, 4))
  gray = lambda *shape: np.full((*shape, 3), 0.5, np.float32)
  whole = gaussjax.add_grain(gray(80, 120), header)
  part = gaussjax.add_grain(gray(30, 40), header, viewport=(50, 20, 90, 50))
  np.testing.assert_allclose(part, whole[20:50, 50:90], atol=1e-6)
  larger = gaussjax.add_grain(gray(240, 360), header)  # whose every third pixel has a centre of one of the picture
  np.testing.assert_allclose(larger[1::3, 1::3], whole, atol=1e-6)
  smaller = gaussjax.add_grain(gray(10, 15), header)
  assert 0 < np.abs(smaller - 0.5).std() < 0.2 * np.abs(whole - 0.5).std()
  np.testing.assert_array_equal(
    gaussjax.add_grain(gray(4, 4) + 1, header_of(3)), gray(4, 4) * 2
  )  # clipped, no more


def test_grain_measures_the_texture_that_is_lacking():
  """Of noise of a known strength in one half of a picture; contours that are off by a pixel count little."""
  rng = np.random.default_rng(0)
  drawn = np.full((128, 256, 3), 0.5, np.float32)
  drawn[:, 61:67] = 0.9
  image = np.roll(drawn, 1, 1)
  image[:, 128:] += rng.normal(0, 8 / 255, (128, 128, 1))
  found = grain.measured(image, drawn, 1.0)
  fine = np.frombuffer(found.fine, np.uint8).reshape(2, 4)
  assert found.side == 6 and not fine[:, :2].any()
  # 8 times the deviation of what the fine filter leaves of noise, 0.81 of it.
  np.testing.assert_allclose(2.0 ** (fine[:, 2:] / 2 - 1), 0.81 * 8, rtol=0.25)
  halved = grain.measured(image, drawn, 0.5)
  np.testing.assert_array_equal(np.frombuffer(halved.fine, np.uint8).reshape(2, 4)[:, 2:], fine[:, 2:] - 2)
  assert grain.measured(drawn, drawn, 1.0) is None


def test_damaged_grain_is_refused():
  size = (64, 64)
  header = header_of(3, size=size)
  codes = contexts.ordered(random_codes(np.random.default_rng(0), 9, 3, header.steps, cells=12))
  plain = container.write(header, [codes])
  for body in (b"", b"\x03", b"\x10", b"\xff" * 40):
    with pytest.raises(gaussjax.FormatError, match="regions"):
      gaussjax.decode(plain + container.chunk(container.GRAIN, body))
  with pytest.raises(gaussjax.FormatError, match="regions"):  # more than 4096
    grain_of_many = container.chunk(container.GRAIN, b"\x04" + b"\0" * 40)
    gaussjax.decode(container.write(header._replace(height=2000, width=2000), [codes]) + grain_of_many)
  words = set()
  for seed in range(60):
    body = b"\x04" + np.random.default_rng(seed).bytes(20)
    try:
      gaussjax.decode(plain + container.chunk(container.GRAIN, body))
    except gaussjax.FormatError as error:
      words.add(str(error))
  assert "damaged: a strength of grain is out of range" in words
  unknown = bytes([container.GRAIN ^ 1])  # a reader that does not know grain goes on without it
  assert gaussjax.decode(plain + container.chunk(unknown[0], b"what comes later"))[1].grain is None


def test_files_for_the_eye_have_grain_unless_told_otherwise():
  image = scene_image()
  plain = search.encode(image, size=900, effort=encoding.Effort.level(0))
  assert packing.decode(plain)[1].grain is None
  effort = encoding.Effort.level(0, "visual")
  assert effort.grain == 0.5 and encoding.Effort.level(0, "visual", 0).grain == 0
  data = search.encode(image, size=900, effort=effort)
  assert len(data) <= 900 and packing.decode(data)[1].grain is not None
  for wrong in (-0.1, 1.5, float("nan")):
    with pytest.raises(ValueError, match="effort.grain"):
      search.encode(image, size=900, effort=effort._replace(grain=wrong))


def scene_image():
  """A picture with texture, `[48, 64, 3]`."""
  rng = np.random.default_rng(0)
  return np.clip(gaussjax.render(scene(20, 48, 64, channels=3)) + rng.normal(0, 0.1, (48, 64, 1)), 0, 1)


@pytest.mark.parametrize("name", ["alpha", "gray_alpha_sum", "gray_sum", "small"])
def test_files_of_version_2_are_read_as_an_independent_reader_does(name):
  path = fuzz_format.VERSION_2 if name == "small" else GOLDEN / f"{name}.gjx"
  data = path.read_bytes()
  gaussians, contents = check_reference(reference_2, data), container.read(data)
  assert contents.header.version == 2 and container.field_bits(contents) == {}
  together = [np.concatenate(field) for field in zip(*contents.layers, strict=True)]
  for name, field in zip(("cell", "part", "minor", "ratio", "turn", "codes"), together, strict=True):
    np.testing.assert_array_equal([gaussian[name] for gaussian in gaussians], field)


def test_few_gaussians_come_back_wherever_they_are():
  """Nothing is known of their fields but the header: long ones, small ones, colours far from the background."""
  rng, header = np.random.default_rng(0), header_of()
  for count in (1, 2, 3, 4) * 30:
    codes = random_codes(rng, count, 1, header.steps, cells=20)
    codes = contexts.ordered(codes._replace(minor=codes.minor + 20 * rng.integers(0, 2, count)))
    codes = codes._replace(ratio=rng.integers(0, 60, count), colors=codes.colors * 50)
    feature = grids.known(codes, grids.grid(header.steps)).features
    parts = codes.parts % (1 << grids.part_bits(feature))
    codes = contexts.ordered(codes._replace(turn=codes.turn * 0, parts=parts))
    data = container.write(header, [codes])
    found = container.read(data).layers[0]
    for mine, theirs in zip(found, codes, strict=True):
      np.testing.assert_array_equal(mine, theirs)


def test_the_bytes_are_golden():
  """A change of these digests is a change of the format: files that people have would no longer be read."""
  digest = lambda data: hashlib.sha256(data).hexdigest()
  assert digest(fuzz_format.small_file()) == "8aae1c777a8e4967265062397364f2469a237b37a107b378f993049345ecd6d3"
  assert (
    digest(fuzz_format.small_file(weighted=False))
    == "dea06d02be2b51db05dd81ae5744491cf9154f782df38e3a7be5b3d763aff820"
  )
  assert (
    digest(fuzz_format.VERSION_2.read_bytes()) == "020ec7360a6e11a0030e210a6195fb073b77000bd6032fc33ab3c625a4c310f3"
  )


def test_files_of_another_version_are_refused():
  data = fuzz_format.small_file()
  for version in (0, 1, 2, 4, 255):
    parts = fuzz_format.parts_of(data)
    parts.header[0] = version
    with pytest.raises(gaussjax.FormatError, match=f"a file of version {version}, expected 3 or 2"):
      gaussjax.decode(fuzz_format.signed(parts))
  for version, least, words in ((1, 1, "version 1,"), (3, 3, "version 3 and later, expected 2")):
    parts = fuzz_format.parts_of(fuzz_format.VERSION_2.read_bytes())
    parts.bodies[0][:2] = bytes([version, least])
    with pytest.raises(gaussjax.FormatError, match=words):
      gaussjax.decode(fuzz_format.signed(parts))
  parts.bodies[0][:2] = bytes([3, 2])  # newer, but readable
  assert len(gaussjax.decode(fuzz_format.signed(parts))[0].means) == fuzz_format.COUNT


@pytest.mark.parametrize(
  ("at", "value", "words"),
  [
    (1, 0x80 | 0x29, "does not know"),
    (1, 0x68, "channels"),  # channels of another number: what follows is 47
    (2, 0xFF, "pixels|too many bits|check sum"),
  ],
)
def test_headers_that_no_file_has_are_refused(at, value, words):
  parts = fuzz_format.parts_of(fuzz_format.small_file())
  parts.header[at] = value
  with pytest.raises(gaussjax.FormatError, match=words):
    gaussjax.decode(fuzz_format.signed(parts))
  for size in ((1 << 20, 1 << 20), ((1 << 32) - 1, 1)):
    grown = parts.header[:1] + bytes([0x29]) + b"".join(container.varint(n - 1) for n in size) + parts.header[4:]
    with pytest.raises(gaussjax.FormatError, match="pixels|height"):
      gaussjax.decode(fuzz_format.signed(parts._replace(header=grown)))


def test_the_frame_is_short():
  """What a file of few Gaussians takes besides them: signature, header, kinds, lengths, counts, check sums."""
  for count in (1, 3, 9):
    header = header_of(3, size=(512, 768))
    data = container.write(header, [random_codes(np.random.default_rng(0), count, 3, header.steps)])
    bits = sum(container.field_bits(container.read(data)).values())
    assert len(data) - bits / 8 <= 26


def short_file(channels=3, *, count=9, size=(512, 768), steps=None, background=None):
  """(a file in a short frame, None where that does not hold it; the same in the usual one)."""
  steps = steps or Steps(126, 110, 148, 118, grids.STEP_ZERO)
  background = background or (99, 99, 99, 7)[:channels]
  header = header_of(channels, size=size, steps=steps)._replace(blend=0, background=background)
  codes = contexts.ordered(random_codes(np.random.default_rng(0), count, channels, header.steps, cells=12))
  data, usual = (container.write(header, [codes], short=short) for short in (True, False))
  return None if data == usual else data, usual


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (24, 31), (4096, 17)])
def test_a_shorter_frame_holds_the_same(channels, size):
  data, usual = short_file(channels, size=size)
  assert 9 <= len(usual) - len(data) <= 13
  contents, expected = container.read(data), container.read(usual)
  assert contents.header == expected.header and contents.metadata == {}
  jax.tree.map(np.testing.assert_array_equal, contents.layers, expected.layers)
  assert sum(size for _, size in contents.sizes) + len(container.SHORT_SIGNATURES[channels]) == len(data)
  check_reference(reference, data)


def test_every_step_that_a_shorter_frame_tells_comes_back():
  for told in range(1 << 16):
    assert container._short_steps(container._steps_of_short(told)) == told
  lowest, highest = container._steps_of_short(0), container._steps_of_short(0xFFFF)
  assert lowest == (116, 100, 154, 96, 128) and highest == (147, 134, 138, 158, 128)


def test_what_a_shorter_frame_does_not_hold_has_the_usual_one():
  for wrong in (
    {"channels": 2},
    {"size": (4097, 20)},
    {"steps": Steps(126, 109, 148, 118, grids.STEP_ZERO)},
    {"steps": Steps(126, 110, 160, 118, grids.STEP_ZERO)},
    {"count": 900},
    {"background": (99, 98, 99)},
  ):
    data, usual = short_file(**wrong)
    assert data is None and container.read(usual)
  gaussians = scene(9, 40, 50, log_scale=(1.5, 0.3))._replace(log_weights=None)
  steps = Steps(126, 110, 148, 118, grids.STEP_ZERO)
  usual = gaussians._replace(canvas=packing.on_header(gaussians, short=True).canvas)
  assert not packing.pack(usual, steps).startswith(container.SIGNATURE)
  assert packing.pack(usual, steps, metadata={"text": b"a"}).startswith(container.SIGNATURE)
  assert packing.pack(usual, steps, layers=2).startswith(container.SIGNATURE)


def test_a_damaged_short_file_is_refused_or_read():
  data, _ = short_file()
  for cut in fuzz_format.truncations(data):
    with pytest.raises(gaussjax.FormatError):
      gaussjax.decode(cut)
  header = gaussjax.decode(data)[1]
  outcomes = [fuzz_format.outcome(damaged, header) for damaged in fuzz_format.mutations(data, 100, 0)]
  assert outcomes.count("refused") > 40


QUANTIZE = jax.jit(grids.quantize)
FINE, COARSE = Steps(80, 64, 208, 60, 64), Steps(150, 136, 140, 140, 144)


def extreme_set(count, seed, channels=3):
  """Weights, scales and colours beyond what fits make, within what a file holds."""
  rng, gaussians = np.random.default_rng(seed), scene(count, 60, 80, channels=channels, seed=seed)
  scales = np.float32(rng.uniform(-4, 13, (count, 2)))
  weights = np.float32(rng.uniform(-grids.MAX_LOG_WEIGHT, grids.MAX_LOG_WEIGHT, count))
  return gaussians._replace(
    shape=gaussians.shape._replace(log_scales=jnp.asarray(scales)),
    colors=gaussians.colors * jnp.asarray(np.float32(10 ** rng.uniform(-3, 2, (count, 1)))),
    log_weights=jnp.asarray(weights),
  )


@pytest.mark.parametrize("steps", [STEPS, FINE, COARSE])
@pytest.mark.parametrize("kind", ["plain", "weighted", "extreme"])
def test_codes_give_back_the_quantised_set_and_quantising_is_idempotent(kind, steps):
  gaussians = extreme_set(400, 0) if kind == "extreme" else scene(400, 60, 80)
  if kind == "plain":
    gaussians = gaussians._replace(log_weights=None)
  grid = grids.grid(steps)
  quantized, coded = QUANTIZE(gaussians, grid)
  codes = Codes(*[np.asarray(field).astype(np.int64) for field in coded])
  # What decides how others are read is the same in integers here and there.
  feature, roots, ratios, weights = grids.known(codes, grid)
  log_scales = np.stack([2 * np.log(roots / grids.ONE) + ratios / grids.ONE, 2 * np.log(roots / grids.ONE)], 1)
  np.testing.assert_allclose(quantized.shape.log_scales, log_scales, rtol=1e-5, atol=1e-5)
  if kind != "plain":
    np.testing.assert_allclose(quantized.log_weights, weights / grids.ONE, rtol=1e-6)
  assert (codes.turn < grids.bins(grid, feature)).all() and (codes.turn >= 0).all()
  assert (codes.parts < 1 << grids.part_bits(feature)).all() and codes.minor.min() >= 1 and codes.ratio.min() >= 0
  dequantized = grids.dequantize(codes, grid, gaussians.canvas)
  np.testing.assert_allclose(dequantized.shape.thetas, quantized.shape.thetas, atol=1e-5)
  scale = float(np.abs(quantized.colors).max())
  np.testing.assert_allclose(dequantized.colors, quantized.colors, atol=1e-5 * scale, rtol=1e-4)
  far = np.abs(dequantized.means - quantized.means).max(1) > 5e-3
  assert far.mean() < 0.02  # of the thinnest, float32 may find another shape of a cell
  again = grids.codes_of(dequantized, steps)
  for name, first, second in zip(Codes._fields, codes, again, strict=True):
    # But for means clipped at the margin, the thinnest, and float32 of large numbers.
    assert np.mean(first != second) < (0.1 if name in ("cells", "parts") else 0.02), name


def test_units_and_levels_are_the_same_integers_in_numpy_and_jax():
  """Of all roots, ratios and weights that a file may hold, the edges of octaves among them."""
  rng = np.random.default_rng(0)
  edges = np.array([f * 2**k // 65536 + d for f in grids.FRACTIONS for k in range(26) for d in (-1, 0, 1)])
  roots = np.concatenate([edges[edges >= 1], rng.integers(1, contexts.MAX_NUMBER, 2000), [contexts.MAX_NUMBER]])
  ratios = rng.integers(0, 24 * grids.ONE, len(roots))
  weights = rng.integers(-24 * grids.ONE, 24 * grids.ONE + 1, len(roots))
  theirs = grids.features_of(*[jnp.asarray(values, jnp.int32) for values in (roots, ratios, weights)])
  ours = grids.features_of(roots, ratios, weights)
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  octaves = np.floor(8 * np.log2(roots / grids.ONE) + 1e-9)
  assert np.abs(ours.minor - 2 * octaves).max() <= 2 and np.mean(ours.minor != 2 * octaves) < 0.05  # at the edges
  for field in (grids.MINOR, grids.RATIO, grids.TURN, grids.COLOR):
    np.testing.assert_array_equal(grids.level(field, ours), grids.level(field, theirs))
  np.testing.assert_array_equal(grids.part_bits(ours), grids.part_bits(theirs))
  for steps in (STEPS, FINE, COARSE):
    grid = grids.grid(steps)
    traced = jax.jit(lambda tables, feature, grid=grid: grids.bins(grid._replace(bins=tables), feature))
    np.testing.assert_array_equal(grids.bins(grid, ours), traced(grid.bins, theirs))


def test_finer_steps_come_nearer():
  """Nothing is lost but by quantisation, and with coarse ones no number ends beyond what a reader accepts."""
  gaussians = scene(400, 60, 80)
  fine, _ = QUANTIZE(gaussians, grids.grid(FINE))
  inside = jnp.all((gaussians.means > -3) & (gaussians.means < jnp.array([83, 63])), 1)
  np.testing.assert_allclose(fine.means[inside], gaussians.means[inside], atol=0.1)
  np.testing.assert_allclose(fine.colors, gaussians.colors, atol=0.01)
  np.testing.assert_allclose(fine.log_weights, gaussians.log_weights, atol=0.01)
  for seed in range(3):
    for steps in (COARSE, STEPS._replace(weight=164), COARSE._replace(weight=255)):
      data = packing.pack(extreme_set(60, seed), steps)
      limits = container.LIMITS._replace(overlaps=1 << 40)
      assert len(gaussjax.decode(data, limits=limits)[0].means) == 60


@pytest.mark.parametrize("channels", [1, 3])
def test_log_weights_come_back_within_their_grid(channels):
  gaussians = scene(60, 60, 80, channels=channels, log_scale=(0.5, 0.2))
  apart = np.float32(np.stack(np.divmod(np.arange(60), 8), 1) * [9, 6] + 3.3)
  gaussians = gaussians._replace(log_weights=gaussians.log_weights * 5, means=jnp.asarray(apart))
  for layers in (1, 3):
    data = packing.pack(gaussians, STEPS, layers=layers)
    found, header = gaussjax.decode(data)
    assert header.weighted and header.steps == STEPS and header.layers == layers
    # Places say which is which: they are apart by more than a step.
    near = np.argmin(np.abs(np.asarray(gaussians.means)[:, None] - np.asarray(found.means)).sum(-1), 1)
    assert len(set(near)) == 60
    difference = np.asarray(found.log_weights)[near] - np.asarray(gaussians.log_weights)
    assert np.abs(difference).max() <= 0.5 * grids.step(STEPS.weight) + 1e-4
  light = packing.pack(gaussians._replace(log_weights=None), STEPS)
  assert not container.read(light).header.weighted and len(light) < len(data) - 20


def test_layers_are_the_larger_gaussians_first():
  gaussians = scene(64, 60, 80, log_scale=(1.5, 1.0))._replace(log_weights=None)
  found, _ = gaussjax.decode(packing.pack(gaussians, STEPS, layers=3))
  areas = np.asarray(found.shape.log_scales).sum(1)
  assert areas[:4].min() >= areas[4:16].max() and areas[4:16].min() >= areas[16:].max()


def test_steps_grow_one_after_another():
  steps, least = Steps(120, 100, 180, 110, 112), Steps(80, 64, 208, 48, 64)
  grown = [quantization.coarser(steps, times, least) for times in range(-10, 11)]
  assert grown[10] == steps and grown[0] == Steps(118, 98, 182, 108, 110)
  assert grown[20] == Steps(122, 102, 178, 112, 114)
  assert all(np.abs(np.subtract(one, other)).sum() == 1 for one, other in itertools.pairwise(grown))
  assert quantization.coarser(steps, -1000, least) == least and quantization.coarser(steps, 1000, least) == (
    255,
    136,
    0,
    255,
    255,
  )


def test_cut_off_files_are_refused_or_drawn_in_part():
  for data in (fuzz_format.small_file(), fuzz_format.VERSION_2.read_bytes()):
    check_cut_off(data)


def check_cut_off(data):
  """A small file's beginnings."""
  sizes = container.read(data).sizes
  first = len(data) - sizes[-1][1] - sizes[-2][1]
  for cut in fuzz_format.truncations(data):
    if cut == data[: -sizes[-1][1]]:
      continue  # only the note is missing
    with pytest.raises(gaussjax.FormatError):
      gaussjax.decode(cut)
  whole, _ = gaussjax.decode(data)
  part, _ = gaussjax.decode(data[: first + 9], partial=True)
  np.testing.assert_array_equal(part.means, whole.means[: len(part.means)])
  assert len(part.means) == fuzz_format.COUNT // 2


def test_damaged_files_are_refused_or_finite():
  for data in (fuzz_format.small_file(), fuzz_format.VERSION_2.read_bytes()):
    header = container.read(data).header
    outcomes = [fuzz_format.outcome(damaged, header) for damaged in fuzz_format.mutations(data, 250, seed=1)]
    assert {"refused", "drawn"} <= set(outcomes) <= {"refused", "read", "drawn"}


def test_a_million_gaussians_in_one_pixel_are_refused():
  header = header_of(size=(1, 1))
  parts = fuzz_format.parts_of(
    container.write(header, [random_codes(np.random.default_rng(0), 3, 1, header.steps)])
  )
  claimed = parts._replace(bodies=[bytearray(container.varint(1_000_000)) + parts.bodies[0][1:]])
  with pytest.raises(gaussjax.FormatError, match="1 byte each"):
    gaussjax.decode(fuzz_format.signed(claimed))
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
    ({"bpp": 1.0}, "8 bytes to fill .1 bits a pixel., expected at least 46"),
    ({"size": 10}, "to fill"),
    ({"size": 600.5}, "size=600.5, expected a whole number"),
    ({"size": 200, "metadata": {"icc": bytes(1000)}}, "at least 1071"),
    ({"metadata": {"xmp": b""}}, "got metadata xmp"),
    ({"metadata": {"text": "words"}}, "type str, expected bytes"),
    ({"target_psnr": 4000}, "at most 99.0"),
    ({"effort": 10}, "effort"),
    ({"effort": 2.0}, "effort=2.0, expected a whole number"),
    ({"effort": encoding.Effort(0, 8)}, "effort.steps=0"),
    ({"effort": encoding.Effort(9, 8, OWN_BLEND)}, "no code in files"),
    ({"layers": 5}, "layers"),
    ({"effort": encoding.Effort(9, 8, seed=-1)}, "effort.seed"),
    ({"effort": encoding.Effort(9, 8, seed=2**32 - 1, tries=2)}, "effort.seed"),
    ({"effort": encoding.Effort(9, 8, tries=0)}, "effort.tries"),
  ):
    with pytest.raises(ValueError, match=words):
      search.encode(image, **options)
  for shape, words in (
    ((8, 8, 33), "33 channels"),
    ((12000, 12000), "144,000,000 pixels"),
    ((16, 16, 32), "at least 183"),
  ):
    with pytest.raises(ValueError, match=words):
      search.encode(np.broadcast_to(np.float32(0), shape), size=150)
  with pytest.raises(ValueError, match="at most 58.9"):
    search.encode(np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64), target_psnr=60)


def test_numbers_of_any_type_are_taken():
  asked = {"quality": None, "size": None, "target_psnr": None}
  assert encoding.goal(8000, **asked, bpp=np.float32(0.5)).size == 500
  assert encoding.goal(100, **asked, bpp=1e300).size > 10**9
  assert encoding.goal(100, **asked | {"size": np.int64(600)}, bpp=None).size == 600
  assert encoding.goal(100, **asked | {"target_psnr": jnp.float32(30)}, bpp=None).psnr == 30
  assert encoding.effort_of(np.uint8(3)) == encoding.EFFORTS[3] == encoding.Effort.level(3, "psnr")


def test_an_effort_may_be_tuned_to_the_eye():
  tuned = encoding.Effort.level(2, tune="visual")
  assert tuned.recipe.loss is losses.visual and tuned.steps == encoding.EFFORTS[2].steps
  with pytest.raises(ValueError, match="got tune='ssim', expected one of psnr, visual"):
    encoding.Effort.level(2, "ssim")


def test_steps_of_log_scales_stay_within_what_readers_accept():
  """Where all Gaussians are of one colour no position is felt, and its step grows without bound."""
  flat = PLAIN._replace(colors=jnp.full_like(PLAIN.colors, 0.5))
  target = jnp.asarray(np.random.default_rng(0).random((24, 31, 3)), jnp.float32)
  steps = quantization.balanced_steps(flat, target)
  assert steps.position - quantization._SCALES_FINER > quantization.COARSEST_LOG_SCALE == steps.log_scale


def test_of_several_tries_the_best_is_kept(monkeypatch):
  """Each has a seed and checkpoints of its own, and for a given size its number of Gaussians; of few several."""
  image, seen = np.zeros((24, 31, 3), np.float32), []
  effort = encoding.Effort(1, 1, seed=7, tries=3)
  work = encoding.Work(image, effort, 1, {}, lambda *at: None, lambda name: name)

  def filled(work, count, size):
    seen.append((work.effort.seed, work.part("fit"), count))
    return bytes([work.effort.seed])

  monkeypatch.setattr(search, "_filled", filled)
  monkeypatch.setattr(encoding, "loss", lambda work, data: {8: 0.1}.get(data[0], 0.2))
  assert search._to_size(work, 437) == bytes([8])
  counts = [100] * 3 + [109] * 3 + [92] * 3
  assert seen == [(7 + index, f"fit-try-{index}", count) for index, count in enumerate(counts)]
  seen.clear()
  monkeypatch.setattr(search, "SEVERAL", 100)
  assert search._to_size(work, 437) == bytes([8]) and [count for _, _, count in seen] == [100, 109, 92]
  seeds = []

  def noted(work, index):
    seeds.append(work.effort.seed)
    return b"file"

  search._best_of(work._replace(effort=effort._replace(seed=2**32 - 1)), noted, 2)
  assert seeds == [2**32 - 1, 0]  # few Gaussians have more files than an effort's seed leaves room for


def plain(fitted, target, steps, *, progress_fn, **options):
  """A quantizer as a user may write one: every number at the nearest code, and that is it."""
  assert target.shape == (24, 31, 3) and set(options) == {"stage_steps", "seed", "loss"}
  progress_fn(1, 1)
  return grids.nearest(fitted, steps)


EFFORT = encoding.Effort(1, 1, quantizer=plain)
PLAIN = scene(12, log_scale=(1.5, 0.4), seed=3)._replace(log_weights=None)


def test_steps_for_a_size_are_the_finest():
  given = scene(96, log_scale=(0.5, 0.6), seed=4)._replace(log_weights=None)
  work = encoding.Work(np.zeros((24, 31, 3), np.float32), EFFORT, 1, {}, lambda *at: None)
  balanced, least = encoding.Steps(100, 90, 150, 95, 128), quantization.finest(given)
  ladder = [quantization.coarser(balanced, times, least) for times in range(encoding.FINER, encoding.COARSER)]
  size = lambda steps: len(encoding.file(work, given, steps))
  for most in (300, 350, 400):
    found = ladder.index(encoding.steps_within(work, given, balanced, most))
    assert size(ladder[found]) <= most < size(ladder[found - 1])


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
    (PLAIN._replace(log_weights=jnp.full(12, 24.5)), "log_weights of up to 24.5, expected at most 24"),
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
  assert least.color > grids.FINEST.color and quantization.finest(PLAIN) == grids.FINEST
  codes = grids.codes_of(bright, least).colors
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
