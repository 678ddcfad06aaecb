"""What a browser runs: the decoder of gaussjax/web/gjx.js in node, against the one here. Left out without node."""

import base64
import gzip
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import reference
from test_codec import STEPS, random_codes
from web_cases import GOLDEN, cases, check_alike

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


def made(channels, layers, blend, *, count=40):
  """A file of random integers."""
  rng, grid = np.random.default_rng(channels), grids.grid(STEPS)
  parts = [random_codes(rng, count * 3**i, channels, grid) for i in range(layers)]
  background = tuple(range(-channels, 0))
  header = container.Header(300, 400, channels, blend, 3500, 300, background, STEPS, layers)
  return container.write(header, parts, {"icc": b"profile"})


def check_same(found, data):
  """The integers that node read are those of `data`, and stand for the same numbers."""
  contents = container.read(data)
  together = [np.concatenate(field) for field in zip(*contents.layers, strict=True)]
  names = ("cells", "parts", "minor", "ratio", "turn", "codeColors")
  for name, field in zip(names, together, strict=True):
    np.testing.assert_array_equal(found[name], field.ravel(), name)
  assert found["layers"] == [len(layer.minor) for layer in contents.layers]
  assert [tuple(entry) for entry in found["sizes"]] == contents.sizes
  gaussians = packing.gaussians_of(contents)
  floats = {"means": gaussians.means, "thetas": gaussians.shape.thetas, "logScales": gaussians.shape.log_scales}
  for name, field in {**floats, "colors": gaussians.colors}.items():
    np.testing.assert_allclose(found[name], np.asarray(field).ravel(), rtol=2e-6, atol=2e-5, err_msg=name)
  measured = contexts.field_bits(contents.layers, contents.header.channels, contents.header.steps)
  np.testing.assert_allclose(
    [found["bits"][name] for name in measured], list(measured.values()), rtol=0.01, atol=60
  )


@needs_node
def test_node_reads_the_same_integers():
  kinds = [(1, 1, 0), (2, 2, 1), (3, 3, 0), (4, 4, 1), (32, 1, 0)]
  golden = [path.read_bytes() for path in sorted(GOLDEN.glob("*.gjx"))]
  files = [fuzz_format.small_file(), *golden, *(made(*kind) for kind in kinds)]
  for found, data in zip(by_node(files), files, strict=True):
    check_same(found, data)
  _, gaussians = reference.decode(files[0])
  assert by_node(files[:1])[0]["minor"] == [gaussian["minor"] for gaussian in gaussians]


@needs_node
def test_numbers_at_the_edge_of_what_is_coded_are_the_same():
  """Steps of every code, counts of angles beyond 32 bits, colours and scales of the greatest magnitude."""
  files = []
  for seed, (position, scale, turn, color) in enumerate(
    itertools.product((0, 255), (0, 128), (0, 255), (0, 40))  # larger ones stand for numbers that are refused
  ):
    steps = grids.Steps(position, scale, turn, color)
    grid, rng = grids.grid(steps), np.random.default_rng(seed)
    codes = random_codes(rng, 30, 3, grid)
    ratio = rng.integers(0, 4 if scale else 8000, 30)
    codes = codes._replace(
      minor=rng.integers(-6, 6, 30) if scale else rng.integers(-8000, 190, 30),
      ratio=ratio,
      turn=rng.integers(0, 1 << 20, 30) % grids.bins(ratio, grid),
      colors=rng.integers(-(1 << 20), 1 << 20, (30, 3)) if color == 0 else rng.integers(-9, 9, (30, 3)),
    )
    files.append(container.write(container.Header(1, 1, 3, 0, 3500, 300, (0, 0, 0), steps, 1), [codes]))
  for found, data in zip(by_node(files), files, strict=True):
    check_same(found, data)


@needs_node
def test_damaged_files_have_the_same_end_here_and_there():
  """Refused by both, or read as the same integers; never another error, never slowly."""
  data = fuzz_format.small_file()
  files = [*itertools.islice(fuzz_format.truncations(data), 0, None, 7), *fuzz_format.mutations(data, 600, seed=2)]
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
  assert read > 20


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
    cases(f"{channels} channels, blend {blend}", made(channels, 1, blend))[at]
    for channels, blend, at in ((1, 1, 1), (2, 0, 0), (4, 0, 2), (4, 1, 3))
  ]
  lines = [json.dumps({"data": base64.b64encode(case.data).decode(), **case.json()}) + "\n" for case in wanted]
  command = [NODE, str(HERE / "node_draw.mjs"), str(MODULE)]
  done = subprocess.run(command, input="".join(lines), capture_output=True, text=True, timeout=300, check=True)
  for line, case in zip(done.stdout.splitlines(), wanted, strict=True):
    pixels = np.frombuffer(base64.b64decode(line), np.uint8).reshape(case.height, case.width, 4)
    check_alike(pixels, case)


def test_the_module_stays_small_and_needs_nothing():
  source = MODULE.read_text()
  assert len(gzip.compress(source.encode(), 9)) < 15_000
  assert "import " not in source.replace("//   import { decode", "")


def test_a_page_holds_all_that_it_needs_and_believes_no_name(tmp_path):
  page = pages.viewer(b"bytes {{title}}", title="</title><script>alert(1)</script>{{data}}", original="data:,x")
  assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page and "{{data}}" in page
  assert page.count("</script>") == 3  # the file, its original, the program
  assert not re.search(r"(src|href)=.https?:|^import |^export ", page, re.MULTILINE)
  assert base64.b64encode(b"bytes {{title}}").decode() in page
