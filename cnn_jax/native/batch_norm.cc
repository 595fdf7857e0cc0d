// Batch normalisation in training, float32 with channels last, with an optional addend and ReLU:
//
//   y = relu((x - mean) * scale / sqrt(variance + epsilon) + bias + addend)
//
// and its gradients. XLA writes the distances from the mean to memory and reads them three times; here x is read twice
// forward, and x, y and dy twice backward.
//
// Rows are summed in float32, 64 at a time, and these sums in double, in pieces whose number depends on the shapes
// alone: the same bits for any number of threads. Distances are taken from the first row, and what rounding to float32
// leaves of the mean is kept for the gradients (`remainder`), so that a large mean costs no accuracy. If there are few
// channels, several positions are treated as one row, so that the inner loops are long.

#include <cmath>
#include <vector>

#include "parallel.h"

namespace ffi = xla::ffi;

namespace cnn_jax {
namespace {

using Array = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Array>;

constexpr int64_t kRowLength = 64;   // the least number of floats in a row
constexpr int64_t kRowsAtOnce = 64;  // rows that are summed in float32
constexpr int64_t kPiece = 1 << 14;  // the least number of floats in a piece
constexpr int64_t kMostPieces = 64;

// `positions` times `channels` floats as rows of `width` floats.
struct Rows {
  int64_t positions, channels, width, count, pieces;

  explicit Rows(ffi::Span<const int64_t> shape) : positions(1), channels(shape.back()) {
    for (size_t axis = 0; axis + 1 < shape.size(); ++axis) positions *= shape[axis];
    int64_t merged = std::max<int64_t>(1, kRowLength / channels);
    while (positions % merged) --merged;
    width = merged * channels;
    count = positions / merged;
    pieces = std::clamp<int64_t>(count * width / kPiece, 1, std::min(kMostPieces, count));
  }

  template <class Work>
  void each_piece(Pool& pool, const Work& work) const {
    parallel(pool, pieces, [&](int64_t piece) {
      work(piece, first_of(count, piece, pieces), first_of(count, piece + 1, pieces));
    });
  }

  // A value per channel, repeated to the width of a row.
  std::vector<float> spread(const std::vector<float>& values) const {
    std::vector<float> row(width);
    for (int64_t i = 0; i < width; ++i) row[i] = values[i % channels];
    return row;
  }
};

// Two sums over all rows of `terms(row, first sums, second sums)`, which adds the terms of a row; per channel.
struct Sums {
  std::vector<double> first, second;

  template <class Terms>
  Sums(Pool& pool, const Rows& rows, const Terms& terms) : first(rows.channels), second(rows.channels) {
    std::vector<double> parts(2 * rows.pieces * rows.width);
    rows.each_piece(pool, [&](int64_t piece, int64_t begin, int64_t end) {
      double *one = parts.data() + 2 * piece * rows.width, *two = one + rows.width;
      std::vector<float> sums(2 * rows.width);
      float *a = sums.data(), *b = a + rows.width;
      for (int64_t some = begin; some < end; some += kRowsAtOnce) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (int64_t row = some; row < std::min(end, some + kRowsAtOnce); ++row) terms(row, a, b);
        for (int64_t i = 0; i < rows.width; ++i) one[i] += a[i], two[i] += b[i];
      }
    });
    for (int64_t piece = 0; piece < rows.pieces; ++piece)
      for (int64_t i = 0; i < rows.width; ++i) {
        first[i % rows.channels] += parts[2 * piece * rows.width + i];
        second[i % rows.channels] += parts[(2 * piece + 1) * rows.width + i];
      }
  }
};

inline float relu(float value) { return value <= 0 ? 0 : value; }  // NaN stays NaN

template <bool ADD, bool RELU>
void normalize(Pool& pool, const Rows& rows, const float* x, const float* addend, const float* shift,
               const float* factor, const float* offset, float* y) {
  const int64_t width = rows.width;
  rows.each_piece(pool, [=](int64_t, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float *from = x + row * width, *other = ADD ? addend + row * width : nullptr;
      float* __restrict to = y + row * width;
      for (int64_t i = 0; i < width; ++i) {
        const float value = (from[i] - shift[i]) * factor[i] + offset[i] + (ADD ? other[i] : 0);
        to[i] = RELU ? relu(value) : value;
      }
    }
  });
}

ffi::Error forward(Pool pool, Array x, Array scale, Array bias, Array addend, Result y, Result mean, Result variance,
                   Result remainder, double epsilon, bool add, bool with_relu) try {
  const Rows rows(x.dimensions());
  const float* in = x.typed_data();
  const std::vector<float> origin(in, in + rows.channels), shift = rows.spread(origin);
  const Sums sums(pool, rows, [&](int64_t row, float* __restrict first, float* __restrict second) {
    const float *from = in + row * rows.width, *near = shift.data();
    for (int64_t i = 0; i < rows.width; ++i) {
      const float distance = from[i] - near[i];
      first[i] += distance;
      second[i] += distance * distance;
    }
  });
  std::vector<float> factor(rows.channels), offset(rows.channels);
  for (int64_t c = 0; c < rows.channels; ++c) {
    const double rest = sums.first[c] / rows.positions, square = sums.second[c] / rows.positions - rest * rest;
    const double var = square < 0 ? 0 : square, center = origin[c] + rest;
    mean->typed_data()[c] = static_cast<float>(center);
    variance->typed_data()[c] = static_cast<float>(var);
    remainder->typed_data()[c] = static_cast<float>(center - mean->typed_data()[c]);
    factor[c] = static_cast<float>(scale.typed_data()[c] / std::sqrt(var + epsilon));
    offset[c] = static_cast<float>(bias.typed_data()[c] - rest * factor[c]);
  }
  const std::vector<float> a = rows.spread(factor), b = rows.spread(offset);
  const auto compute = add ? (with_relu ? normalize<true, true> : normalize<true, false>)
                           : (with_relu ? normalize<false, true> : normalize<false, false>);
  compute(pool, rows, in, addend.typed_data(), shift.data(), a.data(), b.data(), y->typed_data());
  return ffi::Error::Success();
} catch (const std::bad_alloc&) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "batch normalisation: out of memory");
}

// The gradient of what is normalised, before ReLU.
template <bool RELU>
inline float before(float dy, float y) {
  return RELU ? (y > 0 ? dy : 0) : dy;
}

template <bool ADD, bool RELU>
void gradients(Pool& pool, const Rows& rows, const float* x, const float* y, const float* dy, const float* mean,
               const float* factor, const float* slope, const float* offset, float* dx, float* daddend) {
  const int64_t width = rows.width;
  rows.each_piece(pool, [=](int64_t, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float *from = x + row * width, *out = RELU ? y + row * width : nullptr, *above = dy + row * width;
      float *__restrict to = dx + row * width, *__restrict other = ADD ? daddend + row * width : nullptr;
      for (int64_t i = 0; i < width; ++i) {
        const float gradient = before<RELU>(above[i], RELU ? out[i] : 0);
        if (ADD) other[i] = gradient;
        to[i] = factor[i] * gradient + (slope[i] * (from[i] - mean[i]) + offset[i]);
      }
    }
  });
}

template <bool RELU>
Sums gradient_sums(Pool& pool, const Rows& rows, const float* x, const float* y, const float* dy,
                   const std::vector<float>& mean) {
  const std::vector<float> center = rows.spread(mean);
  return Sums(pool, rows, [&](int64_t row, float* __restrict first, float* __restrict second) {
    const float *from = x + row * rows.width, *out = RELU ? y + row * rows.width : nullptr;
    const float *above = dy + row * rows.width, *near = center.data();
    for (int64_t i = 0; i < rows.width; ++i) {
      const float gradient = before<RELU>(above[i], RELU ? out[i] : 0);
      first[i] += gradient;
      second[i] += gradient * (from[i] - near[i]);
    }
  });
}

ffi::Error backward(Pool pool, Array x, Array y, Array dy, Array scale, Array mean, Array variance, Array remainder,
                    Result dx, Result dscale, Result dbias, Result daddend, double epsilon, bool add,
                    bool with_relu) try {
  const Rows rows(x.dimensions());
  const std::vector<float> center(mean.typed_data(), mean.typed_data() + rows.channels);
  const Sums sums = (with_relu ? gradient_sums<true> : gradient_sums<false>)(pool, rows, x.typed_data(), y.typed_data(),
                                                                             dy.typed_data(), center);
  std::vector<float> factor(rows.channels), slope(rows.channels), offset(rows.channels);
  for (int64_t c = 0; c < rows.channels; ++c) {
    const double inverse = 1 / std::sqrt(variance.typed_data()[c] + epsilon), all = scale.typed_data()[c] * inverse;
    const double rest = remainder.typed_data()[c], second = sums.second[c] - rest * sums.first[c];
    const double bend = -all * inverse * inverse * second / rows.positions;
    dscale->typed_data()[c] = static_cast<float>(second * inverse);
    dbias->typed_data()[c] = static_cast<float>(sums.first[c]);
    factor[c] = static_cast<float>(all);
    slope[c] = static_cast<float>(bend);
    offset[c] = static_cast<float>(-all * sums.first[c] / rows.positions - bend * rest);
  }
  const std::vector<float> m = rows.spread(center), a = rows.spread(factor), b = rows.spread(slope);
  const std::vector<float> c = rows.spread(offset);
  const auto compute = add ? (with_relu ? gradients<true, true> : gradients<true, false>)
                           : (with_relu ? gradients<false, true> : gradients<false, false>);
  compute(pool, rows, x.typed_data(), y.typed_data(), dy.typed_data(), m.data(), a.data(), b.data(), c.data(),
          dx->typed_data(), daddend->typed_data());
  return ffi::Error::Success();
} catch (const std::bad_alloc&) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "batch normalisation: out of memory");
}

}  // namespace
}  // namespace cnn_jax

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_batch_norm, cnn_jax::forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<cnn_jax::Array>()
                                  .Arg<cnn_jax::Array>()
                                  .Arg<cnn_jax::Array>()
                                  .Arg<cnn_jax::Array>()
                                  .Ret<cnn_jax::Array>()
                                  .Ret<cnn_jax::Array>()
                                  .Ret<cnn_jax::Array>()
                                  .Ret<cnn_jax::Array>()
                                  .Attr<double>("epsilon")
                                  .Attr<bool>("add")
                                  .Attr<bool>("relu"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_batch_norm_gradients, cnn_jax::backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<cnn_jax::Array>()
                                  .Arg<cnn_jax::Array>()
                                  .Arg<cnn_jax::Array>()
                                  .Arg<cnn_jax::Array>()
                                  .Arg<cnn_jax::Array>()
                                  .Arg<cnn_jax::Array>()
                                  .Arg<cnn_jax::Array>()
                                  .Ret<cnn_jax::Array>()
                                  .Ret<cnn_jax::Array>()
                                  .Ret<cnn_jax::Array>()
                                  .Ret<cnn_jax::Array>()
                                  .Attr<double>("epsilon")
                                  .Attr<bool>("add")
                                  .Attr<bool>("relu"));

#pragma GCC visibility pop
