"""Sets for other tools and from other projects, against what those projects say of themselves."""

import io
import json
import pickle
import random
import struct
import sys
import types
import xml.etree.ElementTree
import zipfile

import jax
import numpy as np
import pytest
from scenes import scene

import gaussjax
from experiments import fuzz_format
from gaussjax import cli, geometry
from gaussjax.exchange import archives, foreign, ply, svg
from gaussjax.gjx import packing
from gaussjax.rendering import blends

HEIGHT, WIDTH, COUNT = 30, 44, 12


def cholesky_fit(seed=0):
  """Tensors as GaussianImage keeps them."""
  rng = np.random.default_rng(seed)
  return {
    "_xyz": np.arctanh(rng.uniform(-0.9, 0.9, (COUNT, 2))).astype(np.float32),
    "_cholesky": rng.uniform(1, 4, (COUNT, 3)).astype(np.float32),
    "_features_dc": rng.uniform(0, 0.4, (COUNT, 3)).astype(np.float32),
    "_opacity": np.ones((COUNT, 1), np.float32),
    "bound": np.full((1, 2), 0.5, np.float32),
  }


def image_gs_fit(seed=0):
  rng = np.random.default_rng(seed)
  return {
    "xy": rng.uniform(0, 1, (COUNT, 2)).astype(np.float32),
    "scale": 1 / rng.uniform(2, 6, (COUNT, 2)).astype(np.float32),
    "rot": rng.uniform(-1, 1, (COUNT, 1)).astype(np.float32),
    "feat": rng.uniform(0, 1, (COUNT, 3)).astype(np.float32),
    "vis_feat": np.zeros((COUNT, 3), np.float32),
  }


def weights_of(centers, covariances):
  """`[H, W, N]`: exp(-q / 2) at pixels of whole numbers, as both projects sample."""
  y, x = np.mgrid[:HEIGHT, :WIDTH]
  away = np.stack([x, y], -1)[:, :, None] - centers
  return np.exp(-0.5 * np.einsum("hwni,nij,hwnj->hwn", away, np.linalg.inv(covariances), away))


def rotated(scales, thetas):
  cos, sin = np.cos(thetas), np.sin(thetas)
  s = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2) * scales[:, None]
  return s @ s.transpose(0, 2, 1)


@pytest.mark.parametrize("rotation", [False, True])
def test_fits_of_gaussian_image_are_drawn_as_it_draws_them(rotation):
  fit = cholesky_fit()
  lower = fit["_cholesky"].astype(np.float64) + [0.5, 0, 0.5]
  s = np.stack([np.stack([lower[:, 0], 0 * lower[:, 0]], -1), lower[:, 1:]], -2)
  covariances = s @ s.transpose(0, 2, 1)
  if rotation:
    rng = np.random.default_rng(1)
    del fit["_cholesky"]
    fit |= {"_scaling": rng.uniform(1, 4, (COUNT, 2)), "_rotation": rng.normal(size=(COUNT, 1))}
    covariances = rotated(fit["_scaling"] + 0.5, 2 * np.pi / (1 + np.exp(-fit["_rotation"][:, 0])))
  centers = (np.tanh(fit["_xyz"]) + 1) / 2 * [WIDTH, HEIGHT]
  expected = weights_of(centers, covariances) @ fit["_features_dc"]
  found = foreign.gaussians({f"module.{name}": array for name, array in fit.items()}, HEIGHT, WIDTH)
  np.testing.assert_allclose(gaussjax.render(found), expected, atol=2e-3)
  assert len(packing.holdable(found).means) == COUNT  # so that it can be compressed


def test_fits_of_image_gs_are_drawn_as_it_draws_them_where_ten_are_all():
  fit = image_gs_fit()
  covariances = rotated(1 / fit["scale"], fit["rot"][:, 0])
  weights = weights_of(fit["xy"] * [WIDTH, HEIGHT], covariances)
  expected = weights @ fit["feat"] / (weights.sum(-1, keepdims=True) + foreign.EPSILON)
  found = gaussjax.render(foreign.gaussians(fit, HEIGHT, WIDTH))
  seen = weights.sum(-1) > 0.05  # beyond it kernels that end and those that do not are not alike
  np.testing.assert_allclose(np.asarray(found)[seen], expected[seen], atol=0.01)


def npz(tensors):
  buffer = io.BytesIO()
  np.savez(buffer, **tensors)
  return buffer.getvalue()


def safetensors(tensors):
  header, body = {"__metadata__": {"format": "pt"}}, b""
  for name, array in tensors.items():
    offsets = [len(body), len(body) + array.nbytes]
    header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
    body += array.astype("<f4").tobytes()
  text = json.dumps(header).encode()
  return struct.pack("<Q", len(text)) + text + body


def pytorch(tensors, *, more=None, monkeypatch):
  """A file as torch.save writes one, made without PyTorch."""
  torch, utils, made = types.ModuleType("torch"), types.ModuleType("torch._utils"), []

  class FloatStorage:
    """The type of a storage, pickled by name."""

  FloatStorage.__module__, FloatStorage.__qualname__ = "torch", "FloatStorage"

  def _rebuild_tensor_v2(*_):
    """Pickled by name."""

  _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
  torch.FloatStorage, torch._utils, utils._rebuild_tensor_v2 = FloatStorage, utils, _rebuild_tensor_v2
  monkeypatch.setitem(sys.modules, "torch", torch)
  monkeypatch.setitem(sys.modules, "torch._utils", utils)

  class Tensor:
    """What PyTorch's tensors are to pickle."""

    def __init__(self, array):
      self.array = array

    def __reduce__(self):
      strides = tuple(np.cumprod([1, *self.array.shape[:0:-1]])[::-1].tolist())
      return _rebuild_tensor_v2, (Key(self.array), 0, self.array.shape, strides, False, {})

  class Key:
    """A storage."""

    def __init__(self, array):
      self.array = array

  class Pickler(pickle.Pickler):
    """Puts storages aside."""

    def persistent_id(self, value):
      if not isinstance(value, Key):
        return None
      made.append(value.array)
      return "storage", FloatStorage, str(len(made) - 1), "cpu", value.array.size

  buffer = io.BytesIO()
  tree = {"step": 3, "psnr": 31.5, "state_dict": {name: Tensor(array) for name, array in tensors.items()}}
  Pickler(buffer, protocol=2).dump(tree | (more or {}))
  out = io.BytesIO()
  with zipfile.ZipFile(out, "w") as archive:
    archive.writestr("ckpt/data.pkl", buffer.getvalue())
    for number, array in enumerate(made):
      archive.writestr(f"ckpt/data/{number}", array.astype("<f4").tobytes())
  return out.getvalue()


def test_tensors_are_read_from_three_kinds_of_files(monkeypatch):
  tensors = cholesky_fit()
  for data in (npz(tensors), safetensors(tensors), pytorch(tensors, monkeypatch=monkeypatch)):
    found = {name.rsplit(".", 1)[-1]: array for name, array in archives.read(data).items()}
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
      np.testing.assert_array_equal(found[name], array)


class Evil:
  """What a hostile file would have run."""

  def __reduce__(self):
    return exec, ("raise SystemExit('it was run')",)


def test_files_of_strangers_are_read_or_refused_and_never_run(monkeypatch):
  tensors = {"xy": np.ones((3, 2), np.float32), "feat": np.ones((3, 3), np.float32)}
  with pytest.raises(gaussjax.FormatError, match="wants __builtin__.exec"):
    archives.read(pytorch(tensors, more={"x": Evil()}, monkeypatch=monkeypatch))
  out = io.BytesIO()
  with zipfile.ZipFile(out, "w") as archive:  # asks for a place in the memo that would take 32 GB
    archive.writestr("a/data.pkl", b"\x80\x02Nr\xff\xff\xff\x7f.")
  assert archives.read(out.getvalue()) == {}
  many = io.BytesIO()
  with zipfile.ZipFile(many, "w") as archive:  # each would be an object before its size is looked at
    for number in range(1025):
      archive.writestr(f"a/data/{number}", b"")
  with pytest.raises(gaussjax.FormatError, match="more than 1024 members"):
    archives.read(many.getvalue())
  rng, outcomes = random.Random(0), set()
  for whole in (npz(tensors), safetensors(tensors), pytorch(tensors, monkeypatch=monkeypatch)):
    for _ in range(150):
      try:
        found = archives.read(bytes(fuzz_format.damaged(bytearray(whole), rng)))
        foreign.gaussians(found, 9, 9)
      except gaussjax.FormatError as error:
        assert "\n" not in str(error)[:1]
        outcomes.add("refused")
  assert outcomes == {"refused"}  # xy and feat alone are no fit
  for wrong in ({"xy": np.full((3, 2), np.nan)}, {"scale": np.ones((4, 2))}, {"feat": np.ones((2, 3))}):
    with pytest.raises(gaussjax.FormatError, match="got (xy|scale|feat)"):
      foreign.gaussians(image_gs_fit() | wrong, 9, 9)


def test_a_ply_file_places_ellipses_in_space():
  gaussians = scene(10, 24, 48)
  head, _, body = ply.dumps(gaussians).partition(b"end_header\n")
  names = [line.split()[-1].decode() for line in head.splitlines() if line.startswith(b"property")]
  rows = np.frombuffer(body, np.dtype([(name, "<f4") for name in names]))
  assert b"element vertex 10\n" in head and len(rows) == 10 and len(names) == 17
  np.testing.assert_allclose(rows["x"] * 24 + 24, gaussians.means[:, 0], rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(rows["y"] * 24 + 12, gaussians.means[:, 1], rtol=1e-4, atol=1e-4)
  w, z = rows["rot_0"], rows["rot_3"]
  turn = np.stack([np.stack([1 - 2 * z * z, -2 * w * z], -1), np.stack([2 * w * z, 1 - 2 * z * z], -1)], -2)
  s = turn * np.exp(np.stack([rows["scale_0"], rows["scale_1"]], -1))[:, None] * 24
  factors = np.asarray(jax.vmap(geometry.factor)(gaussians.shape))
  wanted = factors @ factors.transpose(0, 2, 1) + 0.3**2 * np.eye(2)
  np.testing.assert_allclose(s @ s.transpose(0, 2, 1), wanted, rtol=1e-3, atol=1e-3)
  np.testing.assert_allclose(rows["f_dc_1"] * ply.HARMONIC + 0.5, gaussians.colors[:, 1], atol=1e-5)
  sizes = np.asarray(gaussians.shape.log_scales).sum(1)
  assert np.argmin(rows["z"]) == np.argmin(sizes) and np.argmax(rows["z"]) == np.argmax(sizes)


def test_svg_is_for_sums_alone():
  gaussians = scene(10, blend=blends.accumulated_sum)
  tree = xml.etree.ElementTree.fromstring(svg.dumps(gaussians))
  assert len(tree.findall("{http://www.w3.org/2000/svg}ellipse")) == 10
  for refused, words in (
    (scene(4), "which SVG cannot say"),
    (scene(4, channels=4, blend=blends.accumulated_sum), "4 channels"),
  ):
    with pytest.raises(ValueError, match=words):
      svg.dumps(refused)


def test_the_command_exports_and_imports(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr("gaussjax.startup.prepare_jax", lambda: None)
  (tmp_path / "fit.safetensors").write_bytes(safetensors(cholesky_fit()))

  def run(*arguments):
    with pytest.raises(SystemExit) as ended:
      cli.main([str(argument) for argument in arguments])
    return ended.value.code, capsys.readouterr().err

  size = (f"--width={WIDTH}", f"--height={HEIGHT}")
  assert run("import", tmp_path / "fit.safetensors", tmp_path / "fit.npz", *size)[0] == 0
  assert len(gaussjax.load(tmp_path / "fit.npz").means) == COUNT
  for name in ("fit.svg", "fit.ply"):
    assert run("export", tmp_path / "fit.npz", tmp_path / name)[0] == 0 and (tmp_path / name).stat().st_size > 800
  status, words = run("import", tmp_path / "fit.ply", tmp_path / "x.npz", *size)
  assert status == 1 and words.startswith(f"gaussjax: {tmp_path / 'fit.ply'}: neither") and words.count("\n") == 1
  assert run("export", tmp_path / "fit.npz", tmp_path / "x.obj")[0] == 2
  assert run("import", tmp_path / "fit.safetensors", tmp_path / "y.npz")[0] == 2
