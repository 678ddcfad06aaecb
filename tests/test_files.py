"""Files are written whole or not at all, and sets of Gaussians come back as they were; strangers' are refused."""

import io
import json
import os
import stat
import threading
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import BLENDS, PARAMETERIZATIONS, scene

import gaussjax
from experiments import fuzz_format
from gaussjax import files
from gaussjax.gjx import npz


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
  path = tmp_path / ("x" * 255)
  files.write_whole(path, b"old")
  assert path.read_bytes() == b"old" and stat.S_IMODE(path.stat().st_mode) == 0o666 & ~files.current_umask()

  def full(handle):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(OSError, match="No space left on device: '.*x'"):
    files.write_whole(path, b"new")
  assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_links_and_pipes_are_written_through(tmp_path):
  (tmp_path / "link").symlink_to(tmp_path / "there")
  files.write_whole(tmp_path / "link", b"new")
  assert (tmp_path / "there").read_bytes() == b"new" and (tmp_path / "link").is_symlink()
  os.mkfifo(tmp_path / "pipe")
  writer = threading.Thread(target=files.write_whole, args=(tmp_path / "pipe", b"x" * 100_000))
  writer.start()
  assert files.read_bytes(tmp_path / "pipe") == b"x" * 100_000
  writer.join()
  assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_what_cannot_be_read_or_written_is_said(tmp_path):
  (tmp_path / "file").write_bytes(b"123")
  files.check_writable(tmp_path / "file")
  files.check_writable(os.devnull)
  for path, words in (
    (tmp_path, "is a folder"),
    (tmp_path / "none" / "x", "folder does not exist"),
    (tmp_path / "file" / "x", "folder does not exist"),
    (tmp_path / ("x" * 256), "File name too long"),
  ):
    with pytest.raises(ValueError, match=words):
      files.check_writable(path)
  for path, most, words in (
    (tmp_path, 9, "Is a directory"),
    (tmp_path / "none", 9, "No such file"),
    (tmp_path / "file", 2, "more than 2 bytes"),
  ):
    with pytest.raises(ValueError, match=words):
      files.read_bytes(path, most=most)
  assert files.read_bytes(tmp_path / "file", most=3) == b"123"


@pytest.mark.parametrize("parameterize", PARAMETERIZATIONS)
@pytest.mark.parametrize("blend", BLENDS)
def test_a_set_comes_back_as_it_was(tmp_path, parameterize, blend):
  gaussians = scene(7, parameterize=parameterize, blend=blend, channels=2, cutoff=3.0, floor=0.25)
  if blend is BLENDS[1]:
    gaussians = gaussians._replace(log_weights=None)
  gaussjax.save(tmp_path / "g.npz", gaussians)
  _assert_same(gaussjax.load(tmp_path / "g.npz"), gaussians)


def _assert_same(loaded, gaussians):
  assert jax.tree.structure(loaded) == jax.tree.structure(gaussians)
  for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(gaussians), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_comes_back(dtype):
  gaussians = jax.tree.map(lambda leaf: leaf.astype(dtype), scene(7))
  _assert_same(npz.loads(npz.dumps(gaussians)), gaussians)


def test_double_precision_comes_back_where_there_is_any(x64):
  gaussians = scene(7, dtype=np.float64)
  data = npz.dumps(gaussians)
  _assert_same(npz.loads(data), gaussians)
  with jax.enable_x64(False):
    with pytest.raises(ValueError, match="JAX_ENABLE_X64"):
      npz.loads(data)
    with pytest.raises(ValueError, match="JAX_ENABLE_X64"):
      npz.dumps(jax.tree.map(lambda leaf: np.asarray(leaf), gaussians))


def test_the_suffix_says_how(tmp_path):
  (tmp_path / "g.gjx").write_bytes(fuzz_format.small_file())
  gaussians = gaussjax.load(tmp_path / "g.gjx")
  assert len(gaussians.means) == fuzz_format.COUNT and gaussians.canvas.width == fuzz_format.SIDE
  for call in (lambda path: gaussjax.save(path, gaussians), gaussjax.load):
    with pytest.raises(ValueError, match=r"ends in .npz or .gjx"):
      call(tmp_path / "g.ply")
  (tmp_path / "g.gjx").write_bytes(b"hello")
  with pytest.raises(gaussjax.FormatError, match="g.gjx: not a .gjx file"):
    gaussjax.load(tmp_path / "g.gjx")


def test_what_save_refuses(tmp_path):
  good = scene(7)
  canvas = lambda **changes: good._replace(canvas=good.canvas.__class__(**(vars(good.canvas) | changes)))
  for gaussians, words in (
    (good._replace(canvas=None), "without a canvas"),
    (
      canvas(blend=gaussjax.Blend("mine", test_what_save_refuses)),
      "got the blend mine, expected one of weighted_average",
    ),
    (canvas(height=0), "height 0"),
    (canvas(cutoff=float("nan")), "cutoff nan"),
    (canvas(background=jnp.zeros(2)), "background of shape"),
    (good._replace(log_weights=good.log_weights[:3]), "log_weights of shape"),
    (good._replace(means=good.means.at[1].set(np.nan)), "means with values that are not finite"),
    (good._replace(colors=jnp.zeros((7, 33))), "channels 33"),
    (good._replace(means=jnp.zeros((7, 2), int)), "means of int32"),
    (jax.tree.map(lambda leaf: leaf[:0] if leaf.ndim > 1 or len(leaf) == 7 else leaf, good), "0 Gaussians"),
  ):
    with pytest.raises(ValueError, match=words):
      gaussjax.save(tmp_path / "g.npz", gaussians)
  with pytest.raises(ValueError, match="folder does not exist"):
    gaussjax.save(tmp_path / "none" / "g.npz", good)
  assert list(tmp_path.iterdir()) == []


def test_what_load_refuses(tmp_path):
  path = tmp_path / "g.npz"
  whole = npz.dumps(scene(7))
  for damaged in (b"", b"PK", whole[: len(whole) // 2], b"x" * 1000, fuzz_format.small_file()):
    path.write_bytes(damaged)
    with pytest.raises(gaussjax.FormatError, match="g.npz: not Gaussians written by save"):
      gaussjax.load(path)
  with pytest.raises(ValueError, match="not a file"):
    gaussjax.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
  "changes",
  [
    {"version": 2},
    {"version": True},
    {"version": None},
    {"shape": "Sphere"},
    {"shape": ["Euler"]},
    {"blend": "screen"},
    {"blend": 3},
    {"height": 24.0},
    {"height": True},
    {"height": "24"},
    {"height": 10**30},
    {"height": 2**27, "width": 2**27},
    {"width": -5},
    {"cutoff": 0},
    {"cutoff": "3"},
    {"cutoff": 10**400},
    {"cutoff": float("nan")},
    {"floor": float("inf")},
    {"floor": -0.3},
    {"floor": None},
    {"bfloat16": 5},
    {"bfloat16": ["means"]},
    {"bfloat16": [["means"]]},
    {"means": np.full((7, 2), np.nan, np.float32)},
    {"means": np.full((7, 2), 1e30, np.float32)},
    {"means": np.array([object()] * 7)},
    {"means": np.array(["x"] * 14).reshape(7, 2)},
    {"means": np.zeros((7, 2), np.complex64)},
    {"means": np.zeros((7, 3), np.float32)},
    {"means": np.zeros((7, 2), np.longdouble)},
    {"log_scales": np.full((7, 2), 200, np.float32)},
    {"log_scales": np.zeros((6, 2), np.float32)},
    {"log_weights": np.full(7, 90, np.float32)},
    {"background": np.zeros(4, np.float32)},
    {"colors": np.zeros((7, 33), np.float32)},
    {"colors": np.float32(0)},
    {"more": np.zeros(7, np.float32)},
    {"header": np.array("[1]")},
    {"header": np.array("[" * 100_000)},
    {"header": np.array("{}")},
    {"header": np.zeros(3)},
    {"header": np.array("not JSON")},
  ],
  ids=lambda changes: " ".join(f"{name}={np.asarray(value).dtype}" for name, value in changes.items()),
)
def test_what_strangers_make_up_is_refused_in_one_line(changes):
  header, arrays = files.read_npz(npz.dumps(scene(7)))
  for name, value in changes.items():
    if name in header or not isinstance(value, np.ndarray | np.generic):
      header[name] = value
    else:
      arrays[name] = value
  buffer = io.BytesIO()
  np.savez(buffer, **({"header": np.array(json.dumps(header))} | arrays))
  _assert_refused(buffer.getvalue())


def _assert_refused(data):
  with pytest.raises(gaussjax.FormatError) as caught:
    npz.loads(data)
  assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_bombs_are_refused_before_they_are_unpacked(monkeypatch):
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("means.npy", bytes(2**22))
  many = io.BytesIO()
  with zipfile.ZipFile(many, "w") as archive:
    for index in range(files.MOST_MEMBERS + 1):
      archive.writestr(f"x{index}.npy", b"")
  claim = io.BytesIO()
  np.lib.format.write_array_header_1_0(claim, {"shape": (2**40, 2), "fortran_order": False, "descr": "<f4"})
  large = io.BytesIO()
  with zipfile.ZipFile(large, "w") as archive:
    archive.writestr("means.npy", claim.getvalue())
  _assert_refused(large.getvalue())
  monkeypatch.setattr(zipfile.ZipFile, "read", None)
  with pytest.raises(gaussjax.FormatError, match="4194304 bytes when unpacked, expected at most 4194303"):
    files.read_npz(buffer.getvalue(), most=2**22 - 1)
  _assert_refused(many.getvalue())


def test_damaged_archives_are_refused_or_drawn():
  gaussians = gaussjax.decode(fuzz_format.small_file())[0]
  mutations = fuzz_format.npz_mutations(npz.dumps(gaussians), 300, seed=1)
  outcomes = [fuzz_format.npz_outcome(data, gaussians) for data in mutations]
  assert outcomes.count("refused") > 150 and outcomes.count("drawn") > 5
