"""The strict loader: every kind of file that people have, and what it says of each."""

import numpy as np
import pytest
from PIL import Image

import gaussjax
from gaussjax import image_io

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), np.uint8)
GRAY = RGB[..., 0]
ALPHA = np.full((6, 9, 1), 51, np.uint8)  # 0.2


def write(tmp_path, image, name="image.png", **options):
  path = tmp_path / name
  image.save(path, **options)
  return path


def read(path, **options):
  lines = []
  return gaussjax.read_image(path, report_fn=lines.append, **options), lines


@pytest.mark.parametrize(("pixels", "channels"), [(RGB, 3), (GRAY, 1)])
def test_8_bit_needs_no_conversion(tmp_path, pixels, channels):
  image, lines = read(write(tmp_path, Image.fromarray(pixels)))
  np.testing.assert_array_equal(image, pixels.reshape(6, 9, channels).astype(np.float32) / np.float32(255))
  assert image.dtype == np.float32 and lines == []


def test_16_bit_gray_is_read_in_full(tmp_path):
  pixels = RNG.integers(0, 65536, (6, 9)).astype(np.uint16)
  image, lines = read(write(tmp_path, Image.fromarray(pixels)))
  np.testing.assert_allclose(image[..., 0], pixels / 65535, atol=1e-7)
  assert lines == []


@pytest.mark.parametrize(("color_type", "samples"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_colour_says_that_it_lost_its_low_bytes(tmp_path, color_type, samples):
  path = tmp_path / "deep.png"
  path.write_bytes(png16(RNG.integers(0, 65536, (6, 9, samples)), color_type))
  _, lines = read(path, keep_alpha=True)
  assert any("16 bits a sample read as 8" in line for line in lines)


def png16(pixels, color_type):
  """A 16-bit PNG made by hand, since Pillow does not write one."""
  import struct
  import zlib

  def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

  height, width, _ = pixels.shape
  rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
  header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("pixels", [RGB, GRAY[..., None]])
def test_alpha_is_composited_or_kept(tmp_path, pixels):
  path = write(tmp_path, Image.fromarray(np.concatenate([pixels, ALPHA], -1)))
  image, lines = read(path, background=0.5)
  np.testing.assert_allclose(image, 0.2 * pixels / 255 + 0.8 * 0.5, atol=1e-6)
  assert lines == ["alpha composited on a background of 0.5"]
  image, lines = read(path, keep_alpha=True)
  assert image.shape[-1] == pixels.shape[-1] + 1 and lines == []
  np.testing.assert_allclose(image[..., -1], 0.2, atol=1e-6)


def test_palettes_become_rgb(tmp_path):
  palette = Image.fromarray(RGB).quantize(256)
  image, lines = read(write(tmp_path, palette))
  np.testing.assert_allclose(image, np.asarray(palette.convert("RGB")) / 255, atol=1e-6)
  assert lines == ["P converted to RGB"]


def test_a_palette_with_a_transparent_colour_is_composited(tmp_path):
  palette = Image.new("P", (9, 6), 3)
  palette.putpalette([0, 0, 0] * 3 + [10, 20, 30])
  image, lines = read(write(tmp_path, palette, transparency=3))
  np.testing.assert_allclose(image, 1)
  assert lines == ["P with a transparent colour converted to RGBA", "alpha composited on a background of 1"]


def test_one_bit_is_black_and_white(tmp_path):
  image, lines = read(write(tmp_path, Image.fromarray(GRAY > 127)))
  np.testing.assert_array_equal(image[..., 0], (GRAY > 127).astype(np.float32))
  assert lines == ["1 converted to L"]


def test_cmyk_becomes_rgb(tmp_path):
  image, lines = read(write(tmp_path, Image.fromarray(RGB).convert("CMYK"), "image.tiff"))
  np.testing.assert_allclose(image, RGB / 255, atol=1.5 / 255)
  assert lines == ["CMYK converted to RGB"]


def test_exif_rotation_is_applied(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6  # a quarter turn clockwise brings it upright
  image, lines = read(write(tmp_path, Image.fromarray(RGB), exif=exif))
  np.testing.assert_allclose(image, np.rot90(RGB, -1) / 255, atol=1e-6)
  assert lines == ["EXIF rotation applied"]


def test_of_an_animation_the_first_frame_is_read(tmp_path):
  frames = [Image.fromarray(np.full((6, 9, 3), v, np.uint8)) for v in (200, 100, 0)]
  image, lines = read(write(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:]))
  np.testing.assert_allclose(image, np.broadcast_to(200 / 255, image.shape), atol=1e-6)
  assert "first of 3 frames taken" in lines


def test_what_is_not_an_image_is_one_line(tmp_path, monkeypatch):
  good = write(tmp_path, Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)))
  (tmp_path / "cut.png").write_bytes(good.read_bytes()[:4000])
  (tmp_path / "text.png").write_text("hello")
  (tmp_path / "empty.png").write_bytes(b"")
  for path in (
    tmp_path,
    tmp_path / "cut.png",
    tmp_path / "text.png",
    tmp_path / "empty.png",
    tmp_path / "none.png",
  ):
    with pytest.raises(ValueError, match=path.name) as error:
      gaussjax.read_image(path)
    assert "\n" not in str(error.value)
  monkeypatch.setattr(image_io, "MAX_PIXELS", 63 * 64)
  with pytest.raises(ValueError, match="expected at most"):
    gaussjax.read_image(good)


def test_png_round_trip_and_no_half_files(tmp_path, monkeypatch):
  path = tmp_path / "out.png"
  gaussjax.write_png(path, RGB / 255)
  np.testing.assert_allclose(read(path)[0], RGB / 255, atol=1e-6)
  before = path.read_bytes()
  monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
  with pytest.raises(KeyboardInterrupt):
    gaussjax.write_png(path, RGB / 300)
  assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_resize_is_the_area_average():
  image = RNG.uniform(size=(12, 18, 3)).astype(np.float32)
  expected = image.reshape(6, 2, 9, 2, 3).mean((1, 3))
  np.testing.assert_allclose(image_io.resize(image, height=6), expected, atol=1e-6)
  with pytest.raises(ValueError, match="at least 1 x 1"):
    image_io.resize(image, 0, 4)
