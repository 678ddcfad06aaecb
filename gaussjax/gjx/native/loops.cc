// The loops of gaussjax/gjx/contexts.py over the Gaussians of a layer: the same numbers, the same bytes, in a
// fiftieth of the time. What is coded, and why, is said there and in docs/format.md; names are the same here.
//
// What is read may be anybody's bytes. Indices of models come from numbers that are bounded here; those of neighbours
// come from the caller, whose own cells they are. A number that no writer makes ends the loop before it is multiplied
// by anything, so that 64 bits hold all that is computed.

#include <Python.h>

#include <cstdint>
#include <cstdlib>
#include <string>

namespace {

using Int = int64_t;

constexpr int kPrecision = 16, kSlowest = 64, kUnary = 20, kMostExponent = 32, kRaw = 16;
constexpr Int kOne = 1 << kPrecision, kHalf = kOne / 2, kLeast = 64, kMost = kOne - kLeast;
constexpr Int kTop = 0xFFFFFFFF, kByte = 1 << 24, kWide = 1 << 24;

constexpr int kKnown = 12, kFine = 6;                               // buckets of expected distances
constexpr int kZero = 0, kSign = 2 * kKnown, kSide = kSign + 4 * 7;  // models of a number, from its first
constexpr int kLeastModel = kSide + 2, kSmall = kLeastModel + 1, kSides = kSmall + kKnown * kUnary;
constexpr int kShareBits = 6, kMostShare = 62, kForgetting = 7;
constexpr Int kFarthest = 2047, kSharePrior = 1 << 12, kMostNumber = 1 << 26;
constexpr Int kCells = Int{1} << 30, kMostClass = 32, kWeightOne = 1 << 16, kOctants = 8;

const char* const kOutOfRange = "a number is out of range";
const char* const kTooManyBits = "a number has too many bits";
const char* const kPositionOutOfRange = "a position is out of range";

Int DividedDown(Int a, Int b) {  // for b > 0
  const Int quotient = a / b;
  return a % b < 0 ? quotient - 1 : quotient;
}

int BitLength(Int value) { return value == 0 ? 0 : 64 - __builtin_clzll(static_cast<uint64_t>(value)); }

// How fast what has been seen so often learns: 2^16 / (count + 1.5), rounded.
struct Rates {
  Int of[kSlowest + 1];
  Rates() {
    for (int twice = 3; twice <= 2 * kSlowest + 3; twice += 2) of[twice / 2 - 1] = (4 * kOne + twice) / (2 * twice);
  }
};
const Rates kRates;

struct Coder {
  bool reads;
  Int low, high, code, position;
  const unsigned char* data;
  Int size;
  int32_t *probability, *seen;  // of the field's models
  std::string written{};
  const char* damage = nullptr;

  void Shift() {
    while ((low ^ high) < kByte) {
      if (!reads) written.push_back(static_cast<char>(high >> 24));
      low = low << 8 & kTop;
      high = (high << 8 & kTop) | 255;
      if (reads) {
        code = (code << 8 & kTop) | (position < size ? data[position] : 0);
        ++position;
      }
    }
  }

  int Odds(Int one, int bit) {
    const Int middle = low + ((high - low) * one >> kPrecision);
    if (reads) bit = code <= middle;
    if (bit) {
      high = middle;
    } else {
      low = middle + 1;
    }
    Shift();
    return bit;
  }

  int Bit(int model, int bit) {
    Int p = probability[model];
    bit = Odds(p, bit);
    p += ((bit ? kOne : 0) - p) * kRates.of[seen[model]] >> kPrecision;
    probability[model] = static_cast<int32_t>(p < kLeast ? kLeast : p > kMost ? kMost : p);
    if (seen[model] < kSlowest) ++seen[model];
    return bit;
  }

  Int Even(int count, Int value) {
    Int coded = 0;
    while (count-- > 0) coded = coded << 1 | Odds(kHalf, value >> count & 1);
    return coded;
  }

  Int Part(int count, Int value) {
    const Int part = (high - low + 1) >> count;
    if (reads) {
      const Int most = (Int{1} << count) - 1;
      value = (code > low ? code - low : 0) / part;
      if (value > most) value = most;
    }
    low += value * part;
    high = low + part - 1;
    Shift();
    return value;
  }

  Int Raw(int count, Int value) {
    Int coded = 0;
    while (count > 0) {
      const int bits = count < kRaw ? count : kRaw;
      count -= bits;
      const Int some = value >> count & ((Int{1} << bits) - 1);
      coded = coded << bits | (high - low >= kWide ? Part(bits, some) : Even(bits, some));
    }
    return coded;
  }

  Int Uniform(Int count, Int value) {
    Int first = 0;
    while (count > 1) {
      const Int upper = count >> 1, lower = count - upper;
      if (Odds((upper << kPrecision) / count, value - first >= lower)) {
        first += lower;
        count = upper;
      } else {
        count = lower;
      }
    }
    return first;
  }

  Int Golomb(Int value) {
    const int length = BitLength(value + 1) - 1;
    int exponent = 0;
    while (Even(1, exponent < length)) {
      if (++exponent > kMostExponent) {
        damage = kTooManyBits;
        return 0;
      }
    }
    const Int first = (Int{1} << exponent) - 1;
    return first + Even(exponent, value - first);
  }

  Int Magnitude(int base, Int value) {
    for (int n = 0; n < kUnary; ++n) {
      if (!Bit(base + n, value > n)) return n;
    }
    return kUnary + Golomb(value - kUnary);
  }
};

struct Bucket {
  int models, low;
};

Bucket BucketOf(Int size) {
  size = size < 1 ? 1 : size > (1 << 20) ? (1 << 20) : size;
  const int length = BitLength(size) - 1;
  const int half = 2 * length + static_cast<int>(size * size >> (2 * length + 1));
  if (length < kFine) return {half > 2 ? half - 2 : 0, 0};
  return {kKnown - 2 + (half & 1), length - kFine + 1};
}

// contexts.Number; `least` is -1 for none.
struct Number {
  Int middle, apart, sides[2], shared, square, count, least;

  Int Near(Coder& coder, Int place, Int quarter, int bucket, Int value) {
    if (!coder.Bit(kZero + 2 * bucket + (quarter == 0 || quarter == 3), value != place)) return place;
    const int sign = coder.Bit(kSign + 4 * (bucket < 6 ? bucket : 6) + static_cast<int>(quarter), value < place);
    const Int beyond = coder.Magnitude(kSmall + bucket * kUnary, std::llabs(value - place) - 1) + 1;
    return sign ? place - beyond : place + beyond;
  }

  Int Far(Coder& coder, Int place, Int unit, Int spread, int odd, Int value) {
    const int sign = coder.Bit(kSide + odd, value < place);
    if (sign && least >= 0) {
      Int floor = (least + (unit >> 1)) / unit;
      if (floor < 1) floor = 1;
      if (coder.Bit(kLeastModel, value <= floor)) return floor;
    }
    const Int side = sides[sign];
    const Bucket bucket = BucketOf((4 * (spread * side / (apart ? apart : 1) + side) << 1) / unit);
    const Int distance = std::llabs(value - place) - sign;
    const Int above = coder.Magnitude(kSides + (sign * kKnown + bucket.models) * kUnary, distance >> bucket.low);
    const Int below = coder.Raw(bucket.low, distance & ((Int{1} << bucket.low) - 1));
    const Int beyond = above << bucket.low | below;
    return sign ? place - beyond - 1 : place + beyond;
  }

  // (the code, its distance from what was expected); `near` is the neighbours' mean and spread, or null.
  void Code(Coder& coder, const Int* near, Int unit, Int stretch, Int& value, Int& away) {
    const Int middle_now = middle >> 4, mean = near ? near[0] : middle_now, spread = near ? near[1] : apart;
    Int share = DividedDown(shared * (1 << kShareBits), square);
    share = share < 0 ? 0 : share > kMostShare ? kMostShare : share;
    const Int expected = middle_now + (share * (mean - middle_now) >> kShareBits);
    const Int place = DividedDown(expected + (unit >> 1), unit), rest = expected + (unit >> 1) - place * unit;
    const Bucket bucket = BucketOf((stretch * (spread + apart) << 1) / unit);
    value = bucket.low ? Far(coder, place, unit, spread, bucket.models & 1, value)
                       : Near(coder, place, 4 * rest / unit, bucket.models, value);
    if (coder.damage) return;
    if (value < -kMostNumber || value > kMostNumber || std::llabs(value * unit) > kMostNumber) {
      coder.damage = kOutOfRange;
      return;
    }
    const Int number = value * unit, rate = kRates.of[count < kSlowest ? count : kSlowest];
    ++count;
    middle += (number * 16 - middle) * rate >> 16;
    const Int size = std::llabs(number - expected);
    apart += (size - apart) * rate >> 16;
    Int& side = sides[value < place];
    side += (size - side) * rate >> 16;
    if (near) {
      Int x = DividedDown(16 * (mean - middle_now), unit), y = DividedDown(16 * (number - middle_now), unit);
      x = x < -kFarthest ? -kFarthest : x > kFarthest ? kFarthest : x;
      y = y < -kFarthest ? -kFarthest : y > kFarthest ? kFarthest : y;
      shared += x * y - ((shared - (kSharePrior >> 1)) >> kForgetting);
      square += x * x - ((square - kSharePrior) >> kForgetting);
    }
    away = value - place;
  }
};

// The neighbours' weighted mean and their mean distance from it; false where there are none.
bool Around(const Int* known, const Int* near, const Int* shares, Int* found) {
  const Int total = shares[0] + shares[1] + shares[2] + shares[3];
  if (!total) return false;
  Int sum = total >> 1, apart = 0;
  for (int i = 0; i < 4; ++i) sum += shares[i] * known[near[i]];
  found[0] = DividedDown(sum, total);
  for (int i = 0; i < 4; ++i) apart += shares[i] * std::llabs(known[near[i]] - found[0]);
  found[1] = apart / total;
  return true;
}

// Of the arguments of a call from Python: the coder's state, then arrays of int64. What is coded is put in place of
// what was given.
struct Arrays {
  Int* data[8];
  Int count[8];  // of what each holds
};

void CodeNumbers(Coder& coder, const Arrays& given) {
  const auto [number, values, units, stretch, near, shares, known, away] = given.data;
  const Int count = given.count[1], before = given.count[6] - count;
  Number field{number[0], number[1], {number[2], number[3]}, number[4], number[5], number[6], number[7]};
  for (Int i = 0; i < count; ++i) {
    Int found[2];
    const bool any = Around(known, near + 4 * i, shares + 4 * i, found);
    field.Code(coder, any ? found : nullptr, units[i], stretch[i], values[i], away[i]);
    if (coder.damage) return;
    known[before + i] = values[i] * units[i];
  }
  const Int after[] = {field.middle, field.apart,  field.sides[0], field.sides[1],
                       field.shared, field.square, field.count};
  for (int i = 0; i < 7; ++i) number[i] = after[i];
}

void CodePositions(Coder& coder, const Arrays& given) {
  Int* const morton = given.data[0];
  const int mantissa = 16 * kUnary;
  Int last = 0, context = 8 * 16;
  for (Int i = 0; i < given.count[0]; ++i) {
    Int gap = morton[i] - last;
    const Int nearest = context >> 4 < 15 ? context >> 4 : 15;
    const Int size = coder.Magnitude(static_cast<int>(nearest) * kUnary, BitLength(gap));
    if (size > kMostClass) coder.damage = kPositionOutOfRange;
    if (coder.damage) return;
    if (size < 2) {
      gap = size;
    } else {
      const int rest = static_cast<int>(size) - 2;
      const Int second = coder.Bit(mantissa + static_cast<int>(size), gap >> rest & 1);
      const Int below = coder.Raw(rest, gap & ((Int{1} << rest) - 1));
      gap = (2 | second) << rest | below;
    }
    last += gap;
    if (last >= kCells) {
      coder.damage = kPositionOutOfRange;
      return;
    }
    morton[i] = last;
    context += ((size << 4) - context) >> 2;
  }
}

void CodeTurns(Coder& coder, const Arrays& given) {
  const auto [values, counts, near, shares, known, none5, none6, none7] = given.data;
  const Int count = given.count[0], before = given.count[4] - count;
  for (Int i = 0; i < count; ++i) {
    const Int bins = counts[i];
    Int value = 0;
    if (bins > 1) {
      const Int start = shares[4 * i] ? DividedDown(known[near[4 * i]] * bins, kWeightOne) : 0;
      Int apart = values[i] - start;
      apart -= DividedDown(apart, bins) * bins;
      if (bins < kOctants) {
        apart = coder.Uniform(bins, apart);
      } else {
        const Int octant = apart * kOctants / bins;
        int node = 1;
        for (int shift = 2; shift >= 0; --shift) node = node << 1 | coder.Bit(node, octant >> shift & 1);
        const Int found = node - kOctants;
        const Int first = (found * bins + kOctants - 1) / kOctants;
        const Int end = ((found + 1) * bins + kOctants - 1) / kOctants;
        apart = first + coder.Uniform(end - first, apart - first);
      }
      value = (start + apart) % bins;
    }
    values[i] = value;
    known[before + i] = DividedDown(value * kWeightOne, bins);
  }
}

void CodeParts(Coder& coder, const Arrays& given) {
  const auto [values, sizes, none2, none3, none4, none5, none6, none7] = given.data;
  for (Int i = 0; i < given.count[0]; ++i) values[i] = coder.Raw(static_cast<int>(sizes[i]), values[i]);
}

#include "buffers.inc"

// loop(bounds, data, probability, seen, array, ...) -> (what is wrong or None, the bytes that were written).
// Bounds are int64: low, high, code, position, and whether it reads; models are int32.
template <void (*loop)(Coder&, const Arrays&), int arrays>
PyObject* Call(PyObject*, PyObject* arguments) {
  if (PyTuple_Size(arguments) != 4 + arrays) {
    PyErr_Format(PyExc_TypeError, "expected %d arguments", 4 + arrays);
    return nullptr;
  }
  Buffers buffers;
  for (int i = 0; i < 4 + arrays; ++i) {
    if (!buffers.Take(PyTuple_GetItem(arguments, i), i == 1 ? PyBUF_SIMPLE : PyBUF_CONTIG)) return nullptr;
  }
  Int* const bounds = buffers.Data<Int>(0);
  Coder coder{bounds[4] != 0, bounds[0], bounds[1], bounds[2], bounds[3], buffers.Data<unsigned char>(1),
              buffers.Count<char>(1), buffers.Data<int32_t>(2), buffers.Data<int32_t>(3)};
  Arrays given{};
  for (int i = 0; i < arrays; ++i) {
    given.data[i] = buffers.Data<Int>(4 + i);
    given.count[i] = buffers.Count<Int>(4 + i);
  }
  Py_BEGIN_ALLOW_THREADS;
  loop(coder, given);
  Py_END_ALLOW_THREADS;
  const Int after[] = {coder.low, coder.high, coder.code, coder.position};
  for (int i = 0; i < 4; ++i) bounds[i] = after[i];
  // No "y" with a "#": code compiled for one Python fails at it in another, where the stable ABI serves all of them.
  const auto size = static_cast<Py_ssize_t>(coder.written.size());
  return Py_BuildValue("zN", coder.damage, PyBytes_FromStringAndSize(coder.written.data(), size));
}

PyMethodDef kMethods[] = {{"positions", Call<CodePositions, 1>, METH_VARARGS, nullptr},
                          {"numbers", Call<CodeNumbers, 8>, METH_VARARGS, nullptr},
                          {"turns", Call<CodeTurns, 5>, METH_VARARGS, nullptr},
                          {"parts", Call<CodeParts, 2>, METH_VARARGS, nullptr},
                          {nullptr, nullptr, 0, nullptr}};

PyModuleDef kModule = {PyModuleDef_HEAD_INIT, "_loops", nullptr, -1, kMethods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__loops() { return PyModule_Create(&kModule); }
