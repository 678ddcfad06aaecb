"""The command line as people use it: real processes for what is promised, wrong input included."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image, ImageCms

import gaussjax
from experiments import runner
from gaussjax import cli, image_io, startup
from gaussjax.cli import batch, encode, streams
from gaussjax.gjx import encoding

GOLDEN = Path(__file__).parent / "golden"
PHOTOGRAPH = Path(__file__).parent.parent / "experiments" / "data" / "kodim23.png"


def run(folder, *arguments, stdin=b"", **environment):
  command = [sys.executable, "-m", "gaussjax.cli", *map(str, arguments)]
  there = {name: value for name, value in os.environ.items() if environment.get(name, "") is not None}
  there |= {name: value for name, value in environment.items() if value is not None}
  there["PYTHONPATH"] = os.pathsep.join([str(Path(gaussjax.__file__).parent.parent), there.get("PYTHONPATH", "")])
  return subprocess.run(command, input=stdin, capture_output=True, cwd=folder, env=there)


@pytest.fixture(scope="module")
def folder(few, tmp_path_factory):
  """A small photograph with EXIF, and its file."""
  del few
  folder = tmp_path_factory.mktemp("cli")
  exif = Image.Exif()
  exif[0x010F] = "a camera"
  Image.open(PHOTOGRAPH).resize((32, 24)).save(folder / "small.png", exif=exif)
  size, options = 1000, ("-e0", "--layers=2", "--metadata", "--json")
  figures = json.loads(encoded(folder / "small.png", folder / "small.gjx", f"--size={size}", *options))
  assert figures["bytes"] == (folder / "small.gjx").stat().st_size <= size
  assert figures["bpp"] == 8 * figures["bytes"] / (32 * 24) and figures["psnr"] > 18
  return folder


def encoded(*arguments):
  """What a good encoding prints. In this process, so that all share compiled programs."""
  with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
    patch.setattr("gaussjax.startup.prepare_jax", lambda: None)
    with pytest.raises(SystemExit) as ended:
      cli.main(["encode", *map(str, arguments)])
  assert ended.value.code == 0
  return out.getvalue()


def test_each_goal_is_met_by_the_file(folder, tmp_path):
  """Goals for which pictures of this size have the same number of Gaussians: the most."""
  picture, decoded = folder / "small.png", {}
  for name, goal in (("bpp", 10.4), ("quality", 100), ("target_psnr", None)):
    goal = decoded["quality"]["psnr"] - 0.05 if name == "target_psnr" else goal
    figures = json.loads(encoded(picture, tmp_path / f"{name}.gjx", f"--{name}={goal}", "-e0", "--json"))
    data = (tmp_path / f"{name}.gjx").read_bytes()
    shown = image_io.as_uint8(gaussjax.render(gaussjax.decode(data)[0])) / 255
    psnr = -10 * np.log10(np.mean((shown - gaussjax.read_image(picture)) ** 2))
    assert figures["bytes"] == len(data) and figures["psnr"] == pytest.approx(psnr, abs=0.01)
    decoded[name] = figures | {"goal": goal}
  assert decoded["bpp"]["bpp"] <= 10.4
  assert decoded["target_psnr"]["psnr"] >= decoded["target_psnr"]["goal"]
  assert decoded["quality"]["bytes"] > 500


def test_the_suffixes_are_those_of_the_writer():
  assert set(image_io.FORMATS) == set(streams.PICTURE_SUFFIXES) < set(batch.IMAGE_SUFFIXES)


def test_help_comes_at_once_without_jax():
  code = "import sys; from gaussjax import cli; cli.parser().format_help(); assert 'jax' not in sys.modules"
  subprocess.run([sys.executable, "-c", code], check=True)
  assert run(Path.cwd(), "encode", "--help").returncode == 0


def test_decoding_draws_what_the_encoder_measured(folder, capsys):
  done = run(folder, "decode", "-", "-", stdin=(folder / "small.gjx").read_bytes())
  assert done.returncode == 0, done.stderr
  picture, original = (gaussjax.read_image(source) for source in (done.stdout, folder / "small.png"))
  assert picture.shape == original.shape
  _, compared, _ = in_process(capsys, "compare", folder / "small.png", folder / "small.gjx", "--json")
  psnr = json.loads(compared)["psnr"]
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


def test_rendering_at_other_sizes_and_info(folder, tmp_path, capsys, monkeypatch):
  out = tmp_path / "out.png"
  options = ("--zoom=3", "--crop=6,4,26,14")
  assert in_process(capsys, "render", folder / "small.gjx", out, *options)[0] == 0
  assert iio.imread(out).shape == (30, 60, 3)
  status, text, _ = in_process(capsys, "info", folder / "small.gjx", "--json")
  figures = json.loads(text)
  assert status == 0 and figures["size"] == "32 x 24" and figures["bytes layer 2"] > figures["bytes layer 1"]
  bits = sum(value for name, value in figures.items() if name.startswith("bits ") and name != "bits a Gaussian")
  assert bits < figures["bits a Gaussian"]
  assert (
    in_process(capsys, "view", folder / "small.gjx", tmp_path / "v.png", "--original", folder / "small.png")[0] == 0
  )
  assert iio.imread(tmp_path / "v.png").shape[0] == 24 and (tmp_path / "v-ellipses.png").exists()
  opened = []
  monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
  assert in_process(capsys, "view", folder / "small.gjx", "--html", tmp_path / "v.html", "--open")[0] == 0
  assert in_process(capsys, "view", folder / "small.gjx", "--module", tmp_path / "g.js")[0] == 0
  assert "gjx-image" in (tmp_path / "g.js").read_text()
  assert opened == [(tmp_path / "v.html").as_uri()] and "small.gjx" in (tmp_path / "v.html").read_text()


def test_mistakes_are_one_line_and_cost_nothing(folder, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr("gaussjax.render", None)
  monkeypatch.setattr("gaussjax.fitting.recipes._ended", None)
  good, small = folder / "small.gjx", folder / "small.png"
  cut, text, large = tmp_path / "cut.gjx", tmp_path / "text.gjx", tmp_path / "large.png"
  cut.write_bytes(good.read_bytes()[:-9])
  text.write_text("hello")
  Image.new("RGB", (40, 24)).save(large)
  new, file, none = tmp_path / "new.png", tmp_path / "new.gjx", tmp_path / "none"
  for status, words, arguments in (
    (2, "--force", ("encode", small, good)),
    (2, "none.png, which is not a file", ("encode", tmp_path / "none.png", file)),
    (2, "Is a directory", ("encode", tmp_path, file)),
    (2, "text.gjx: not a readable image", ("encode", text, file)),
    (2, "--bpp 0.001 of 32 x 24 pixels is 0 bytes", ("encode", small, file, "--bpp=0.001")),
    (2, "small.png: --size 20: ", ("encode", small, file, "--size=20")),
    (2, "--target_psnr: got 4000", ("encode", small, file, "--target_psnr=4000")),
    (2, "--quality: got nan", ("encode", small, file, "--quality=nan")),
    (2, "ends in .gjx", ("encode", small, tmp_path / "new.jpg")),
    (2, "not allowed with", ("encode", small, file, "--bpp=1", "--size=9")),
    (2, "does not exist", ("decode", good, none / "new.png")),
    (2, "does not exist", ("decode", good, text / "new.png")),
    (2, "File name too long", ("decode", good, tmp_path / ("x" * 300 + ".png"))),
    (2, "is a folder", ("decode", good, tmp_path, "--force")),
    (2, "expected a name that ends in", ("decode", good, tmp_path / "new.txt")),
    (2, "which is the input", ("encode", good, good, "--force")),
    (1, "text.gjx: not a .gjx file: its signature", ("decode", text, new)),
    (1, "cut.gjx: cut off", ("decode", cut, new)),
    (2, "--zoom: got -1", ("render", good, new, "--zoom=-1")),
    (2, "expected one of the two", ("render", good, new, "--zoom=2", "--width=9")),
    (2, "pixels", ("render", good, new, "--width=1000000")),
    (2, "--width: got 0", ("render", good, new, "--width=0")),
    (2, "LEFT < RIGHT", ("render", good, new, "--crop=9,9,2,2")),
    (2, "LEFT < RIGHT", ("render", good, new, "--crop=0,0,1e308,1e308")),
    (2, "which has 32 x 24 pixels", ("render", good, new, "--crop=40,0,50,9")),
    (2, "large.png of 40 x 24 pixels and 3 channels", ("compare", large, small)),
    (2, "got - twice", ("compare", "-", "-")),
    (2, "several files are written", ("view", good, "-")),
    (2, "neither a PNG nor --html nor", ("view", good)),
    (2, "--open without --html", ("view", good, tmp_path / "new.png", "--open")),
    (2, "ends in .html", ("view", good, "--html", tmp_path / "new.png")),
    (2, "ends in", ("view", good, tmp_path / "new.txt")),
    (2, "cannot be made", ("batch", small, "--out_dir", text)),
    (2, "text.gjx: not a readable image", ("batch", text, "--out_dir", tmp_path / "more", "-e0")),
    (2, "expected a picture with a name", ("batch", "-", "--out_dir", tmp_path / "more")),
  ):
    found, out, error = in_process(capsys, *arguments)
    assert (found, out) == (status, "") and words in error, (arguments, error)
    assert error.count("\n") == 1 + (arguments[0] == "batch" and "cannot" not in words), error
    assert all(line.startswith("gaussjax: ") for line in error.splitlines())
  assert not new.exists() and not file.exists() and not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_what_is_left_out_is_said_when_asked(tmp_path, capsys):
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
  Image.new("RGB", (9, 8)).save(tmp_path / "p.png", icc_profile=profile)
  said = {}
  for more in ((), ("-v",), ("-v", "--metadata")):
    said[more] = in_process(capsys, "encode", tmp_path / "p.png", tmp_path / "p.gjx", "--size=20", *more)[2]
  assert ["colour profile of sRGB" in text for text in said.values()] == [False, True, False]


def test_what_a_file_may_be_tuned_for_is_what_the_encoder_knows():
  usual = encode._options(cli.options.parser().parse_args(["encode", "a.png", "a.gjx"]))["effort"]
  assert usual == encoding.effort_of(encoding.DEFAULT_EFFORT) and runner.EFFORT == encoding.DEFAULT_EFFORT
  for tune in encoding.TUNES:
    asked = cli.options.parser().parse_args(["encode", "a.png", "a.gjx", "-e2", "--tune", tune, "--seed=5"])
    assert encode._options(asked)["effort"] == encoding.Effort.level(2, tune)._replace(seed=5)
    asked = cli.options.parser().parse_args(["encode", "a.png", "a.gjx", "--tune", tune, "--grain=0.25"])
    assert encode._options(asked)["effort"].grain == 0.25


def test_a_picture_that_gaussians_do_not_suit_is_said_to_be_one():
  """Letters and lines take fewer bytes without any loss; a photograph takes many times as many."""
  drawing = np.full((160, 200, 3), 255, np.uint8)
  drawing[20:140:8, 10:190] = drawing[20:140, 10:190:20] = 0
  photograph = np.asarray(Image.open(PHOTOGRAPH))[:160, :200]
  for pixels, words in ((drawing, 1), (drawing[..., :1], 1), (photograph, 0), (drawing[:99, :99], 0)):
    said = []
    encode._say_of_other_tools(pixels, 1000, said.append)
    assert len(said) == words and all("a WebP without loss has" in line for line in said)


def test_what_is_whole_of_a_file_that_was_cut_off_is_drawn(folder, tmp_path, capsys):
  (tmp_path / "cut.gjx").write_bytes((folder / "small.gjx").read_bytes()[:-9])
  assert in_process(capsys, "decode", tmp_path / "cut.gjx", tmp_path / "new.png", "--partial")[0] == 0
  assert iio.imread(tmp_path / "new.png").shape == (24, 32, 3)


def test_batch_does_what_can_be_done(folder, tmp_path, capsys, monkeypatch):
  data = (folder / "small.gjx").read_bytes()
  monkeypatch.setattr("gaussjax.encode", lambda image, **options: data)
  picture, source, out = (folder / "small.png").read_bytes(), tmp_path / "in", tmp_path / "out"
  for name in ("a.png", "a.jpg", "sub/deep/b.PNG", "sub/there.png", "sub/folder.png", ".hidden/x.png", ".x.png"):
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    (source / name).write_bytes(picture)
  (source / "bad.png").write_text("hello")
  (source / "empty").mkdir()
  (out / "sub" / "folder.gjx").mkdir(parents=True)
  (out / "sub" / "there.gjx").write_bytes(b"mine")
  (tmp_path / "other").mkdir()
  (tmp_path / "other" / "bad.png").write_bytes(picture)
  inputs = (source, source / "sub", tmp_path / "other", tmp_path / "none.png", source / "a.png", source / "empty")
  status, text, error = in_process(capsys, "batch", *inputs, "--out_dir", out, "--json")
  report = json.loads(text)
  came = {Path(row["input"]).relative_to(tmp_path).as_posix(): row for row in report["results"]}
  assert status == 2 and report["pictures"] == len(came) == 9 and report["failed"] == 5
  for name, file in (("a.png", "a.png.gjx"), ("a.jpg", "a.jpg.gjx"), ("sub/deep/b.PNG", "sub/deep/b.gjx")):
    assert (out / file).read_bytes() == data and came[f"in/{name}"]["file"] == str(out / file)
    assert came[f"in/{name}"]["bytes"] == len(data)
  assert came["in/sub/there.png"]["skipped"] and (out / "sub" / "there.gjx").read_bytes() == b"mine"
  for name, words in (
    ("in/bad.png", "same name"),
    ("other/bad.png", "same name"),
    ("in/sub/folder.png", "is a folder"),
    ("none.png", "No such file"),
    ("in/empty", "without pictures"),
  ):
    assert words in came[name]["error"] and f"{tmp_path / name}: " in error
  status, text, error = in_process(capsys, "batch", source / "sub" / "deep", "--out_dir", out / "sub" / "deep")
  assert status == 0 and text == f"{out / 'sub' / 'deep' / 'b.gjx'}: there already\n" and not error


def test_an_interruption_is_one_line(folder, tmp_path, capsys, monkeypatch):
  def interrupted(image, **options):
    if "second" in seen:
      raise KeyboardInterrupt
    seen.append("second")
    return (folder / "small.gjx").read_bytes()

  seen = []
  monkeypatch.setattr("gaussjax.encode", interrupted)
  for name in ("a", "b"):
    (tmp_path / f"{name}.png").write_bytes((folder / "small.png").read_bytes())
  status, text, error = in_process(capsys, "batch", tmp_path, "--out_dir", tmp_path / "out", "--json")
  assert status == 130 and error.splitlines()[-1] == "gaussjax: interrupted; no file was left half written"
  assert len(json.loads(text)["results"]) == 1 and [p.name for p in (tmp_path / "out").iterdir()] == ["a.gjx"]


def test_an_encoding_that_was_killed_or_interrupted_goes_on_to_the_same_bytes(
  folder, tmp_path, capsys, monkeypatch
):
  """A real process is killed as it writes a checkpoint of the fit; the next is interrupted in the rounding."""
  code = """
import os, signal, sys
from gaussjax.cli import encode, process
from gaussjax.gjx import search

left, replace, search.FEW = 4, os.replace, 0

def killed(source, target):
  global left
  left -= ".checkpoint" in str(target)
  if not left:
    os.kill(os.getpid(), signal.SIGKILL)
  replace(source, target)

os.replace, encode.CHECKPOINT_SECONDS = killed, 0.0
process.main()
"""
  out, kept = tmp_path / "out.gjx", tmp_path / "out.gjx.checkpoint"
  asked = ("encode", folder / "small.png", out, "-e0", "--layers=2", "--metadata")
  there = os.environ | {"PYTHONPATH": str(Path(gaussjax.__file__).parent.parent)}
  there |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # as here, or the bytes differ
  command = [sys.executable, "-c", code, *map(str, asked), "--size=1000"]
  done = subprocess.run(command, capture_output=True, env=there)
  assert done.returncode == -signal.SIGKILL, done.stderr
  (part,) = kept.iterdir()
  assert len(list(part.glob(".*"))) == 1 and len(list(part.glob("step-*.npz"))) == 2 and not out.exists()

  def interrupted(stage, *_):
    if stage == "quantise":
      raise KeyboardInterrupt

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("gaussjax.cli.encode.CHECKPOINT_SECONDS", 0.0)
    patch.setattr("gaussjax.cli.encode.progress_bars", lambda: interrupted)
    stopped = in_process(capsys, *asked, "--size=1000", "--resume")
  went_on = f"gaussjax: interrupted; what is done is in {kept}; go on with --resume\n"
  assert stopped == (130, "", went_on)
  assert [*kept.glob("fit-*")] == [part]  # the one that was killed went on
  for words, options in (
    ("holds an encoding that is not finished; go on with --resume", ["--size=1000", "--force"]),
    ("got 1000 bytes, expected 900 bytes", ["--size=900", "--resume"]),
  ):
    status, _, error = in_process(capsys, *asked, *options)
    assert status == 2 and words in error and error.count("\n") == 1
  encoded(*asked[1:], "--size=1000", "--resume")
  capsys.readouterr()  # its progress, which a slow machine shows
  assert out.read_bytes() == (folder / "small.gjx").read_bytes() and [*tmp_path.iterdir()] == [out]
  for words, output in (("holds no checkpoint", out), ("expected a file, which has a checkpoint", "-")):
    status, _, error = in_process(capsys, "encode", folder / "small.png", output, "--resume", "--force")
    assert status == 2 and words in error and error.count("\n") == 1


def test_an_interruption_that_a_callback_swallows_comes_again():
  code = """
import signal, sys, time
from gaussjax.cli import options, process

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job has not

class Callback:
  def __del__(self):
    signal.raise_signal(signal.SIGINT)

def work(arguments):
  Callback()
  time.sleep(60)

options.run_doctor = work
sys.argv = ["gaussjax", "doctor"]
process.main()
"""
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  assert done.returncode == 130 and done.stderr == "gaussjax: interrupted; no file was left half written\n"


def test_surroundings_that_lack_everything(folder, tmp_path):
  (tmp_path / "é.gjx").write_bytes((folder / "small.gjx").read_bytes())
  poor = {"HOME": None, "XDG_CACHE_HOME": str(tmp_path / "é.gjx"), "JAX_ENABLE_X64": "1"}
  poor |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONWARNINGS": "error"}
  done = run(tmp_path, "decode", "é.gjx", "é.png", "-v", **poor)
  assert done.returncode == 0 and not done.stderr, done.stderr
  assert iio.imread(tmp_path / "é.png").shape == (24, 32, 3)


@pytest.mark.parametrize("asked", [{"JAX_PLATFORMS": "abacus"}, {"XLA_FLAGS": "--abacus"}, {"JAX_ENABLE_X64": "?"}])
def test_what_is_asked_of_jax_in_vain_is_said_in_one_line(folder, tmp_path, asked):
  done = run(tmp_path, "decode", folder / "small.gjx", "new.png", **asked)
  (name, value), *_ = asked.items()
  assert done.returncode == 2 and done.stderr.count(b"\n") == 1, done.stderr
  assert done.stderr.startswith(b"gaussjax: ") and name.encode() in done.stderr and list(tmp_path.iterdir()) == []


def test_the_doctor_tells_of_all_that_is_broken(tmp_path):
  broken = {"JAX_PLATFORMS": "abacus", "XLA_FLAGS": "--abacus", "XDG_CACHE_HOME": os.devnull}
  done = run(tmp_path, "doctor", "--json", **broken)
  figures = json.loads(done.stdout)
  assert done.returncode == 0 and not done.stderr
  assert "abacus" in figures["devices"] and "--abacus" in figures["XLA_FLAGS"] and figures["jax"]
  assert figures["numbers"].startswith("broken: ")


def test_the_doctor_says_whether_numbers_can_be_trusted(tmp_path):
  figures = json.loads(run(tmp_path, "doctor", "--json").stdout)
  assert figures["numbers"] == "can be trusted" and figures["tiles draws"].startswith("right: within ")
  name = figures["renderer"].split(":")[0]
  assert figures[f"{name} draws"].startswith("right: ")


def test_a_user_without_a_home_has_no_cache(monkeypatch):
  def nowhere():
    raise RuntimeError("Could not determine home directory.")

  monkeypatch.setattr(Path, "home", nowhere)
  monkeypatch.setenv("XDG_CACHE_HOME", "relative")
  assert startup.cache_folder() is None


@pytest.mark.parametrize(
  ("version", "flags"), [("0.10.1", 2), ("0.12.0.1", 1), ("0.13.0", 0), ("1.0", 0), ("?", 0)]
)
def test_only_flags_that_were_tried_with_this_jaxlib(version, flags, monkeypatch):
  """XLA ends the process otherwise."""
  monkeypatch.setattr("gaussjax.startup._version", lambda package: version)
  assert len(startup.our_flags()) == flags


def test_pipes_are_inputs_and_outputs_and_closed_streams_are_said(folder):
  shell = """
"$0" -m gaussjax.cli info /dev/fd/3 --json 3<&0 || exit 9
"$0" -m gaussjax.cli info small.gjx > /dev/full; test $? = 2 || exit 8
"$0" -m gaussjax.cli info - <&-; test $? = 2 || exit 7
"$0" -m gaussjax.cli decode small.gjx - >&-; test $? = 2 || exit 6
"$0" -m gaussjax.cli info nothing 2>&-; test $? = 2 || exit 5
"""
  read, write = os.pipe()
  os.write(write, (folder / "small.gjx").read_bytes())
  os.close(write)
  there = os.environ | {"PYTHONPATH": str(Path(gaussjax.__file__).parent.parent)}
  command = ["sh", "-c", shell, sys.executable]
  done = subprocess.run(command, stdin=read, capture_output=True, text=True, cwd=folder, env=there)
  os.close(read)
  assert done.returncode == 0, done
  assert json.loads(done.stdout)["size"] == "32 x 24"
  assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == ["gaussjax"] * 3


def test_grain_is_drawn_unless_it_is_not_wanted(tmp_path, capsys):
  """By every reader alike; the Gaussians are the same without."""
  file = GOLDEN / "v3" / "grain.gjx"
  gaussians, header = gaussjax.decode(file.read_bytes())
  bare = gaussjax.render(gaussians)
  grained = image_io.as_uint8(gaussjax.add_grain(bare, header))
  with_it, without = tmp_path / "with.png", tmp_path / "without.png"
  assert in_process(capsys, "decode", file, with_it)[0] == 0
  assert in_process(capsys, "decode", file, without, "--nograin")[0] == 0
  np.testing.assert_array_equal(iio.imread(with_it), grained)
  np.testing.assert_array_equal(iio.imread(without), image_io.as_uint8(bare))
  gaussjax.register_imageio()
  np.testing.assert_array_equal(iio.imread(file), grained)
  np.testing.assert_array_equal(iio.imread(file, grain=False), image_io.as_uint8(bare))
  part = tmp_path / "part.png"
  assert in_process(capsys, "render", file, part, "--crop=64,32,128,96")[0] == 0
  assert np.abs(iio.imread(part).astype(int) - grained[32:96, 64:128]).max() <= 1
  psnr = lambda *more: json.loads(in_process(capsys, "compare", without, file, "--json", *more)[1])["psnr"]
  assert psnr("--nograin") > 60 > psnr()
  assert "bytes grain" in in_process(capsys, "info", file)[1]


def test_imageio_reads_the_format(folder):
  gaussjax.register_imageio()
  gaussjax.register_imageio()
  picture = iio.imread(folder / "small.gjx")
  assert picture.shape == (24, 32, 3) and picture.dtype == np.uint8
  assert iio.imread(folder / "small.gjx", height=48).shape == (48, 64, 3)
  assert iio.improps(folder / "small.gjx").shape == (24, 32, 3)
  assert iio.immeta(folder / "small.gjx")["width"] == 32
  gaussians = gaussjax.load(folder / "small.gjx")
  np.testing.assert_array_equal(image_io.as_uint8(gaussjax.render(gaussians)), picture)
  with pytest.raises(ValueError, match="not a file"):
    gaussjax.load(folder / "none.gjx")
