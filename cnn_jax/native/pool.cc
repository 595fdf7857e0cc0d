// Maxima and sums of windows with their gradients, in float32 with channels last.
//
// All of them are one loop: each target takes something from some sources. The targets of a maximum are the outputs,
// and their sources are the inputs in the window. The targets of a gradient are the inputs, and their sources are the
// outputs whose windows contain them. A link is a source and the number of the window entry that connects it with the
// target; padding has no links. Every target is written once, so that nothing has to be cleared or added up, and the
// bits are the same for any number of threads.
//
// Channels are the lanes of vectors. The last vector may overlap the one before it, which writes the same values again.

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <array>
#include <vector>

#include "parallel.h"
#include "vectors.h"

namespace ffi = xla::ffi;

namespace cnn_jax {
namespace {

using Array = ffi::Buffer<ffi::F32>;
using Entries = ffi::Buffer<ffi::U8>;

constexpr int64_t kWorthSharing = 1 << 15;  // floats of inputs or outputs from which threads share the work
constexpr int64_t kPieces = 4;              // for each thread

// --- which sources belong to which targets ---------------------------------------------------------------------------

struct Link {
  int64_t at;   // the source
  int32_t tap;  // the number of the window entry
};

// The windows along one axis, and the links of each target.
struct Axis {
  int64_t size, out, window, stride, dilation, low;
  std::vector<std::vector<Link>> links;
  int64_t sources;

  void connect(bool backward) {
    links.resize(backward ? size : out);
    sources = backward ? out : size;
    for (int64_t o = 0; o < out; ++o)
      for (int32_t tap = 0; tap < window; ++tap) {
        const int64_t input = o * stride + tap * dilation - low;
        if (input >= 0 && input < size) links[backward ? input : o].push_back({backward ? o : input, tap});
      }
  }
};

// An array is [batch, one to three pooled axes, channels]; axes that are not there have size 1.
struct Windows {
  int64_t batch, channels;
  std::array<Axis, 3> axes;

  Windows(int64_t batch, int64_t channels, ffi::Span<const int64_t> numbers, bool backward)
      : batch(batch), channels(channels) {
    axes.fill({1, 1, 1, 1, 1, 0, {}, 1});
    const size_t rank = numbers.size() / 6;
    for (size_t axis = 0; axis < rank; ++axis) {
      const int64_t* of = numbers.begin() + 6 * axis;
      axes[3 - rank + axis] = {of[0], of[1], of[2], of[3], of[4], of[5], {}, 1};
    }
    for (Axis& axis : axes) axis.connect(backward);
  }
  int64_t targets(int axis) const { return static_cast<int64_t>(axes[axis].links.size()); }
};

// Calls take(target, image, links, count) for every target. The links are those of an image: they are listed once for
// the same row of all images. All positions are those of first channels; `image` is where its sources begin.
template <class Take>
void each_target(Pool& pool, const Windows& w, const Take& take) {
  const auto& [depth, height, width] = w.axes;
  const int64_t lines = w.targets(1), line = w.targets(2), rows = w.targets(0) * lines;
  const int64_t targets = rows * line, sources = depth.sources * height.sources * width.sources;
  const int64_t floats = w.batch * std::max(targets, sources) * w.channels;
  const int64_t pieces = floats < kWorthSharing ? 1 : kPieces * pool.num_threads();
  const int64_t of_rows = std::min(rows, pieces), of_images = std::min(w.batch, ceil_div(pieces, of_rows));
  parallel(pool, of_rows * of_images, [&](int64_t piece) {
    const int64_t some = piece / of_rows, begin = first_of(w.batch, some, of_images);
    const int64_t end = first_of(w.batch, some + 1, of_images), end_row = first_of(rows, piece % of_rows + 1, of_rows);
    std::vector<Link> links;
    std::vector<int64_t> first(line + 1);
    for (int64_t row = first_of(rows, piece % of_rows, of_rows); row < end_row; ++row) {
      links.clear();
      for (int64_t target = 0; target < line; ++target) {
        for (const Link& a : depth.links[row / lines])
          for (const Link& b : height.links[row % lines])
            for (const Link& c : width.links[target])
              links.push_back({((a.at * height.sources + b.at) * width.sources + c.at) * w.channels,
                               static_cast<int32_t>((a.tap * height.window + b.tap) * width.window + c.tap)});
        first[target + 1] = static_cast<int64_t>(links.size());
      }
      for (int64_t image = begin; image < end; ++image)
        for (int64_t target = 0; target < line; ++target)
          take((image * targets + row * line + target) * w.channels, image * sources * w.channels,
               links.data() + first[target], first[target + 1] - first[target]);
    }
  });
}

// --- what a target takes ---------------------------------------------------------------------------------------------

// The numbers of window entries for a vector of channels, and the bytes that they are stored as.
typedef int32_t Numbers __attribute__((vector_size(4 * kLanes)));
typedef uint8_t Bytes __attribute__((vector_size(kLanes), aligned(1), may_alias));

inline Numbers load_numbers(const uint8_t* from) {
#if defined(__AVX512F__)  // GCC would convert one byte at a time
  return (Numbers)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)from));
#elif defined(__AVX2__)
  return (Numbers)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)from));
#else
  return __builtin_convertvector(*reinterpret_cast<const Bytes*>(from), Numbers);
#endif
}
inline void store_numbers(uint8_t* to, Numbers numbers) {
  *reinterpret_cast<Bytes*>(to) = __builtin_convertvector(numbers, Bytes);
}
inline Numbers all(int32_t number) { return Numbers{} + number; }

// The first of the largest values, and the number of its window entry. A NaN is larger than all before it.
struct Maximum {
  const float* x;
  float* y;
  uint8_t* winner;

  template <int VECTORS>
  void take(int64_t target, int64_t image, const Link* links, int64_t count) const {
    Vector most[VECTORS];
    Numbers taps[VECTORS];
    for (int v = 0; v < VECTORS; ++v) {
      most[v] = load(x + image + links[0].at + v * kLanes);
      taps[v] = all(links[0].tap);
    }
    for (int64_t i = 1; i < count; ++i)
      for (int v = 0; v < VECTORS; ++v) {
        const Vector value = load(x + image + links[i].at + v * kLanes);
        const Numbers wins = (value > most[v]) | (value != value);
        most[v] = wins ? value : most[v];
        taps[v] = wins ? all(links[i].tap) : taps[v];
      }
    for (int v = 0; v < VECTORS; ++v) {
      store(y + target + v * kLanes, most[v]);
      store_numbers(winner + target + v * kLanes, taps[v]);
    }
  }
};

struct Sum {
  const float* x;
  float* y;

  template <int VECTORS>
  void take(int64_t target, int64_t image, const Link* links, int64_t count) const {
    Vector sums[VECTORS] = {};
    for (int64_t i = 0; i < count; ++i)
      for (int v = 0; v < VECTORS; ++v) sums[v] += load(x + image + links[i].at + v * kLanes);
    for (int v = 0; v < VECTORS; ++v) store(y + target + v * kLanes, sums[v]);
  }
};

// The gradient of a maximum: the sum over the windows that the target has won.
struct Won {
  const float* dy;
  const uint8_t* winner;
  float* dx;

  template <int VECTORS>
  void take(int64_t target, int64_t image, const Link* links, int64_t count) const {
    Vector sums[VECTORS] = {};
    for (int64_t i = 0; i < count; ++i)
      for (int v = 0; v < VECTORS; ++v) {
        const int64_t from = image + links[i].at + v * kLanes;
        sums[v] += load_numbers(winner + from) == all(links[i].tap) ? load(dy + from) : Vector{};
      }
    for (int v = 0; v < VECTORS; ++v) store(dx + target + v * kLanes, sums[v]);
  }
};

// For all channels of all targets; there are at least as many channels as lanes.
template <class Op>
ffi::Error take(Pool& pool, int64_t batch, int64_t channels, ffi::Span<const int64_t> axes, bool backward,
                const Op& op) try {
  constexpr int kSome = 4;  // vectors for which the links of a target are read once
  if (channels < kLanes) return ffi::Error::InvalidArgument("pooling: too few channels for a vector");
  const Windows windows(batch, channels, axes, backward);
  each_target(pool, windows, [=](int64_t target, int64_t image, const Link* links, int64_t count) {
    int64_t c = 0;
    for (; c + kSome * kLanes <= channels; c += kSome * kLanes)
      op.template take<kSome>(target + c, image + c, links, count);
    for (; c < channels; c += kLanes) {
      const int64_t at = std::min(c, channels - kLanes);
      op.template take<1>(target + at, image + at, links, count);
    }
  });
  return ffi::Error::Success();
} catch (const std::bad_alloc&) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "pooling: out of memory");
}

// --- the functions that XLA calls ------------------------------------------------------------------------------------

ffi::Error maxima(Pool pool, Array x, ffi::Result<Array> y, ffi::Result<Entries> winner, int64_t batch,
                  int64_t channels, ffi::Span<const int64_t> axes) {
  return take(pool, batch, channels, axes, false, Maximum{x.typed_data(), y->typed_data(), winner->typed_data()});
}

ffi::Error maxima_gradient(Pool pool, Array dy, Entries winner, ffi::Result<Array> dx, int64_t batch, int64_t channels,
                           ffi::Span<const int64_t> axes) {
  return take(pool, batch, channels, axes, true, Won{dy.typed_data(), winner.typed_data(), dx->typed_data()});
}

ffi::Error sums(Pool pool, Array x, ffi::Result<Array> y, int64_t batch, int64_t channels,
                ffi::Span<const int64_t> axes, bool backward) {
  return take(pool, batch, channels, axes, backward, Sum{x.typed_data(), y->typed_data()});
}

}  // namespace
}  // namespace cnn_jax

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_window_maxima, cnn_jax::maxima,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<cnn_jax::Array>()
                                  .Ret<cnn_jax::Array>()
                                  .Ret<cnn_jax::Entries>()
                                  .Attr<int64_t>("batch")
                                  .Attr<int64_t>("channels")
                                  .Attr<ffi::Span<const int64_t>>("axes"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_window_maxima_gradient, cnn_jax::maxima_gradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<cnn_jax::Array>()
                                  .Arg<cnn_jax::Entries>()
                                  .Ret<cnn_jax::Array>()
                                  .Attr<int64_t>("batch")
                                  .Attr<int64_t>("channels")
                                  .Attr<ffi::Span<const int64_t>>("axes"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_window_sums, cnn_jax::sums,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<cnn_jax::Array>()
                                  .Ret<cnn_jax::Array>()
                                  .Attr<int64_t>("batch")
                                  .Attr<int64_t>("channels")
                                  .Attr<ffi::Span<const int64_t>>("axes")
                                  .Attr<bool>("backward"));

#pragma GCC visibility pop
