"""What pictures of a page are compared by: parts and sizes of files, and Python's bytes of them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

import gaussjax
from gaussjax import image_io

GOLDEN = Path(__file__).parent / "golden"  # of version 2; those of version 3 are in v3


def golden() -> dict[str, bytes]:
  """The files of both versions by name."""
  return {str(path.relative_to(GOLDEN)): path.read_bytes() for path in sorted(GOLDEN.rglob("*.gjx"))}


class Case(NamedTuple):
  """A part of a file's picture at a size."""

  name: str
  data: bytes
  view: tuple[float, float, float, float]  # left, top, right, bottom in its pixels
  width: int
  height: int

  def json(self) -> dict:
    """What of it is told to JavaScript, but for the bytes."""
    return {"view": list(self.view), "width": self.width, "height": self.height}


def cases(name: str, data: bytes) -> list[Case]:
  """A file at 0.3, 1 and 4 times its size, the latter a quarter of it, and 40 times a small part of it."""
  _, header = gaussjax.decode(data)
  w, h = header.width, header.height
  return [
    Case(f"{name} 0.3x", data, (0, 0, w, h), round(0.3 * w), round(0.3 * h)),
    Case(f"{name} 1x", data, (0, 0, w, h), w, h),
    Case(f"{name} 4x", data, (w / 4, h / 4, w / 2, h / 2), w, h),
    Case(f"{name} 40x", data, (0.52 * w, 0.4 * h, 0.52 * w + 10, 0.4 * h + 8), 400, 320),
  ]


def by_python(case: Case, *, multiplied: bool = False) -> np.ndarray:
  """`[H, W, 4]` bytes; with `multiplied` colours by alpha, as a page shows them."""
  gaussians, header = gaussjax.decode(case.data)
  drawn = gaussjax.render(gaussians, case.height, case.width, viewport=case.view)
  drawn = gaussjax.add_grain(drawn, header, viewport=case.view)
  color = drawn[..., :3] if header.channels > 2 else np.repeat(drawn[..., :1], 3, axis=-1)
  alpha = drawn[..., -1:] if header.channels in (2, 4) else np.ones_like(drawn[..., :1])
  return image_io.as_uint8(np.concatenate([color * alpha if multiplied else color, alpha], axis=-1))


def check_alike(
  found: np.ndarray, case: Case, *, multiplied: bool = False, most: int = 1, mean: float = 0.001
) -> None:
  """Within `most` of 255, and `mean` of 1 on average, of what Python draws.

  Grain of a smaller picture is averaged, how is left to readers.
  """
  if "grain" in case.name and case.width < case.view[2] - case.view[0]:
    most, mean = 10 * most, 4 * mean
  apart = np.abs(found.astype(int) - by_python(case, multiplied=multiplied))
  assert apart.max() <= most and apart.mean() / 255 < mean, f"{case.name}: {apart.max()}, {apart.mean() / 255:.5f}"
