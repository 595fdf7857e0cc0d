// The vector type of all kernels: as wide as the processor that this is compiled for.
#pragma once

#include <cstdint>

namespace cnn_jax {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kRegisters = 32;
#elif defined(__AVX__)
constexpr int kLanes = 8, kRegisters = 16;
#else
constexpr int kLanes = 4, kRegisters = 16;
#endif

// GCC and Clang compile arithmetic on this type to vector instructions. Arrays need no alignment beyond that of floats.
typedef float Vector __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void store(float* to, Vector vector) { *reinterpret_cast<Vector*>(to) = vector; }

// Copies lane `number` of each group of GROUP neighbouring lanes to all lanes of the group.
template <int GROUP>
inline Vector spread(Vector vector, int number) {
  if constexpr (GROUP == 1) return vector;
  typedef int32_t Lanes __attribute__((vector_size(4 * kLanes)));
  Lanes from;
#pragma GCC unroll 16
  for (int lane = 0; lane < kLanes; ++lane) from[lane] = lane / GROUP * GROUP + number;
#if defined(__clang__)
  Vector result;
  for (int lane = 0; lane < kLanes; ++lane) result[lane] = vector[from[lane]];
  return result;
#else
  return __builtin_shuffle(vector, from);
#endif
}

// Exchanges row i + HALF's lanes without the bit HALF and row i's lanes with it, for all pairs of rows.
template <int HALF>
inline void exchange(Vector (&rows)[kLanes]) {
  typedef int32_t Lanes __attribute__((vector_size(4 * kLanes)));
  Lanes lower, upper;
#pragma GCC unroll 16
  for (int lane = 0; lane < kLanes; ++lane) {
    lower[lane] = lane & HALF ? kLanes + lane - HALF : lane;
    upper[lane] = lane & HALF ? kLanes + lane : lane + HALF;
  }
#pragma GCC unroll 16
  for (int row = 0; row < kLanes; ++row) {
    if (row & HALF) continue;
    const Vector a = rows[row], b = rows[row + HALF];
#if defined(__clang__)
    for (int lane = 0; lane < kLanes; ++lane) {
      rows[row][lane] = lower[lane] < kLanes ? a[lower[lane]] : b[lower[lane] - kLanes];
      rows[row + HALF][lane] = upper[lane] < kLanes ? a[upper[lane]] : b[upper[lane] - kLanes];
    }
#else
    rows[row] = __builtin_shuffle(a, b, lower);
    rows[row + HALF] = __builtin_shuffle(a, b, upper);
#endif
  }
}

// Transposes a square of vectors: blocks of half its size first, then those within them.
template <int HALF = kLanes / 2>
inline void transpose(Vector (&rows)[kLanes]) {
  exchange<HALF>(rows);
  if constexpr (HALF > 1) transpose<HALF / 2>(rows);
}

}  // namespace cnn_jax
