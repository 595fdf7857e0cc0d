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

}  // namespace cnn_jax
