"""The command line as people use it: real processes for what is promised, wrong input included."""

import json
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

import gaussjax
from gaussjax import cli, image_io

PHOTOGRAPH = Path(__file__).parent.parent / "experiments" / "data" / "kodim23.png"


def run(folder, *arguments, stdin=b""):
  command = [sys.executable, "-m", "gaussjax.cli", *map(str, arguments)]
  return subprocess.run(command, input=stdin, capture_output=True, cwd=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A small photograph with EXIF, and its file."""
  folder = tmp_path_factory.mktemp("cli")
  exif = Image.Exif()
  exif[0x010F] = "a camera"
  Image.open(PHOTOGRAPH).resize((36, 24)).save(folder / "small.png", exif=exif)
  done = run(folder, "encode", "small.png", "small.gjx", "--size=600", "-e0", "--layers=2", "--metadata", "--json")
  assert done.returncode == 0, done.stderr
  figures = json.loads(done.stdout)
  assert figures["bytes"] == (folder / "small.gjx").stat().st_size <= 600
  assert figures["bpp"] == 8 * figures["bytes"] / (36 * 24) and figures["psnr"] > 18
  return folder


def test_help_comes_at_once_without_jax():
  code = "import sys; from gaussjax import cli; cli.parser().format_help(); assert 'jax' not in sys.modules"
  subprocess.run([sys.executable, "-c", code], check=True)
  assert run(Path.cwd(), "encode", "--help").returncode == 0


def test_decoding_draws_what_the_encoder_measured(folder):
  done = run(folder, "decode", "-", "-", stdin=(folder / "small.gjx").read_bytes())
  assert done.returncode == 0, done.stderr
  picture, original = (gaussjax.read_image(source) for source in (done.stdout, folder / "small.png"))
  assert picture.shape == original.shape
  compared = run(folder, "compare", "small.png", "small.gjx", "--json")
  psnr = json.loads(compared.stdout)["psnr"]
  assert psnr == pytest.approx(-10 * np.log10(np.mean((picture - original) ** 2)), abs=0.01) and psnr > 18
  assert (
    image_io.read_metadata(done.stdout)["exif"]
    == image_io.read_metadata((folder / "small.png").read_bytes())["exif"]
  )


@pytest.fixture(autouse=True)
def _leave_jax_as_it_is(monkeypatch):
  monkeypatch.setattr("gaussjax.startup.prepare_jax", lambda: None)


def in_process(capsys, *arguments):
  with pytest.raises(SystemExit) as ended:
    cli.main([str(argument) for argument in arguments])
  captured = capsys.readouterr()
  return ended.value.code, captured.out, captured.err


def test_rendering_at_other_sizes_and_info(folder, tmp_path, capsys):
  out = tmp_path / "out.png"
  options = ("--zoom=3", "--crop=6,4,26,14")
  assert in_process(capsys, "render", folder / "small.gjx", out, *options)[0] == 0
  assert iio.imread(out).shape == (30, 60, 3)
  status, text, _ = in_process(capsys, "info", folder / "small.gjx", "--json")
  figures = json.loads(text)
  assert status == 0 and figures["size"] == "36 x 24" and figures["bytes layer 2"] > figures["bytes layer 1"]
  bits = sum(value for name, value in figures.items() if name.startswith("bits ") and name != "bits a Gaussian")
  assert bits < figures["bits a Gaussian"]
  assert (
    in_process(capsys, "view", folder / "small.gjx", tmp_path / "v.png", "--original", folder / "small.png")[0] == 0
  )
  assert iio.imread(tmp_path / "v.png").shape[0] == 24 and (tmp_path / "v-ellipses.png").exists()


def test_mistakes_are_one_line_and_cost_nothing(folder, tmp_path, capsys):
  good, small = folder / "small.gjx", folder / "small.png"
  cut, text = tmp_path / "cut.gjx", tmp_path / "text.gjx"
  cut.write_bytes(good.read_bytes()[:-9])
  text.write_text("hello")
  new = tmp_path / "new.png"
  for status, words, arguments in (
    (2, "--force", ("encode", small, good)),
    (2, "not a file", ("encode", tmp_path / "none.png", tmp_path / "new.gjx")),
    (2, "not a readable image", ("encode", text, tmp_path / "new.gjx")),
    (2, "does not exist", ("decode", good, tmp_path / "no" / "new.png")),
    (1, "signature", ("decode", text, new)),
    (1, "cut off", ("decode", cut, new)),
    (2, "--zoom", ("render", good, new, "--zoom=-1")),
    (2, "pixels", ("render", good, new, "--width=1000000")),
    (2, "viewport", ("render", good, new, "--crop=9,9,2,2")),
    (2, "equal sizes", ("compare", PHOTOGRAPH, good)),
    (2, "could not be encoded", ("batch", text, "--out_dir", tmp_path / "more", "-e0")),
  ):
    found, out, error = in_process(capsys, *arguments)
    assert (found, out) == (status, "") and words in error, (arguments, error)
    assert error.count("\n") <= 2 and error.startswith(("gaussjax: ", str(text)))
  assert not new.exists() and not (tmp_path / "new.gjx").exists()
  assert in_process(capsys, "decode", cut, new, "--partial")[0] == 0 and new.exists()
  assert in_process(capsys, "encode", small, new, "--bpp=1", "--size=9")[0] == 2


def test_batch_leaves_what_is_there_alone(folder, tmp_path, capsys):
  (tmp_path / "small.gjx").write_bytes(b"mine")
  status, out, _ = in_process(capsys, "batch", folder, "--out_dir", tmp_path)
  assert status == 0 and "there already" in out and (tmp_path / "small.gjx").read_bytes() == b"mine"


def test_imageio_reads_the_format(folder):
  gaussjax.register_imageio()
  gaussjax.register_imageio()
  picture = iio.imread(folder / "small.gjx")
  assert picture.shape == (24, 36, 3) and picture.dtype == np.uint8
  assert iio.imread(folder / "small.gjx", height=48).shape == (48, 72, 3)
  assert iio.improps(folder / "small.gjx").shape == (24, 36, 3)
  assert iio.immeta(folder / "small.gjx")["width"] == 36
  gaussians = gaussjax.load(folder / "small.gjx")
  np.testing.assert_array_equal(image_io.as_uint8(gaussjax.render(gaussians)), picture)
  with pytest.raises(ValueError, match="not a file"):
    gaussjax.load(folder)
