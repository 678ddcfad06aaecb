"""From samples to floats in sRGB: ranges, colour profiles, alpha."""

import contextlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile

from gaussjax.image_io import arrays, opening, png, unpacking
from gaussjax.image_io.arrays import FloatImage


def _to_unit(samples: unpacking.Samples, lines: list[str]) -> FloatImage:
  """Samples of any type as float32 in [0, 1]."""
  color, white = samples.color, samples.white
  if white is not None:
    unit = np.minimum(color.astype(np.float32) / np.float32(white), 1)
  else:
    unit = _by_range(color, lines)
  return 1 - unit if samples.inverted else unit


def _by_range(color: NDArray, lines: list[str]) -> FloatImage:
  """Floats in [0, 1] as they are or clipped, other numbers by their range: the least becomes 0, the greatest 1."""
  bad = int(color.size - np.isfinite(color).sum())
  if bad:
    raise opening.RefusedError(f"got {bad} samples that are NaN or infinite, expected finite ones")
  low, high = float(color.min()), float(color.max())
  if color.dtype.kind == "f" and low >= -arrays.OVERSHOOT and high <= 1 + arrays.OVERSHOOT:
    if low < 0 or high > 1:
      lines.append(f"samples from {low:g} to {high:g} clipped to 0 and 1")
    return np.clip(color, 0, 1).astype(np.float32)
  if low == high:
    raise opening.RefusedError(f"got samples that are all {low:g}, expected a range of them or floats in [0, 1]")
  lines.append(f"samples scaled by their range: {low:g} becomes 0, {high:g} becomes 1")
  return ((color.astype(np.float64) - low) / (high - low)).astype(np.float32)


def to_srgb(samples: unpacking.Samples, icc: bytes | None, lines: list[str]) -> FloatImage:
  """The picture as `[H, W, 1]` or `[H, W, 3]` in sRGB, by the colour profile `icc` if it has one that fits."""
  color, space = _to_unit(samples, lines), samples.space
  transform = None
  if icc:
    try:
      if profile_space(icc) in (space, "RGB" if space == "L" else space):
        if (transform := _srgb_transform(icc, space)) is None:
          return color
        said = f"colours converted to sRGB from the profile {_profile_name(icc)}"
      else:
        lines.append(f"colour profile for {profile_space(icc)} left out: it does not fit pixels of {space}")
    except Exception:  # Pillow raises OSError, PyCMSError and others
      lines.append("colour profile is damaged and left out")
      transform = None
  if transform is None and space in ("L", "RGB"):
    return color
  if samples.color.dtype != np.uint8:
    lines.append("samples rounded to 8 bits for the conversion of colours")
  if transform is not None:
    lines.append(said)
  elif space == "LAB":
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    lines.append("LAB converted to sRGB")
  else:
    lines.append(f"{space} converted to RGB without a colour profile: colours are approximate")
  return _converted(arrays.as_uint8(color), space, transform)


def _converted(pixels: NDArray[np.uint8], space: str, transform: Any) -> FloatImage:
  """`pixels` through a transform of colours, Pillow's own if that is None; gray stays gray."""
  height, width, _ = pixels.shape
  image = Image.frombytes(space, (width, height), pixels.tobytes())
  if transform is None:
    image = image.convert("RGB")
  else:
    if transform.input_mode != space:  # gray with a profile for RGB
      image = image.convert(transform.input_mode)
    image = transform.apply(image)
  color = arrays.as_image(np.asarray(image))
  return color[..., 1:2] if space == "L" else color


def profile_space(icc: bytes) -> str:
  """Pillow's mode of the pixels that a profile describes."""
  name = icc[16:20].decode("latin-1").strip()
  return {"GRAY": "L", "Lab": "LAB"}.get(name, name)


def _profile_name(icc: bytes | None) -> str:
  name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(icc or b"")))
  return " ".join(name.split()) or "without a name"


def _srgb_transform(icc: bytes, space: str) -> Any:
  """The transform to sRGB of pixels with a profile, None if it changes none by more than a level of 8 bits."""
  mode = profile_space(icc)
  transform = ImageCms.buildTransform(
    ImageCms.ImageCmsProfile(io.BytesIO(icc)),
    ImageCms.createProfile("sRGB"),
    mode,
    "RGB",
    ImageCms.Intent.RELATIVE_COLORIMETRIC,
    ImageCms.Flags.BLACKPOINTCOMPENSATION,
  )
  if mode == "L" or (mode == "RGB" and space == "L"):
    probe = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
    probe, space = (probe, "L")
  elif mode == "RGB":
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    probe = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
  else:
    return transform
  change = np.abs(_converted(probe, space, transform) - arrays.as_image(probe)).max()
  return transform if change > 1.5 / 255 else None


def is_srgb(icc: bytes) -> bool:
  """Whether a profile is for RGB and describes sRGB's colours."""
  try:
    return profile_space(icc) == "RGB" and _srgb_transform(icc, "RGB") is None
  except Exception:  # Pillow raises OSError, PyCMSError and others
    return False


def with_alpha(
  color: FloatImage, alpha: NDArray, keep_alpha: bool, background: float, lines: list[str]
) -> FloatImage:
  alpha = alpha.astype(np.float32)
  if keep_alpha:
    return np.concatenate([color, alpha], axis=-1)
  if alpha.min() == 1:
    return color
  lines.append(f"alpha composited on a background of {background:g}")
  return color * alpha + np.float32(background) * (1 - alpha)


def unread_color_space(image: ImageFile.ImageFile, data: bytes) -> list[str]:
  """A line for what EXIF or a PNG's chunks say of colours and nothing here heeds."""
  with contextlib.suppress(Exception):  # damaged EXIF data
    if not image.info.get("icc_profile") and image.getexif().get_ifd(0xA005).get(1) == "R03":
      return ["EXIF says Adobe RGB, and there is no profile: colours taken as sRGB"]
  chunks = png.chunks(data)
  if len(code := chunks.get(b"cICP", b"")) == 4 and code[:2] != b"\x01\x0d" and b"iCCP" not in chunks:
    return [f"colour space (cICP chunk: primaries {code[0]}, transfer {code[1]}) left out: colours taken as sRGB"]
  if {b"iCCP", b"sRGB", b"cICP"} & set(chunks):
    return []
  lines = []
  if len(gamma := chunks.get(b"gAMA", b"")) == 4:
    value = int.from_bytes(gamma, "big") / 100_000
    if abs(value - 1 / 2.2) > 0.01:
      lines.append(f"gamma of {value:g} (gAMA chunk) left out: colours taken as sRGB")
  if len(primaries := chunks.get(b"cHRM", b"")) == 32:
    found = np.frombuffer(primaries, ">u4") / 100_000
    if np.abs(found - [0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06]).max() > 0.005:
      lines.append("primaries (cHRM chunk) left out: colours taken as sRGB")
  return lines
