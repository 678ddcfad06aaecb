"""What files are compared with, and how: the other codecs at their best, and the BD-rate."""

import numpy as np
import pytest

import gaussjax
from experiments import codec_levers, rate_distortion, rowfile, runner
from gaussjax import image_io
from gaussjax.gjx import grids


def test_jpeg_2000_is_at_its_best():
  """With Pillow's default it would code red, green and blue apart and lose 2 to 3 dB."""
  pixels = image_io.as_uint8(gaussjax.read_image(runner.PHOTOGRAPH))
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


def test_levers_are_bits_of_what_is_left_out(tmp_path, capsys, monkeypatch):
  rng = np.random.default_rng(0)
  codes = grids.Codes(
    cells=rng.integers(0, 4, (64, 2)),
    weights=np.arange(64) % 2,
    minor=np.arange(64) % 4 + 1,
    ratio=np.full(64, 8),
    turn=np.zeros(64, int),
    colors=np.stack([np.arange(64) % 2, np.zeros(64, int), np.arange(64)], 1),  # 1, 0 and 6 bits
    parts=rng.integers(0, 64, 64),
  )
  units = np.full(grids.MAX_LEVEL - grids.MIN_LEVEL + 1, 1 << 16)
  counts = np.full((grids.MAX_EIGHTHS + 1, len(units)), 32)
  grid = grids.Grid(position=2.0, weight=0, minor=units, ratio=units // 100, color=units, bins=counts)
  parts = grids.part_bits(grids.known(codes, grid).features).mean()
  bits = codec_levers.plain_bits(codes, grid, (128, 64, 3))
  # 9 x 4.5 cells of 16 pixels with their margins; 2 weights; 4 scales of one ratio; 32 angles.
  assert bits == pytest.approx(
    {"position": np.log2(9 * 4.5) + parts, "weight": 1, "scale": 2, "turn": 5, "color": 7}
  )
  row = {"plain": bits, "coded": bits | {"turn": 4.0}, "psnr": {"fitted": 31.0, "plain": 29.5, "coded": 30.6}}
  row["layers"] = {"1": [[1000, 30.5]], "2": [[200, 15.25], [1015, 30.5]]}
  monkeypatch.setattr(codec_levers, "measure", lambda path, num_gaussians, effort: row)
  path, image = tmp_path / "rows.jsonl", tmp_path / "a.png"
  rows = rowfile.source()
  first = codec_levers.row_of(path, image, 64, 3, rows)
  monkeypatch.delattr(codec_levers, "measure")
  assert codec_levers.row_of(path, image, 64, 3, rows) == first  # from the file, not measured again
  codec_levers.summarise([first], tmp_path / "plot.png")
  printed = capsys.readouterr().out
  assert "+1.5%  15.25" in printed
  assert "-1.00" in printed and "-1.50 dB at once, -0.40 dB in shares" in printed
  assert (tmp_path / "plot.png").stat().st_size > 1000
