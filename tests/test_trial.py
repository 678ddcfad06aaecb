"""Whether numbers can be trusted on a device is said rightly: of right renderers, and of wrong ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from gaussjax.rendering import renderer, scanlines, trial


@pytest.fixture(scope="module")
def small():
  return trial.scene(40, 50, 12)


def test_the_judge_is_right(small):
  np.testing.assert_allclose(trial.picture(trial._fields(small), small.canvas), oracle.render(small), atol=1e-12)


@pytest.mark.parametrize("name", ["tiles", "dense"])
def test_what_is_right_is_called_right(small, name):
  found = trial.verdict(name, small)
  assert found.right and found.picture < 1e-5 and found.gradient < 1e-4 and str(found).startswith("right")


@jax.custom_vjp
def slightly_wrong_backwards(values):
  return values


slightly_wrong_backwards.defvjp(lambda values: (values, None), lambda _, pulled: (1.001 * pulled,))

SPOILT = {
  "a picture in products of ten bits": lambda drawn: drawn.astype(jnp.bfloat16).astype(jnp.float32),
  "a gradient off by a thousandth": slightly_wrong_backwards,
  "a number that is none": lambda drawn: drawn.at[7, 7].set(jnp.nan),
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_is_wrong_is_called_wrong(small, how, monkeypatch):
  whole = renderer.rasterizer

  def spoilt(*on):
    right = whole(*on)
    return right._replace(splat=lambda values: SPOILT[how](right.splat(values)))

  monkeypatch.setattr(renderer, "rasterizer", spoilt)
  found = trial.verdict("dense", small)
  assert not found.right and str(found).startswith("WRONG")
  assert (found.picture < 1e-4) == ("gradient" in how)


def test_it_is_said_in_words(small, monkeypatch):
  judge = functools.partial(trial.verdict, gaussians=small)
  monkeypatch.setattr(trial, "verdict", judge)
  monkeypatch.setattr(scanlines, "serves", lambda *_: False)
  said = trial.summary()
  assert said["numbers"] == "can be trusted" and set(said) == {"renderer", "tiles draws", "dense draws", "numbers"}
  assert said["renderer"].startswith("tiles: the native code was not built")

  def broken(name):
    if name == "tiles":
      raise RuntimeError("no kernel image is available\nfor execution")
    return judge(name)

  monkeypatch.setattr(trial, "verdict", broken)
  said = trial.summary()
  assert said["tiles draws"].startswith("broken: no kernel image") and said["dense draws"].startswith("right")
  assert said["numbers"].startswith("CANNOT be trusted where tiles draws")
