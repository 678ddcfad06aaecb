// Sums over Gaussians by scan lines: every Gaussian walks the rows of its support, LANES pixels at a time.
//
// The same three sums as the renderers of JAX have, in float32, on all threads of XLA's pool: the picture (`splat`),
// its gradient, and what the removal of each Gaussian costs. Beside them what a fit by squared error spends its time
// on: that error and its gradient in one walk (`squares`), and the blurs that say where new Gaussians begin
// (`best_blurs`). Nothing needs a lock: pictures are shared out by bands of rows, gradients and costs by Gaussians.
// Every sum has one order, whatever the number of threads.

#include <Python.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int kMostValues = 6;  // that one walk takes along; more are walked for in turn
constexpr int kPadding = 16;    // floats beyond the end of a row that a vector may read and write
constexpr int kCell = 32;       // pixels: Gaussians of a cell follow one another, and find its pixels in the cache
constexpr int kChunk = 32;      // Gaussians that a thread takes at a time
constexpr int kBandRows = 32;   // rows that it takes at a time

struct Placed {
  float x, y, a11, a21, a22;
  int top, bottom;  // rows of the picture that the support meets, the last not counted
};

struct Scene {
  int width;
  float tau, gain;    // the kernel is max(exp(-q / 2) - tau, 0) * gain
  float reach2;       // the q at which it ends
};

// [H][D][W], the values of a row by planes, so that neighbours in a row lie beside one another.
struct Image {
  const float* data;
  int64_t row, plane;  // floats from one to the next
  int copied;          // rows from here on are read from a copy, with room for what is read beyond their end
  std::vector<float> copy;

  // A band's rows from `top` on, their planes with padding.
  Image(const float* planes, int top, int64_t row, int64_t plane)
      : data(planes - top * row), row(row), plane(plane), copied(std::numeric_limits<int>::max()) {}
  explicit Image(const ffi::Buffer<ffi::F32>& image)
      : data(image.typed_data()), row(image.dimensions()[1] * image.dimensions()[2]), plane(image.dimensions()[1]) {
    const int64_t rows = image.dimensions()[0];
    copied = std::max<int64_t>(0, rows - 1 - kPadding / row);
    copy.assign(data + copied * row, data + rows * row);
    copy.resize(copy.size() + kPadding);
  }
  const float* Row(int y) const { return y < copied ? data + y * row : copy.data() + (y - copied) * row; }
};

struct Kernels {
  void (*draw[kMostValues])(const Placed*, const int32_t*, int64_t, const float*, int64_t, const Scene&, int, int,
                            float*, int64_t);
  void (*pull[kMostValues])(const Placed&, const float*, const Scene&, const Image&, int, float*, float*);
  void (*remove[kMostValues])(const Placed&, const float*, const float*, float, const Scene&, const Image&, const Image&,
                              const Image&, int, float*, float*);
  void (*rise)(float*, int64_t, int, float, int);
  void (*pull_rise)(float*, int64_t, int, float, int);
  double (*square)(float*, int64_t, const float*, const float*, int, const Scene&, double*);
  void (*blur_rows)(const float*, int64_t, int, int, int, const float*, int, float*);
  void (*blur_columns)(const float*, int, const float*, int, float*);
  void (*keep_better)(const float*, int64_t, int, int, float, int32_t, float*, int32_t*, float*);
};

namespace plain {
#define LANES 4
#include "kernels.inc"
#undef LANES
}  // namespace plain

#if defined(__x86_64__) && defined(__clang__)
#define BEGIN_TARGET_AVX2 _Pragma("clang attribute push(__attribute__((target(\"avx2,fma\"))), apply_to = function)")
#define BEGIN_TARGET_AVX512 \
  _Pragma("clang attribute push(__attribute__((target(\"avx512f,avx512vl,avx512dq,avx2,fma\"))), apply_to = function)")
#define END_TARGET _Pragma("clang attribute pop")
#elif defined(__x86_64__)
#define BEGIN_TARGET_AVX2 _Pragma("GCC push_options") _Pragma("GCC target(\"avx2,fma\")")
#define BEGIN_TARGET_AVX512 \
  _Pragma("GCC push_options") _Pragma("GCC target(\"avx512f,avx512vl,avx512dq,avx2,fma,prefer-vector-width=512\")")
#define END_TARGET _Pragma("GCC pop_options")
#endif

#if defined(__x86_64__)
BEGIN_TARGET_AVX2
namespace avx2 {
#define LANES 8
#include "kernels.inc"
#undef LANES
}  // namespace avx2
END_TARGET
BEGIN_TARGET_AVX512
namespace avx512 {
#define LANES 16
#include "kernels.inc"
#undef LANES
}  // namespace avx512
END_TARGET

// Of those that the machine has the ones of most lanes, at most so many.
const Kernels& BestKernels(int lanes) {
  if (lanes >= 16 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return avx512::kKernels;
  if (lanes >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::kKernels;
  return plain::kKernels;
}
#else
const Kernels& BestKernels(int) { return plain::kKernels; }
#endif

// work(0), ..., work(count - 1) on the pool's threads and this one, which may be one of the pool's: it does not wait
// for any that has not begun.
template <typename Work>
void Share(ffi::ThreadPool& pool, int64_t count, const Work& work) {
  struct State {
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable all;
  };
  const int64_t helpers = std::min(count, std::max<int64_t>(1, pool.num_threads())) - 1;
  if (helpers <= 0) {
    for (int64_t i = 0; i < count; ++i) work(i);
    return;
  }
  const auto state = std::make_shared<State>();
  const Work* shared = &work;  // used only while this call waits
  const auto take = [state, shared, count] {
    for (int64_t i; (i = state->next.fetch_add(1)) < count;) {
      (*shared)(i);
      if (state->done.fetch_add(1) + 1 == count) {
        const std::lock_guard<std::mutex> lock(state->mutex);
        state->all.notify_one();
      }
    }
  };
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule([take] { take(); });
  take();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all.wait(lock, [&] { return state->done.load() == count; });
}

int Clamped(float value, int most) { return value > 0 ? (value < most ? static_cast<int>(value) : most) : 0; }

struct Layout {
  Scene scene;
  int height;
  std::vector<Placed> placed;
  std::vector<int32_t> order;  // Gaussians that a pixel may see, by cells, row by row
  bool finite = true;          // whether all are

  Layout(const float* means, const float* whitening, int64_t count, int height, int width, float tau)
      : height(height), placed(count) {
    const float reach2 = -2 * std::log(tau), reach = std::sqrt(reach2);
    scene = {width, tau, 1 / (1 - tau), reach2};
    const int64_t columns = width / kCell + 1, cells = columns * (height / kCell + 1);
    std::vector<int32_t> starts(cells + 1), cell(count);
    for (int64_t i = 0; i < count; ++i) {
      const float *m = means + 2 * i, *a = whitening + 3 * i;
      Placed& g = placed[i] = {m[0], m[1], a[0], a[1], a[2], 0, 0};
      cell[i] = -1;
      if (!std::isfinite(g.x + g.y + g.a11 + g.a21 + g.a22)) {
        finite = false;
        continue;
      }
      const float up = reach * std::sqrt(g.a11 * g.a11 + g.a21 * g.a21) / std::fabs(g.a11 * g.a22) + 1e-3f;
      const float side = reach / std::fabs(g.a11) + 1e-3f;
      if (g.x + side < 0.5f || g.x - side > width - 0.5f) continue;
      g.top = Clamped(std::ceil(g.y - up - 0.5f), height), g.bottom = Clamped(std::floor(g.y + up + 0.5f), height);
      if (g.top >= g.bottom) continue;
      cell[i] = Clamped(g.y, height) / kCell * columns + Clamped(g.x, width) / kCell;
      ++starts[cell[i] + 1];
    }
    for (int64_t c = 0; c < cells; ++c) starts[c + 1] += starts[c];
    order.resize(starts[cells]);
    for (int64_t i = 0; i < count; ++i)
      if (cell[i] >= 0) order[starts[cell[i]]++] = static_cast<int32_t>(i);
  }
};

using Numbers = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;

// Which Gaussians each band of rows meets, in their order.
struct Bands {
  std::vector<int64_t> starts;
  std::vector<int32_t> ids;

  explicit Bands(const Layout& on) : starts((on.height + kBandRows - 1) / kBandRows + 1) {
    const auto each = [&on](const auto& visit) {
      for (const int32_t i : on.order)
        for (int b = on.placed[i].top / kBandRows; b <= (on.placed[i].bottom - 1) / kBandRows; ++b) visit(b, i);
    };
    each([this](int b, int32_t) { ++starts[b + 1]; });
    for (size_t b = 1; b < starts.size(); ++b) starts[b] += starts[b - 1];
    ids.resize(starts.back());
    std::vector<int64_t> end(starts.begin(), starts.end() - 1);
    each([&](int b, int32_t i) { ids[end[b]++] = i; });
  }
  int64_t Count() const { return starts.size() - 1; }
};

// finish(top, bottom, planes) for every band, `planes` being the sums of its rows: `depth` planes of a row after one
// another, each of the picture's width and kPadding. A band's stay in the cache.
template <typename Finish>
void Draw(ffi::ThreadPool& pool, const Layout& on, const Bands& bands, const Numbers& values, int lanes,
          const Finish& finish) {
  const int64_t depth = values.dimensions()[1], plane = on.scene.width + kPadding;
  Share(pool, bands.Count(), [&](int64_t band) {
    const int top = band * kBandRows, bottom = std::min(on.height, top + kBandRows);
    const int32_t* ids = bands.ids.data() + bands.starts[band];
    thread_local std::vector<float> planes;
    planes.assign((bottom - top) * depth * plane, 0.f);
    for (int64_t first = 0; first < depth; first += kMostValues)
      BestKernels(lanes).draw[std::min<int64_t>(kMostValues, depth - first) - 1](
          on.placed.data(), ids, bands.starts[band + 1] - bands.starts[band], values.typed_data() + first, depth,
          on.scene, top, bottom, planes.data() + first * plane, depth * plane);
    finish(band, top, bottom, planes.data());
  });
}

// `planes` of the rows from `top` on, without their padding.
void CopyRows(const float* planes, int top, int bottom, int64_t depth, int64_t width, float* picture) {
  for (int64_t row = 0; row < (bottom - top) * depth; ++row)
    std::copy_n(planes + row * (width + kPadding), width, picture + (top * depth + row) * width);
}

ffi::Error Splat(ffi::ThreadPool pool, Numbers means, Numbers whitening, Numbers values, float tau, int32_t lanes, Result picture) {
  const auto size = picture->dimensions();
  const int64_t height = size[0], width = size[1], depth = size[2];
  const Layout on(means.typed_data(), whitening.typed_data(), means.dimensions()[0], height, width, tau);
  float* out = picture->typed_data();
  Draw(pool, on, Bands(on), values, lanes, [&](int64_t, int top, int bottom, const float* planes) {
    CopyRows(planes, top, bottom, depth, width, out);
  });
  if (!on.finite) std::fill_n(out, depth * height * width, std::numeric_limits<float>::quiet_NaN());
  return ffi::Error::Success();
}

// The gradient by one Gaussian of what has the gradient `image` by the sums, over the rows from `g.top` to `g.bottom`:
// by its mean and whitening [5], which is added to, and by its values [D].
void PullAll(const Kernels& kernels, const Placed& g, const float* values, int64_t depth, const Scene& scene,
             const Image& image, float* by_geometry, float* by_value) {
  for (int64_t first = 0; first < depth; first += kMostValues) {
    float more[5];
    kernels.pull[std::min<int64_t>(kMostValues, depth - first) - 1](g, values + first, scene, image, first, more,
                                                                    by_value + first);
    for (int n = 0; n < 5; ++n) by_geometry[n] += more[n];
  }
}

// For each band [1 + C]: the sum of |picture - target|^2 over its rows from `first` on, and its gradient by the
// background; the picture is a weighted average. And the gradients by means, whitening and values: each band's share
// is pulled while its rows are in the cache, and the shares are added in the order of the bands.
ffi::Error Squares(ffi::ThreadPool pool, Numbers means, Numbers whitening, Numbers values, Numbers background,
                   Numbers wanted, ffi::Buffer<ffi::S32> first, float tau, int32_t lanes, Result sums, Result d_means,
                   Result d_whitening, Result d_values) {
  const auto size = wanted.dimensions();
  const int64_t height = size[0], width = size[1], channels = size[2], depth = values.dimensions()[1];
  const int64_t count = means.dimensions()[0], plane = width + kPadding, share = 5 + depth;
  const Layout on(means.typed_data(), whitening.typed_data(), count, height, width, tau);
  const Kernels& kernels = BestKernels(lanes);
  const Bands bands(on);
  const Image target(wanted);
  const int begin = first.typed_data()[0];
  const bool rises = depth > channels + 1;  // whether brightness changes with the place
  std::vector<float> shares(bands.ids.size() * share);
  Draw(pool, on, bands, values, lanes, [&](int64_t band, int top, int bottom, float* planes) {
    std::vector<double> found(channels + 1);
    for (int y = top; y < bottom; ++y) {
      float* row = planes + (y - top) * depth * plane;
      if (y < begin) {
        std::fill_n(row, depth * plane, 0.f);
        continue;
      }
      if (rises) kernels.rise(row, plane, channels, y + 0.5f, width);
      found[0] += kernels.square(row, plane, target.Row(y), background.typed_data(), channels, on.scene,
                                 found.data() + 1);
      if (rises) kernels.pull_rise(row, plane, channels, y + 0.5f, width);
    }
    std::copy(found.begin(), found.end(), sums->typed_data() + band * (channels + 1));
    const Image rows(planes, top, depth * plane, plane);
    for (int64_t k = bands.starts[band]; k < bands.starts[band + 1]; ++k) {
      Placed g = on.placed[bands.ids[k]];
      g.top = std::max(g.top, top), g.bottom = std::min(g.bottom, bottom);
      float* to = shares.data() + k * share;
      PullAll(kernels, g, values.typed_data() + bands.ids[k] * depth, depth, on.scene, rows, to, to + 5);
    }
  });
  const float outside = on.finite ? 0.f : std::numeric_limits<float>::quiet_NaN();
  for (Result* result : {&d_means, &d_whitening, &d_values})
    std::fill_n((*result)->typed_data(), (*result)->element_count(), outside);
  if (!on.finite) {
    std::fill_n(sums->typed_data(), sums->element_count(), outside);
    return ffi::Error::Success();
  }
  for (size_t k = 0; k < bands.ids.size(); ++k) {
    const int64_t i = bands.ids[k];
    const float* from = shares.data() + k * share;
    for (int n = 0; n < 2; ++n) d_means->typed_data()[2 * i + n] += from[n];
    for (int n = 0; n < 3; ++n) d_whitening->typed_data()[3 * i + n] += from[2 + n];
    for (int64_t n = 0; n < depth; ++n) d_values->typed_data()[depth * i + n] += from[5 + n];
  }
  return ffi::Error::Success();
}

ffi::Error SplatGradient(ffi::ThreadPool pool, Numbers means, Numbers whitening, Numbers values, Numbers cotangent,
                         float tau, int32_t lanes, Result d_means, Result d_whitening, Result d_values) {
  const auto size = cotangent.dimensions();
  const int64_t depth = size[2], count = means.dimensions()[0];
  const Layout on(means.typed_data(), whitening.typed_data(), count, size[0], size[1], tau);
  float *by_mean = d_means->typed_data(), *by_whitening = d_whitening->typed_data(), *by_value = d_values->typed_data();
  const float outside = on.finite ? 0.f : std::numeric_limits<float>::quiet_NaN();
  std::fill_n(by_mean, 2 * count, outside), std::fill_n(by_whitening, 3 * count, outside);
  std::fill_n(by_value, depth * count, outside);
  const int64_t seen = on.finite ? on.order.size() : 0;
  const Image image(cotangent);
  Share(pool, (seen + kChunk - 1) / kChunk, [&](int64_t chunk) {
    for (int64_t k = chunk * kChunk; k < std::min<int64_t>(seen, (chunk + 1) * kChunk); ++k) {
      const int64_t i = on.order[k];
      float by_geometry[5] = {};
      PullAll(BestKernels(lanes), on.placed[i], values.typed_data() + i * depth, depth, on.scene, image, by_geometry,
              by_value + i * depth);
      std::copy_n(by_geometry, 2, by_mean + 2 * i), std::copy_n(by_geometry + 2, 3, by_whitening + 3 * i);
    }
  });
  return ffi::Error::Success();
}

ffi::Error Removal(ffi::ThreadPool pool, Numbers means, Numbers whitening, Numbers colors, Numbers gradients,
                   Numbers factors, Numbers weights, Numbers drawn, Numbers wanted, float tau, int32_t lanes, Result cost, Result seen) {
  const auto size = drawn.dimensions();
  const int64_t count = means.dimensions()[0], channels = colors.dimensions()[1];
  const Layout on(means.typed_data(), whitening.typed_data(), count, size[0], size[1], tau);
  std::fill_n(cost->typed_data(), count, on.finite ? 0.f : std::numeric_limits<float>::quiet_NaN());
  std::fill_n(seen->typed_data(), count, 0.f);
  const int64_t visible = on.finite ? on.order.size() : 0;
  const Image total(weights), picture(drawn), target(wanted);
  Share(pool, (visible + kChunk - 1) / kChunk, [&](int64_t chunk) {
    for (int64_t k = chunk * kChunk; k < std::min<int64_t>(visible, (chunk + 1) * kChunk); ++k) {
      const int64_t i = on.order[k];
      for (int64_t first = 0; first < channels; first += kMostValues) {
        const int several = std::min<int64_t>(kMostValues, channels - first);
        float more;
        BestKernels(lanes).remove[several - 1](on.placed[i], colors.typed_data() + i * channels + first,
                                               gradients.typed_data() + 2 * i, factors.typed_data()[i], on.scene, total, picture, target, first, &more,
                                               seen->typed_data() + i);
        cost->typed_data()[i] += more;
      }
    }
  });
  return ffi::Error::Success();
}

// A picture at its own size, or at smaller ones: [H][C][W], outside of which all is 0.
struct Planes {
  int height, width, channels;
  const float* data;
  std::vector<float> own;

  Planes(int height, int width, int channels) : height(height), width(width), channels(channels) {
    own.resize(static_cast<int64_t>(height) * width * channels), data = own.data();
  }
  Planes(const Numbers& image)
      : height(image.dimensions()[0]), width(image.dimensions()[1]), channels(image.dimensions()[2]), data(image.typed_data()) {}
  int64_t Apart() const { return static_cast<int64_t>(width) * channels; }
  const float* Row(int y, int c) const { return data + y * Apart() + c * static_cast<int64_t>(width); }
};

// Pixels weighed 1, 3, 3, 1 either way: a mean of two would let what is nearly as fine as pixels pass for coarse. There
// is a small pixel more on each side, for what a picture's edge gives beyond it.
void Halve(ffi::ThreadPool& pool, const Planes& from, Planes& to) {
  Share(pool, to.height, [&](int64_t y) {
    thread_local std::vector<float> row;  // the sum of four rows, with zeros on either side
    for (int c = 0; c < to.channels; ++c) {
      row.assign(from.width + 7, 0.f);
      for (int k = -1; k < 3; ++k) {
        const int64_t of = 2 * (y - 1) + k;
        if (of < 0 || of >= from.height) continue;
        const float* one = from.Row(of, c);
        const float weight = (k == 0 || k == 1 ? 3.f : 1.f) / 64;
        for (int x = 0; x < from.width; ++x) row[x + 3] += weight * one[x];
      }
      float* out = to.own.data() + y * to.Apart() + c * static_cast<int64_t>(to.width);
      for (int x = 0; x < to.width; ++x) {
        const float* at = row.data() + 2 * x;
        out[x] = at[0] + 3 * (at[1] + at[2]) + at[3];
      }
    }
  });
}

// A Gaussian's weights at whole distances, out to where they are 1/3000 of the first.
std::vector<float> Taps(float scale) {
  std::vector<float> taps(1 + static_cast<int>(std::ceil(4 * scale)));
  double sum = 0;
  for (size_t k = 0; k < taps.size(); ++k) sum += (k ? 2 : 1) * (taps[k] = std::exp(-0.5 * k * k / (scale * scale)));
  for (float& tap : taps) tap /= sum;
  return taps;
}

// One of the scales: of which size it is made, and from there on by which weights.
struct Blurring {
  int level = 0;
  float norm;  // times the square of what is blurred is what a Gaussian there gains
  std::vector<float> taps;
  std::vector<float> made;  // [h][C][w] at the level, where that is not the picture's own
};

// A row of all channels, blurred: `plane` floats apart in `out`.
void BlurRow(const Kernels& kernels, const Planes& image, const std::vector<float>& taps, int y, float* out, int64_t plane) {
  const int radius = taps.size() - 1;
  thread_local std::vector<float> between;  // the rows' sum, with zeros on either side
  for (int c = 0; c < image.channels; ++c) {
    between.assign(image.width + 2 * radius + kPadding, 0.f);
    kernels.blur_rows(image.Row(y, c), image.Apart(), y, image.height - 1 - y, image.width, taps.data(), radius,
                      between.data() + radius);
    kernels.blur_columns(between.data() + radius, image.width, taps.data(), radius, out + c * plane);
  }
}

// A row of the picture between the four nearest pixels of what was made at a smaller size.
void Enlarge(const Planes& small, const float* made, int level, int y, int width, float* out, int64_t plane) {
  const float by = std::ldexp(1.f, -level), before = 1.5f - 2 * by;  // `before`: the small pixels on each side
  const auto place = [by, before](int at, float* rest) {
    const float to = (at + 0.5f) * by + before;
    const int first = static_cast<int>(to);
    *rest = to - first;
    return first;
  };
  float down, right;
  const int above = place(y, &down);
  thread_local std::vector<float> row;
  row.resize(small.width);
  for (int c = 0; c < small.channels; ++c) {
    const float* upper = made + above * small.Apart() + c * static_cast<int64_t>(small.width);
    const float* lower = upper + small.Apart();
    for (int x = 0; x < small.width; ++x) row[x] = upper[x] + down * (lower[x] - upper[x]);
    for (int x = 0; x < width; ++x) {
      const int left = place(x, &right);
      out[c * plane + x] = row[left] + right * (row[left + 1] - row[left]);
    }
  }
}

// For each pixel the one of the scales whose Gaussian there takes most from the residual, see density.births: what it
// gains [H, W], its index [H, W], and the residual blurred by it [H, W, C]. Scales of more than kWidest pixels are
// made at a smaller size, so that each pixel costs about as much whatever they are.
constexpr float kWidest = 4;
constexpr int kSmallest = 64;  // pixels a side below which a picture is not made smaller

ffi::Error BestBlurs(ffi::ThreadPool pool, Numbers residual, Numbers scales, int32_t lanes, Result gain,
                     ffi::ResultBuffer<ffi::S32> which, Result chosen) {
  const Kernels& kernels = BestKernels(lanes);
  std::vector<Planes> levels{Planes(residual)};
  const int height = levels[0].height, width = levels[0].width, channels = levels[0].channels;
  std::vector<Blurring> blurrings(scales.element_count());
  for (size_t s = 0; s < blurrings.size(); ++s) {
    const float widest = 4.f * std::max(height, width);
    float scale = scales.typed_data()[s] < widest ? scales.typed_data()[s] : widest;
    blurrings[s].norm = 4 * 3.14159265f * scale * scale;
    Blurring& one = blurrings[s];
    while (scale > kWidest && std::min(levels[one.level].height, levels[one.level].width) >= kSmallest) {
      scale /= 2;
      if (++one.level < static_cast<int>(levels.size())) continue;
      const Planes& last = levels.back();
      Planes half((last.height + 1) / 2 + 2, (last.width + 1) / 2 + 2, channels);
      Halve(pool, last, half);
      levels.push_back(std::move(half));
    }
    // What makes pixels smaller, and lines between those, blur by themselves: by so many of the small pixels, squared.
    const float itself = one.level == 0 ? 0 : (2.5f - std::ldexp(1.f, -2 * one.level)) / 6;
    one.taps = Taps(std::sqrt(scale * scale - itself));
    if (one.level == 0) continue;
    const Planes& small = levels[one.level];
    one.made.resize(small.own.size());
    Share(pool, small.height, [&](int64_t y) {
      thread_local std::vector<float> row;
      const int64_t plane = small.width + kPadding;
      row.resize(channels * plane);
      BlurRow(kernels, small, one.taps, y, row.data(), plane);
      for (int c = 0; c < channels; ++c)
        std::copy_n(row.data() + c * plane, small.width, one.made.data() + y * small.Apart() + c * small.width);
    });
  }
  Share(pool, (height + kBandRows - 1) / kBandRows, [&](int64_t band) {
    thread_local std::vector<float> row;
    const int64_t plane = width + kPadding;
    row.resize(channels * plane);
    for (int y = band * kBandRows; y < std::min<int64_t>(height, (band + 1) * kBandRows); ++y) {
      float* gained = gain->typed_data() + static_cast<int64_t>(y) * width;
      float* values = chosen->typed_data() + y * levels[0].Apart();
      int32_t* index = which->typed_data() + static_cast<int64_t>(y) * width;
      std::fill_n(gained, width, -std::numeric_limits<float>::infinity());
      std::fill_n(index, width, 0), std::fill_n(values, levels[0].Apart(), 0.f);
      for (size_t s = 0; s < blurrings.size(); ++s) {
        const Blurring& one = blurrings[s];
        if (one.level == 0)
          BlurRow(kernels, levels[0], one.taps, y, row.data(), plane);
        else
          Enlarge(levels[one.level], one.made.data(), one.level, y, width, row.data(), plane);
        kernels.keep_better(row.data(), plane, width, channels, one.norm, s, gained, index, values);
      }
    }
  });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER(kSplat, Splat,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Attr<float>("tau")
                           .Attr<int32_t>("lanes")
                           .Ret<Numbers>());
XLA_FFI_DEFINE_HANDLER(kSquares, Squares,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<ffi::Buffer<ffi::S32>>()
                           .Attr<float>("tau")
                           .Attr<int32_t>("lanes")
                           .Ret<Numbers>()
                           .Ret<Numbers>()
                           .Ret<Numbers>()
                           .Ret<Numbers>());
XLA_FFI_DEFINE_HANDLER(kSplatGradient, SplatGradient,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Attr<float>("tau")
                           .Attr<int32_t>("lanes")
                           .Ret<Numbers>()
                           .Ret<Numbers>()
                           .Ret<Numbers>());
XLA_FFI_DEFINE_HANDLER(kRemoval, Removal,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Attr<float>("tau")
                           .Attr<int32_t>("lanes")
                           .Ret<Numbers>()
                           .Ret<Numbers>());

XLA_FFI_DEFINE_HANDLER(kBestBlurs, BestBlurs,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Attr<int32_t>("lanes")
                           .Ret<Numbers>()
                           .Ret<ffi::Buffer<ffi::S32>>()
                           .Ret<Numbers>());

PyModuleDef kModule = {PyModuleDef_HEAD_INIT, "_scanlines", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__scanlines() {
  PyObject* module = PyModule_Create(&kModule);
  if (module == nullptr) return nullptr;
  const struct {
    const char* name;
    void* handler;
  } handlers[] = {{"splat", reinterpret_cast<void*>(+kSplat)},
                  {"squares", reinterpret_cast<void*>(+kSquares)},
                  {"splat_gradient", reinterpret_cast<void*>(+kSplatGradient)},
                  {"removal", reinterpret_cast<void*>(+kRemoval)},
                  {"best_blurs", reinterpret_cast<void*>(+kBestBlurs)}};
  if (PyModule_AddIntConstant(module, "API_MAJOR", XLA_FFI_API_MAJOR) < 0 ||
      PyModule_AddIntConstant(module, "API_MINOR", XLA_FFI_API_MINOR) < 0) {
    Py_DECREF(module);
    return nullptr;
  }
  for (const auto& one : handlers) {
    PyObject* capsule = PyCapsule_New(one.handler, nullptr, nullptr);
    if (capsule == nullptr || PyModule_AddObjectRef(module, one.name, capsule) < 0) {
      Py_XDECREF(capsule);
      Py_DECREF(module);
      return nullptr;
    }
    Py_DECREF(capsule);
  }
  return module;
}
