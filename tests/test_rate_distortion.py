"""What files are compared with, and how: the other codecs at their best, and the BD-rate."""

import numpy as np
import pytest

import gaussjax
from experiments import rate_distortion, runner


def test_jpeg_2000_is_at_its_best():
  """With Pillow's default it would code red, green and blue apart and lose 2 to 3 dB."""
  pixels = gaussjax.image_io.as_uint8(gaussjax.read_image(runner.PHOTOGRAPH))
  data, decoded = rate_distortion.classic(pixels, "jpeg2000", 220)
  assert 8 * len(data) / pixels[..., 0].size < 0.1105
  assert -10 * np.log10(np.mean((decoded / 255 - pixels / 255) ** 2)) > 30.9


def test_the_bd_rate_of_known_curves():
  curve = [(0.08 * 1.5**i, 25 + 2 * i + 0.1 * i * i) for i in range(6)]
  cheaper = [(0.8 * rate, psnr) for rate, psnr in curve]
  assert rate_distortion.bd_rate(curve, curve) == pytest.approx(0, abs=1e-9)
  assert rate_distortion.bd_rate(cheaper[1:], curve) == pytest.approx(-20, abs=0.01)  # the ends of a spline
  assert rate_distortion.bd_rate(curve, [(rate, psnr + 50) for rate, psnr in curve]) is None


def test_rows_make_tables(tmp_path, capsys):
  rows = [
    {"image": f"kodim0{image}.png", "codec": codec, "setting": setting, "effort": effort, "bpp": rate, "psnr": psnr}
    for image in (1, 2)
    for codec, effort, gain in (("gaussjax", 3, 1.0), ("jpeg", None, 0.0))
    for setting, (rate, psnr) in enumerate([(0.1, 25 + gain), (0.2, 28 + gain), (0.4, 31 + gain)])
  ]
  rate_distortion.summarise(rows, tmp_path / "plot.png")
  text = capsys.readouterr().out
  assert "gaussjax effort 3  jpeg" in text and "-20.6" in text
  assert gaussjax.read_image(tmp_path / "plot.png").shape[-1] == 3
