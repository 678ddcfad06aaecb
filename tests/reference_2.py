"""A reader of docs/format_2.md in plain Python and numpy, written from its text: what gaussjax must agree with."""

import collections
import zlib

import numpy as np
import reference
from reference import F, count, power


class Stream(reference.Stream):
  """The coder is that of docs/format.md, but for models that begin at one half; signed numbers are of version 2."""

  def signed(self, m):
    v = self.magnitude(m)
    return -v if v and self.bit(m + 20) else v


def fixed(code):
  return power(code - 128)


def morton(x, y):
  return sum((x >> b & 1) << 2 * b | (y >> b & 1) << 2 * b + 1 for b in range(16))


def decode(data):
  """(header as a dict, a list of Gaussians, each a dict of its integers)."""
  assert data[:4] == bytes([0x8B, 0x47, 0x4A, 0x58])
  at, header, gaussians, layers = 4, None, [], []
  models = collections.defaultdict(lambda: (32768, 0))
  while at < len(data):
    size, begin = count(data, at + 1)
    end = begin + size
    assert int.from_bytes(data[end : end + 4], "big") == zlib.crc32(data[at:end])
    if data[at] == 0x48:
      header = read_header(data[begin:end])
    elif data[at] == 0x4C:
      layers.append(read_layer(data[begin:end], header, models, layers))
      gaussians += layers[-1]
    else:
      assert data[at] & 128
    at = end + 4
  assert len(layers) == header["layers"]
  return header, gaussians


def read_header(body):
  number = lambda at, size: int.from_bytes(body[at : at + size], "big")
  assert body[1] <= 2 <= body[0]
  names = ("height", 2, 4), ("width", 6, 4), ("channels", 10, 1), ("layers", 11, 1), ("blend", 12, 1)
  header = {name: number(at, size) for name, at, size in (*names, ("cutoff", 13, 2), ("floor", 15, 2))}
  header["steps"] = list(body[17:21])
  header["background"] = [(number(21 + 2 * c, 2) + 32768) % 65536 - 32768 for c in range(header["channels"])]
  _, scale, turn, _ = header["steps"]
  header["T"], header["E"] = fixed(turn), 756388 * fixed(scale) >> 16
  header["L"] = 141823 * fixed(scale) >> 16
  return header


def read_layer(body, header, models, layers):
  n, begin = count(body, 0)
  assert 1 <= n <= len(body) - begin
  s = Stream(body[begin:], models)
  if not layers:
    header["predictors"] = [
      (s.even(26) - 2**25, s.even(8) - 128, s.even(8) - 128) for _ in range(2 + header["channels"])
    ]
  layer, last, c = [], 0, 128
  for _ in range(n):
    b = s.magnitude(20 * min(c >> 4, 15))
    gap = b if b < 2 else ((2 | s.bit(320 + b)) << b - 2) + s.even(b - 2)
    c += (16 * b - c) >> 2
    last += gap
    x, y = (sum((last >> 2 * i + o & 1) << i for i in range(16)) for o in (0, 1))
    layer.append({"morton": last, "cell": (x, y)})
  for g in layer:
    g["part"] = s.even(6)
  for i, g in enumerate(layer):
    g["near"] = nearest(layer, i, layers)
  minor, ratio, *channels = header["predictors"]
  for g in layer:
    p, spread = predict(minor, g["near"], "minor")
    g["minor"] = p + s.signed(353 + 21 * min(spread.bit_length(), 2))
  for g in layer:
    p, spread = predict(ratio, g["near"], "ratio")
    g["ratio"] = p + (ratio[2] * g["minor"] >> 5) + s.signed(416 + 21 * min(spread.bit_length(), 2))
    level = min(max(-((2 * g["minor"] + g["ratio"]) * header["L"] + 32768 >> 16), -24), 12)
    w, r = divmod(level, 4)
    g["level"], g["unit"], g["codes"] = level, F[2 * r] * 1024 >> 16 - w, []
  for g in layer:
    read_turn(s, g, header["T"], header["E"])
  for g in layer:
    g["y"] = 0
  for k, predictor in enumerate(channels):
    for g in layer:
      p, spread = predict(predictor, g["near"], k)
      x = s.signed(503 + 252 * k + 21 * (4 * min((spread // g["unit"]).bit_length(), 2) + g["y"]))
      g["codes"].append((p + g["unit"] // 2) // g["unit"] + x)
      g[k], g["y"] = g["codes"][-1] * g["unit"], min(abs(x).bit_length(), 3)
  return layer


def nearest(layer, i, layers):
  """Up to four (Gaussian, weight)."""
  candidates = [layer[i - j] for j in range(1, 17) if i >= j]
  for other in layers:
    q = sum(one["morton"] < layer[i]["morton"] for one in other)
    candidates += [other[j] for j in range(q - 6, q + 6) if 0 <= j < len(other)]
  x, y = layer[i]["cell"]
  apart = lambda one: (one["cell"][0] - x) ** 2 + (one["cell"][1] - y) ** 2
  return [(one, 65536 // (1 + apart(one))) for one in sorted(candidates, key=apart)[:4]]


def predict(predictor, near, field):
  center, share, _ = predictor
  t = sum(w for _, w in near)
  if t == 0:
    return center, 0
  m = (sum(w * one[field] for one, w in near) + t // 2) // t
  return center + (share * (m - center) >> 5), sum(w * abs(one[field] - m) for one, w in near) // t


def read_turn(s, g, turn, eighths):
  q = min(g["ratio"] * eighths + 32768 >> 16, 96)
  c = min(max(turn * (fixed(128 + q) - fixed(128 - q)) + 2**31 >> 32, 1), 4096)
  reference.read_angle(s, g, c, 479)


def render(header, gaussians):
  """`[H, W, C]` in [0, 1], float64. A place has 6 bits, a Gaussian no weight of its own."""
  _, scale, _, color = (2 ** (code / 8 - 16) for code in header["steps"])
  shapes = []
  for g in gaussians:
    minor, unit = g["minor"] * scale, color * 2 ** (g["level"] / 4)
    shapes.append((minor + g["ratio"] * scale, minor, 6, 1, np.array(g["codes"]) * unit))
  return reference.draw(header, 1000, gaussians, shapes)
