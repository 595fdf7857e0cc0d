// Convolutions with windows of 3 x 3 or 5 x 5 at stride 1 by Winograd's minimal filtering, F(4x4, 3x3) and F(2x2, 5x5),
// channels last.
//
// A tile of 4 x 4 outputs needs 6 x 6 inputs and 9 multiplications per output, channel and feature. As polynomials, the
// outputs of one axis are evaluated at six points instead: the kernel is transformed by G, the tile of inputs by B^T,
// the two are multiplied point by point, and A^T transforms the products back. In two dimensions each of the 36 points
// is a matrix product of its own, (tiles x channels) (channels x features), and needs 36 multiplications for 16 outputs
// instead of 144, or for the 4 outputs of windows of 5 x 5 instead of 100. Transforms are additions for each channel
// or feature alone. Their matrices follow from the points, and B^T is the same for both windows.
//
//   output            Y  = A^T [(G K G^T) . (B^T X B)] A       . is the product at each point, summed over channels
//   input gradient    the same, of dY and the flipped kernel whose channels and features are exchanged
//   kernel gradient   dK = G^T [(B^T X B) . (A dY A^T)] G      summed over tiles
//
// The points are 0, +-sqrt(1/2), +-sqrt(2) and infinity. With the common 0, +-1, +-2 errors are 4 to 6 times as large.
//
// Blocks of tiles are small enough for their transforms to stay in the L2 cache until they have been multiplied. Inputs
// outside of an image are read from a line of zeros, so there is no copy with padding.
//
// A NaN or an infinity in a tile, or a transform that overflows, reaches all outputs of the tile that it is to reach,
// and others. If an output is not finite, the direct kernels therefore compute its whole image, or the whole kernel
// gradient, again.
//
// References:
//   Winograd, Arithmetic complexity of computations, 1980.
//   Lavin and Gray, Fast algorithms for convolutional neural networks, 2016.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "convolution.h"
#include "parallel.h"
#include "products.h"
#include "vectors.h"

namespace cnn_jax {
namespace {

constexpr int kIn = 6, kPoints = kIn * kIn;  // inputs of a tile along an axis, and the points of a tile
constexpr int outputs(int window) { return kIn - window + 1; }  // of a tile along an axis
constexpr int64_t kCached = int64_t{1} << 18;       // floats of transforms that stay in the L2 cache: half of it
constexpr int64_t kStored = kKept / sizeof(float);  // floats of transforms that all threads share
constexpr int64_t kTiles = 3 * most(2);             // at a time: a kernel in the L2 cache is read once for all of them
constexpr int64_t kChannels = 64;                   // the most channels and features of a block of a kernel gradient
constexpr int64_t kPieces = 8;                      // the most pieces in which a kernel gradient is summed

// --- the transforms of one axis, and of a tile -----------------------------------------------------------------------

constexpr float kA = 0.70710678118654752f, kB = 1.41421356237309505f;  // the points, a^2 = 1/2 and b^2 = 2
constexpr float kPowersA[] = {1, kA, 0.5f, 0.5f * kA, 0.25f}, kPowersB[] = {1, kB, 2, 2 * kB, 4};

struct TransformInput {  // B^T
  static constexpr int kFrom = kIn, kTo = kIn;
  static void apply(const Vector* d, Vector* v) {
    const Vector even_a = d[4] - 2.0f * d[2], odd_a = d[3] - 2.0f * d[1];
    const Vector even_b = d[4] - 0.5f * d[2], odd_b = d[3] - 0.5f * d[1];
    v[0] = d[0] - 2.5f * d[2] + d[4];
    v[1] = even_a + kA * odd_a;
    v[2] = even_a - kA * odd_a;
    v[3] = even_b + kB * odd_b;
    v[4] = even_b - kB * odd_b;
    v[5] = d[1] - 2.5f * d[3] + d[5];
  }
};

// The values at the points of the polynomial with COEFFICIENTS, those at +-a and +-b times a factor: G, with factors
// that the inverse of B^T needs, or A, without.
template <int COEFFICIENTS, bool IS_KERNEL>
struct Evaluate {
  static constexpr int kFrom = COEFFICIENTS, kTo = kIn;
  static constexpr float kFactorA = IS_KERNEL ? -2.0f / 3 : 1, kFactorB = IS_KERNEL ? 1.0f / 6 : 1;
  static void apply(const Vector* from, Vector* to) {
    Vector at_a[2] = {}, at_b[2] = {};  // the even and the odd powers
#pragma GCC unroll 5
    for (int power = 0; power < COEFFICIENTS; ++power) {
      at_a[power % 2] += kFactorA * kPowersA[power] * from[power];
      at_b[power % 2] += kFactorB * kPowersB[power] * from[power];
    }
    to[0] = from[0];
    to[1] = at_a[0] + at_a[1];
    to[2] = at_a[0] - at_a[1];
    to[3] = at_b[0] + at_b[1];
    to[4] = at_b[0] - at_b[1];
    to[5] = from[COEFFICIENTS - 1];
  }
};

// The transpose of Evaluate: G^T or A^T.
template <int COEFFICIENTS, bool IS_KERNEL>
struct Transpose {
  using Of = Evaluate<COEFFICIENTS, IS_KERNEL>;
  static constexpr int kFrom = kIn, kTo = COEFFICIENTS;
  static void apply(const Vector* from, Vector* to) {
    const Vector at_a[2] = {from[1] + from[2], from[1] - from[2]}, at_b[2] = {from[3] + from[4], from[3] - from[4]};
#pragma GCC unroll 5
    for (int power = 0; power < COEFFICIENTS; ++power)
      to[power] = Of::kFactorA * kPowersA[power] * at_a[power % 2] + Of::kFactorB * kPowersB[power] * at_b[power % 2];
    to[0] += from[0];
    to[COEFFICIENTS - 1] += from[5];
  }
};

// Transforms both axes of a tile: calls read(row, column) for its entries, and write(row, column, value) for results.
template <class Transform, class Read, class Write>
__attribute__((always_inline)) inline void transform(const Read& read, const Write& write) {
  constexpr int kFrom = Transform::kFrom, kTo = Transform::kTo;
  Vector half[kTo][kFrom];
#pragma GCC unroll 6
  for (int column = 0; column < kFrom; ++column) {
    Vector from[kFrom], to[kTo];
#pragma GCC unroll 6
    for (int row = 0; row < kFrom; ++row) from[row] = read(row, column);
    Transform::apply(from, to);
#pragma GCC unroll 6
    for (int row = 0; row < kTo; ++row) half[row][column] = to[row];
  }
#pragma GCC unroll 6
  for (int row = 0; row < kTo; ++row) {
    Vector to[kTo];
    Transform::apply(half[row], to);
#pragma GCC unroll 6
    for (int column = 0; column < kTo; ++column) write(row, column, to[column]);
  }
}

// --- what is convolved with what -------------------------------------------------------------------------------------

// out[n, i, o] = sum over taps t and channels c of in[n, i + t - low, c] * kernel[t, c, o], over three axes. The tiles
// are those of the last two axes; along the first one, of volumes, the products of `taps` tiles are added up.
struct Filtering {
  int64_t batch, channels, features, taps;
  int window;  // along the last two axes
  Three size, low, out;
  int64_t next_tap, next_channel, next_feature;  // distances in the kernel

  int64_t rows() const { return ceil_div(out[1], outputs(window)); }
  int64_t columns() const { return ceil_div(out[2], outputs(window)); }
  int64_t tiles() const { return batch * out[0] * rows() * columns(); }
};

// One tile of outputs.
struct Tile2D {
  int64_t image, slice, row, column;  // of its first output

  Tile2D(const Filtering& f, int64_t number) {
    column = number % f.columns() * outputs(f.window);
    number /= f.columns();
    row = number % f.rows() * outputs(f.window);
    number /= f.rows();
    slice = number % f.out[0];
    image = number / f.out[0];
  }
};

// The positions of a square of SIDE x SIDE neighbours in an array [n, *size, channels]; `zeros` for those outside.
template <int SIDE>
struct Square {
  const float* at[SIDE][SIDE];

  Square(const float* array, const Three& size, int64_t channels, int64_t n, int64_t slice, int64_t row, int64_t column,
         const float* zeros) {
    for (int64_t i = 0; i < SIDE; ++i)
      for (int64_t j = 0; j < SIDE; ++j) {
        const bool inside = slice >= 0 && slice < size[0] && row + i >= 0 && row + i < size[1] && column + j >= 0 &&
                            column + j < size[2];
        const int64_t position = ((n * size[0] + slice) * size[1] + row + i) * size[2] + column + j;
        at[i][j] = inside ? array + position * channels : zeros;
      }
  }
};

// Floats from one tile to the next: an odd number of cache lines, if there are many, so that neighbouring tiles do not
// compete for the same places of the L1 cache.
int64_t row_of(int64_t channels) {
  const int64_t lines = ceil_div(channels, 16);
  return 16 * (lines < 16 ? lines : lines | 1);
}

// Floats from one point to the next, for the same reason.
int64_t plane_of(int64_t floats) { return ceil_div(floats, 32) * 32 + 16; }

Vector load_some(const float* from, int64_t count) {
  if (count >= kLanes) return load(from);
  float all[kLanes] = {};
  std::memcpy(all, from, sizeof(float) * count);
  return load(all);
}

void store_some(float* to, Vector vector, int64_t count) {
  if (count >= kLanes) return store(to, vector);
  float all[kLanes];
  store(all, vector);
  std::memcpy(to, all, sizeof(float) * count);
}

bool has_nan(Vector vector) {
  bool found = false;
  for (int lane = 0; lane < kLanes; ++lane) found |= std::isnan(vector[lane]);
  return found;
}

// B^T X B of channels [c0, c1), at least kLanes, for tiles [first, end): [point, tile, channel]. The last vector may
// overlap the one before it.
void transform_inputs(const Filtering& f, const float* x, int64_t tap, int64_t first, int64_t end, int64_t c0,
                      int64_t c1, const float* zeros, float* to, int64_t row, int64_t plane) {
  for (int64_t number = first; number < end; ++number, to += row) {
    const Tile2D tile(f, number);
    const Square<kIn> in(x, f.size, f.channels, tile.image, tile.slice + tap - f.low[0], tile.row - f.low[1],
                         tile.column - f.low[2], zeros);
    for (int64_t next = c0; next < c1; next += kLanes) {
      const int64_t c = std::min(next, c1 - kLanes);
      float* at = to + c - c0;
      transform<TransformInput>([&](int i, int j) { return load(in.at[i][j] + c); },
                                [&](int i, int j, Vector value) { store(at + (i * kIn + j) * plane, value); });
    }
  }
}

// --- output and input gradient ---------------------------------------------------------------------------------------

// A block of features, of one or two vectors.
struct Panel {
  int64_t first, columns;  // columns may be fewer than the lanes
  int vectors;
  int64_t width() const { return vectors * kLanes; }
};

std::vector<Panel> panels_of(int64_t features) {
  std::vector<Panel> panels;
  for (int64_t first = 0; first < features; first += 2 * kLanes) {
    const int64_t columns = std::min<int64_t>(features - first, 2 * kLanes);
    panels.push_back({first, columns, columns > kLanes ? 2 : 1});
  }
  return panels;
}

// Copies `rows` x `columns` entries to a square of kLanes x kLanes, transposed if neighbouring columns are not
// neighbours in memory.
void copy_square(const float* from, int64_t next_row, int64_t next_column, int64_t rows, int64_t columns, float* to) {
  if (next_column == 1) {
    for (int64_t r = 0; r < rows; ++r) store(to + r * kLanes, load_some(from + r * next_row, columns));
    return;
  }
  Vector square[kLanes];
  for (int64_t c = 0; c < kLanes; ++c) square[c] = c < columns ? load_some(from + c * next_column, rows) : Vector{};
  transpose(square);
  for (int64_t r = 0; r < rows; ++r) store(to + r * kLanes, square[r]);
}

// G K G^T of channels [c0, c1) of a panel: [point, tap of the first axis, channel, lane].
template <int WINDOW>
void transform_kernels(const Filtering& f, const Panel& panel, int64_t c0, int64_t c1, const float* kernel, float* to,
                       int64_t plane) {
  constexpr int64_t kSquare = kLanes * kLanes, kTaps = WINDOW * WINDOW;
  for (int64_t tap = 0; tap < f.taps; ++tap)
    for (int64_t c = c0; c < c1; c += kLanes)
      for (int v = 0; v < panel.vectors; ++v) {
        const int64_t rows = std::min<int64_t>(kLanes, c1 - c), columns = panel.columns - v * kLanes;
        const float* from = kernel + tap * kTaps * f.next_tap + c * f.next_channel +
                            (panel.first + v * kLanes) * f.next_feature;
        float squares[kTaps * kSquare];
        for (int t = 0; t < kTaps; ++t)
          copy_square(from + t * f.next_tap, f.next_channel, f.next_feature, rows,
                      std::min<int64_t>(kLanes, columns), squares + t * kSquare);
        const float* next = from + kLanes * f.next_channel;  // read after these
        for (int64_t r = 0; r < rows; ++r, next += std::max(f.next_channel, f.next_feature)) {
          for (int t = 0; t < kTaps; ++t) __builtin_prefetch(next + t * f.next_tap);
          float* at = to + (tap * f.channels + c + r) * panel.width() + v * kLanes;
          transform<Evaluate<WINDOW, true>>(
              [&](int i, int j) { return load(squares + (i * WINDOW + j) * kSquare + r * kLanes); },
              [&](int i, int j, Vector value) { store(at + (i * kIn + j) * plane, value); });
        }
      }
}

// A^T M A of tiles [first, end) of a panel. Marks the images that have outputs which are not finite.
template <int WINDOW>
void transform_outputs(const Filtering& f, const Panel& panel, int64_t first, int64_t end, const float* from,
                       int64_t plane, float* y, std::atomic<bool>* is_not_finite) {
  constexpr int kOut = outputs(WINDOW);
  for (int64_t number = first; number < end; ++number, from += panel.width()) {
    const Tile2D tile(f, number);
    const int64_t rows = std::min<int64_t>(kOut, f.out[1] - tile.row);
    const int64_t columns = std::min<int64_t>(kOut, f.out[2] - tile.column), line = f.out[2] * f.features;
    float* to = y + ((tile.image * f.out[0] + tile.slice) * f.out[1] + tile.row) * line + tile.column * f.features +
                panel.first;
    Vector check = {};  // NaN if a value is not finite
    for (int v = 0; v < panel.vectors; ++v) {
      const int64_t lanes = panel.columns - v * kLanes;
      transform<Transpose<kOut, false>>(
          [&](int i, int j) { return load(from + (i * kIn + j) * plane + v * kLanes); },
          [&](int i, int j, Vector value) {
            check += value * 0.0f;
            if (i < rows && j < columns) store_some(to + i * line + j * f.features + v * kLanes, value, lanes);
          });
    }
    if (has_nan(check)) is_not_finite[tile.image].store(true, std::memory_order_relaxed);
  }
}

// Where the inputs of each tap of the first axis begin.
std::vector<int64_t> segments_of(const Filtering& f, int64_t distance) {
  std::vector<int64_t> segments;
  for (int64_t tap = 0; tap < f.taps; ++tap) segments.push_back(tap * distance);
  return segments;
}

// The products of `tiles` tiles and a panel at all points: [point, tile, lane].
void multiply(const float* v, int64_t row, int64_t v_plane, const std::vector<int64_t>& segments, int64_t channels,
              const float* u, int64_t u_plane, const Panel& panel, int64_t tiles, float* m, int64_t m_plane) {
  const int64_t pieces = ceil_div(tiles, most(panel.vectors)), width = panel.width();
  for (int64_t point = 0; point < kPoints; ++point, v += v_plane, u += u_plane, m += m_plane)
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t first = first_of(tiles, piece, pieces), end = first_of(tiles, piece + 1, pieces);
      tile_of(panel.vectors, end - first)(v + first * row, row, segments.data(), segments.size(), channels, u,
                                          m + first * width, width, width);
    }
}

// There are two ways to share the work. If the transforms of all inputs can be stored, and those of the kernels are too
// large for the cache, then threads share the panels. Each of them transforms the kernels of a panel and multiplies all
// tiles by them at once, while they are in its cache.
template <int WINDOW>
void share_panels(Pool& pool, const Filtering& f, const float* x, const float* kernel, const float* zeros, float* y,
                  std::atomic<bool>* is_not_finite) {
  const std::vector<Panel> panels = panels_of(f.features);
  const int64_t tiles = f.tiles(), blocks = ceil_div(tiles, kTiles), row = row_of(f.channels);
  const int64_t v_plane = plane_of(f.taps * tiles * row), u_plane = plane_of(f.taps * f.channels * 2 * kLanes);
  const int64_t m_plane = plane_of(kTiles * 2 * kLanes);
  const std::vector<int64_t> segments = segments_of(f, tiles * row);
  Scratch v(kKernel, kPoints * v_plane);
  const int64_t some = ceil_div(tiles, ceil_div(tiles, 8));
  parallel(pool, ceil_div(tiles, some) * f.taps, [&](int64_t i) {
    const int64_t first = i / f.taps * some, end = std::min(tiles, first + some), tap = i % f.taps;
    transform_inputs(f, x, tap, first, end, 0, f.channels, zeros, v.data() + segments[tap] + first * row, row, v_plane);
  });
  parallel(pool, panels.size(), [&](int64_t i) {
    Scratch u(kInput, kPoints * u_plane), m(kOther, kPoints * m_plane);
    transform_kernels<WINDOW>(f, panels[i], 0, f.channels, kernel, u.data(), u_plane);
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t first = first_of(tiles, block, blocks), end = first_of(tiles, block + 1, blocks);
      multiply(v.data() + first * row, row, v_plane, segments, f.channels, u.data(), u_plane, panels[i], end - first,
               m.data(), m_plane);
      transform_outputs<WINDOW>(f, panels[i], first, end, m.data(), m_plane, y, is_not_finite);
    }
  });
}

// Otherwise, threads share blocks of tiles. Each of them transforms the inputs of a block and multiplies them by the
// kernels of as many panels as can be stored.
template <int WINDOW>
void share_tiles(Pool& pool, const Filtering& f, const float* x, const float* kernel, const float* zeros, float* y,
                 std::atomic<bool>* is_not_finite) {
  const std::vector<Panel> panels = panels_of(f.features);
  const int64_t count = panels.size(), tiles = f.tiles(), threads = std::max<int64_t>(1, pool.num_threads());
  const int64_t row = row_of(f.channels), u_plane = plane_of(f.taps * f.channels * 2 * kLanes);
  const int64_t u_floats = kPoints * u_plane, some = std::clamp<int64_t>(kStored / u_floats, 1, count);
  const int64_t most_tiles = std::max<int64_t>(kCached / (kPoints * f.taps * row), kTiles);
  const int64_t blocks = std::min(tiles, ceil_div(ceil_div(tiles, most_tiles), threads) * threads);
  Scratch u(kKernel, some * u_floats);
  for (int64_t chunk = 0; chunk < count; chunk += some) {
    const int64_t here = std::min(some, count - chunk), parts = ceil_div(f.channels, 64);
    parallel(pool, here * parts, [&](int64_t i) {
      const int64_t c0 = i % parts * 64, c1 = std::min(f.channels, c0 + 64);
      transform_kernels<WINDOW>(f, panels[chunk + i / parts], c0, c1, kernel, u.data() + i / parts * u_floats, u_plane);
    });
    parallel(pool, blocks, [&](int64_t block) {
      const int64_t first = first_of(tiles, block, blocks), end = first_of(tiles, block + 1, blocks);
      const std::vector<int64_t> segments = segments_of(f, (end - first) * row);
      const int64_t v_plane = plane_of(f.taps * (end - first) * row), m_plane = plane_of((end - first) * 2 * kLanes);
      Scratch v(kInput, kPoints * v_plane), m(kOther, kPoints * m_plane);
      for (int64_t tap = 0; tap < f.taps; ++tap)
        transform_inputs(f, x, tap, first, end, 0, f.channels, zeros, v.data() + segments[tap], row, v_plane);
      for (int64_t i = 0; i < here; ++i) {
        const Panel& panel = panels[chunk + i];
        multiply(v.data(), row, v_plane, segments, f.channels, u.data() + i * u_floats, u_plane, panel, end - first,
                 m.data(), m_plane);
        transform_outputs<WINDOW>(f, panel, first, end, m.data(), m_plane, y, is_not_finite);
      }
    });
  }
}

template <int WINDOW>
void filter(Pool& pool, const Filtering& f, const float* x, const float* kernel, float* y,
            std::atomic<bool>* is_not_finite) {
  const std::vector<float> zeros(f.channels);
  const bool store_inputs = kPoints * f.taps * f.tiles() * row_of(f.channels) <= kStored;
  const bool cache_kernels = kPoints * f.taps * f.channels * f.features <= kCached;
  const auto compute = store_inputs && !cache_kernels ? share_panels<WINDOW> : share_tiles<WINDOW>;
  compute(pool, f, x, kernel, zeros.data(), y, is_not_finite);
}

// --- kernel gradient -------------------------------------------------------------------------------------------------

// A dY A^T of features [o0, o1) for tiles [first, end): [point, panel, tile, lane].
template <int WINDOW>
void transform_gradients(const Filtering& f, const float* dy, int64_t first, int64_t end, int64_t o0, int64_t o1,
                         const float* zeros, float* to, int64_t plane) {
  for (int64_t number = first; number < end; ++number, to += 2 * kLanes) {
    const Tile2D tile(f, number);
    const Square<outputs(WINDOW)> out(dy, f.out, f.features, tile.image, tile.slice, tile.row, tile.column, zeros);
    for (int64_t o = o0; o < o1; o += kLanes) {
      const int64_t panel = (o - o0) / (2 * kLanes), lane = (o - o0) % (2 * kLanes);
      float* at = to + panel * (end - first) * 2 * kLanes + lane;
      transform<Evaluate<outputs(WINDOW), false>>([&](int i, int j) { return load_some(out.at[i][j] + o, o1 - o); },
                                 [&](int i, int j, Vector value) { store(at + (i * kIn + j) * plane, value); });
    }
  }
}

// G^T dU G of channels [c0, c1) and features [o0, o1), from du [point, channel, feature]. Says whether it is finite.
template <int WINDOW>
bool transform_kernel_gradient(const Filtering& f, int64_t c0, int64_t c1, int64_t o0, int64_t o1, const float* du,
                               int64_t row, int64_t plane, float* dk) {
  Vector check = {};
  for (int64_t c = c0; c < c1; ++c, du += row)
    for (int64_t o = o0; o < o1; o += kLanes)
      transform<Transpose<WINDOW, true>>([&](int i, int j) { return load(du + (i * kIn + j) * plane + o - o0); },
                                 [&](int i, int j, Vector value) {
                                   check += value * 0.0f;
                                   float* to = dk + ((i * WINDOW + j) * f.channels + c) * f.features + o;
                                   store_some(to, value, o1 - o);
                                 });
  return !has_nan(check);
}

// Each part of the work is a block of channels and of features, over one piece of the tiles. The number of pieces
// depends on the shapes alone, so that the result has the same bits for any number of threads.
template <int WINDOW>
bool kernel_gradient(Pool& pool, const Filtering& f, const float* x, const float* dy, float* dk) {
  const int64_t channel_blocks = ceil_div(f.channels, kChannels), feature_blocks = ceil_div(f.features, kChannels);
  const int64_t all = channel_blocks * feature_blocks, tiles = f.tiles();
  const int64_t most_channels = ceil_div(f.channels, channel_blocks);
  const int64_t most_features = ceil_div(ceil_div(f.features, feature_blocks), 2 * kLanes) * 2 * kLanes;
  const int64_t most_tiles = std::max<int64_t>(kCached / (kPoints * (most_channels + most_features)), 64);
  const int64_t pieces = std::clamp<int64_t>(tiles / most_tiles, 1, ceil_div(kPieces, all));
  const int64_t floats = f.taps * WINDOW * WINDOW * f.channels * f.features;
  const std::vector<float> zeros(std::max(f.channels, f.features));
  std::atomic<bool> finite{true};

  Scratch sums(kKernel, pieces > 1 ? pieces * floats : 0);
  parallel(pool, pieces * all, [&](int64_t item) {
    const int64_t piece = item / all, block = item % all;
    const int64_t c0 = first_of(f.channels, block / feature_blocks, channel_blocks);
    const int64_t c1 = first_of(f.channels, block / feature_blocks + 1, channel_blocks);
    const std::vector<Panel> panels = panels_of(f.features);
    const int64_t last = panels.size(), p0 = first_of(last, block % feature_blocks, feature_blocks);
    const int64_t p1 = first_of(last, block % feature_blocks + 1, feature_blocks);
    const int64_t o0 = panels[p0].first, o1 = p1 == last ? f.features : panels[p1].first;
    const int64_t v_row = row_of(c1 - c0), v_plane = plane_of(most_tiles * v_row);
    const int64_t w_plane = plane_of((p1 - p0) * most_tiles * 2 * kLanes);
    const int64_t du_row = (p1 - p0) * 2 * kLanes, du_plane = plane_of((c1 - c0) * du_row);
    Scratch transforms(kInput, kPoints * (v_plane + w_plane)), du(kOther, f.taps * kPoints * du_plane);
    float *v = transforms.data(), *w = v + kPoints * v_plane;
    std::memset(du.data(), 0, sizeof(float) * f.taps * kPoints * du_plane);

    const int64_t begin = first_of(tiles, piece, pieces), stop = first_of(tiles, piece + 1, pieces);
    for (int64_t first = begin; first < stop; first += most_tiles) {
      const int64_t end = std::min(stop, first + most_tiles), count = end - first;
      transform_gradients<WINDOW>(f, dy, first, end, o0, o1, zeros.data(), w, w_plane);
      for (int64_t tap = 0; tap < f.taps; ++tap) {
        transform_inputs(f, x, tap, first, end, c0, c1, zeros.data(), v, v_row, v_plane);
        for (int64_t point = 0; point < kPoints; ++point)
          for (int64_t p = p0; p < p1; ++p) {
            const int vectors = panels[p].vectors;
            const int64_t strips = ceil_div(c1 - c0, most(vectors));
            const float* gradient = w + point * w_plane + (p - p0) * count * 2 * kLanes;
            for (int64_t strip = 0; strip < strips; ++strip) {
              const int64_t c = first_of(c1 - c0, strip, strips), next = first_of(c1 - c0, strip + 1, strips);
              block_of(vectors, next - c)(v + point * v_plane + c, 0, v_row, gradient, 0, 2 * kLanes, 1, count,
                                          du.data() + (tap * kPoints + point) * du_plane + c * du_row +
                                              (p - p0) * 2 * kLanes,
                                          du_row);
            }
          }
      }
    }
    float* to = pieces > 1 ? sums.data() + piece * floats : dk;
    for (int64_t tap = 0; tap < f.taps; ++tap)
      if (!transform_kernel_gradient<WINDOW>(f, c0, c1, o0, o1, du.data() + tap * kPoints * du_plane, du_row, du_plane,
                                     to + tap * WINDOW * WINDOW * f.channels * f.features))
        finite = false;
  });
  if (pieces > 1) {
    const int64_t shares = ceil_div(floats, 1 << 14);
    parallel(pool, shares, [&](int64_t share) {
      float check = 0;
      for (int64_t i = first_of(floats, share, shares); i < first_of(floats, share + 1, shares); ++i) {
        float sum = 0;
        for (int64_t piece = 0; piece < pieces; ++piece) sum += sums.data()[piece * floats + i];
        dk[i] = sum;
        check += sum * 0.0f;
      }
      if (std::isnan(check)) finite = false;
    });
  }
  return finite;
}

// An image as a volume of one slice.
Problem with_slices(Problem p) {
  if (p.window[1] == 1)
    for (Three* of : {&p.size, &p.window, &p.out, &p.stride, &p.low, &p.dilation}) std::swap((*of)[0], (*of)[1]);
  return p;
}

}  // namespace

bool winograd_is_possible(const Problem& problem) {
  const Problem p = with_slices(problem);
  return (p.window[1] == 3 || p.window[1] == 5) && p.window[2] == p.window[1] && p.stride == Three{1, 1, 1} &&
         p.dilation == Three{1, 1, 1} && p.groups == 1 && p.channels >= kLanes && p.features >= kLanes;
}

void convolve_by_winograd(Pool& pool, const Problem& problem, Product which, const float* a, const float* b,
                          float* result) {
  const Problem p = with_slices(problem);
  const int64_t pairs = p.channels * p.features;
  const int window = static_cast<int>(p.window[2]);
  Filtering f{p.batch, p.channels, p.features, p.window[0], window, p.size, p.low, p.out, pairs, p.features, 1};
  if (which == kKernelGradient) {
    const auto compute = window == 3 ? kernel_gradient<3> : kernel_gradient<5>;
    if (!compute(pool, f, a, b, result)) convolve(pool, problem, which, a, b, result);
    return;
  }
  const float* kernel = b;
  if (which == kInputGradient) {  // the flipped kernel, from its last tap on
    f = {p.batch, p.features, p.channels, p.window[0], window, p.out, {}, p.size, -pairs, 1, p.features};
    for (int axis : {0, 1, 2}) f.low[axis] = p.window[axis] - 1 - p.low[axis];
    kernel += (product(p.window) - 1) * pairs;
  }
  const std::unique_ptr<std::atomic<bool>[]> is_not_finite(new std::atomic<bool>[p.batch]());
  const auto compute = window == 3 ? filter<3> : filter<5>;
  compute(pool, f, a, kernel, result, is_not_finite.get());
  Problem one = problem;
  one.batch = 1;
  for (int64_t n = 0; n < p.batch; ++n)
    if (is_not_finite[n])
      convolve(pool, one, which, a + n * product(f.size) * f.channels, b, result + n * product(f.out) * f.features);
}

}  // namespace cnn_jax
