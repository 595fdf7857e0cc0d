// The innermost loops of matrix products, which keep a block of sums in registers.
#pragma once

#include <cstdint>

#include "vectors.h"

namespace cnn_jax {

// The most pixels, or channels, whose sums fit into the registers beside the vectors that they are multiplied by.
constexpr int most(int vectors) { return kRegisters == 32 ? (vectors == 2 ? 14 : 16) : (vectors == 2 ? 6 : 12); }

// y[m, :] = the sum over all segments and their entries c of x[m * pixel + segment + c] * kernel[next row, :].
//
// A segment is a run of inputs that are neighbours in memory: the channels of one tap, or of a row of taps.
using Tile = void (*)(const float* x, int64_t pixel, const int64_t* segments, int64_t count, int64_t run,
                      const float* kernel, float* y, int64_t y_pixel, int columns);

// out[c, :] += the sum over rows and pixels of x[row, pixel, c] * dy[row, pixel, :].
using Block = void (*)(const float* x, int64_t x_row, int64_t x_pixel, const float* dy, int64_t dy_row,
                       int64_t dy_pixel, int64_t rows, int64_t pixels, float* out, int64_t out_row);

// The loop for one or two vectors and up to most(vectors) pixels.
Tile tile_of(int vectors, int64_t pixels);

// The loop for one or two vectors and up to most(vectors) channels.
Block block_of(int vectors, int64_t channels);

}  // namespace cnn_jax
