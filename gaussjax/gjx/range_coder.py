"""Integers to bytes and back: an adaptive binary range coder. Integers only, so it is the same on every machine.

The coder is specified in docs/format.md, which a decoder can be written from. `Encoder` and `Decoder` have the same
methods, and each returns the value that was coded, so that one function written against them both writes and reads.
"""

import math

from gaussjax.errors import DamagedError

PRECISION = 16  # bits of a probability
ONE = 1 << PRECISION
HALF = ONE >> 1
LEAST = 64  # a probability stays this far from 0 and ONE
MOST = ONE - LEAST
TOP = (1 << 32) - 1
SLOWEST = 64  # observations after which a model's rate of learning stays as it is

# A model that has seen n bits moves towards the next one by 1 / (n + 1.5), in 1 / 2^16.
RATES = tuple(round(ONE / (n + 1.5)) for n in range(SLOWEST + 1))

RAW, WIDE = 16, 1 << 24  # bits without a model at once, and how far apart the bounds must be for that
UNARY = 20  # magnitudes from here on are coded as UNARY and an Exp-Golomb rest
MAX_EXPONENT = 32  # bits of such a rest: more is damage


class Models:
  """Adaptive probabilities that a bit is 1, found by number, as after `seen` bits each."""

  def __init__(self, probabilities: list[int], seen: int = 0) -> None:
    self.probability = list(probabilities)
    self.seen = [seen] * len(probabilities)

  def copy(self) -> "Models":
    """Models that learn by themselves."""
    copied = Models(self.probability)
    copied.seen = list(self.seen)
    return copied

  def update(self, model: int, bit: int) -> None:
    """Learns a bit."""
    p, n = self.probability[model], self.seen[model]
    p += ((bit << PRECISION) - p) * RATES[n] >> PRECISION
    self.probability[model] = LEAST if p < LEAST else MOST if p > MOST else p
    if n < SLOWEST:
      self.seen[model] = n + 1


class _Coder:
  """What writer and reader share: numbers as bits."""

  low, high = 0, TOP

  field = ""  # what the next numbers are of, for a Meter

  def bit(self, model: int, bit: int = 0) -> int:
    """One bit under an adaptive model."""
    raise NotImplementedError

  def even(self, count: int, value: int = 0) -> int:
    """`count` bits without a model, the highest first."""
    raise NotImplementedError

  def raw(self, count: int, value: int = 0) -> int:
    """`count` bits without a model, the highest first: by sixteen at most, as one of so many equal parts.

    Bit by bit where the bounds are near each other.
    """
    coded = 0
    while count > 0:
      size = min(count, RAW)
      count -= size
      code = self._part if self.high - self.low >= WIDE else self.even
      coded = coded << size | code(size, value >> count & (1 << size) - 1)
    return coded

  def _part(self, size: int, value: int) -> int:
    """One of 2^`size` equal parts of what is between the bounds."""
    raise NotImplementedError

  def uniform(self, count: int, value: int = 0) -> int:
    """A number below `count`, each as likely: halves of the range, told apart by a bit of the right odds."""
    low = 0
    while count > 1:
      upper = count >> 1
      lower = count - upper
      if self.odds((upper << PRECISION) // count, int(value - low >= lower)):
        low, count = low + lower, upper
      else:
        count = lower
    return low

  def odds(self, probability: int, bit: int = 0) -> int:
    """One bit that is 1 with a given probability, in 1 / ONE."""
    raise NotImplementedError

  def magnitude(self, base: int, value: int = 0) -> int:
    """A number of at least 0 under models base to base + UNARY - 1: in unary to UNARY, then Exp-Golomb."""
    for n in range(UNARY):
      if not self.bit(base + n, int(value > n)):
        return n
    return UNARY + self.golomb(value - UNARY)

  def golomb(self, value: int = 0) -> int:
    """A number of at least 0 in Exp-Golomb code of order 0, all bits even."""
    length = (value + 1).bit_length() - 1
    exponent = 0
    while self.even(1, int(exponent < length)):
      exponent += 1
      if exponent > MAX_EXPONENT:
        raise DamagedError("a number has too many bits")
    return (1 << exponent) - 1 + self.even(exponent, value + 1 - (1 << exponent))

  def signed(self, base: int, value: int = 0) -> int:
    """A number of either sign under models base to base + UNARY; the sign has the last one."""
    size = self.magnitude(base, abs(value))
    if size == 0:
      return 0
    return -size if self.bit(base + UNARY, int(value < 0)) else size


SIGNED_MODELS = UNARY + 1


class Encoder(_Coder):
  """Writes; `finish` returns the bytes."""

  def __init__(self, models: Models) -> None:
    self.models = models
    self.low, self.high, self.out = 0, TOP, bytearray()

  def bit(self, model: int, bit: int = 0) -> int:
    """Writes one bit."""
    self._narrow(self.models.probability[model], bit)
    self.models.update(model, bit)
    return bit

  def odds(self, probability: int, bit: int = 0) -> int:
    """Writes one bit."""
    self._narrow(probability, bit)
    return bit

  def even(self, count: int, value: int = 0) -> int:
    """Writes `count` bits."""
    for shift in range(count - 1, -1, -1):
      self._narrow(HALF, value >> shift & 1)
    return value

  def _narrow(self, probability: int, bit: int) -> None:
    middle = self.low + ((self.high - self.low) * probability >> PRECISION)
    if bit:
      self.high = middle
    else:
      self.low = middle + 1
    self._shift()

  def _shift(self) -> None:
    while (self.low ^ self.high) < 1 << 24:
      self.out.append(self.high >> 24)
      self.low = self.low << 8 & TOP
      self.high = self.high << 8 & TOP | 255

  def _part(self, size: int, value: int) -> int:
    part = (self.high - self.low + 1) >> size
    self.low += value * part
    self.high = self.low + part - 1
    self._shift()
    return value

  def finish(self) -> bytes:
    """All bytes: as few at the end as tell the last interval, since a reader goes on with zeros."""
    if self.low > 0:
      kept = next(count for count in range(1, 5) if _rounded_up(self.low, count) <= self.high)
      self.out += (_rounded_up(self.low, kept) >> 8 * (4 - kept)).to_bytes(kept, "big")
    return bytes(self.out).rstrip(b"\0")


def _rounded_up(low: int, count: int) -> int:
  """The least multiple of 256^(4 - count) that is at least `low`."""
  unit = 1 << 8 * (4 - count)
  return (low + unit - 1) // unit * unit


class Meter(Encoder):
  """Writes nothing, counts the bits of each field."""

  def __init__(self, models: Models) -> None:
    super().__init__(models)
    self.bits: dict[str, float] = {}

  def _narrow(self, probability: int, bit: int) -> None:
    cost = PRECISION - math.log2(probability if bit else ONE - probability)
    self.bits[self.field] = self.bits.get(self.field, 0.0) + cost

  def _part(self, size: int, value: int) -> int:
    self.bits[self.field] = self.bits.get(self.field, 0.0) + size
    return value


class Decoder(_Coder):
  """Reads what an Encoder wrote; past the end it reads zeros."""

  def __init__(self, models: Models, data: bytes) -> None:
    self.models = models
    self.low, self.high = 0, TOP
    self.data, self.position = data, 4
    self.code = int.from_bytes(data[:4].ljust(4, b"\0"), "big")

  def bit(self, model: int, bit: int = 0) -> int:
    """Reads one bit; `bit` is not looked at."""
    # _narrow and Models.update in one, since nearly all of a reader's time is spent here.
    probabilities, seen = self.models.probability, self.models.seen
    p, n = probabilities[model], seen[model]
    middle = self.low + ((self.high - self.low) * p >> PRECISION)
    if self.code <= middle:
      bit, self.high = 1, middle
      p += (ONE - p) * RATES[n] >> PRECISION
    else:
      bit, self.low = 0, middle + 1
      p += -p * RATES[n] >> PRECISION
    probabilities[model] = LEAST if p < LEAST else MOST if p > MOST else p
    if n < SLOWEST:
      seen[model] = n + 1
    if (self.low ^ self.high) < 1 << 24:
      self._shift()
    return bit

  def magnitude(self, base: int, value: int = 0) -> int:
    """Reads a number of at least 0; `value` is not looked at."""
    # `bit` again and again, written out for the same reason.
    probabilities, seen = self.models.probability, self.models.seen
    low, high, code = self.low, self.high, self.code
    for model in range(base, base + UNARY):
      p, n = probabilities[model], seen[model]
      middle = low + ((high - low) * p >> PRECISION)
      more = code <= middle
      if more:
        high = middle
        p += (ONE - p) * RATES[n] >> PRECISION
      else:
        low = middle + 1
        p += -p * RATES[n] >> PRECISION
      probabilities[model] = LEAST if p < LEAST else MOST if p > MOST else p
      if n < SLOWEST:
        seen[model] = n + 1
      if (low ^ high) < 1 << 24:
        self.low, self.high = low, high
        self._shift()
        low, high, code = self.low, self.high, self.code
      if not more:
        self.low, self.high = low, high
        return model - base
    self.low, self.high = low, high
    return UNARY + self.golomb()

  def odds(self, probability: int, bit: int = 0) -> int:
    """Reads one bit; `bit` is not looked at."""
    return self._narrow(probability)

  def even(self, count: int, value: int = 0) -> int:
    """Reads `count` bits; `value` is not looked at."""
    value = 0
    for _ in range(count):
      value = value << 1 | self._narrow(HALF)
    return value

  def _part(self, size: int, value: int) -> int:
    part = (self.high - self.low + 1) >> size
    value = min(max(self.code - self.low, 0) // part, (1 << size) - 1)
    self.low += value * part
    self.high = self.low + part - 1
    if (self.low ^ self.high) < 1 << 24:
      self._shift()
    return value

  def _narrow(self, probability: int) -> int:
    middle = self.low + ((self.high - self.low) * probability >> PRECISION)
    bit = int(self.code <= middle)
    if bit:
      self.high = middle
    else:
      self.low = middle + 1
    if (self.low ^ self.high) < 1 << 24:
      self._shift()
    return bit

  def _shift(self) -> None:
    while (self.low ^ self.high) < 1 << 24:
      self.low = self.low << 8 & TOP
      self.high = self.high << 8 & TOP | 255
      byte = self.data[self.position] if self.position < len(self.data) else 0
      self.code = self.code << 8 & TOP | byte
      self.position += 1
