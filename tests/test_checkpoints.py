"""Checkpoints from other hands are refused in one line. That fits go on from their own is in test_fitting.py."""

import io
import json

import jax.numpy as jnp
import numpy as np
import pytest

from gaussjax import files
from gaussjax.fitting import checkpoints

TREE = {"means": jnp.arange(6.0).reshape(3, 2), "step": jnp.int32(5)}
ABOUT = {"image": "abc", "seed": 0}


def test_the_newest_whole_one_serves(tmp_path):
  for step in (1, 2, 3):
    checkpoints.keep(tmp_path, step, TREE, ABOUT, {"history": [{"step": step}]})
  newest, older = checkpoints.kept(tmp_path)
  newest.write_bytes(newest.read_bytes()[:-40])
  tree, notes = checkpoints.resume(tmp_path, TREE, ABOUT)
  np.testing.assert_array_equal(tree["means"], TREE["means"])
  assert tree["step"] == 5 and notes == {"history": [{"step": 2}]} and older.name == "step-00000002.npz"
  with pytest.raises(ValueError, match="another fit: got seed 0, expected 1"):
    checkpoints.resume(tmp_path, TREE, ABOUT | {"seed": 1})
  checkpoints.discard(tmp_path)
  assert not tmp_path.exists()


def test_what_resume_refuses(tmp_path):
  checkpoints.keep(tmp_path, 1, TREE, ABOUT, {})
  (path,) = checkpoints.kept(tmp_path)
  header, arrays = files.read_npz(path.read_bytes())
  for changes, words in (
    ({"about": [1]}, "without about"),
    ({"notes": None}, "without notes"),
    ({"names": ["x"]}, "another recipe"),
    ({"version": 1}, "another version"),
    ({"leaf0": np.array([object()])}, "expected numbers"),
    ({"leaf0": np.zeros((3, 2), np.int32)}, "leaf0 of int32"),
    ({"leaf0": np.zeros(6, np.float32)}, "shape"),
    ({"leaf9": np.zeros(6, np.float32)}, "3 arrays, expected 2"),
  ):
    changed = {name: value for name, value in changes.items() if name.startswith("leaf")}
    told = header | {name: value for name, value in changes.items() if name not in changed}
    path.write_bytes(_archive(told, arrays | changed))
    with pytest.raises(ValueError, match=words) as caught:
      checkpoints.resume(tmp_path, TREE, ABOUT)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def _archive(header, arrays):
  """By numpy itself, objects included."""
  buffer = io.BytesIO()
  np.savez(buffer, header=np.array(json.dumps(header)), **arrays)
  return buffer.getvalue()
