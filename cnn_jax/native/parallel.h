// Work on XLA's threads, and memory for intermediate results.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>

#include "xla/ffi/api/ffi.h"

namespace cnn_jax {

using Pool = xla::ffi::ThreadPool;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The first item of part `index` of `parts` nearly equal parts of `count` items.
inline int64_t first_of(int64_t count, int64_t index, int64_t parts) { return count * index / parts; }

// Calls work(0) ... work(count - 1), on several threads.
//
// The calling thread takes part, and in the end waits only for items that another thread has begun. It never waits for
// tasks in the queue: the caller is itself a thread of the pool, and if all threads waited for queued tasks, none would
// be left to run them.
template <class Work>
void parallel(Pool& pool, int64_t count, const Work& work) {
  const int64_t helpers = std::min(count, pool.num_threads()) - 1;
  if (helpers < 1) {
    for (int64_t item = 0; item < count; ++item) work(item);
    return;
  }
  struct State {
    std::atomic<int64_t> next{0}, done{0};
    std::atomic<bool> out_of_memory{false};
  };
  auto state = std::make_shared<State>();  // outlives this call: a helper may start after all items are done
  auto take = [state, count, &work] {
    for (int64_t item; (item = state->next.fetch_add(1)) < count;) {
      try {
        work(item);
      } catch (const std::bad_alloc&) {
        state->out_of_memory = true;
      }
      state->done.fetch_add(1, std::memory_order_release);
    }
  };
  for (int64_t helper = 0; helper < helpers; ++helper) pool.Schedule(decltype(take)(take));
  take();
  for (int tries = 0; state->done.load(std::memory_order_acquire) < count; ++tries) {
    if (tries < 2000) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    } else {
      std::this_thread::yield();
    }
  }
  if (state->out_of_memory) throw std::bad_alloc();
}

// Memory for intermediate results, aligned to cache lines.
//
// Each thread keeps one block of each kind for the next call, if it is no larger than kKept. This is all the memory
// that remains between calls: at most 3 kinds of kKept for each thread.
constexpr size_t kKept = size_t{8} << 20;

enum Kind { kKernel, kInput, kOther };

class Scratch {
 public:
  Scratch(Kind kind, int64_t floats) : block_(kept(kind)) {
    const size_t bytes = (sizeof(float) * std::max<int64_t>(floats, 1) + 4095) / 4096 * 4096;
    if (bytes <= block_.bytes) return;
    std::free(block_.data);
    block_.data = static_cast<float*>(std::aligned_alloc(4096, bytes));
    block_.bytes = block_.data ? bytes : 0;
    if (!block_.data) throw std::bad_alloc();
  }
  ~Scratch() {
    if (block_.bytes <= kKept) return;
    std::free(block_.data);
    block_ = {};
  }
  Scratch(const Scratch&) = delete;
  float* data() const { return block_.data; }

 private:
  struct Block {
    float* data = nullptr;
    size_t bytes = 0;
  };
  struct Blocks {
    Block of[3];
    ~Blocks() {
      for (Block& block : of) std::free(block.data);
    }
  };
  static Block& kept(Kind kind) {
    static thread_local Blocks blocks;
    return blocks.of[kind];
  }
  Block& block_;
};

}  // namespace cnn_jax
