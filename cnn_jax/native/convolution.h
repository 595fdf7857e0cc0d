// A convolution, and the two ways to compute its products.
#pragma once

#include <array>
#include <cstdint>

#include "parallel.h"

namespace cnn_jax {

using Three = std::array<int64_t, 3>;

inline int64_t product(const Three& three) { return three[0] * three[1] * three[2]; }

// The arguments of a convolution. Axes that it does not have are of size 1.
struct Problem {
  int64_t batch, channels, features, groups;
  Three size, window, out, stride, low, dilation;
};

enum Product { kOutput, kInputGradient, kKernelGradient };

// The output from x and the kernel, the input gradient from dy and the kernel, or the kernel gradient from x and dy.
// Direct sums (convolution.cc), for every problem:
void convolve(Pool& pool, const Problem& problem, Product which, const float* a, const float* b, float* result);
// Winograd's algorithm (winograd.cc):
bool winograd_is_possible(const Problem& problem);
void convolve_by_winograd(Pool& pool, const Problem& problem, Product which, const float* a, const float* b,
                          float* result);

}  // namespace cnn_jax
