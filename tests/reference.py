"""A reader of docs/format.md in plain Python and numpy, written from its text: what gaussjax must agree with."""

import bisect
import math
import re
import zlib
from pathlib import Path

import numpy as np

TEXT = (Path(__file__).parents[1] / "docs" / "format.md").read_text()
LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-"
F = (65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194)
LEVELS = {"minor": (0, 0, 10), "ratio": (23, 0, 9), "turn": (34, 13, 11), "color": (54, 27, 9)}


def power(e):
  w, r = divmod(e, 8)
  return F[r] << w if w >= 0 else F[r] >> -w


def held(value, low, high):
  return min(max(value, low), high)


def rate(n):
  return round(65536 / (min(n, 64) + 1.5))


def tables():
  """The probabilities of the letters that the text ends with: (positions and turns, numbers)."""
  parts = re.split(r"\d+ letters, of .*:", TEXT.split("## The table")[1])[1:]
  odds = [2**32 // (65536 + power(2 * (32 - i))) for i in range(64)]
  return [[odds[LETTERS.index(letter)] for letter in "".join(part.split())] for part in parts]


class Stream:
  """The coder's reading side."""

  def __init__(self, data, models):
    self.data, self.models, self.at = data, models, 0
    self.low, self.high, self.code = 0, 2**32 - 1, 0
    for _ in range(4):
      self.code = self.code << 8 | self.byte()

  def byte(self):
    self.at += 1
    return self.data[self.at - 1] if self.at <= len(self.data) else 0

  def shift(self):
    while self.low >> 24 == self.high >> 24:
      self.low = self.low % 2**24 * 256
      self.high = self.high % 2**24 * 256 + 255
      self.code = self.code % 2**24 * 256 + self.byte()

  def odds(self, p):
    middle = self.low + ((self.high - self.low) * p >> 16)
    bit = self.code <= middle
    if bit:
      self.high = middle
    else:
      self.low = middle + 1
    self.shift()
    return int(bit)

  def bit(self, model):
    p, n = self.models[model]
    b = self.odds(p)
    p += (65536 * b - p) * rate(n) >> 16
    self.models[model] = (held(p, 64, 65472), min(n + 1, 64))
    return b

  def raw(self, k):
    if k > 16:
      v = self.raw(16)
      return v << k - 16 | self.raw(k - 16)
    if self.high - self.low < 2**24:
      return self.even(k)
    part = (self.high - self.low + 1) >> k
    v = min((self.code - self.low) // part, 2**k - 1)
    self.low += v * part
    self.high = self.low + part - 1
    self.shift()
    return v

  def even(self, k):
    v = 0
    for _ in range(k):
      v = 2 * v + self.odds(32768)
    return v

  def uniform(self, n):
    v = 0
    while n > 1:
      u = n // 2
      if self.odds((u << 16) // n):
        v, n = v + n - u, u
      else:
        n -= u
    return v

  def magnitude(self, m):
    for i in range(20):
      if not self.bit(m + i):
        return i
    e = 0
    while self.odds(32768):
      e += 1
      assert e <= 32
    return 20 + 2**e - 1 + self.even(e)


def count(data, at):
  v = shift = 0
  while True:
    v |= (data[at] & 127) << shift
    shift += 7
    at += 1
    if data[at - 1] < 128:
      assert v < 2**32
      return v, at


def decode(data):
  """(header as a dict, a list of Gaussians, each a dict of its integers)."""
  assert data[:2] == bytes([0x8B, 0x47])
  if data[2] in (0x31, 0x33, 0x34):
    header, at = read_short_header(data, data[2] - 0x30)
    assert data[-1] == zlib.crc32(data[:-1]) % 256
    bodies, at, header["grain"] = [data[at:-1]], len(data), None
  else:
    assert data[2:4] == bytes([0x4A, 0x58])
    header, at = read_header(data, 4)
    bodies, header["grain"] = [], None
  summed = 4
  while at < len(data):
    size, begin = count(data, at + 1)
    end = begin + size
    assert int.from_bytes(data[end : end + 4], "big") == zlib.crc32(data[summed:end])
    if data[at] == 0x4C:
      bodies.append(data[begin:end])
    else:
      assert data[at] & 128 and bodies
      if data[at] == 0xC7:
        header["grain"] = read_grain(data[begin:end], header)
    at = summed = end + 4
  assert len(bodies) == header["layers"]
  n, _ = count(bodies[0], 0)
  shared, each = tables()
  models = {i: (p, 24) for i, p in enumerate(shared + each * (3 + header["channels"]))}
  known, layers = first_known(header, n), []
  for body in bodies:
    layers.append(read_layer(body, header, models, known, layers))
  return header, [gaussian for layer in layers for gaussian in layer]


def read_short_header(data, channels):
  """The same of a short frame."""
  sides, told = int.from_bytes(data[3:6], "big"), int.from_bytes(data[6:8], "big")
  background = [data[8], data[8], data[8], data[9]][:channels]
  position = 116 + told % 32
  scale, turn = position - 16 + (told >> 5) % 4, 270 - position + (told >> 7) % 16
  header = {"layers": 1, "blend": 0, "weighted": 0, "channels": channels, "cutoff": 3500, "floor": 300, "unit": 255}
  header |= {"height": (sides >> 12) + 1, "width": sides % 4096 + 1, "background": background}
  return header | {"steps": [position, scale, turn, position - 20 + (told >> 11)]}, 10 if channels == 4 else 9


def read_header(data, at):
  """(header as a dict, where it ends)."""
  version, flags = data[at], data[at + 1]
  assert version == 3 and flags < 128
  header = {"layers": (flags & 3) + 1, "blend": flags >> 2 & 1, "weighted": flags >> 3 & 1}
  own, at = flags >> 4 & 1, at + 2
  if flags >> 5 == 3:
    channels, at = data[at], at + 1
  else:
    channels = (1, 3, 4)[flags >> 5]
  height, at = count(data, at)
  width, at = count(data, at)
  steps, at = list(data[at : at + 4 + header["weighted"]]), at + 4 + header["weighted"]
  header |= {"channels": channels, "height": height + 1, "width": width + 1, "steps": steps}
  header |= {"cutoff": 3500, "floor": 300, "unit": 1000 if own else 255}
  if own:
    header["cutoff"], header["floor"] = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (0, 2))
    at += 4
    background = [int.from_bytes(data[at + 2 * c : at + 2 * c + 2], "big", signed=True) for c in range(channels)]
  else:
    background = list(data[at : at + channels])
  header["background"] = background
  return header, at + (2 * channels if own else channels)


def read_grain(body, header):
  """(log2 of a region's side, levels [2, rows, columns])."""
  side = body[0]
  rows, columns = math.ceil(header["height"] / 2**side), math.ceil(header["width"] / 2**side)
  assert 4 <= side <= 15 and rows * columns <= 4096
  s = Stream(body[1:], dict.fromkeys(range(126), (32768, 0)))
  levels, off = np.zeros((2, rows, columns), int), {}
  for part, i, j in np.ndindex(levels.shape):
    beside = [levels[part, i, j - 1]] * (j > 0) + [levels[part, i - 1, j]] * (i > 0) or [0]
    left, above = beside[0], beside[-1]
    c = 4 + np.sign(off[i, j]) if part else min(abs(left - above), 2)
    d = s.magnitude(21 * c)
    if d and s.bit(21 * c + 20):
      d = -d
    off[i, j] = d
    levels[part, i, j] = ((left + above + 1) >> 1) + d
    assert 0 <= levels[part, i, j] <= 15
  return side, levels


def pattern():
  """`[2, 256, 256]`, fine and coarse."""
  y, x = np.mgrid[:256, :256]
  noise = []
  for e in range(2):
    h = x + 256 * y + 65536 * e
    h = [int(one) for one in h.ravel()]
    h = [(one ^ one >> 16) * 0x7FEB352D % 2**32 for one in h]
    h = [(one ^ one >> 15) * 0x846CA68B % 2**32 for one in h]
    noise.append(np.array([sum((one ^ one >> 16).to_bytes(4, "big")) - 510 for one in h]).reshape(256, 256))

  def around(values, weights):
    half = len(weights) // 2
    return sum(
      a * b * np.roll(values, (i - half, j - half), (0, 1))
      for i, a in enumerate(weights)
      for j, b in enumerate(weights)
    )

  twice = lambda size: around(around(noise[1], (1,) * size), (1,) * size)
  fine = (1103 * (16 * noise[0] - around(noise[0], (1, 2, 1))) + 2**15) >> 16
  coarse = (25854 * (2401 * twice(3) - 81 * twice(7)) + 2**31) >> 32
  return np.clip([fine, coarse], -128, 127)


def grained(header, picture):
  """A picture `[H, W, C]` in [0, 1] of a file's own size with its grain."""
  side, levels = header["grain"]
  strengths = np.where(levels > 0, 2 ** (levels / 2 - 1) / 255, 0)
  height, width, channels = picture.shape
  along = []
  for size, count in ((height, levels.shape[1]), (width, levels.shape[2])):
    place = np.clip((np.arange(size) + 0.5) / 2**side - 0.5, 0, count - 1)
    along.append([place.astype(int), np.minimum(place.astype(int) + 1, count - 1), place % 1])
  (top, bottom, down), (left, right, across) = along
  rows = strengths[:, top] + (strengths[:, bottom] - strengths[:, top]) * down[:, None]
  strong = rows[..., left] + (rows[..., right] - rows[..., left]) * across
  noise = pattern()[:, np.arange(height)[:, None] % 256, np.arange(width) % 256]
  last = channels - 1 if channels in (2, 4) else channels
  added = (strong * noise / 32).sum(0)[..., None]
  return np.clip(np.concatenate([picture[..., :last] + added, picture[..., last:]], -1), 0, 1)


def first_known(header, n):
  """Of each kind of number M, D, D-, D+, A, B and t."""
  root = 79 * math.isqrt(math.isqrt((header["height"] * header["width"] << 64) // n)) >> 8
  gray = sum((value << 16) // header["unit"] for value in header["background"])
  gray = gray * math.isqrt(2**32 // header["channels"]) >> 16
  kinds = {"weight": (131072, 87000), "minor": (root, max(76 * root >> 8, 1)), "ratio": (91000, 40000)}
  kinds |= {c: ((gray, 26000), (0, 5600), (0, 2600))[min(c, 2)] for c in range(header["channels"])}
  return {
    name: {"model": 361 + 775 * i, "M": 16 * m, "D": d, "D-": d, "D+": d, "A": 2048, "B": 4096, "t": 0}
    for i, (name, (m, d)) in enumerate(kinds.items())
  }


def read_layer(body, header, models, known, layers):
  n, begin = count(body, 0)
  assert 1 <= n <= len(body) - begin
  s = Stream(body[begin:], models)
  position, scale, turn, color, *weight = header["steps"]
  layer, last, c = [], 0, 128
  for _ in range(n):
    b = s.magnitude(20 * min(c >> 4, 15))
    assert b <= 32
    gap = b if b < 2 else ((2 | s.bit(320 + b)) << b - 2) + s.raw(b - 2)
    c += (16 * b - c) >> 2
    last += gap
    assert last < 2**30
    x, y = (sum((last >> 2 * i + o & 1) << i for i in range(15)) for o in (0, 1))
    layer.append({"morton": last, "cell": (x, y), "weight": 0, "v weight": 0, "w8": 0, "codes": []})
  for i, g in enumerate(layer):
    g["near"] = nearest(layer, i, layers)
  if weight:
    for g in layer:
      read_number(s, g, "weight", known["weight"], unit(weight[0], 0))
      g["w8"] = eighths(g["v weight"])
  for g in layer:
    read_number(s, g, "minor", known["minor"], unit(scale, level(g, "minor")))
    assert g["minor"] >= 1
    g["m8"] = 2 * octaves(g["v minor"])
  for g in layer:
    read_number(s, g, "ratio", known["ratio"], unit(scale, level(g, "ratio")))
    assert g["ratio"] >= 0
    g["r8"] = eighths(g["v ratio"])
  for g in layer:
    read_turn(s, g, turn)
  for channel in range(header["channels"]):
    for g in layer:
      f = 4 if channel == 0 else (3, 4, 4, 5)[min(g["off"].bit_length(), 3)]
      read_number(s, g, channel, known[channel], unit(color, level(g, "color")), f)
      g["codes"].append(g[channel])
  for g in layer:
    g["bits"] = 6 + held((-17 * g["m8"] - g["r8"] + 3 * g["w8"] + 64) >> 7, -6, 8)
    g["part"] = s.raw(g["bits"])
  return layer


def unit(step, v):
  return held(power(step - 128 - 2 * v), 1, 2**24)


def eighths(v):
  return ((v >> 6) * 11819 + 2**19) >> 20


def octaves(v):
  shift = v.bit_length() - 17
  v = v >> shift if shift > 0 else v << -shift
  return 8 * shift + max(j for j in range(8) if v >= F[j])


def level(g, field):
  a, b, c = LEVELS[field]
  return held((a * g.get("m8", 0) + b * g.get("r8", 0) + c * g["w8"] + 64) >> 7, -24, 40)


def nearest(layer, i, layers):
  """Up to four (Gaussian, weight)."""
  candidates = [layer[i - j] for j in range(1, 17) if i >= j]
  for other in layers:
    q = bisect.bisect_left([one["morton"] for one in other], layer[i]["morton"])
    candidates += [other[j] for j in range(q - 6, q + 6) if 0 <= j < len(other)]
  x, y = layer[i]["cell"]
  apart = lambda one: (one["cell"][0] - x) ** 2 + (one["cell"][1] - y) ** 2
  return [(one, 65536 // (1 + apart(one))) for one in sorted(candidates, key=apart)[:4]]


def bucket(size):
  """(bucket, low bits)"""
  size = held(size, 1, 2**20)
  length = size.bit_length() - 1
  h = 2 * length + (size**2 >> 2 * length + 1)
  return (max(h - 2, 0), 0) if length < 6 else (10 + h % 2, length - 5)


def read_number(s, g, name, of, u, f=4):
  """Reads code and number of a kind, `of` which so much is known, in units u."""
  base, m = of["model"], of["M"] >> 4
  value = f"v {name}"
  w = sum(weight for _, weight in g["near"])
  mean, spread = m, of["D"]
  if w:
    mean = (sum(weight * one[value] for one, weight in g["near"]) + w // 2) // w
    spread = sum(weight * abs(one[value] - mean) for one, weight in g["near"]) // w
  share = held((of["A"] << 6) // of["B"], 0, 62)
  e = m + (share * (mean - m) >> 6)
  place, rest = divmod(e + (u >> 1), u)
  quarter = 4 * rest // u
  b, low = bucket(2 * f * (spread + of["D"]) // u)
  k = place
  if not low:
    if s.bit(base + 2 * b + (quarter in (0, 3))):
      sign = s.bit(base + 24 + 4 * min(b, 6) + quarter)
      d = s.magnitude(base + 55 + 20 * b) + 1
      k = place - d if sign else place + d
  else:
    sign = s.bit(base + 52 + b % 2)
    if name == "minor" and sign and s.bit(base + 54):
      k = max((30957 + (u >> 1)) // u, 1)
    else:
      side = of["D-" if sign else "D+"]
      b, low = bucket(8 * (spread * side // max(of["D"], 1) + side) // u)
      d = s.magnitude(base + 295 + 240 * sign + 20 * b) << low
      d += s.raw(low)
      k = place - d - 1 if sign else place + d
  v = k * u
  assert abs(v) <= 2**26
  r, x = rate(of["t"]), abs(v - e)
  of["t"] += 1
  of["M"] += (16 * v - of["M"]) * r >> 16
  for distance in ("D", "D-" if k < place else "D+"):
    of[distance] += (x - of[distance]) * r >> 16
  if w:
    a, b = (held(16 * (one - m) // u, -2047, 2047) for one in (mean, v))
    of["A"] += a * b - ((of["A"] - 2048) >> 7)
    of["B"] += a**2 - ((of["B"] - 4096) >> 7)
  g[name], g[value], g["off"], g["u"] = k, v, abs(k - place), u


def read_turn(s, g, step):
  q, v = held(g["r8"], 0, 96), level(g, "turn")
  read_angle(s, g, held((power(step - 128 + 2 * v) * (power(q) - power(-q)) + 2**31) >> 32, 1, 4096), 353)


def read_angle(s, g, c, models):
  """Which of `c` angles a Gaussian has; the models of its eighth begin at `models`."""
  g["bins"], g["turn"] = c, 0
  if c > 1:
    a = g["near"][0][0]["angle"] if g["near"] and g["near"][0][1] else 0
    if c < 8:
      d = s.uniform(c)
    else:
      o = 1
      for _ in range(3):
        o = 2 * o | s.bit(models + o)
      f, e = ((o - 8) * c + 7) // 8, ((o - 7) * c + 7) // 8
      d = f + s.uniform(e - f)
    g["turn"] = (a * c // 65536 + d) % c
  g["angle"] = 65536 * g["turn"] // c


def render(header, gaussians):
  """`[H, W, C]` in [0, 1], float64."""
  shapes = []
  for g in gaussians:
    minor = 2 * np.log(g["v minor"] / 65536)
    color = np.array([g[f"v {channel}"] for channel in range(header["channels"])]) / 65536
    shapes.append((minor + g["v ratio"] / 65536, minor, g["bits"], np.exp(g["v weight"] / 65536), color))
  return draw(header, header["unit"], gaussians, shapes)


def draw(header, unit, gaussians, shapes):
  """The picture of Gaussians and of their (major, minor scale's logarithm, bits of a place, weight, colour).

  The background is in parts of `unit`.
  """
  step = 2 ** (header["steps"][0] / 8 - 16)
  height, width, channels = header["height"], header["width"], header["channels"]
  k, c = np.mgrid[:channels, :channels]
  dct = np.cos(np.pi * k * (2 * c + 1) / (2 * channels)) * np.sqrt(np.where(k == 0, 1, 2) / channels)
  tau = np.exp(-((header["cutoff"] / 1000) ** 2) / 2)
  sums, total = np.zeros((height, width, channels)), np.zeros((height, width, 1))
  row, column = np.mgrid[:height, :width] + 0.5
  for g, (major, minor, bits, heavy, color) in zip(gaussians, shapes, strict=True):
    theta = g["turn"] * np.pi / g["bins"]
    a, b, cos, sin = np.exp(2 * major), np.exp(2 * minor), np.cos(theta), np.sin(theta)
    xx, xy, yy = a * cos**2 + b * sin**2, (a - b) * cos * sin, a * sin**2 + b * cos**2
    stretch = xx * np.exp(-major - minor)
    split = sum(stretch >= 2 ** (2 * i - 1) for i in (1, 2, 3)) - sum(stretch < 2 ** (1 - 2 * i) for i in (1, 2, 3))
    half = bits >> 1
    split = held(int(split), half - bits, half)
    columns, rows = 2 ** (half - split), 2 ** (bits - half + split)
    i, j = divmod(g["part"], rows)
    x = (i + 0.5) / columns
    y = ((j + 0.5) / rows + xy / xx * (x - 0.5)) % 1
    dx = column - ((g["cell"][0] + x) * 8 * step - width / 16)
    dy = row - ((g["cell"][1] + y) * 8 * step - height / 16)
    f = (header["floor"] / 1000) ** 2
    conic = np.linalg.inv([[xx + f, xy], [xy, yy + f]])
    q = conic[0, 0] * dx**2 + 2 * conic[0, 1] * dx * dy + conic[1, 1] * dy**2
    w = heavy * (np.maximum(np.exp(-q / 2) - tau, 0) / (1 - tau))[..., None]
    sums += w * (color @ dct)
    total += w
  background = np.array(header["background"]) / unit
  picture = background + sums if header["blend"] else (sums + tau * background) / (total + tau)
  return np.clip(picture, 0, 1)
