"""Metrics against independent implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage
from skimage import color

from experiments import runner
from gaussjax import image_io
from gaussjax.quality import losses, metrics, similarity, ssimulacra2, visibility

SSIM = jax.jit(metrics.ssim)


def images(channels=3):
  rng = np.random.default_rng(0)
  target = ndimage.gaussian_filter(rng.uniform(size=(40, 50, channels)), (2, 2, 0)).astype(np.float32)
  return np.clip(target + rng.normal(scale=0.05, size=target.shape), 0, 1).astype(np.float32), target


def scipy_terms(a, b):
  """Luminance, and contrast times structure."""
  blur = lambda x: ndimage.gaussian_filter(x, 1.5, truncate=3.5)[5:-5, 5:-5]
  a, b = a.astype(np.float64), b.astype(np.float64)
  ma, mb = blur(a), blur(b)
  va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
  return (2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4), (2 * cov + 9e-4) / (va + vb + 9e-4)


def scipy_ssim(a, b):
  luminance, contrast = scipy_terms(a, b)
  return np.mean(luminance * contrast)


def test_psnr_and_mse():
  prediction, target = images()
  expected = np.mean((prediction.astype(np.float64) - target) ** 2)
  np.testing.assert_allclose(metrics.mse(prediction, target), expected, rtol=1e-5)
  np.testing.assert_allclose(metrics.psnr(prediction, target), -10 * np.log10(expected), rtol=1e-5)
  np.testing.assert_allclose(metrics.psnr(target + 5.0, np.ones_like(target)), 120)  # clipped, and bounded


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_scipys(channels):
  prediction, target = images(channels)
  expected = np.mean([scipy_ssim(prediction[..., c], target[..., c]) for c in range(channels)])
  np.testing.assert_allclose(SSIM(prediction, target), expected, atol=1e-5)
  np.testing.assert_allclose(SSIM(target, target), 1, atol=1e-6)


def test_ssim_refuses_what_no_window_fits():
  with pytest.raises(ValueError, match="at least 11 x 11"):
    metrics.ssim(jnp.zeros((10, 40, 3)), jnp.zeros((10, 40, 3)))


def test_losses():
  a, b = jnp.array([[[0.0, 2.0]]]), jnp.array([[[1.0, -1.0]]])
  np.testing.assert_allclose(losses.l1(a, b), 2)
  np.testing.assert_allclose(losses.l2(a, b), 5)


def test_ms_ssim_is_the_weighted_product_over_scales():
  rng = np.random.default_rng(1)
  target = ndimage.gaussian_filter(rng.uniform(size=(181, 200)), 2)
  prediction = np.clip(target + rng.normal(scale=0.1, size=target.shape), 0, 1)
  expected, a, b = 1.0, prediction, target
  for weight in (0.0448, 0.2856, 0.3001, 0.2363):
    expected *= np.mean(scipy_terms(a, b)[1]) ** weight
    height, width = a.shape[0] // 2, a.shape[1] // 2
    a, b = (x[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3)) for x in (a, b))
  expected *= scipy_ssim(a, b) ** 0.1333
  found = jax.jit(metrics.ms_ssim)(np.float32(prediction)[..., None], np.float32(target)[..., None])
  np.testing.assert_allclose(found, expected, atol=1e-4)
  with pytest.raises(ValueError, match="at least 176 x 176"):
    metrics.ms_ssim(jnp.zeros((175, 300, 3)), jnp.zeros((175, 300, 3)))


@pytest.mark.parametrize("loss, squares", [(losses.mix, 0.8), (losses.perceptual, 3.0)])
def test_a_mix_is_the_sum_of_its_parts(loss, squares):
  prediction, target = images()
  expected = 0.2 * losses.l1(prediction, target) + squares * losses.l2(prediction, target)
  expected += 0.1 * (1 - SSIM(prediction, target))
  np.testing.assert_allclose(jax.jit(loss)(prediction, target), expected, rtol=1e-5)


def test_what_is_seen_is_what_ssimulacra_2_sums_up_of_three_scales():
  """Of light as a cubic; grey is three channels alike, and alpha is not seen."""
  values = np.linspace(0, 1, 1001)
  np.testing.assert_allclose(ssimulacra2._nearly_linear(values), ssimulacra2._linear(values), atol=0.002)
  original, damaged = ssimulacra2_pictures()
  for picture in damaged.values():
    pair = [np.asarray(image[:160, :176], np.float32) for image in (picture, original)]
    planes, expected = [ssimulacra2._nearly_linear(np.moveaxis(image, -1, 0)) for image in pair[::-1]], 0.0
    for scale in range(5):
      weighed = ssimulacra2.WEIGHTS[:, scale] * ssimulacra2._norms(*(ssimulacra2._perceived(x, np) for x in planes))
      expected += np.sum(weighed) * (scale in ssimulacra2.COARSE)
      planes = [ssimulacra2._halved(image) for image in planes]
    assert float(ssimulacra2.coarse_error(*pair)) == pytest.approx(expected, rel=5e-3)
    seen = float(losses.visual(*pair) - errors_by_visibility(*pair))
    assert seen == pytest.approx(losses.SEEN * expected + missing_structure(*pair), rel=5e-3, abs=1e-7)
    with_alpha = [np.concatenate([image, image[..., :1]], axis=-1) for image in pair]
    of_alpha = losses.visual(*with_alpha) - errors_by_visibility(*with_alpha)
    assert float(of_alpha) == pytest.approx(seen, rel=1e-3, abs=1e-7)
    grey = [image[..., :1] for image in pair]
    alike = [np.repeat(image, 3, axis=-1) for image in grey]
    np.testing.assert_allclose(losses.visual(*grey), losses.visual(*alike), rtol=2e-3)
  small = [image[:35] for image in images()]  # an eighth is less than the window, and so is a quarter
  rest = losses.visual(*small) - errors_by_visibility(*small)
  assert float(rest) == pytest.approx(missing_structure(*small, sizes=1), rel=1e-4)


def errors_by_visibility(prediction, target):
  weights = np.asarray(visibility.visibility(jnp.asarray(target)), np.float64)[..., None]
  return np.mean((1 + weights) / 2 * np.square(prediction - target))


def missing_structure(prediction, target, sizes=3):
  """Of brightness, 0.01 at each of the smaller sizes."""
  total, pair = 0.0, [jnp.mean(jnp.asarray(image), -1, keepdims=True) for image in (prediction, target)]
  for _ in range(sizes):
    pair = [similarity.halved(image) for image in pair]
    total += 0.01 * (1 - float(SSIM(*pair)))
  return total


def test_errors_are_seen_where_nothing_hides_them():
  """The left half is flat, the right half has stripes of two pixels and a variance of 0.04."""
  stripes = 0.5 + 0.2 * (-1.0) ** (np.arange(96) // 2)
  image = np.where(np.arange(96) < 48, 0.5, stripes)[None, :, None] * np.ones((67, 1, 3))
  seen = np.asarray(visibility.visibility(jnp.asarray(image, jnp.float32)))
  assert seen.shape == (67, 96) and seen.mean() == pytest.approx(1, rel=0.05)  # a last row of cells is cut
  hidden = visibility.LEAST_CONTRAST**2 / (0.04 + visibility.LEAST_CONTRAST**2)
  np.testing.assert_allclose(seen[:, 60:] / seen[0, 0], hidden, rtol=1e-3)
  np.testing.assert_allclose(seen[:, :36], seen[0, 0], rtol=1e-5)
  beyond = np.pad(image[:64], ((0, 192), (0, 0), (0, 0)))  # 0 all over, but for the mean at the border
  beside = np.asarray(visibility.visibility(jnp.asarray(beyond, jnp.float32)))
  np.testing.assert_allclose(beside[:56] / beside[0, 0], seen[:56] / seen[0, 0], rtol=1e-4)
  assert beside[0, 0] == pytest.approx(seen[0, 0], rel=0.2)
  for size in ((1, 1), (1, 40), (3, 5)):
    np.testing.assert_allclose(visibility.visibility(jnp.full((*size, 1), 0.3)), 1, rtol=1e-5)


def test_what_is_seen_has_a_finite_gradient_everywhere(x64):
  del x64
  prediction, target = (jnp.asarray(image, jnp.float64) for image in images())
  check_grads(jax.jit(lambda image: ssimulacra2.coarse_error(image, target)), (prediction,), order=1, modes=["rev"])
  gradient = jax.jit(jax.grad(losses.visual))
  for image in (target, jnp.zeros_like(target), jnp.ones_like(target)):
    assert np.isfinite(gradient(image, image)).all() and np.isfinite(gradient(image, target)).all()


def test_the_windows_gradient_is_its_adjoint(x64):
  del x64
  prediction, target = (jnp.asarray(image[:24, :30], jnp.float64) for image in images())
  check_grads(jax.jit(lambda image: losses.dssim(image, target)), (prediction,), order=1, modes=["rev"])


def test_flip_of_plain_pictures_is_their_distance_in_color():
  pytest.importorskip("flip_evaluator")
  lab = lambda rgb: color.rgb2lab(np.array(rgb, np.float64).reshape(1, 1, 3))[0, 0]

  def distance(a, b):  # without spatial detail: HyAB of Hunt-adjusted Lab, to the power 0.7
    a, b = (np.array([x[0], *(0.01 * x[0] * x[1:])]) for x in (lab(a), lab(b)))
    return (abs(a[0] - b[0]) + np.hypot(*(a - b)[1:])) ** 0.7

  most, plain = distance((0, 1, 0), (0, 0, 1)), lambda value: np.full((24, 32, 3), value, np.float32)
  for a, b in ((0.0, 1.0), (0.4, 0.5), (0.2, 0.21)):
    apart, knee = distance([a] * 3, [b] * 3), 0.4 * most
    expected = 0.95 * apart / knee if apart < knee else 0.95 + 0.05 * (apart - knee) / (most - knee)
    np.testing.assert_allclose(metrics.flip(plain(a), plain(b)), expected, rtol=2e-3)
  target = images()[1]
  assert metrics.flip(target, target) == 0 and set(metrics.perceptual(target, target)) >= {"flip"}
  with pytest.raises(ValueError, match="3 channels"):
    metrics.flip(plain(0)[..., :1], plain(0)[..., :1])


# Scores of the program `ssimulacra2` 2.1, built from its sources, for the pictures of `ssimulacra2_pictures`: for
# the damaged one as the picture to be judged, and as the original. It blurs by recursion in float32, which costs it
# some hundredths, and up to a fifth where there is hardly any error.
SSIMULACRA2 = {
  "blocks": (-39.32324886, -38.62558559, 0.02),
  "bands": (30.50471608, 30.51458925, 0.02),
  "green": (-12.80311256, -4.96014596, 0.02),
  "blurred": (38.68976085, 40.26632539, 0.02),
  "slight": (88.81412587, 88.68264373, 0.25),
  "same": (100.0, 100.0, 1e-6),
}


def ssimulacra2_pictures():
  """A photograph of odd sizes, and what was done to it, 8 bits."""
  whole = image_io.as_uint8(image_io.read_image(runner.PHOTOGRAPH))[100:301, 200:501].astype(int)
  rows, columns = np.indices(whole.shape[:2])
  damaged = {
    "blocks": whole[::4, ::4].repeat(4, axis=0).repeat(4, axis=1)[:201, :301],
    "bands": whole // 24 * 24 + 12,
    "green": np.stack([whole[..., 0], whole[..., 1], 255 - (255 - whole[..., 2]) // 2], axis=-1),
    "blurred": np.rint(ndimage.uniform_filter(whole.astype(float), (5, 5, 1))),
    "slight": np.clip(whole + np.array([[0, 3], [2, -3]])[rows % 2, columns % 2][..., None], 0, 255),
    "same": whole,
  }
  return whole / 255, {name: picture / 255 for name, picture in damaged.items()}


def test_ssimulacra_2_is_that_of_the_reference_program():
  original, damaged = ssimulacra2_pictures()
  for name, (judged, swapped, apart) in SSIMULACRA2.items():
    assert metrics.ssimulacra2(damaged[name], original) == pytest.approx(judged, abs=apart), name
    assert metrics.ssimulacra2(original, damaged[name]) == pytest.approx(swapped, abs=apart), name
  with pytest.raises(ValueError, match="113 x 113"):
    metrics.ssimulacra2(np.zeros((112, 200, 3)), np.zeros((112, 200, 3)))
