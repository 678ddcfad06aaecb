"""Gaussians on disk come back as they were, and other bytes are refused in one line."""

import jax
import numpy as np
import pytest
from scenes import BLENDS, PARAMETERIZATIONS, scene

import gaussjax


@pytest.mark.parametrize("parameterize", PARAMETERIZATIONS)
@pytest.mark.parametrize("blend", BLENDS)
def test_round_trip(tmp_path, parameterize, blend):
  gaussians = scene(7, parameterize=parameterize, blend=blend, channels=2, cutoff=3.0, floor=0.25)
  if blend is BLENDS[1]:
    gaussians = gaussians._replace(log_weights=None)
  gaussjax.save(tmp_path / "g.npz", gaussians)
  loaded = gaussjax.load(tmp_path / "g.npz")
  assert jax.tree.structure(loaded) == jax.tree.structure(gaussians)
  for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(gaussians), strict=True):
    np.testing.assert_array_equal(a, b)


def test_what_save_refuses(tmp_path):
  with pytest.raises(ValueError, match="without a canvas"):
    gaussjax.save(tmp_path / "g.npz", scene(3)._replace(canvas=None))
  with pytest.raises(ValueError, match="expected one of weighted_average"):
    gaussjax.save(tmp_path / "g.npz", scene(3, blend=test_round_trip))
  assert list(tmp_path.iterdir()) == []


def test_what_load_refuses(tmp_path):
  path = tmp_path / "g.npz"
  gaussjax.save(path, scene(7))
  whole = path.read_bytes()
  for damaged in (b"", b"PK", whole[: len(whole) // 2], b"x" * 1000):
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="not Gaussians written by save"):
      gaussjax.load(path)
  with pytest.raises(ValueError, match="not a file"):
    gaussjax.load(tmp_path)


def test_a_set_with_values_that_do_not_fit_is_refused(tmp_path):
  path = tmp_path / "g.npz"
  gaussians = scene(7)
  gaussjax.save(path, gaussians._replace(log_weights=gaussians.log_weights[:3]))
  with pytest.raises(ValueError, match="log_weights of shape"):
    gaussjax.load(path)
  gaussjax.save(path, gaussians._replace(means=gaussians.means.at[1].set(np.nan)))
  with pytest.raises(ValueError, match="not finite"):
    gaussjax.load(path)
