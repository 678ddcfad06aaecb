"""The one door for images: every kind of file and array that people have, and every kind that is written."""

import contextlib
import io
import os
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

import gaussjax
from gaussjax import image_io

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), np.uint8)
GRAY = RGB[..., 0]
ALPHA = np.full((6, 9, 1), 51, np.uint8)  # 0.2
DEEP = RNG.integers(0, 65536, (6, 9, 4)).astype(np.uint16)


def read(source, **options):
  lines = []
  image = image_io.read_image(source, report_fn=lines.append, **options)
  assert image.dtype == np.float32 and image.ndim == 3
  return image, lines


def saved(image, kind="PNG", **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def png(size, bits, color_type, rows, *chunks):
  """A PNG made by hand of `rows`, each its samples or their bytes."""

  def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

  header = struct.pack(">IIBBBBB", *size, bits, color_type, 0, 0, 0)
  parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"".join(b"\0" + bytes(row) for row in rows)))]
  return image_io.PNG_SIGNATURE + b"".join(chunk(*part) for part in [*parts, (b"IEND", b"")])


def tiff(pixels, *, order="<", samples=1, form=1, photometric=1, planes=False, **more):
  """An uncompressed TIFF made by hand of an array `[H, W, C]`, or `[C, H, W]` of planes."""
  body = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
  height, width = pixels.shape[1:] if planes else pixels.shape[:2]
  width = more.get("width", width)
  bits = more.get("bits", 8 * pixels.itemsize)
  tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II" if order == "<" else b"MM")
  tags.update({256: width, 257: height, 258: (bits,) * samples, 259: 1, 262: photometric, 277: samples})
  tags.update({278: height, 284: 1 + planes, 339: (form,) * samples})
  if "extra" in more:
    tags[338] = more["extra"]
  count = samples if planes else 1
  tags[273] = tuple(index * len(body) // count for index in range(count))  # from the end of the tags
  tags[279] = (len(body) // count,) * count
  head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
  return head + tags.tobytes(8) + body


# --- Files: depths, modes, transparency ---

FIRST = DEEP[..., :1]
KEYED = np.any(DEEP[..., :3] != DEEP[2, 3, :3], axis=-1, keepdims=True)
EXACT = {  # name: (file, the picture with its alpha)
  "gray 8": (saved(Image.fromarray(GRAY)), GRAY[..., None] / 255),
  "RGB 8": (saved(Image.fromarray(RGB)), RGB / 255),
  "gray 16": (saved(Image.fromarray(DEEP[..., 0])), FIRST / 65535),
  "gray, alpha 16": (png((9, 6), 16, 4, DEEP[..., :2].astype(">u2")), DEEP[..., :2] / 65535),
  "RGB 16": (png((9, 6), 16, 2, DEEP[..., :3].astype(">u2")), DEEP[..., :3] / 65535),
  "RGBA 16": (png((9, 6), 16, 6, DEEP.astype(">u2")), DEEP / 65535),
  "gray 16 with a transparent value": (
    png((4, 1), 16, 0, np.array([[0, 2000, 32768, 65535]], ">u2"), (b"tRNS", b"\x07\xd0")),
    np.array([[[0, 1], [2000 / 65535, 0], [32768 / 65535, 1], [1, 1]]]),
  ),
  "RGB 16 with a transparent colour": (
    png((9, 6), 16, 2, DEEP[..., :3].astype(">u2"), (b"tRNS", DEEP[2, 3, :3].astype(">u2").tobytes())),
    np.concatenate([DEEP[..., :3] / 65535, KEYED], -1),
  ),
  "gray 1 with a transparent value": (
    png((8, 1), 1, 0, [b"\x0f"], (b"tRNS", b"\0\1")),
    np.array([[[0, 1]] * 4 + [[1, 0]] * 4]),
  ),
  "gray 2 with a transparent value": (
    png((4, 1), 2, 0, [b"\x1b"], (b"tRNS", b"\0\2")),
    np.array([[[0, 1], [1 / 3, 1], [2 / 3, 0], [1, 1]]]),
  ),
  "gray 4": (png((2, 1), 4, 0, [b"\x0a"]), np.array([[[0], [2 / 3]]])),
  "palette": (png((2, 1), 1, 3, [b"\x40"], (b"PLTE", b"\1\2\3\4\5\6")), np.array([[[1, 2, 3], [4, 5, 6]]]) / 255),
  "palette with alpha": (
    png((2, 1), 1, 3, [b"\x40"], (b"PLTE", b"\1\2\3\4\5\6"), (b"tRNS", b"\x33")),
    np.array([[[1, 2, 3, 51], [4, 5, 6, 255]]]) / 255,
  ),
  "one bit": (saved(Image.fromarray(GRAY > 127)), (GRAY > 127)[..., None]),
  "PPM to 1000": (b"P6 9 6 1000\n" + (DEEP[..., :3] % 1001).astype(">u2").tobytes(), DEEP[..., :3] % 1001 / 1000),
  "PGM to 7": (b"P5 9 6 7\n" + (GRAY % 8).tobytes(), GRAY[..., None] % 8 / 7),
  "PGM of 16 bits": (b"P5 9 6 65535\n" + FIRST.astype(">u2").tobytes(), FIRST / 65535),
  "TIFF of 12 bits": (tiff(np.uint8([[0xFF, 0xF8, 0x00]]), bits=12, width=2), np.array([[[1], [2048 / 4095]]])),
  "PBM": (b"P1\n3 1\n1 0 1\n", np.array([[[0], [1], [0]]])),
  "BMP": (saved(Image.fromarray(RGB), "BMP"), RGB / 255),
  "GIF": (saved(Image.fromarray(GRAY), "GIF"), np.stack([GRAY] * 3, -1) / 255),
  "WebP with alpha": (
    saved(Image.fromarray(np.concatenate([RGB, ALPHA], -1)), "WEBP", lossless=True, exact=True),
    np.concatenate([RGB, ALPHA], -1) / 255,
  ),
  "TIFF of floats in 0..1": (tiff(np.float32([[0, 0.25, 1]]), form=3), np.array([[[0], [0.25], [1]]])),
  "TIFF of 0 for white": (
    tiff(np.uint16([[0, 6553, 65535]]), photometric=0),
    1 - np.array([[[0], [6553], [65535]]]) / 65535,
  ),
}
for order in "<>":
  EXACT[f"TIFF gray 16 {order}"] = tiff(FIRST, order=order), FIRST / 65535
  EXACT[f"TIFF RGB 16 {order}"] = tiff(DEEP[..., :3], order=order, samples=3, photometric=2), DEEP[..., :3] / 65535
  EXACT[f"TIFF RGBA 16 {order}"] = tiff(DEEP, order=order, samples=4, photometric=2, extra=2), DEEP / 65535
  EXACT[f"TIFF RGB 16 in planes {order}"] = (
    tiff(DEEP[..., :3].transpose(2, 0, 1), order=order, samples=3, photometric=2, planes=True),
    DEEP[..., :3] / 65535,
  )


@pytest.mark.parametrize("name", EXACT)
def test_every_depth_and_mode_is_read_in_full_and_needs_no_remark(name):
  data, expected = EXACT[name]
  image, lines = read(data, keep_alpha=True)
  assert image.shape == expected.shape
  np.testing.assert_allclose(image, expected, atol=1e-6)
  assert lines == []


SCALED = {  # name: (file, samples, least, greatest)
  **{
    f"{dtype} {order}": (tiff(np.array([[-5, 0, 300]], dtype), order=order, form=2), [-5, 0, 300])
    for dtype in (np.int16, np.int32)
    for order in "<>"
  },
  "int8": (tiff(np.int8([[-128, 0, 127]]), form=2), [-128, 0, 127]),
  "uint32": (tiff(np.uint32([[1, 2**31, 2**32 - 1]])), [1, 2**31, 2**32 - 1]),
  "floats in 0..255": (tiff(np.float32([[0, 100, 255]]), form=3), [0, 100, 255]),
  "floats in -1..1": (tiff(np.float32([[-1, 0.5, 1]]), order=">", form=3), [-1, 0.5, 1]),
  "floats of a PFM": (b"Pf\n3 1\n-1.0\n" + np.float32([0, 1, 5]).tobytes(), [0, 1, 5]),
}


@pytest.mark.parametrize("name", SCALED)
def test_samples_without_a_white_are_scaled_by_their_range_and_said(name):
  data, samples = SCALED[name]
  image, lines = read(data)
  low, high = min(samples), max(samples)
  np.testing.assert_allclose(image.ravel(), (np.array(samples, float) - low) / (high - low), atol=1e-6)
  assert len(lines) == 1 and f"{low:g} becomes 0, {high:g} becomes 1" in lines[0]


@pytest.mark.parametrize("kind", ["tiff_deflate", "tiff_lzw"])
@pytest.mark.parametrize("order", "<>")
def test_compressed_tiffs_of_either_byte_order_are_read_right(kind, order):
  pixels = np.array([[-5, 0, 300]], np.int32)
  image = Image.open(io.BytesIO(tiff(pixels, order=order, form=2)))
  first, _ = read(saved(image, "TIFF", compression=kind, big_endian=order == ">"))
  np.testing.assert_allclose(first.ravel(), [0, 5 / 305, 1], atol=1e-6)


def test_depth_that_is_lost_is_said():
  for data in (b"P3 1 1 1000 500 0 1000 ", tiff(np.zeros((2, 2, 4), np.uint16), samples=4, photometric=5)):
    assert any("16 bits a sample read as 8" in line for line in read(data)[1])


# --- Files: what changes what is seen ---


@pytest.mark.parametrize("pixels", [RGB, GRAY[..., None]])
def test_alpha_is_composited_or_kept(pixels):
  data = saved(Image.fromarray(np.concatenate([pixels, ALPHA], -1)))
  image, lines = read(data, background=0.5)
  np.testing.assert_allclose(image, 0.2 * pixels / 255 + 0.8 * 0.5, atol=1e-6)
  assert lines == ["alpha composited on a background of 0.5"]
  image, lines = read(data, keep_alpha=True)
  assert image.shape[-1] == pixels.shape[-1] + 1 and lines == []
  opaque = saved(Image.fromarray(np.concatenate([pixels, ALPHA | 255], -1)))
  image, lines = read(opaque)
  np.testing.assert_allclose(image, pixels / 255, atol=1e-6)
  assert lines == []


def test_cmyk_and_lab_become_rgb():
  for image in (Image.fromarray(RGB).convert("CMYK"), lab(RGB)):
    for kind in ("TIFF", "JPEG")[: 1 + (image.mode == "CMYK")]:
      options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
      read_back, lines = read(saved(image, kind, **options))
      np.testing.assert_allclose(read_back, RGB / 255, atol=0.08)
      assert len(lines) == 1 and f"{image.mode} converted to" in lines[0]


def lab(pixels):
  """A Pillow image in LAB of sRGB pixels."""
  profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
  image = ImageCms.buildTransform(*profiles, "RGB", "LAB").apply(Image.fromarray(pixels))
  image.info.clear()  # its profile
  return image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_rotation_is_applied(orientation, kind):
  """Pillow's own transposition is the oracle."""
  method = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)
  upright = Image.fromarray(RGB)
  expected = upright if method is None else upright.transpose(Image.Transpose(method))
  exif = Image.Exif()
  exif[0x0112] = orientation
  options = {"lossless": True} if kind == "WEBP" else {}
  data = saved(upright, kind, exif=exif, **options)
  image, lines = read(data)
  np.testing.assert_allclose(image, np.asarray(expected) / 255, atol=1e-6)
  assert lines == []
  assert 0x0112 not in Image.Exif() and "exif" not in image_io.read_metadata(data)


def test_of_several_pictures_one_is_read_and_that_is_said():
  frames = [Image.fromarray(np.full((16, 16, 3), v, np.uint8)) for v in (200, 100, 0)]
  for kind, options in (("GIF", {}), ("TIFF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
    image, lines = read(saved(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    np.testing.assert_allclose(image, np.broadcast_to(200 / 255, image.shape), atol=1e-6)
    assert lines == ["first of 3 frames taken"]
  image, lines = read(saved(Image.new("RGB", (32, 32)), "ICO", sizes=[(16, 16), (32, 32)]))
  assert image.shape[:2] == (32, 32) and "largest of 2 sizes taken" in lines


# --- Colour profiles ---


def profile(space, *tags, klass=b"mntr", pcs=b"XYZ "):
  """An ICC profile of version 2 made by hand; `tags` are (name, data)."""
  text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
  tags = [(b"desc", text), (b"wtpt", xyz(0.9642, 1, 0.8249)), *tags]
  table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
  for name, data in tags:
    data += bytes(-len(data) % 4)
    table += name + struct.pack(">II", offset + len(body), len(data))
    body += data
  size = offset + len(body)
  head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02400000, klass, space, pcs) + bytes(12) + b"acsp"
  head += bytes(68 - len(head)) + struct.pack(">iii", 63190, 65536, 54061)
  return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body


def xyz(*values):
  return b"XYZ \0\0\0\0" + struct.pack(">iii", *[round(v * 65536) for v in values])


def gamma(value):
  return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


TO_XYZ_P3 = np.array([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])
TO_XYZ_SRGB = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
CURVES = [(name, gamma(2.2)) for name in (b"rTRC", b"gTRC", b"bTRC")]
P3 = profile(b"RGB ", *zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, *TO_XYZ_P3), strict=True), *CURVES)
LINEAR_GRAY = profile(b"GRAY", (b"kTRC", gamma(1)))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def cmyk_profile():
  """To Lab by a table of the 16 corners: white paper, three grays by how many inks there are."""
  levels = [max(0, 100 - 30 * (bin(corner).count("1"))) for corner in range(16)]
  table = np.array([[round(level * 2.55), 128, 128] for level in levels], np.uint8)
  identity = np.arange(256, dtype=np.uint8).tobytes()
  matrix = struct.pack(">9i", *[65536 * v for v in (1, 0, 0, 0, 1, 0, 0, 0, 1)])
  lut = b"mft1\0\0\0\0\x04\x03\x02\0" + matrix + identity * 4 + table.tobytes() + identity * 3
  return profile(b"CMYK", (b"A2B0", lut), klass=b"prtr", pcs=b"Lab ")


def encoded_srgb(linear):
  linear = np.clip(linear, 0, 1)
  return np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_wide_gamut_becomes_srgb(kind):
  pixels = np.full((8, 8, 3), (200, 120, 90), np.uint8)
  linear = (pixels / 255) ** 2.2 @ TO_XYZ_P3.T @ np.linalg.inv(TO_XYZ_SRGB).T
  options = {"quality": 100} if kind in ("JPEG", "WEBP") else {}
  data = saved(Image.fromarray(pixels), kind, icc_profile=P3, **options)
  image, lines = read(data)
  np.testing.assert_allclose(image, encoded_srgb(linear), atol=0.015)
  assert np.abs(image - pixels / 255).max() > 0.04
  assert lines == ["colours converted to sRGB from the profile test"]
  assert "icc" not in image_io.read_metadata(data)


def test_deep_and_transparent_pictures_are_converted_too():
  data = png((9, 6), 16, 6, DEEP.astype(">u2"), (b"iCCP", b"x\0\0" + zlib.compress(P3)))
  image, lines = read(data, keep_alpha=True)
  np.testing.assert_allclose(image[..., 3], DEEP[..., 3] / 65535, atol=1e-6)
  linear = (DEEP[..., :3] / 65535) ** 2.2 @ TO_XYZ_P3.T @ np.linalg.inv(TO_XYZ_SRGB).T
  np.testing.assert_allclose(image[..., :3], encoded_srgb(linear), atol=0.03)
  assert len(lines) == 2 and "rounded to 8 bits" in lines[0]


def test_gray_with_a_profile_stays_gray():
  image, lines = read(saved(Image.fromarray(GRAY), icc_profile=LINEAR_GRAY))
  np.testing.assert_allclose(image[..., 0], encoded_srgb(GRAY / 255), atol=0.03)
  assert image.shape[-1] == 1 and lines == ["colours converted to sRGB from the profile test"]


def test_cmyk_goes_through_its_own_profile():
  data = saved(Image.new("CMYK", (4, 4), (255, 0, 0, 0)), "TIFF", icc_profile=cmyk_profile())
  image, lines = read(data)
  assert image[0, 0].max() - image[0, 0].min() < 0.02  # gray by the profile, cyan without
  assert lines == ["colours converted to sRGB from the profile test"]
  assert "icc" not in image_io.read_metadata(data)


@pytest.mark.parametrize(
  ("pixels", "icc", "said"),
  [
    (RGB, SRGB, ""),
    (GRAY, SRGB, ""),
    (RGB, b"no profile" * 20, "profile"),
    (RGB, P3[:300], "damaged"),
    (RGB, LINEAR_GRAY, "does not fit"),
  ],
)
def test_profiles_that_change_nothing(pixels, icc, said):
  data = saved(Image.fromarray(pixels), icc_profile=icc)
  image, lines = read(data)
  np.testing.assert_allclose(image, pixels.reshape(6, 9, -1) / 255, atol=1e-6)
  assert (len(lines) == 1 and said in lines[0]) if said else lines == []
  kept = image_io.read_metadata(data)
  assert kept == ({"icc": SRGB} if icc == SRGB and pixels.ndim == 3 else {})


@pytest.mark.parametrize(
  ("chunks", "said"),
  [
    ([(b"gAMA", struct.pack(">I", 45455))], ""),
    ([(b"gAMA", struct.pack(">I", 100000))], "gamma of 1"),
    ([(b"gAMA", struct.pack(">I", 100000)), (b"sRGB", b"\0")], ""),
    ([(b"cICP", b"\x09\x10\0\1")], "cICP"),
    ([(b"cICP", b"\x01\x0d\0\1")], ""),
    ([(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))], "cHRM"),
  ],
)
def test_colours_that_a_png_only_hints_at_are_said(chunks, said):
  _, lines = read(png((9, 6), 8, 2, RGB, *chunks))
  assert (len(lines) == 1 and said in lines[0]) if said else lines == []


def test_adobe_rgb_without_a_profile_is_said():
  entries = [(0x8769, 4, 1, 26), (0xA005, 4, 1, 44), (1, 2, 4, int.from_bytes(b"R03\0", "little"))]
  directories = b"".join(struct.pack("<HHHIII", 1, *entry, 0) for entry in entries)
  _, lines = read(saved(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + directories))
  assert len(lines) == 1 and "Adobe RGB" in lines[0]


# --- What is refused ---

LARGE = png((50000, 50000), 8, 2, [b""])
REFUSED = {
  "empty": (b"", "empty"),
  "text": (b"hello, I am no picture", "not a readable image"),
  "zeros": (bytes(1000), "not a readable image"),
  "pdf": (b"%PDF-1.7\n", "PDF"),
  "svg": (b'<?xml version="1.0"?>\n<!-- x -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
  "svg of one tag": (b"<svg/>", "SVG"),
  "html": (b"<!DOCTYPE html><html>", "HTML"),
  "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
  "video": (b"\0\0\0\x18ftypisom\0\0\0\0", "video"),
  "archive": (b"PK\x03\x04" + bytes(40), "archive"),
  "GJX": (b"\x8bGJX" + bytes(40), "a .gjx file"),
  "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "EPS"),
  "bomb": (LARGE, f"50000 x 50000 pixels, expected at most {image_io.MAX_PIXELS}"),
  "float64 TIFF": (tiff(np.zeros((2, 2)), form=3), "64-bit floats"),
  "NaN TIFF": (tiff(np.float32([[np.nan, 1]]), form=3), "1 samples that are NaN"),
  "flat TIFF": (tiff(np.int32([[7, 7]]), form=2), "all 7"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_a_readable_image_is_one_line_with_the_name(tmp_path, name):
  data, words = REFUSED[name]
  path = tmp_path / f"{name}.png"
  path.write_bytes(data)
  for source, called in ((path, path.name), (data, "photo")):
    with pytest.raises(ValueError, match=called) as error:
      image_io.read_image(source, name=None if source is path else called)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_gjx_file_is_refused_in_the_same_words_where_pillow_knows_its_kind(tmp_path):
  gaussjax.register_pillow()
  test_what_is_not_a_readable_image_is_one_line_with_the_name(tmp_path, "GJX")


def test_paths_that_lead_to_no_file(tmp_path, monkeypatch):
  cases = [
    (tmp_path, "folder"),
    (tmp_path / "none.png", "not exist"),
    ("a\0b", "cannot be read"),
    ("a\nb", "not exist"),
  ]
  for path, words in [*cases, (None, "NoneType"), (RGB, "ndarray")]:
    with pytest.raises(ValueError, match=words) as error:
      image_io.read_image(path)
    assert "\n" not in str(error.value)
  monkeypatch.setattr(
    "builtins.open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
  )
  with pytest.raises(ValueError, match="x.png.*Permission denied"):
    image_io.read_image("x.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM"])
def test_a_file_that_was_cut_off_is_refused_or_whole(kind):
  data = saved(Image.fromarray(RNG.integers(0, 256, (40, 40, 3), np.uint8)), kind)
  whole, _ = read(data)
  for length in np.linspace(1, len(data) - 1, 40).astype(int):
    with contextlib.suppress(ValueError):
      np.testing.assert_array_equal(read(data[:length])[0], whole)
  with pytest.raises(ValueError, match="the bytes given"):
    read(data[: len(data) // 2])


def test_pipes_are_read():
  data = saved(Image.fromarray(RGB))
  out, into = os.pipe()
  writer = threading.Thread(target=lambda: (os.write(into, data), os.close(into)))
  writer.start()
  image, _ = read(f"/dev/fd/{out}")
  writer.join()
  os.close(out)
  np.testing.assert_allclose(image, RGB / 255, atol=1e-6)


def test_decoders_warn_nobody(recwarn, capfd):
  damaged = saved(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0")
  with warnings.catch_warnings():
    warnings.simplefilter("always")
    read(damaged)
    image_io.read_metadata(damaged)
    with pytest.raises(ValueError, match="not a readable image"):
      read(saved(Image.fromarray(RGB), "TIFF", compression="tiff_lzw").replace(b"\x80", b"\xff"))
  assert not recwarn.list and capfd.readouterr() == ("", "")


# --- Arrays in ---

UNIT = RGB / 255


@pytest.mark.parametrize(
  "given",
  [
    RGB,
    (RGB.astype(np.uint16) * 257).astype(">u2"),
    UNIT,
    UNIT.astype(">f4"),
    UNIT.astype(np.float32),
    UNIT.astype(np.longdouble),
    UNIT.tolist(),
    np.ma.masked_array(UNIT, False),
    Image.fromarray(RGB),
    RGB[::-1][::-1],
  ],
)
def test_arrays_of_every_kind_come_in(given):
  image = image_io.as_image(given)
  np.testing.assert_allclose(image, UNIT, atol=1e-6)
  assert image.dtype in (np.float32, np.float64) and image.dtype.isnative


def test_half_precision_booleans_and_overshoot_come_in():
  import jax.numpy as jnp

  for dtype in (jnp.float16, jnp.bfloat16):
    np.testing.assert_allclose(image_io.as_image(jnp.asarray(UNIT, dtype)), UNIT, atol=0.003)
  np.testing.assert_array_equal(image_io.as_image(GRAY > 9)[..., 0], GRAY > 9)
  resampled = np.float32([[-0.2, 1.2]])
  np.testing.assert_array_equal(image_io.as_image(resampled)[..., 0], resampled)


@pytest.mark.parametrize(
  ("given", "words"),
  [
    (RGB.astype(np.float32), "divide by 255"),
    (UNIT * 65535, "divide by 65535"),
    (UNIT * 2 - 1, r"\(x \+ 1\) / 2"),
    (UNIT - 0.5, r"\(x \+ 1\) / 2|scale"),
    (UNIT * 4, "scale or clip"),
    (np.full((2, 2), np.nan), "4 values that are NaN"),
    (np.full((2, 2), np.inf, np.float16), "4 values that are NaN"),
    (RGB.astype(int), "astype"),
    (RGB.astype(np.uint32), "astype"),
    (RGB.astype(complex), "complex"),
    (RGB.astype(str), "expected uint8"),
    (RGB.astype(object), "object"),
    (np.zeros((3, 24, 32), np.uint8), r"\[H, W, C\]"),
    (np.zeros((1, 28, 28)), r"\[H, W, C\]"),
    (np.zeros((8, 40, 40)), r"\[H, W, C\]"),
    (np.zeros((1, 9, 9, 3)), r"\[H, W, C\]"),
    (np.zeros(9), r"\[H, W, C\]"),
    (np.zeros((0, 9, 3)), "dimension of 0"),
    ([[1.0], [1.0, 0.0]], "no array"),
    (np.ma.masked_array(UNIT, UNIT > 0.5), "masked"),
    (Image.fromarray(RGB).convert("CMYK"), "mode CMYK"),
    (Image.fromarray(RGB).quantize(4), "mode P"),
    ("photo.png", "read_image"),
    (None, "object"),
  ],
)
def test_arrays_that_are_no_picture_are_refused_in_one_line(given, words):
  with pytest.raises(ValueError, match=words) as error:
    image_io.as_image(given)
  assert "\n" not in str(error.value)


def test_as_uint8_keeps_integers_and_refuses_nan():
  np.testing.assert_array_equal(image_io.as_uint8(RGB), RGB)
  np.testing.assert_array_equal(image_io.as_uint8(RGB.astype(np.uint16) * 257), RGB)
  np.testing.assert_array_equal(image_io.as_uint8(np.array([-9, 0.5, 9])), [0, 128, 255])
  for bad in (np.array([np.nan]), np.array([300])):
    with pytest.raises(ValueError, match="expected"):
      image_io.as_uint8(bad)


# --- Pictures out ---


@pytest.mark.parametrize("suffix", image_io.FORMATS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool])
def test_what_is_written_is_read_back_or_refused(tmp_path, suffix, channels, dtype):
  pixels = DEEP[..., :channels] > 30000 if dtype is bool else DEEP[..., :channels].astype(dtype)
  pixels = pixels / np.float32(65535) if dtype is np.float32 else pixels
  path = tmp_path / f"picture{suffix}"
  lossy = suffix in (".jpg", ".jpeg")
  deep = suffix == ".png" or (suffix in (".tif", ".tiff") and channels == 1)
  if (lossy and channels in (2, 4)) or (dtype is np.uint16 and not deep):
    with pytest.raises(ValueError, match=path.name):
      image_io.write_image(path, pixels)
    assert not path.exists()
    return
  image_io.write_image(path, pixels[..., 0] if channels == 1 else pixels)
  image, lines = read(path, keep_alpha=True)
  expected = image_io.as_image(pixels)
  if suffix == ".webp" and channels < 3:
    expected = np.concatenate([expected[..., :1]] * 3 + [expected[..., 1:]], -1)
  if suffix == ".webp" and image.shape[-1] < expected.shape[-1]:  # WebP drops an alpha that is 1 throughout
    expected = expected[..., :3]
  assert image.shape == expected.shape and lines == []
  tolerance = 1e-6 if dtype is not np.float32 else 0.5 / 255 + 1e-6
  if lossy:
    assert np.abs(image - expected).mean() < 0.05
  else:
    np.testing.assert_allclose(image, expected, atol=tolerance)


@pytest.mark.parametrize(
  ("name", "pixels", "words"),
  [
    ("a.bmp", RGB, ".png, .jpg"),
    ("a", RGB, ".png, .jpg"),
    ("a.png", np.full((2, 2), np.nan), "NaN"),
    ("a.png", np.full((2, 2), np.inf), "infinite"),
    ("a.png", np.zeros((4, 6, 5)), r"\[H, W, C\]"),
    ("a.png", np.zeros((8, 6, 5)), r"\[H, W, C\]"),
    ("a.png", np.zeros((0, 6, 3)), "dimension of 0"),
    ("a.png", RGB.astype(float), "divide by 255"),
    ("a.png", UNIT * 2 - 1, r"\(x \+ 1\) / 2"),
    ("a.png", RGB.astype(int), "int64"),
    ("a.webp", np.zeros((1, 16384), np.uint8), "16383"),
    ("a.jpg", np.zeros((65501, 1), np.uint8), "65500"),
  ],
)
def test_what_cannot_be_written_is_refused_and_no_file_left(tmp_path, name, pixels, words):
  with pytest.raises(ValueError, match=words) as error:
    image_io.write_image(tmp_path / name, pixels)
  assert name in str(error.value) and "\n" not in str(error.value)
  assert not list(tmp_path.iterdir())


def test_renders_that_overshoot_are_clipped_when_written(tmp_path):
  image_io.write_image(tmp_path / "A.PNG", np.array([[-0.4, 0.5, 1.4]]))
  np.testing.assert_allclose(read(tmp_path / "A.PNG")[0].ravel(), [0, 128 / 255, 1])


def test_metadata_is_written_where_it_fits():
  exif = Image.Exif()
  exif[0x010F] = "maker"
  kept = {"exif": exif.tobytes(), "icc": SRGB}
  for pixels in (RGB, DEEP[..., :3]):
    found = image_io.read_metadata(image_io.image_bytes(pixels, ".png", metadata=kept))
    assert found["icc"] == SRGB and b"maker" in found["exif"]
  assert "icc" not in image_io.read_metadata(image_io.image_bytes(GRAY, ".png", metadata=kept))
  assert b"iCCP" not in image_io.image_bytes(RGB, ".png", metadata={"icc": cmyk_profile()})


def test_no_half_files(tmp_path, monkeypatch):
  path = tmp_path / "out.png"
  image_io.write_image(path, RGB)
  before = path.read_bytes()
  monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
  with pytest.raises(KeyboardInterrupt):
    image_io.write_image(path, RGB // 2)
  assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_resize_is_the_area_average():
  image = RNG.uniform(size=(12, 18, 3)).astype(np.float32)
  expected = image.reshape(6, 2, 9, 2, 3).mean((1, 3))
  np.testing.assert_allclose(image_io.resize(image, height=6), expected, atol=1e-6)
  with pytest.raises(ValueError, match="at least 1 x 1"):
    image_io.resize(image, 0, 4)
