// The innermost loops of matrix products, see products.h. Multiplications and not loads limit their speed: one or two
// vectors of the kernel, or of the gradient, are read for all pixels or channels, and one number for each of those.

#include "products.h"

#include <array>
#include <cstring>
#include <utility>

namespace cnn_jax {
namespace {

template <int PIXELS, int VECTORS>
void output_tile(const float* x, int64_t pixel, const int64_t* segments, int64_t count, int64_t run,
                 const float* kernel, float* y, int64_t y_pixel, int columns) {
  Vector sums[PIXELS][VECTORS] = {};
  for (int64_t segment = 0; segment < count; ++segment) {
    const float* from = x + segments[segment];
    for (int64_t c = 0; c < run; ++c, kernel += VECTORS * kLanes) {
      Vector weights[VECTORS];
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) weights[v] = load(kernel + v * kLanes);
#pragma GCC unroll 16
      for (int m = 0; m < PIXELS; ++m)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) sums[m][v] += from[m * pixel + c] * weights[v];
    }
  }
  if (columns == VECTORS * kLanes) {
#pragma GCC unroll 16
    for (int m = 0; m < PIXELS; ++m)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) store(y + m * y_pixel + v * kLanes, sums[m][v]);
    return;
  }
  float all[PIXELS][VECTORS * kLanes];
  for (int m = 0; m < PIXELS; ++m) {
    for (int v = 0; v < VECTORS; ++v) store(&all[m][v * kLanes], sums[m][v]);
    std::memcpy(y + m * y_pixel, all[m], sizeof(float) * columns);
  }
}

template <int CHANNELS, int VECTORS>
void gradient_block(const float* x, int64_t x_row, int64_t x_pixel, const float* dy, int64_t dy_row, int64_t dy_pixel,
                    int64_t rows, int64_t pixels, float* out, int64_t out_row) {
  Vector sums[CHANNELS][VECTORS];
#pragma GCC unroll 16
  for (int c = 0; c < CHANNELS; ++c)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) sums[c][v] = load(out + c * out_row + v * kLanes);
  for (int64_t row = 0; row < rows; ++row) {
    const float *from = x + row * x_row, *other = dy + row * dy_row;
    for (int64_t pixel = 0; pixel < pixels; ++pixel, from += x_pixel, other += dy_pixel) {
      Vector gradient[VECTORS];
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) gradient[v] = load(other + v * kLanes);
#pragma GCC unroll 16
      for (int c = 0; c < CHANNELS; ++c)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) sums[c][v] += from[c] * gradient[v];
    }
  }
#pragma GCC unroll 16
  for (int c = 0; c < CHANNELS; ++c)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) store(out + c * out_row + v * kLanes, sums[c][v]);
}

template <int VECTORS, int... N>
constexpr std::array<Tile, sizeof...(N)> tiles(std::integer_sequence<int, N...>) {
  return {output_tile<N + 1, VECTORS>...};
}
template <int VECTORS, int... N>
constexpr std::array<Block, sizeof...(N)> blocks(std::integer_sequence<int, N...>) {
  return {gradient_block<N + 1, VECTORS>...};
}

}  // namespace

Tile tile_of(int vectors, int64_t pixels) {
  static constexpr auto one = tiles<1>(std::make_integer_sequence<int, most(1)>());
  static constexpr auto two = tiles<2>(std::make_integer_sequence<int, most(2)>());
  return vectors == 2 ? two[pixels - 1] : one[pixels - 1];
}

Block block_of(int vectors, int64_t channels) {
  static constexpr auto one = blocks<1>(std::make_integer_sequence<int, most(1)>());
  static constexpr auto two = blocks<2>(std::make_integer_sequence<int, most(2)>());
  return vectors == 2 ? two[channels - 1] : one[channels - 1];
}

}  // namespace cnn_jax
