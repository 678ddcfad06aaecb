"""What files are compared with, and how: the other codecs at their best, and the BD-rate."""

import json
import math

import numpy as np
import pytest

import gaussjax
from experiments import (
  anchors,
  codec_levers,
  curves,
  rate_distortion,
  rate_report,
  rowfile,
  runner,
  side_by_side,
  tiny_files,
)
from gaussjax import image_io
from gaussjax.gjx import grids

PIXELS = image_io.as_uint8(gaussjax.read_image(runner.PHOTOGRAPH))


def test_jpeg_2000_is_at_its_best():
  """With Pillow's default it would code red, green and blue apart and lose 2 to 3 dB."""
  data, decoded = anchors.ANCHORS["jpeg2000"].code(PIXELS, 220)
  assert 8 * len(data) / PIXELS[..., 0].size < 0.1105
  assert -10 * np.log10(np.mean((decoded / 255 - PIXELS / 255) ** 2)) > 30.9


@pytest.mark.parametrize("name", anchors.ANCHORS)
def test_every_codec_gives_the_picture_back(name):
  anchor, crop = anchors.ANCHORS[name], PIXELS[100:164, 200:272]
  if anchor.missing():
    pytest.skip(f"{name} needs {anchor.missing()}")
  assert anchor.version()
  # JPEG 2000 has ratios and JPEG XL distances, so that every codec's last setting is its best.
  small, large = (anchor.code(crop, anchor.settings[i]) for i in (0, -1))
  assert len(small[0]) < len(large[0]) and large[1].shape == crop.shape and large[1].dtype == np.uint8
  errors = [np.mean((decoded / 255 - crop / 255) ** 2) for _, decoded in (small, large)]
  assert errors[1] < errors[0] and errors[1] < 1e-3
  assert anchor.code(crop[..., :1], anchor.settings[-1])[1].shape == (64, 72, 1)


def test_what_is_not_installed_is_named(monkeypatch):
  gone = anchors.ANCHORS["jxl"]._replace(missing=lambda: "a thing")
  monkeypatch.setitem(anchors.ANCHORS, "jxl", gone)
  assert anchors.absent(["jxl", "jpeg"]) == {"jxl": "a thing"}


def test_the_bd_rate_of_known_curves():
  curve = [(0.08 * 1.5**i, 25 + 2 * i + 0.1 * i * i) for i in range(6)]
  cheaper = [(0.8 * rate, psnr) for rate, psnr in curve]
  assert curves.bd_rate(curve, curve) == pytest.approx(0, abs=1e-9)
  assert curves.bd_rate(cheaper, curve) == pytest.approx(-20, abs=1e-6)
  assert curves.bd_rate(cheaper[1:], curve) == pytest.approx(-20, abs=0.01)  # the ends of a spline
  assert curves.bd_rate(curve, [(rate, psnr + 50) for rate, psnr in curve]) is None
  assert curves.bd_rate(curve) is None and curves.bd_rate(curve, curve[:1]) is None


def test_of_several_settings_the_cheapest_counts_at_each_quality():
  """And all their points count, however low or high their rates are."""
  line = lambda slope, start, dbs: [(math.exp((db - start) / slope), db) for db in dbs]  # dB over log rate
  low, high = line(4, 36, range(20, 45)), line(8, 40, range(20, 45))  # they cross at 32 dB
  ours = line(4, 36, range(24, 41))
  assert curves.bd_rate(ours, low) == pytest.approx(0, abs=1e-9)
  # Above 32 dB the other is cheaper by (db - 32) / 8 of a logarithm, on the mean of 24 to 40 dB by a quarter.
  assert curves.bd_rate(ours, high, low) == pytest.approx(100 * (math.exp(0.25) - 1), abs=1e-3)
  assert curves.bd_rate(ours, [*low, (0.9, 5.0)]) == pytest.approx(0, abs=1e-9)  # a point that is beaten in both
  # Settings with a gap between them are compared where there are any.
  assert curves.bd_rate(ours, line(4, 36, (20, 26)), line(4, 36, (38, 44))) == pytest.approx(0, abs=1e-9)


def test_an_average_at_equal_slope_is_that_of_a_shared_multiplier():
  """D = a / R: the least D + s R is at R = sqrt(a / s). Ours has points at fixed rates, straight beyond them."""
  scales = (1e-4, 9e-4)
  decibel = lambda a, rate: -10 * math.log10(a / rate)
  images = {f"i{i}": [(r, decibel(a, r)) for r in (0.1, 0.2, 0.4, 0.8)] for i, a in enumerate(scales)}
  found = curves.equal_slope(list(images.values()))
  assert len(found.points) >= 20 and 0 < found.beyond < 1
  for rate, db in found.points:
    root = rate / (sum(a**0.5 for a in scales) / 2)  # 1 / sqrt(s)
    assert db == pytest.approx(np.mean([decibel(a, root * a**0.5) for a in scales]), abs=0.01)
  # A codec of the same curves, published at equal multipliers: fair is 0, naive is not; and image by image.
  theirs = [(root * a**0.5, decibel(a, root * a**0.5)) for root in (5, 10, 20) for a in scales]
  mean = [tuple(np.mean(theirs[i : i + 2], axis=0)) for i in (0, 2, 4)]
  even = [tuple(np.mean([images[name][i] for name in images], axis=0)) for i in range(4)]
  each = {"i0": theirs[::2], "i1": [(0.5 * rate, db) for rate, db in theirs[1::2]], "unknown": theirs}
  published = {"mean": {"same": {"points": mean}}, "per_image": {"each": {"points": each}}}
  same, apart = curves.compare(images, even, published)
  assert same.fair == pytest.approx(0, abs=0.3) and same.naive < -10 and same.images is None
  assert apart.fair == pytest.approx(50, abs=0.1) and apart.images == 2  # 0 and +100


def test_rows_make_tables(tmp_path, capsys):
  rows = [
    {"image": f"kodim0{image}.png", "codec": codec, "setting": setting, "effort": effort, "bpp": rate}
    | {"psnr": psnr, "ms_ssim": 1 - 10 ** (-(psnr - 10 + gain) / 10), "lpips": 1 - psnr / 50}
    for image in (1, 2)
    for codec, effort, gain in (("gaussjax", 3, 1.0), ("jpeg", None, 0.0))
    for setting, (rate, psnr) in enumerate([(0.1, 25 + gain), (0.2, 28 + gain), (0.4, 31 + gain)])
  ]
  published = tmp_path / "published.json"
  published.write_text(json.dumps({"mean": {"other": {"points": [[0.1, 26.0], [0.4, 32.0]]}}, "per_image": {}}))
  rate_report.summarise(rows, tmp_path / "plot.png", published)
  lines = [line.split() for line in capsys.readouterr().out.splitlines()]
  table = {line[4]: line[5:] for line in lines if line[:4] == ["gaussjax", "effort", "3", "jpeg"]}
  same = 100 * (2 ** (-1 / 3) - 1)  # 1 dB is worth a third of a doubling
  assert float(table["psnr"][0]) == pytest.approx(same, abs=0.05) and table["psnr"][3] == "2"
  assert float(table["lpips"][0]) == pytest.approx(same, abs=0.05)
  assert float(table["ms_ssim"][0]) == pytest.approx(100 * (2 ** (-2 / 3) - 1), abs=0.05)
  assert table["ssimulacra2"] == ["-", "-", "-", "0", "-"]  # no row has it
  other = next(line for line in lines if line[:1] == ["other"])
  assert other[-4:] == ["+0.0", "+0.0", "equal", "slope"]  # all images are the same
  assert any(line[:2] == ["webp:", "no"] for line in lines)
  assert gaussjax.read_image(tmp_path / "plot.png").shape[-1] == 3


def test_summaries_leave_out_what_is_no_longer_measured():
  ours = {"image": "a.png", "codec": "gaussjax", "setting": 0.2, "effort": 4, "psnr": 1.0}
  rows = [ours, ours | {"setting": 2.4}, ours | {"codec": "avif"}, ours | {"codec": "jpeg", "setting": 5}]
  rows += [ours | {"tune": "psnr", "psnr": 2.0}, ours | {"codec": "jpeg", "setting": 5, "tune": None, "psnr": 3.0}]
  assert [(row["codec"], row["psnr"]) for row in rate_distortion.current(rows)] == [("gaussjax", 2), ("jpeg", 3)]


def test_tiny_files_are_the_best_of_those_small_enough(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(tiny_files, "SIZES", (100, 400))
  monkeypatch.setitem(
    tiny_files.CODECS, "webp", tiny_files.CODECS["webp"]._replace(sides=(16, 48), settings=(0, 40))
  )
  made = []

  def encode(image, *, size):
    made.append(size)
    if size < 400:
      raise ValueError("too small")
    return b"x" * 390

  path, image = tmp_path / "t.jsonl", tmp_path / "kodim23.png"
  gaussjax.write_image(image, PIXELS[:128, :192] / np.float32(255))
  monkeypatch.setattr(gaussjax, "encode", encode)
  monkeypatch.setattr(gaussjax, "decode", lambda data: (None, None))
  monkeypatch.setattr(gaussjax, "render", lambda gaussians: np.full((128, 192, 3), 0.5, np.float32))
  for _ in range(2):  # the second finds the rows
    for codec in ("gaussjax", "webp"):
      tiny_files.measure_all(path, image, codec, fresh=False)
  rows = rowfile.read(path)
  assert made == [100, 400] and len(rows) == 4
  ours, theirs = rows[:2], rows[2:]
  assert ours[0]["psnr"] is None and ours[1]["bytes"] == 390
  assert [row["bytes"] <= row["size"] for row in theirs] == [True, True]
  assert theirs[1]["side"] == 48 and theirs[1]["psnr"] > theirs[0]["psnr"] + 1
  tried = list(tiny_files.candidates(PIXELS[:128, :192], "webp"))
  best = max(tiny_files.psnr(one.drawn, PIXELS[:128, :192]) for one in tried if len(one.data) <= 400)
  assert theirs[1]["psnr"] == pytest.approx(best)
  tiny_files.summarise(rows, path, "kodim23")
  said = capsys.readouterr().out
  assert "thumbhash: no rows" in said and f"{theirs[1]['psnr']:.2f} / " in said
  strip = gaussjax.read_image(tmp_path / "t-strip.jpg")
  assert strip.shape == (2 * 128 + 4, 2 * 192 + 4, 3)
  assert (strip[10:100, 10:180] > 0.98).all() and abs(strip[:128, 200:].mean() - 0.5) < 0.02


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


def test_side_by_side_the_other_file_is_not_smaller_than_ours(tmp_path):
  code = anchors.ANCHORS["jpeg"].code
  pixels = PIXELS[:128, :192]
  for size in (900, 2000):
    found, drawn = side_by_side.as_large(code, pixels, size)
    sizes = [len(code(pixels, quality)[0]) for quality in range(101)]
    assert found == min(one for one in sizes if one >= size) and drawn.shape == pixels.shape
  words = side_by_side.measures(found, drawn, pixels)
  assert f"{found:,} bytes" in words and "dB, SSIMULACRA 2" in words
  original, one = side_by_side.Shown("kodim23", pixels), side_by_side.Shown(f"jpeg\n{words}", drawn)
  side_by_side.draw([[original, one, one]], tmp_path / "a.jpg")
  height, width, _ = gaussjax.read_image(tmp_path / "a.jpg").shape
  assert 320 < height < 360 and 1200 < width < 1320  # the titles stand out of the figure's 320 x 1260
