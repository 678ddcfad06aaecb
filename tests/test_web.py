"""What a browser runs: the decoder of gaussjax/web/gjx.js in node, against the one here. Left out without node."""

import base64
import gzip
import hashlib
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from web_cases import GOLDEN, cases, check_alike, golden

import gaussjax
from experiments import fuzz_format
from gaussjax.gjx import container, contexts, grids, packing
from gaussjax.web import pages

HERE = Path(__file__).parent
MODULE = Path(gaussjax.__file__).parent / "web" / "gjx.js"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="there is no node to run JavaScript with")


def by_node(files, **options):
  """What the decoder of JavaScript makes of each file."""
  lines = "".join(base64.b64encode(data).decode() + "\n" for data in files)
  command = [NODE, str(HERE / "node_decode.mjs"), str(MODULE), json.dumps(options)]
  done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=300, check=False)
  assert done.returncode == 0, done.stderr
  return [json.loads(line) for line in done.stdout.splitlines()]


def made(channels, layers, blend, *, count=40, weighted=False):
  """A file of random integers, with a canvas of its own unless they have weights."""
  rng = np.random.default_rng(channels)
  steps = grids.Steps(120, 100, 170, 110, 112 if weighted else grids.STEP_ZERO)
  parts = [fuzz_format.random_codes(rng, count * 3**i, channels, steps, weighted=weighted) for i in range(layers)]
  background, unit = (range(channels), 255) if weighted else (range(-channels, 0), container.FIXED)
  header = container.Header(
    300, 400, channels, blend, 3500, 300, tuple(background), steps, layers, weighted, background_unit=unit
  )
  return container.write(header, parts, {"icc": b"profile"})


def integers_of(contents):
  """The integers of all layers together, by name."""
  names = type(contents.layers[0])._fields
  return {
    name: np.concatenate(field) for name, field in zip(names, zip(*contents.layers, strict=True), strict=True)
  }


def check_same(found, data):
  """The integers that node read are those of `data`, and stand for the same numbers."""
  assert "error" not in found, found
  contents = container.read(data)
  for name, field in integers_of(contents).items():
    np.testing.assert_array_equal(found["codeColors" if name == "colors" else name], field.ravel(), name)
  assert found["layers"] == [len(layer.minor) for layer in contents.layers]
  assert [tuple(entry) for entry in found["sizes"]] == contents.sizes
  assert {name: bytes(given.values()) for name, given in found["metadata"].items()} == contents.metadata
  gaussians = packing.gaussians_of(contents)
  log_weights = np.zeros(len(gaussians.means)) if gaussians.log_weights is None else gaussians.log_weights
  floats = {"means": gaussians.means, "thetas": gaussians.shape.thetas, "logScales": gaussians.shape.log_scales}
  for name, field in {**floats, "colors": gaussians.colors, "logWeights": log_weights}.items():
    np.testing.assert_allclose(found[name], np.asarray(field).ravel(), rtol=2e-6, atol=2e-5, err_msg=name)
  strengths = contents.header.grain
  if strengths is not None:
    assert found["grain"]["side"] == strengths.side
    assert found["grain"]["levels"] == list(strengths.fine + strengths.coarse)
  measured = container.field_bits(contents)
  np.testing.assert_allclose(
    [found["bits"][name] for name in measured], list(measured.values()), rtol=0.01, atol=60
  )
  told = sum(size for name, size in contents.sizes if name.startswith("layer"))
  assert -1 < told - sum(found["bits"].values()) / 8 < 9 * len(contents.layers) + sum(found["layers"])


@needs_node
def test_node_reads_the_same_integers():
  kinds = [(1, 1, 0), (2, 2, 1), (3, 3, 0), (4, 4, 1), (32, 1, 0)]
  made_here = [made(*kind, weighted=weighted) for kind in kinds for weighted in (False, True)]
  files = [fuzz_format.small_file(), *golden().values(), *made_here, *map(fuzz_format.short_file, (1, 3, 4))]
  for found, data in zip(by_node(files), files, strict=True):
    check_same(found, data)


def test_the_integers_of_golden_files_stay():
  """A change is a change of the format: files that people have would be read as other pictures."""
  digests = {}
  for name, data in golden().items():
    integers = integers_of(container.read(data))
    text = json.dumps({name: field.tolist() for name, field in sorted(integers.items())})
    digests[name] = hashlib.sha256(text.encode()).hexdigest()[:16]
  assert digests == DIGESTS


DIGESTS = {
  "0.1.0/small.gjx": "7d9dbb201e9badb9",
  "alpha.gjx": "8aeb3ba82300cc2b",
  "gray_alpha_sum.gjx": "fca19b5047718986",
  "gray_sum.gjx": "aebfb9cbcf59fa7c",
  "photo.gjx": "7038408375d1f715",
  "v3/alpha_weighted.gjx": "fd59f397a2b129bf",
  "v3/grain.gjx": "21ae6f7efbe92e0a",
  "v3/gray_sum.gjx": "98d6f21e9724f477",
  "v3/photo_part.gjx": "21ae6f7efbe92e0a",
  "v3/short.gjx": "e5dd66931fdf322f",
  "v3/weighted_layers.gjx": "4abdb07ec395bb9b",
}


@needs_node
def test_numbers_at_the_edge_of_what_is_coded_are_the_same():
  """Steps of every code, counts of angles beyond 53 bits, weights, colours and scales of the greatest magnitude."""
  files = [
    container.write(
      container.Header(1, 1, 3, 0, 3500, 300, (0, 0, 0), steps, 1, weighted=True),
      [edge_codes(np.random.default_rng(seed), 30, steps)],
    )
    for seed, steps in enumerate(
      grids.Steps(*codes) for codes in itertools.product((0, 255), (0, 128, 255), (0, 255), (0, 40, 255), (0, 255))
    )
  ]
  for found, data in zip(by_node(files), files, strict=True):
    check_same(found, data)


def edge_codes(rng, count, steps):
  """Codes whose numbers go as far as a reader accepts, whatever the steps are."""
  grid = grids.grid(steps)
  within = lambda numbers, units: np.trunc(numbers * grids.ONE / units).astype(np.int64)
  weights = within(rng.uniform(-24, 24, count), grid.weight)
  zeros, blank = np.zeros(count, np.int64), np.zeros((count, 3), np.int64)
  unit = grid.minor[grids.level(grids.MINOR, grids.weight_feature(weights * int(grid.weight)))]
  minor = within(np.exp(rng.uniform(-1, 6, count)), unit)
  minor = np.maximum(minor, np.maximum((contexts.LEAST_ROOT + (unit >> 1)) // unit, 1))  # none is below
  codes = grids.Codes(rng.integers(0, 1 << 15, (count, 2)), weights, minor, zeros, zeros, blank, zeros)
  known = grids.known(codes, grid)
  rest = np.maximum(12 - 2 * np.log(known.roots / grids.ONE), 0) * rng.choice([0, 0.5, 0.999], count)
  codes = codes._replace(ratio=within(rest, grid.ratio[grids.level(grids.RATIO, known.features)]))
  feature = grids.known(codes, grid).features
  return codes._replace(
    turn=rng.integers(0, 1 << 20, count) % grids.bins(grid, feature),
    colors=within(rng.uniform(-1000, 1000, (count, 3)), grid.color[grids.level(grids.COLOR, feature)][:, None]),
    parts=rng.integers(0, 1 << 20, count) % (1 << grids.part_bits(feature)),
  )


@needs_node
def test_damaged_files_have_the_same_end_here_and_there():
  """Refused by both, or read as the same integers; never another error, never slowly."""
  data, old = fuzz_format.small_file(), golden()["gray_sum.gjx"]
  files = [
    *itertools.islice(fuzz_format.truncations(data), 0, None, 7),
    *fuzz_format.truncations(data[:24]),
    *fuzz_format.mutations(data, 600, seed=2),
    *fuzz_format.truncations(old[:50]),
    *fuzz_format.mutations(old, 200, seed=3),
    *fuzz_format.mutations(golden()["v3/grain.gjx"], 200, seed=4),
    *fuzz_format.mutations(fuzz_format.short_file(), 200, seed=5),
  ]
  sizes = container.Limits(pixels=1 << 16, gaussians=1 << 12, file_bytes=1 << 20, overlaps=1 << 16)
  same = {"pixels": sizes.pixels, "gaussians": sizes.gaussians, "fileBytes": sizes.file_bytes}
  read = 0
  for damaged, found in zip(files, by_node(files, limits=same | {"overlaps": sizes.overlaps}), strict=True):
    assert found["ms"] < 10_000  # it would go on without end, or allot what no machine has
    try:
      contents = container.read(damaged, limits=sizes)
      packing.gaussians_of(contents, limits=sizes)
    except gaussjax.FormatError as error:
      assert "error" in found, f"{error}, but node reads it"
      continue
    assert "error" not in found, found
    read += 1
    np.testing.assert_array_equal(found["codeColors"], np.concatenate([x.colors.ravel() for x in contents.layers]))
  assert read > 40


@needs_node
def test_layers_are_counted_however_few_bytes_are_there():
  """As the element does while a file arrives: none before the first one is whole, and no error."""
  for data in (made(3, 2, 0), golden()["photo.gjx"]):
    sizes = container.read(data).sizes
    ends = list(itertools.accumulate((size for _, size in sizes), initial=len(container.SIGNATURE)))
    last = [end for end, (name, _) in zip(ends[1:], sizes, strict=True) if name.startswith("layer")]
    cuts = [*range(60), *(end + more for end in last for more in (-1, 0))]
    words = [str(MODULE), base64.b64encode(data).decode(), json.dumps(cuts)]
    command = [NODE, "--input-type=module", "--eval", COUNT, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == [sum(end <= cut for end in last) for cut in cuts]


COUNT = """
  const [module, data, cuts] = process.argv.slice(1);
  const { countLayers } = await import(module);
  const bytes = Buffer.from(data, "base64");
  console.log(JSON.stringify(JSON.parse(cuts).map((cut) => countLayers(bytes.subarray(0, cut)))));
"""


@needs_node
def test_a_file_that_was_cut_off_is_drawn_from_its_whole_layers():
  data = made(3, 3, 0)
  cut = data[: -container.read(data).sizes[-1][1] - 20]
  refused, part, whole = by_node([cut], partial=False)[0], by_node([cut], partial=True)[0], by_node([data])[0]
  assert refused["error"] == "cut off: 2 of 3 layers are whole"
  assert part["layers"] == whole["layers"][:2] and not part["whole"] and whole["whole"]
  assert part["means"] == whole["means"][: len(part["means"])]


@needs_node
def test_pictures_drawn_without_a_gpu_are_those_of_python():
  photo = (GOLDEN / "photo.gjx").read_bytes()
  wanted = cases("photo", photo) + [
    cases(f"{channels} channels, blend {blend}", made(channels, 1, blend, weighted=weighted))[at]
    for channels, blend, at, weighted in (
      (1, 1, 1, False),
      (1, 1, 0, True),
      (2, 0, 0, False),
      (3, 0, 1, True),
      (4, 0, 2, True),
      (4, 1, 3, False),
    )
  ]
  lines = [json.dumps({"data": base64.b64encode(case.data).decode(), **case.json()}) + "\n" for case in wanted]
  command = [NODE, str(HERE / "node_draw.mjs"), str(MODULE)]
  done = subprocess.run(command, input="".join(lines), capture_output=True, text=True, timeout=300, check=True)
  for line, case in zip(done.stdout.splitlines(), wanted, strict=True):
    pixels = np.frombuffer(base64.b64decode(line), np.uint8).reshape(case.height, case.width, 4)
    check_alike(pixels, case)


def test_the_module_stays_small_and_needs_nothing():
  source = MODULE.read_text()
  assert len(gzip.compress(source.encode(), 9)) < 21_750
  assert "import " not in source.replace("//   import { decode", "")


def test_a_page_holds_all_that_it_needs_and_believes_no_name(tmp_path):
  page = pages.viewer(b"bytes {{title}}", title="</title><script>alert(1)</script>{{data}}", original="data:,x")
  assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page and "{{data}}" in page
  assert page.count("</script>") == 3  # the file, its original, the program
  assert not re.search(r"(src|href)=.https?:|^import |^export ", page, re.MULTILINE)
  assert base64.b64encode(b"bytes {{title}}").decode() in page
