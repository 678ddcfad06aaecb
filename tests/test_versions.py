"""What released versions wrote is read: a folder in tests/golden for each, which golden/make.py made then."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import gaussjax
from gaussjax.fitting import checkpoints

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(path.parent for path in GOLDEN.glob("*/expected.json"))


@pytest.fixture(scope="module")
def make():
  spec = importlib.util.spec_from_file_location("make", GOLDEN / "make.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_this_version_has_its_folder():
  """Or the next one cannot be held to it."""
  assert gaussjax.__version__ in [path.name for path in VERSIONS]


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda path: path.name)
@pytest.mark.parametrize("name", ["set.npz", "small.gjx"])
def test_sets_and_files_are_read(folder, name, make):
  expected, gaussians = json.loads((folder / "expected.json").read_text())[name], gaussjax.load(folder / name)
  found = make.found(gaussians)
  assert found["canvas"] == expected["canvas"] and found["arrays"].keys() == expected["arrays"].keys()
  for array, (shape, total, placed) in expected["arrays"].items():
    assert found["arrays"][array][0] == shape, array
    np.testing.assert_allclose(found["arrays"][array][1:], [total, placed], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda path: path.name)
def test_a_fit_goes_on_from_its_checkpoint(folder, make, tmp_path):
  """To the end that it had there, or near it: another processor rounds otherwise."""
  expected = json.loads((folder / "expected.json").read_text())["fit"]
  shutil.copytree(folder / "fit", tmp_path / "fit")
  (kept,) = checkpoints.kept(tmp_path / "fit")
  assert kept.name == f"step-{make.HALF:08d}.npz"
  result = make.fit(tmp_path / "fit", make.STEPS)
  assert len(result.history) == expected["records"] and result.history[0]["psnr"] < expected["psnr"] - 5
  assert result.metrics["psnr"] == pytest.approx(expected["psnr"], abs=0.2)
