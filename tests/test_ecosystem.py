"""Files by other doors than a path, plugins of other packages, shells, notebooks; systems that are not Linux."""

import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError
from scenes import scene

import gaussjax
from experiments import fuzz_format
from gaussjax import cli, engines, files, image_io
from gaussjax.cli import completion
from gaussjax.gjx import container, grids, imageio_plugin, npz, search

ROOT = Path(gaussjax.__file__).parent.parent
SMALL = fuzz_format.small_file()


def test_sets_and_pictures_go_through_open_files(tmp_path):
  gaussians, picture = scene(7), np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
  file = io.BytesIO()
  gaussjax.save(file, gaussians, suffix=".npz")
  file.seek(0)
  np.testing.assert_array_equal(gaussjax.load(file).means, gaussians.means)
  assert gaussjax.load(io.BytesIO(SMALL)).canvas.width == fuzz_format.SIDE
  file = io.BytesIO()
  gaussjax.write_image(file, picture, suffix=".png")
  file.seek(0)
  np.testing.assert_array_equal(image_io.as_uint8(gaussjax.read_image(file)), picture)
  with open(tmp_path / "named.png", "wb") as named:
    gaussjax.write_image(named, picture)
  np.testing.assert_array_equal(iio.imread(tmp_path / "named.png"), picture)
  (tmp_path / "set.npz").write_bytes(npz.dumps(gaussians))
  with open(tmp_path / "set.npz", encoding="latin-1") as text, pytest.raises(ValueError, match="open for text"):
    gaussjax.load(text)
  for call, words in (
    (lambda: gaussjax.save(io.BytesIO(), gaussians), "expected suffix=.npz or .gjx"),
    (lambda: gaussjax.save(io.StringIO(), gaussians, suffix=".npz"), "does not take bytes"),
    (lambda: gaussjax.write_image(io.BytesIO(), picture), "a suffix that is one of .png"),
    (lambda: gaussjax.load(io.BytesIO(b"hello")), "the file given: not Gaussians"),
    (lambda: gaussjax.load(5), "got a int, expected a path"),
    (lambda: gaussjax.read_image(io.BytesIO()), "the file given: not a readable image: it is empty"),
    (lambda: files.read_bytes(io.BytesIO(b"123"), most=2), "more than 2 bytes"),
  ):
    with pytest.raises(ValueError, match=words):
      call()


def test_sets_and_pictures_go_by_addresses(tmp_path, monkeypatch):
  fsspec = pytest.importorskip("fsspec")
  gaussians, picture = scene(7), np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
  for base in ("memory://folder", (tmp_path / "folder").as_uri()):
    fsspec.core.url_to_fs(base)[0].makedirs(fsspec.core.url_to_fs(base)[1], exist_ok=True)
    gaussjax.save(f"{base}/set.npz", gaussians)
    np.testing.assert_array_equal(gaussjax.load(f"{base}/set.npz").means, gaussians.means)
    gaussjax.write_image(f"{base}/a.png", picture)
    np.testing.assert_array_equal(image_io.as_uint8(gaussjax.read_image(f"{base}/a.png")), picture)
    assert files.exists(f"{base}/a.png") and not files.exists(f"{base}/b.png")
    for call in (gaussjax.load, gaussjax.read_image):
      with pytest.raises(ValueError, match=r"none.npz, which is not a file that can be read"):
        call(f"{base}/none.npz")
  assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["a.png", "set.npz"]
  monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
  with pytest.raises(OSError, match="No space left on device"):  # a folder of this machine: whole or not at all
    gaussjax.save((tmp_path / "folder" / "set.npz").as_uri(), scene(9))
  assert len(gaussjax.load(tmp_path / "folder" / "set.npz").means) == 7
  with pytest.raises(ValueError, match="which fsspec cannot serve"):
    gaussjax.save("nonesuch://folder/set.npz", gaussians)
  monkeypatch.setitem(sys.modules, "fsspec", None)
  with pytest.raises(ValueError, match=r"pip install 'gaussjax\[fsspec\]'"):
    gaussjax.load("memory://folder/set.npz")
  assert (
    not files.is_url("c://photo.png") and not files.is_url(Path("s3://a")) and files.is_url("simplecache::s3://a")
  )


def test_the_command_takes_addresses(monkeypatch, capsys):
  fsspec = pytest.importorskip("fsspec")
  monkeypatch.setattr("gaussjax.startup.prepare_jax", lambda: None)
  fsspec.filesystem("memory").pipe_file("/in/small.gjx", SMALL)

  def run(*arguments):
    with pytest.raises(SystemExit) as ended:
      cli.main(list(arguments))
    return ended.value.code, capsys.readouterr().err

  assert run("decode", "memory://in/small.gjx", "memory://out/small.png") == (0, "")
  assert gaussjax.read_image("memory://out/small.png").shape == (48, 48, 3)
  status, error = run("decode", "memory://in/small.gjx", "memory://out/small.png")
  assert status == 2 and "there already; --force" in error
  status, error = run("batch", "memory://in/small.png", "--out_dir", "memory://out")
  assert status == 2 and "expected a folder of this machine" in error


def test_pillow_opens_and_saves_the_format(tmp_path, monkeypatch):
  with pytest.raises(UnidentifiedImageError):
    Image.open(io.BytesIO(SMALL))
  gaussjax.register_pillow()
  gaussjax.register_pillow()
  try:
    (tmp_path / "small.gjx").write_bytes(SMALL)
    with Image.open(tmp_path / "small.gjx") as image:
      assert (image.format, image.mode, image.size) == ("GJX", "RGB", (48, 48))
      assert image.get_format_mimetype() == "image/x-gjx"
      drawn = image_io.as_uint8(gaussjax.render(gaussjax.decode(SMALL)[0]))
      np.testing.assert_array_equal(np.asarray(image), drawn)
      assert image.copy().convert("L").size == (48, 48)
    for channels, mode in ((2, "LA"), (1, "L")):
      data = of_channels(channels)
      image = Image.open(io.BytesIO(data))
      drawn = image_io.as_uint8(gaussjax.render(gaussjax.decode(data)[0]))
      np.testing.assert_array_equal(np.asarray(image).reshape(drawn.shape), drawn)
      assert image.mode == mode
    gaussians, header = gaussjax.decode(fuzz_format.small_file(grained=True))
    grained = image_io.as_uint8(gaussjax.add_grain(gaussjax.render(gaussians), header))
    with Image.open(io.BytesIO(fuzz_format.small_file(grained=True))) as image:
      np.testing.assert_array_equal(np.asarray(image), grained)
    for data, words in ((SMALL[:-9], "cut off"), (of_channels(5), "5 channels")):
      with pytest.raises(OSError, match=words):
        Image.open(io.BytesIO(data))
    with pytest.raises(ValueError, match="a .gjx file, which decode reads"):
      gaussjax.read_image(SMALL)
    picture = Image.fromarray(drawn[..., 0])
    given = {}
    monkeypatch.setattr(search, "encode", lambda pixels, **options: given.update(options, pixels=pixels) or SMALL)
    picture.save(tmp_path / "new.gjx", size=1000, effort=3, optimize=True, exif=b"II*\0")
    assert (tmp_path / "new.gjx").read_bytes() == SMALL
    np.testing.assert_array_equal(given.pop("pixels"), drawn[..., 0])
    assert given == {"size": 1000, "effort": 3, "metadata": {"exif": b"II*\0"}}
    with pytest.raises(OSError, match="cannot write mode CMYK as GJX"):
      picture.convert("CMYK").save(tmp_path / "other.gjx")
    assert not (tmp_path / "other.gjx").exists()
  finally:
    Image.ID.remove("GJX")
    del Image.OPEN["GJX"], Image.SAVE["GJX"], Image.EXTENSION[".gjx"], Image.MIME["GJX"]


def of_channels(channels):
  """A file of one Gaussian in so many channels."""
  one = np.ones(1, np.int64)
  codes = grids.Codes(
    one[:, None].repeat(2, 1), 0 * one, 9 * one, 0 * one, 0 * one, 9 * one[:, None].repeat(channels, 1), 0 * one
  )
  steps = grids.Steps(120, 100, 170, 110, grids.STEP_ZERO)
  header = container.Header(6, 7, channels, 0, 3500, 300, (500,) * channels, steps, 1)
  return container.write(header, [codes])


def test_imageio_takes_the_plugin_for_one_call(tmp_path):
  """Without being told of it before."""
  (tmp_path / "small.gjx").write_bytes(SMALL)
  assert iio.imread(tmp_path / "small.gjx", plugin=imageio_plugin.Plugin).shape == (48, 48, 3)


def test_a_bar_serves_fits_and_encodings():
  stream = io.StringIO()
  bar = gaussjax.progress_bar(file=stream, mininterval=0)
  for step, left, rate in ((0, float("nan"), 0.0), (10, 2.0, 5.0), (20, 0.0, 5.0)):  # as records of a fit are
    bar({"step": step, "eta_seconds": left, "steps_per_second": rate, "psnr": 20.0})
  first = stream.getvalue()
  assert "20/20" in first and " dB" in first
  for done in (0, 2, 4, 1, 4):  # the second round begins anew
    bar("quantise", done, 4)
  assert stream.getvalue()[len(first) :].count("4/4") >= 2


def test_bash_completes_words(tmp_path):
  if shutil.which("bash") is None:
    pytest.skip("no bash")
  script = completion.script(cli.parser(), "bash") + (
    '\nt() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _gaussjax; echo "${COMPREPLY[*]}"; }\n'
    "t gaussjax dec; t gaussjax encode --la; t gaussjax batch --engine = lo; t gaussjax encode -e ''\n"
    "t gaussjax info ph"
  )
  done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
  assert done.stdout.splitlines() == ["decode", "--layers", "local", "0 1 2 3 4 5 6 7 8 9", ""]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_names_every_command_and_option(shell):
  """And is right to the shell, if it is here."""
  script = completion.script(cli.parser(), shell)
  for word in ("encode", "completion", "target_psnr", "out_dir", "slurm"):
    assert word in script
  if shutil.which(shell):
    subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_help_is_a_manual():
  """Every option says what it is for, every command has an example, and what the examples name is there."""
  top = cli.parser()
  (group,) = [action for action in top._actions if action.choices and action.dest != "help"]
  for name, parser in group.choices.items():
    assert f"gaussjax {name}" in parser.epilog
    assert all(action.help for action in parser._actions)
    for line in parser.epilog.splitlines():
      given = line.split(" " * 3)[0].split(" > ")[0].split(" | ")[0].split()
      if given[:1] == ["gaussjax"]:
        assert top.parse_args(given[1:]).run


FOREIGN = """
import asyncio, multiprocessing.resource_tracker, os, signal, subprocess, sys
import imageio.v3, jax, optax, tqdm  # those of others have ways of their own on other systems
for name in ("resource", "fcntl", "termios", "pwd", "grp"):
  sys.modules[name] = None
for module, names in ((os, ("sched_getaffinity", "sched_setaffinity", "mkfifo", "fork", "geteuid", "sysconf")),
                      (signal, ("pthread_sigmask", "pthread_kill", "SIGKILL"))):
  for name in names:
    vars(module).pop(name, None)
import importlib, pkgutil
import gaussjax, experiments
for package in (gaussjax, experiments):
  for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if found.name.rpartition(".")[2] not in ("__main__", "warp_kernels", "_scanlines", "_loops"):
      importlib.import_module(found.name)
from experiments import fuzz_format, runner
assert runner.peak_memory() == 0 and fuzz_format.small_file()
"""


def test_every_module_is_imported_without_what_only_posix_has():
  environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
  done = subprocess.run([sys.executable, "-c", FOREIGN], capture_output=True, text=True, env=environment)
  assert done.returncode == 0, done.stderr


def _named(name):
  return {"name": name, "method": multiprocessing.get_start_method(allow_none=True)}


def test_workers_start_where_nothing_can_be_pinned_or_blocked(monkeypatch):
  """As on Windows: no masks of signals, no affinity. Workers are spawned everywhere, never forked."""
  monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(Path(__file__).parent)]))
  for name in ("sched_getaffinity", "sched_setaffinity"):
    monkeypatch.delattr(os, name, raising=False)
  without = {name: value for name, value in vars(signal).items() if name != "pthread_sigmask"}
  monkeypatch.setattr(engines, "signal", types.SimpleNamespace(**without))
  monkeypatch.setattr(os, "cpu_count", lambda: 2)
  assert engines.core_shares(2) == [[0], [1]]
  ends = list(engines.run(_named, [("a",), ("b",)], workers=2))
  assert sorted(end.record["name"] for end in ends) == ["a", "b"] and not any(end.error for end in ends)
