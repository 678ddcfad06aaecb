// A sweep of gaussjax/gjx/descent.py: Gaussian after Gaussian, what each option does to the squared error, and the
// best one made. The same in Python is there; this is a hundred times as fast.
//
// Buffers are of the caller's own making, and their sizes are checked against each other before the first is read.

#include <Python.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

// The inner loops also for vectors of 8 and 16 numbers, chosen by the machine they run on.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_WIDER_VECTORS __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_WIDER_VECTORS
#endif

namespace {

using Int = int64_t;

#include "buffers.inc"

constexpr int kNumbers = 8;  // of a Gaussian besides its colours
constexpr int kLanes = 16;   // sums of errors side by side

// One option of a Gaussian. The weight at (dx, dy) from its mean is gain max(exp(-q / 2) - tau, 0), q = a dx^2 + 2 b dx
// dy + c dy^2, and 0 beyond its reach.
struct Option {
  float x, y, a, b, c, gain, reach_x, reach_y;
  const float* colors;

  explicit Option(const float* numbers) : colors(numbers + kNumbers) { std::memcpy(this, numbers, 4 * kNumbers); }
};

struct Picture {
  int height, width, channels;
  float tau, reach2;  // reach2: the squared Mahalanobis distance of the edge
};

struct Span {
  int first, end;

  void Meet(float low, float high, int most) {  // the centres of pixels within [low, high]
    if (!(low < high) || high < 0.5f || low > static_cast<float>(most) - 0.5f) return;
    const int begins = low > 0.5f ? static_cast<int>(std::ceil(low - 0.5f)) : 0;
    const int ends = high < static_cast<float>(most) - 0.5f ? static_cast<int>(std::floor(high - 0.5f)) + 1 : most;
    if (begins < first) first = begins;
    if (ends > end) end = ends;
  }
};

void Reach(const Option& g, const Picture& picture, float dy, Span* span) {
  const float turned = g.b * dy, rest = turned * turned - g.a * (g.c * dy * dy - picture.reach2);
  if (!(rest > 0)) return;
  const float half = std::sqrt(rest) / g.a + 1e-3f, center = g.x - turned / g.a;
  span->Meet(center - half, center + half, picture.width);
}

// The weights at `count` pixels of a row from x on. exp as in the renderer's kernels: 2^n times a polynomial.
FOR_WIDER_VECTORS void Weigh(const Option& g, float tau, int x, float dy, int count, float* weights) {
  const float across = 2 * g.b * dy, down = g.c * dy * dy, from = static_cast<float>(x) + 0.5f - g.x;
  const float a = g.a, gain = g.gain;
  for (int i = 0; i < count; ++i) {
    const float dx = static_cast<float>(i) + from;
    const float q = (a * dx + across) * dx + down, bounded = q < 0 ? 0 : q > 120 ? 120 : q;
    const float t = bounded * -0.72134752f, shifted = t + 12582912.f, f = t - (shifted - 12582912.f);
    float p = 1.327647196e-3f;
    p = p * f + 9.675541503e-3f;
    p = p * f + 5.550713275e-2f;
    p = p * f + 2.402211972e-1f;
    p = p * f + 6.931469671e-1f;
    p = p * f + 1.000000072f;
    int32_t whole, bits;
    std::memcpy(&whole, &shifted, 4);
    std::memcpy(&bits, &p, 4);
    bits = static_cast<int32_t>(static_cast<uint32_t>(bits) + (static_cast<uint32_t>(whole) << 23));
    std::memcpy(&p, &bits, 4);
    const float weight = p - tau;
    weights[i] = weight > 0 ? gain * weight : 0;
  }
}

// What the squared error of a row becomes more by `before` -> `after`, both weights at `count` pixels, of one channel.
// `inverse` and `changed` are the reciprocals of the sums of weights as they are and as they would be.
FOR_WIDER_VECTORS float Rise(const float* sums, const float* target, const float* before, const float* after,
                             const float* inverse, const float* changed, float old_color, float new_color, int count) {
  float lanes[kLanes] = {};
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int k = 0; k < kLanes; ++k) {
      const float was = sums[i + k] * inverse[i + k] - target[i + k];
      const float is = (sums[i + k] - before[i + k] * old_color + after[i + k] * new_color) * changed[i + k] - target[i + k];
      lanes[k] += (is - was) * (is + was);
    }
  }
  float sum = 0;
  for (; i < count; ++i) {
    const float was = sums[i] * inverse[i] - target[i];
    const float is = (sums[i] - before[i] * old_color + after[i] * new_color) * changed[i] - target[i];
    sum += (is - was) * (is + was);
  }
  for (float lane : lanes) sum += lane;
  return sum;
}

FOR_WIDER_VECTORS void Invert(const float* weights, const float* before, const float* after, int count, float* inverse,
                              float* changed) {
  for (int i = 0; i < count; ++i) {
    inverse[i] = 1 / weights[i];
    changed[i] = 1 / (weights[i] - before[i] + after[i]);
  }
}

struct Rows {
  std::vector<float> before, after, inverse, changed;
  explicit Rows(int width) : before(width), after(width), inverse(width), changed(width) {}
};

// Calls row(y, span) for each row that either option meets.
template <typename Row>
void Over(const Option& g, const Option& other, const Picture& picture, Row row) {
  Span rows{picture.height, 0};
  for (const Option* one : {&g, &other}) rows.Meet(one->y - one->reach_y, one->y + one->reach_y, picture.height);
  for (int y = rows.first; y < rows.end; ++y) {
    Span span{picture.width, 0};
    for (const Option* one : {&g, &other}) Reach(*one, picture, static_cast<float>(y) + 0.5f - one->y, &span);
    if (span.first < span.end) row(y, span);
  }
}

// Sums are planes [C + 1, H, W], the weights last, with the background in them; the target has C planes.
void Sweep(const Picture& picture, const float* options, const float* costs, Int count, Int kinds, const Int* order,
           float* sums, const float* target, Int* chosen) {
  const Int plane = Int{picture.height} * picture.width, apart = kNumbers + picture.channels;
  float* const totals = sums + picture.channels * plane;
  Rows rows(picture.width);
  auto weigh = [&](const Option& g, int y, const Span& span, float* to) {
    Weigh(g, picture.tau, span.first, static_cast<float>(y) + 0.5f - g.y, span.end - span.first, to);
  };
  for (Int at = 0; at < count; ++at) {
    const Int i = order[at];
    const float* const now = options + i * apart;
    const Option old(now);
    double best = 0;
    chosen[i] = 0;
    for (Int kind = 1; kind < kinds; ++kind) {
      const float* const other = options + (kind * count + i) * apart;
      if (std::memcmp(now, other, sizeof(float) * apart) == 0) continue;
      const Option option(other);
      double rise = costs[kind * count + i];
      bool seen = false;
      Over(old, option, picture, [&](int y, const Span& span) {
        const int size = span.end - span.first;
        const Int begin = Int{y} * picture.width + span.first;
        seen = true;
        weigh(old, y, span, rows.before.data());
        weigh(option, y, span, rows.after.data());
        Invert(totals + begin, rows.before.data(), rows.after.data(), size, rows.inverse.data(), rows.changed.data());
        for (int c = 0; c < picture.channels; ++c) {
          rise += Rise(sums + c * plane + begin, target + c * plane + begin, rows.before.data(), rows.after.data(),
                       rows.inverse.data(), rows.changed.data(), old.colors[c], option.colors[c], size);
        }
      });
      if (seen && rise < best) {
        best = rise;
        chosen[i] = kind;
      }
    }
    if (chosen[i] == 0) continue;
    const Option option(options + (chosen[i] * count + i) * apart);
    Over(old, option, picture, [&](int y, const Span& span) {
      const int size = span.end - span.first;
      const Int begin = Int{y} * picture.width + span.first;
      weigh(old, y, span, rows.before.data());
      weigh(option, y, span, rows.after.data());
      for (int c = 0; c <= picture.channels; ++c) {
        const float from = c < picture.channels ? old.colors[c] : 1, to = c < picture.channels ? option.colors[c] : 1;
        for (int x = 0; x < size; ++x) sums[c * plane + begin + x] += rows.after[x] * to - rows.before[x] * from;
      }
    });
  }
}

// sweep(height, width, channels, tau, reach2, options, costs, order, sums, target, chosen): float32 arrays, and int64
// ones for `order` and `chosen`; `sums` and `chosen` are written.
PyObject* CallSweep(PyObject*, PyObject* arguments) {
  Picture picture;
  PyObject* arrays[6];
  if (!PyArg_ParseTuple(arguments, "iiiffOOOOOO", &picture.height, &picture.width, &picture.channels, &picture.tau,
                        &picture.reach2, &arrays[0], &arrays[1], &arrays[2], &arrays[3], &arrays[4], &arrays[5])) {
    return nullptr;
  }
  Buffers buffers;
  for (PyObject* array : arrays) {
    if (!buffers.Take(array, PyBUF_CONTIG)) return nullptr;
  }
  const Int count = buffers.Count<Int>(2), plane = Int{picture.height} * picture.width;
  const Int kinds = count > 0 ? buffers.Count<float>(1) / count : 0;
  const bool fits = picture.height > 0 && picture.width > 0 && picture.channels > 0 &&
                    buffers.Count<float>(1) == kinds * count && buffers.Count<Int>(5) == count &&
                    buffers.Count<float>(0) == kinds * count * (kNumbers + picture.channels) &&
                    buffers.Count<float>(3) == (picture.channels + 1) * plane &&
                    buffers.Count<float>(4) == picture.channels * plane;
  bool within = fits;
  for (Int i = 0; within && i < count; ++i) within = 0 <= buffers.Data<Int>(2)[i] && buffers.Data<Int>(2)[i] < count;
  if (!within) {
    PyErr_SetString(PyExc_ValueError, "got arrays that do not belong together");
    return nullptr;
  }
  Py_BEGIN_ALLOW_THREADS;
  Sweep(picture, buffers.Data<float>(0), buffers.Data<float>(1), count, kinds, buffers.Data<Int>(2),
        buffers.Data<float>(3), buffers.Data<float>(4), buffers.Data<Int>(5));
  Py_END_ALLOW_THREADS;
  Py_RETURN_NONE;
}

PyMethodDef kMethods[] = {{"sweep", CallSweep, METH_VARARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};

PyModuleDef kModule = {PyModuleDef_HEAD_INIT, "_descent", nullptr, -1, kMethods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__descent() { return PyModule_Create(&kModule); }
