// The three products of a convolution, in float32 with channels last: the output, the input gradient, and the kernel
// gradient. Any window, stride, padding and dilation of the kernel, in one to three dimensions, with groups.
//
// Output and input gradient are the same loop, `slide`: an input gradient is a sum over the outputs that an input
// contributes to, once for each position within a stride. Its innermost function, `output_tile`, keeps the sums of up
// to 14 neighbouring positions times two vectors of features in registers until they are complete. It reads one vector
// of the kernel and one number per position for each product, so that multiplications and not loads limit its speed.
// The kernel is copied to `panels` first: all its entries for one tile's features, one after the other.
//
// The kernel gradient, a sum over all positions, keeps the sums of a block of channels times features in registers
// (`gradient_block`). There are two ways to share this work among threads, see `kernel_gradient`.
//
// Groups of so few channels and as many features that several fit into a vector, such as the single ones of a
// depthwise convolution, have loops of their own, `narrow_tile` and `narrow_gradient_block`: the lanes of a vector are
// neighbouring channels of several groups, and one channel of each group is spread over the lanes of its group.
//
// An input that needs padding is copied, with its zeros, in slabs of rows that fit into the processor's cache. The inputs
// of several groups are copied group by group. Narrow groups read long lines in place, and copy only their ends.

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "convolution.h"
#include "parallel.h"
#include "products.h"
#include "vectors.h"

namespace ffi = xla::ffi;

namespace cnn_jax {
namespace {

constexpr int64_t kSlab = int64_t{1} << 18;         // floats of input that are handled at a time: half an L2 cache
constexpr int64_t kRows = 4096;                     // floats of input or gradient rows that stay in the L1 cache
constexpr int64_t kSmallGradient = int64_t{3} << 15;  // floats of a kernel gradient of which each piece has a copy
constexpr int64_t kShared = int64_t{1} << 21;       // floats of inputs and of gradients that all threads work on
constexpr int64_t kWorthSharing = 1 << 15;          // floats from which copies are shared among threads
constexpr int kBlock = kRegisters == 32 ? 8 : 4;    // channels of a block of a large kernel gradient

// --- the innermost loops ---------------------------------------------------------------------------------------------

// One vector of features of narrow groups: y[m, o] = the sum over taps t and channels c of the group of
// at[t][offset + m * pixel + c] * kernel[tap[t], c, o].
//
// The taps come in runs of RUN, which read inputs a pixel apart, so that each input is read and spread once for a run.
template <int PIXELS, int GROUP, int RUN>
void narrow_tile(const float* const* at, int64_t offset, int64_t pixel, const int64_t* tap, int64_t taps,
                 const float* kernel, int64_t features, float* y, int64_t y_pixel) {
  Vector sums[PIXELS] = {};
  for (int64_t t = 0; t < taps; t += RUN)
#pragma GCC unroll 8
    for (int c = 0; c < GROUP; ++c) {
      Vector weights[RUN];
#pragma GCC unroll 8
      for (int k = 0; k < RUN; ++k) weights[k] = load(kernel + tap[t + k] + c * features);
#pragma GCC unroll 16
      for (int i = 0; i < PIXELS + RUN - 1; ++i) {
        const Vector value = spread<GROUP>(load(at[t] + offset + i * pixel), c);
#pragma GCC unroll 8
        for (int k = 0; k < RUN; ++k)
          if (i >= k && i - k < PIXELS) sums[i - k] += value * weights[k];
      }
    }
#pragma GCC unroll 16
  for (int m = 0; m < PIXELS; ++m) store(y + m * y_pixel, sums[m]);
}

// One vector of features of the kernel gradient of narrow groups:
// out[t, c, o] += the sum over pixels of at[t][offset + pixel + c] * dy[pixel, o].
template <int TAPS, int GROUP>
void narrow_gradient_block(const float* const* at, int64_t offset, int64_t x_pixel, const float* dy, int64_t features,
                           int64_t pixels, float* out) {
  Vector sums[TAPS][GROUP];
#pragma GCC unroll 8
  for (int t = 0; t < TAPS; ++t)
#pragma GCC unroll 8
    for (int c = 0; c < GROUP; ++c) sums[t][c] = load(out + (t * GROUP + c) * features);
  for (int64_t pixel = 0; pixel < pixels; ++pixel, offset += x_pixel, dy += features) {
    const Vector gradient = load(dy);
#pragma GCC unroll 8
    for (int t = 0; t < TAPS; ++t) {
      const Vector value = load(at[t] + offset);
#pragma GCC unroll 8
      for (int c = 0; c < GROUP; ++c) sums[t][c] += spread<GROUP>(value, c) * gradient;
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < TAPS; ++t)
#pragma GCC unroll 8
    for (int c = 0; c < GROUP; ++c) store(out + (t * GROUP + c) * features, sums[t][c]);
}

// The same for RUN taps that read neighbouring inputs, where x is the first: each input is spread once for all of them.
template <int RUN, int GROUP>
void narrow_gradient_run(const float* x, int64_t x_pixel, const float* dy, int64_t features, int64_t pixels,
                         float* out) {
  Vector sums[RUN][GROUP];
#pragma GCC unroll 8
  for (int t = 0; t < RUN; ++t)
#pragma GCC unroll 8
    for (int c = 0; c < GROUP; ++c) sums[t][c] = load(out + (t * GROUP + c) * features);
  // The input of number i, for taps [first, end). The sums stay in registers only if this is inlined.
  auto column = [&](int64_t i, int64_t first, int64_t end) __attribute__((always_inline)) {
    const Vector value = load(x + i * x_pixel);
    Vector gradients[RUN];
#pragma GCC unroll 8
    for (int t = 0; t < RUN; ++t)
      if (t >= first && t < end) gradients[t] = load(dy + (i - t) * features);
#pragma GCC unroll 8
    for (int c = 0; c < GROUP; ++c) {
      const Vector one = spread<GROUP>(value, c);
#pragma GCC unroll 8
      for (int t = 0; t < RUN; ++t)
        if (t >= first && t < end) sums[t][c] += one * gradients[t];
    }
  };
  for (int64_t i = 0; i < RUN - 1; ++i) column(i, std::max<int64_t>(0, i + 1 - pixels), i + 1);
  for (int64_t i = RUN - 1; i < pixels; ++i) column(i, 0, RUN);
  for (int64_t i = std::max<int64_t>(RUN - 1, pixels); i < pixels + RUN - 1; ++i) column(i, i + 1 - pixels, RUN);
#pragma GCC unroll 8
  for (int t = 0; t < RUN; ++t)
#pragma GCC unroll 8
    for (int c = 0; c < GROUP; ++c) store(out + (t * GROUP + c) * features, sums[t][c]);
}

// --- what slides over what -------------------------------------------------------------------------------------------

// out[n, p, o] = sum over taps t and channels c of the group of in[n, p * step - low + at[t], c] * kernel[t, c, o]
struct Sliding {
  int64_t batch, groups, channels, features;    // of all groups
  Three size, step, low, out;                   // the numbers of inputs and outputs along each axis
  std::array<std::vector<int64_t>, 3> at;       // the offsets of the taps along each axis: ascending, the first is 0
  std::vector<int64_t> tap;                     // where the entries of each tap begin in the kernel
  int64_t next_channel, next_feature, next_group;  // distances in the kernel
  int64_t next_image;                           // distances in the result
  Three next;

  int64_t taps() const { return static_cast<int64_t>(tap.size()); }
  int64_t per_group() const { return channels / groups; }
  // The channels of a group if at least two groups fit into a vector, otherwise 0.
  int64_t narrow() const {
    const int64_t group = per_group();
    const bool possible = groups > 1 && channels == features && kLanes % group == 0;
    return possible && (group == 1 || (2 * group <= kLanes && channels >= kLanes)) ? group : 0;
  }
  int64_t span(int axis, int64_t outputs) const { return (outputs - 1) * step[axis] + at[axis].back() + 1; }
  // Whether the taps along an axis read neighbouring inputs.
  bool is_dense(int axis) const { return at[axis].back() + 1 == static_cast<int64_t>(at[axis].size()); }
  // The outputs [begin, end) along the last axis whose taps are inside of the input, along this axis.
  int64_t begin() const { return std::clamp<int64_t>(ceil_div(low[2], step[2]), 0, out[2]); }
  int64_t end() const {
    const int64_t room = size[2] + low[2] - at[2].back() - 1;
    return std::clamp<int64_t>(room < 0 ? 0 : room / step[2] + 1, begin(), out[2]);
  }
  // Whether no tap is outside of the input, so that it needs no padding.
  bool is_inside() const {
    for (int axis = 0; axis < 3; ++axis)
      if (low[axis] > 0 || span(axis, out[axis]) - low[axis] > size[axis]) return false;
    return true;
  }
  // Whether each group is copied to a place of its own, so that it is a convolution without groups.
  bool is_split() const { return groups > 1 && !narrow(); }
  // The number of taps that read neighbouring inputs of a line, for neighbouring outputs.
  int64_t run() const { return step[2] == 1 && is_dense(2) ? static_cast<int64_t>(at[2].size()) : 1; }
  // Whether inputs are read where they are. Narrow groups then copy the ends of all lines that a line of outputs reads,
  // see `Lines`, which is less work than to copy each line once if the lines are long.
  bool is_in_place() const {
    const int64_t ends = out[2] - (end() - begin()), lines = at[0].size() * at[1].size();
    return !is_split() && (is_inside() || (narrow() && ends * lines <= out[2]));
  }
};

// The inputs that some rows of outputs of an image read.
struct Slab {
  const float* data;
  int64_t row, line, pixel;  // distances of neighbours along the three axes
  int64_t group;             // the distance between groups
};

int64_t floats_of_slab(const Sliding& s, int64_t rows) {
  return s.span(0, rows) * s.span(1, s.out[1]) * s.span(2, s.out[2]) * s.channels;
}

// Copies `count` pixels from the (possibly negative) position `first` on of a line of `size` pixels; zeros outside.
void copy_line(const float* line, int64_t size, int64_t first, int64_t count, int64_t channels, float* to) {
  const int64_t begin = std::clamp<int64_t>(-first, 0, count), end = std::clamp<int64_t>(size - first, begin, count);
  std::memset(to, 0, sizeof(float) * begin * channels);
  if (end > begin)
    std::memcpy(to + begin * channels, line + (first + begin) * channels, sizeof(float) * (end - begin) * channels);
  std::memset(to + end * channels, 0, sizeof(float) * (count - end) * channels);
}

// The same for each group; the copies of the groups are `next` apart.
void split_line(const float* line, int64_t size, int64_t first, int64_t count, int64_t channels, int64_t groups,
                float* to, int64_t next) {
  for (int64_t p = first; p < first + count; ++p, to += channels)
    for (int64_t group = 0; group < groups; ++group)
      if (p < 0 || p >= size)
        std::memset(to + group * next, 0, sizeof(float) * channels);
      else if (channels == kLanes)
        store(to + group * next, load(line + (p * groups + group) * channels));
      else
        std::memcpy(to + group * next, line + (p * groups + group) * channels, sizeof(float) * channels);
}

// The slab of rows [first, end) of outputs of one image: in place, or a copy with the padding.
Slab slab_of(const Sliding& s, const float* image, int64_t first, int64_t end, float* copy) {
  const Three start = {first * s.step[0] - s.low[0], -s.low[1], -s.low[2]};
  if (s.is_in_place()) {
    const int64_t line = s.size[2] * s.channels, row = s.size[1] * line;
    return {image + start[0] * row + start[1] * line + start[2] * s.channels, row, line, s.channels, s.per_group()};
  }
  const int64_t lines = s.span(1, s.out[1]), pixels = s.span(2, s.out[2]), rows = s.span(0, end - first);
  const int64_t copies = s.is_split() ? s.groups : 1, channels = s.channels / copies;
  const int64_t line = pixels * channels, plane = rows * lines * line;
  float* to = copy;
  for (int64_t i = start[0]; i < start[0] + rows; ++i)
    for (int64_t j = start[1]; j < start[1] + lines; ++j, to += line) {
      const bool in = i >= 0 && i < s.size[0] && j >= 0 && j < s.size[1];
      const float* from = in ? image + (i * s.size[1] + j) * s.size[2] * s.channels : nullptr;
      if (copies == 1)
        copy_line(from, in ? s.size[2] : 0, start[2], pixels, channels, to);
      else
        split_line(from, in ? s.size[2] : 0, start[2], pixels, channels, copies, to, plane);
    }
  return {copy, lines * line, line, channels, copies == 1 ? s.per_group() : plane};
}

// The runs of inputs that are neighbours in memory, for one group.
struct Segments {
  std::vector<int64_t> at;
  int64_t run;
};

Segments segments_of(const Sliding& s, const Slab& slab) {
  const bool joined = slab.pixel == s.per_group() && s.is_dense(2);
  Segments segments{{}, (joined ? static_cast<int64_t>(s.at[2].size()) : 1) * s.per_group()};
  for (int64_t i : s.at[0])
    for (int64_t j : s.at[1])
      for (int64_t k : s.at[2])
        if (k == 0 || !joined) segments.at.push_back(i * slab.row + j * slab.line + k * slab.pixel);
  return segments;
}

// Where the taps of narrow groups read the inputs of a line of outputs. In place, inputs outside of the image are read
// from a line of zeros, or at the ends of a line from copies with zeros.
class Lines {
 public:
  explicit Lines(const Sliding& s)
      : s_(s), width_(s.span(2, s.out[2]) * s.channels), padded_(s.is_in_place() && !s.is_inside()),
        scratch_(kOther, padded_ ? width_ * (1 + ends()) : 0), at_(s.taps()) {
    if (padded_) std::memset(scratch_.data(), 0, sizeof(float) * width_);
  }

  // Calls compute(at, first, count), with the inputs of output `first` in `at`, for the outputs of line l of a row: of
  // number r in the image, and `r_slab` in the slab.
  template <class Compute>
  void each_stretch(const Slab& slab, int64_t r_slab, int64_t r, int64_t l, const Compute& compute) {
    const float* from = slab.data + r_slab * s_.step[0] * slab.row + l * s_.step[1] * slab.line;
    if (!padded_) return stretch(slab, from, r, l, 0, s_.out[2], compute);
    const int64_t begin = s_.begin(), end = s_.end();
    stretch(slab, from, r, l, 0, begin, compute);
    stretch(slab, from, r, l, begin, end, compute);
    stretch(slab, from, r, l, end, s_.out[2], compute);
  }

 private:
  int64_t ends() const { return static_cast<int64_t>(s_.at[0].size() * s_.at[1].size()); }

  template <class Compute>
  void stretch(const Slab& slab, const float* from, int64_t r, int64_t l, int64_t first, int64_t end,
               const Compute& compute) {
    if (first == end) return;
    const bool at_end = padded_ && (first < s_.begin() || end > s_.end());
    const int64_t offset = first * s_.step[2], pixels = s_.span(2, end - first);
    float* copy = scratch_.data() + width_;
    size_t t = 0;
    for (int64_t i : s_.at[0])
      for (int64_t j : s_.at[1]) {
        const int64_t row = r * s_.step[0] - s_.low[0] + i, line = l * s_.step[1] - s_.low[1] + j;
        const bool in = !padded_ || (row >= 0 && row < s_.size[0] && line >= 0 && line < s_.size[1]);
        const float* inputs = in ? from + i * slab.row + j * slab.line + offset * s_.channels : scratch_.data();
        if (in && at_end) {
          const float* whole = inputs + (s_.low[2] - offset) * s_.channels;
          copy_line(whole, s_.size[2], offset - s_.low[2], pixels, s_.channels, copy);
          inputs = copy;
          copy += pixels * s_.channels;
        }
        for (int64_t k : s_.at[2]) at_[t++] = inputs + k * s_.channels;
      }
    compute(at_.data(), first, end - first);
  }

  const Sliding& s_;
  const int64_t width_;
  const bool padded_;
  Scratch scratch_;
  std::vector<const float*> at_;
};

// A block of features of one group, of one or two vectors.
struct Panel {
  int64_t group, first, columns;  // columns may be fewer than the lanes
  int vectors;
  int64_t at;  // the lanes of all panels before it
  int64_t width() const { return vectors * kLanes; }
};

struct Panels {
  std::vector<Panel> all;
  int64_t width = 0;

  Panels(int64_t groups, int64_t features) {
    for (int64_t group = 0; group < groups; ++group)
      for (int64_t first = 0; first < features; first += all.back().width()) {
        const int vectors = features - first > kLanes ? 2 : 1;
        all.push_back({group, first, std::min<int64_t>(vectors * kLanes, features - first), vectors, width});
        width += vectors * kLanes;
      }
  }
  int64_t count() const { return static_cast<int64_t>(all.size()); }
};

// --- output and input gradient ---------------------------------------------------------------------------------------

// The entries of the kernel for one panel: [tap, channel, lane], with zeros in lanes without a feature.
void pack(const Sliding& s, const Panel& panel, const float* kernel, float* to) {
  const int64_t width = panel.width(), channels = s.per_group();
  if (panel.columns < width) std::memset(to, 0, sizeof(float) * s.taps() * channels * width);
  for (int64_t tap : s.tap) {
    const float* from = kernel + tap + panel.group * s.next_group + panel.first * s.next_feature;
    if (s.next_feature == 1) {
      for (int64_t c = 0; c < channels; ++c, to += width)
        std::memcpy(to, from + c * s.next_channel, sizeof(float) * panel.columns);
      continue;
    }
    for (int64_t some = 0; some < channels; some += 16, to += 16 * width)  // a transpose, within a few cache lines
      for (int64_t o = 0; o < panel.columns; ++o)
        for (int64_t c = some; c < std::min(channels, some + 16); ++c)
          to[(c - some) * width + o] = from[c * s.next_channel + o * s.next_feature];
    to += (channels - ceil_div(channels, 16) * 16) * width;
  }
}

// A row of outputs of one panel, in tiles of nearly equal size.
void output_row(const float* x, int64_t pixel, const Segments& segments, const float* kernel, const Panel& panel,
                float* y, int64_t y_pixel, int64_t pixels) {
  const int64_t pieces = ceil_div(pixels, most(panel.vectors)), small = pixels / pieces, larger = pixels % pieces;
  const Tile tile = tile_of(panel.vectors, small), large = larger ? tile_of(panel.vectors, small + 1) : nullptr;
  for (int64_t piece = 0, at = 0; piece < pieces; ++piece) {
    const bool is_large = piece < larger;
    (is_large ? large : tile)(x + at * pixel, pixel, segments.at.data(), segments.at.size(), segments.run, kernel,
                              y + at * y_pixel, y_pixel, panel.columns);
    at += small + is_large;
  }
}

// Some pixels, at most 8, of a row of outputs of narrow groups. The last vector of channels may overlap the one before.
template <int PIXELS, int GROUP, int RUN>
void narrow_pixels(const float* const* at, int64_t offset, int64_t pixel, const std::vector<int64_t>& tap,
                   const float* kernel, float* y, int64_t y_pixel, int64_t channels) {
  for (int64_t next = 0; next < channels; next += kLanes) {
    const int64_t c = std::min(next, channels - kLanes);
    narrow_tile<PIXELS, GROUP, RUN>(at, offset + c, pixel, tap.data(), tap.size(), kernel + c, channels, y + c, y_pixel);
  }
}

// A line of outputs of narrow groups, some pixels at a time: all channels of these pixels are computed one after the
// other, while their inputs stay in the L1 cache. The last pixels may overlap those before them. If there are fewer
// channels than lanes, which only happens for groups of one, they are computed one by one.
template <int GROUP, int RUN>
void narrow_row(const float* const* at, int64_t pixel, const std::vector<int64_t>& tap, const float* kernel, float* y,
                int64_t y_pixel, int64_t pixels, int64_t channels) {
  if (channels < kLanes) {
    for (int64_t p = 0; p < pixels; ++p)
      for (int64_t c = 0; c < channels; ++c) {
        float sum = 0;
        for (size_t t = 0; t < tap.size(); ++t) sum += at[t][p * pixel + c] * kernel[tap[t] + c];
        y[p * y_pixel + c] = sum;
      }
    return;
  }
  const int64_t some = pixels >= 8 ? 8 : pixels >= 4 ? 4 : pixels >= 2 ? 2 : 1;
  const auto compute = some == 8   ? narrow_pixels<8, GROUP, RUN>
                       : some == 4 ? narrow_pixels<4, GROUP, RUN>
                       : some == 2 ? narrow_pixels<2, GROUP, RUN>
                                   : narrow_pixels<1, GROUP, RUN>;
  for (int64_t next = 0; next < pixels; next += some) {
    const int64_t p = std::min(next, pixels - some);
    compute(at, p * pixel, pixel, tap, kernel, y + p * y_pixel, y_pixel, channels);
  }
}

template <int GROUP>
auto narrow_row_of(int64_t run) {
  if constexpr (GROUP == 1) {
    if (run == 5) return narrow_row<GROUP, 5>;
    if (run == 7) return narrow_row<GROUP, 7>;
  }
  return run == 3 ? narrow_row<GROUP, 3> : narrow_row<GROUP, 1>;
}

// The entries of the kernel of narrow groups: [tap, channel of the group, feature].
void pack_narrow(const Sliding& s, const float* kernel, float* to) {
  const int64_t group = s.per_group();
  for (int64_t tap : s.tap)
    for (int64_t c = 0; c < group; ++c)
      for (int64_t o = 0; o < s.features; ++o)
        *to++ = kernel[tap + o / group * s.next_group + c * s.next_channel + o % group * s.next_feature];
}

void slide(Pool& pool, const Sliding& s, const float* x, const float* kernel, float* y) {
  const int64_t narrow = s.narrow();
  const Panels panels(narrow ? 0 : s.groups, s.features / s.groups);
  const int64_t depth = s.taps() * s.per_group(), width = narrow ? s.features : panels.width;
  bool as_it_is = width == s.features && (narrow || panels.count() == 1) && s.next_feature == 1;
  for (int64_t tap = 0; tap < s.taps(); ++tap)
    as_it_is &= s.next_channel == s.features && s.tap[tap] == tap * s.per_group() * s.features;
  as_it_is |= narrow == 1;
  std::vector<int64_t> taps = s.tap;
  Scratch packed(kKernel, as_it_is ? 0 : depth * width);
  if (!as_it_is && narrow) {
    pack_narrow(s, kernel, packed.data());
    kernel = packed.data();
    for (int64_t tap = 0; tap < s.taps(); ++tap) taps[tap] = tap * narrow * s.features;
  } else if (!as_it_is) {
    auto one = [&](int64_t i) { pack(s, panels.all[i], kernel, packed.data() + depth * panels.all[i].at); };
    if (depth * panels.width < kWorthSharing)
      for (int64_t i = 0; i < panels.count(); ++i) one(i);
    else
      parallel(pool, panels.count(), one);
    kernel = packed.data();
  }
  const bool in_place = s.is_in_place();
  // All outputs are neighbours in memory, like their inputs: one long row.
  const bool flat = in_place && s.taps() == 1 && s.groups == 1 && s.step == Three{1, 1, 1} && s.out == s.size &&
                    s.next[2] == s.features && s.next[1] == s.out[2] * s.next[2] &&
                    s.next[0] == s.out[1] * s.next[1] && s.next_image == s.out[0] * s.next[0];

  // A part is some images, or some rows of one image: few enough to stay in the cache while all panels pass over them,
  // and at least as many parts as threads.
  const int64_t outputs = s.batch * s.out[0] * s.out[1] * s.out[2], image = floats_of_slab(s, s.out[0]);
  const int64_t threads = outputs * depth * s.features < (1 << 18) ? 1 : std::max<int64_t>(1, pool.num_threads());
  int64_t rows = s.out[0], images = std::clamp<int64_t>(kSlab / image, 1, s.batch);
  if (image > kSlab) rows = std::max<int64_t>(1, rows * kSlab / image);
  if (s.batch * ceil_div(s.out[0], rows) < threads) rows = ceil_div(s.out[0], ceil_div(threads, s.batch));
  if (rows < s.out[0])
    images = 1;
  else
    images = ceil_div(s.batch, ceil_div(ceil_div(s.batch, images), threads) * threads);
  const int64_t pieces = ceil_div(s.out[0], rows), parts = ceil_div(s.batch, images) * pieces;
  const int64_t slab = in_place ? 0 : floats_of_slab(s, rows);

  const int64_t run = s.run();
  const auto row = narrow == 8   ? narrow_row_of<8>(run)
                   : narrow == 4 ? narrow_row_of<4>(run)
                   : narrow == 2 ? narrow_row_of<2>(run)
                                 : narrow_row_of<1>(run);
  auto part = [&](int64_t i) {
    const int64_t n0 = i / pieces * images, n1 = std::min(s.batch, n0 + images);
    const int64_t r0 = i % pieces * rows, r1 = std::min(s.out[0], r0 + rows);
    Scratch copy(kInput, slab * (n1 - n0));
    std::vector<Slab> slabs;
    for (int64_t n = n0; n < n1; ++n)
      slabs.push_back(slab_of(s, x + n * s.size[0] * s.size[1] * s.size[2] * s.channels, r0, r1,
                              copy.data() + (n - n0) * slab));
    if (narrow) {
      Lines lines(s);
      for (int64_t n = n0; n < n1; ++n)
        for (int64_t r = r0; r < r1; ++r)
          for (int64_t l = 0; l < s.out[1]; ++l)
            lines.each_stretch(slabs[n - n0], r - r0, r, l, [&](const float* const* at, int64_t first, int64_t count) {
              float* to = y + n * s.next_image + r * s.next[0] + l * s.next[1] + first * s.next[2];
              row(at, s.step[2] * s.channels, taps, kernel, to, s.next[2], count, s.channels);
            });
      return;
    }
    const Segments segments = segments_of(s, slabs[0]);
    const int64_t pixel = s.step[2] * slabs[0].pixel;
    for (const Panel& panel : panels.all) {
      const float* weights = kernel + depth * panel.at;
      float* to = y + panel.group * (s.features / s.groups) + panel.first;
      if (flat) {
        output_row(slabs[0].data, pixel, segments, weights, panel, to + n0 * s.next_image + r0 * s.next[0], s.next[2],
                   (n1 - n0) * (r1 - r0) * s.out[1] * s.out[2]);
        continue;
      }
      for (int64_t n = n0; n < n1; ++n)
        for (int64_t r = r0; r < r1; ++r)
          for (int64_t l = 0; l < s.out[1]; ++l) {
            const Slab& from = slabs[n - n0];
            output_row(from.data + (r - r0) * s.step[0] * from.row + l * s.step[1] * from.line +
                           panel.group * from.group,
                       pixel, segments, weights, panel, to + n * s.next_image + r * s.next[0] + l * s.next[1],
                       s.next[2], s.out[2]);
          }
    }
  };
  if (threads == 1)
    for (int64_t i = 0; i < parts; ++i) part(i);
  else
    parallel(pool, parts, part);
}

Sliding output_of(const Problem& p) {
  Sliding s{p.batch, p.groups, p.channels, p.features, p.size, p.stride, p.low, p.out, {}, {}, 0, 0, 0, 0, {}};
  for (int axis = 0; axis < 3; ++axis)
    for (int64_t t = 0; t < p.window[axis]; ++t) s.at[axis].push_back(t * p.dilation[axis]);
  for (int64_t t = 0; t < product(p.window); ++t) s.tap.push_back(t * s.per_group() * p.features);
  s.next_channel = p.features;
  s.next_feature = 1;
  s.next_group = p.features / p.groups;
  s.next = {p.out[1] * p.out[2] * p.features, p.out[2] * p.features, p.features};
  s.next_image = p.out[0] * s.next[0];
  return s;
}

void input_gradient(Pool& pool, const Problem& p, const float* dy, const float* kernel, float* dx) {
  // Input i, at the position `phase` within a stride, contributes to output i / stride + offset by tap t if
  // offset = (phase + low - t * dilation) / stride is an integer.
  struct Phase {
    int64_t first;
    std::vector<int64_t> taps, offsets;
  };
  std::array<std::vector<Phase>, 3> phases;
  bool complete = true;
  for (int axis = 0; axis < 3; ++axis)
    for (int64_t first = 0; first < std::min(p.stride[axis], p.size[axis]); ++first) {
      Phase phase{first, {}, {}};
      for (int64_t t = p.window[axis] - 1; t >= 0; --t) {
        const int64_t distance = first + p.low[axis] - t * p.dilation[axis];
        if (distance % p.stride[axis]) continue;
        phase.taps.push_back(t);
        phase.offsets.push_back(distance / p.stride[axis]);
      }
      if (phase.taps.empty())
        complete = false;
      else
        phases[axis].push_back(phase);
    }
  const int64_t image = product(p.size) * p.channels, per_group = p.channels / p.groups;
  if (!complete) parallel(pool, p.batch, [&](int64_t n) { std::memset(dx + n * image, 0, sizeof(float) * image); });

  Sliding s{p.batch, p.groups, p.features, p.channels, p.out, {1, 1, 1}, {}, {}, {}, {}, 0, 0, 0, image, {}};
  s.next_channel = 1;
  s.next_feature = p.features;
  s.next_group = p.features / p.groups;
  const Three next = {p.size[1] * p.size[2] * p.channels, p.size[2] * p.channels, p.channels};
  for (int axis = 0; axis < 3; ++axis) s.next[axis] = next[axis] * p.stride[axis];
  for (const Phase& a : phases[0])
    for (const Phase& b : phases[1])
      for (const Phase& c : phases[2]) {
        const Phase* phase[3] = {&a, &b, &c};
        int64_t start = 0;
        for (int axis = 0; axis < 3; ++axis) {
          const Phase& along = *phase[axis];
          s.low[axis] = -along.offsets[0];
          s.out[axis] = ceil_div(p.size[axis] - along.first, p.stride[axis]);
          s.at[axis].clear();
          for (int64_t offset : along.offsets) s.at[axis].push_back(offset - along.offsets[0]);
          start += along.first * next[axis];
        }
        s.tap.clear();
        for (int64_t i : a.taps)
          for (int64_t j : b.taps)
            for (int64_t k : c.taps)
              s.tap.push_back(((i * p.window[1] + j) * p.window[2] + k) * per_group * p.features);
        slide(pool, s, dy, kernel, dx + start);
      }
}

// --- kernel gradient -------------------------------------------------------------------------------------------------

// Rows [first, end) of the outputs of an image.
struct Part {
  int64_t image, first, end;
};

// The rows [first, end) of all images, cut so that neither inputs nor gradients of a part have more than `most` floats.
std::vector<Part> parts_of(const Sliding& s, int64_t first, int64_t end, int64_t most) {
  const int64_t larger = std::max(floats_of_slab(s, s.out[0]), product(s.out) * s.features);
  const int64_t rows = larger <= most ? s.out[0] : std::max<int64_t>(1, s.out[0] * most / larger);
  std::vector<Part> parts;
  for (int64_t row = first; row < end;) {
    const int64_t image = row / s.out[0], inside = row % s.out[0];
    const int64_t count = std::min({end - row, s.out[0] - inside, rows - inside % rows});
    parts.push_back({image, inside, inside + count});
    row += count;
  }
  return parts;
}

// The number of pieces in which a small gradient is summed. It depends on the shapes alone, so that the result has the
// same bits for any number of threads. A piece has at least `least` positions.
int64_t pieces_of(const Sliding& s, int64_t floats, int64_t least) {
  const int64_t rows = s.batch * s.out[0], positions = rows * s.out[1] * s.out[2];
  return std::clamp<int64_t>(std::min(positions / least, kShared / floats), 1, std::min<int64_t>(rows, 32));
}

// Sums a gradient of `floats` in pieces: calls add(part, its inputs, its gradients, sums) for all parts.
template <class Add>
void sum_in_pieces(Pool& pool, const Sliding& s, const float* x, const float* dy, int64_t pieces, int64_t floats,
                   float* sums, const Add& add) {
  const int64_t all_rows = s.batch * s.out[0], row = s.out[1] * s.out[2];
  const bool in_place = s.is_in_place();
  parallel(pool, pieces, [&](int64_t piece) {
    float* sum = sums + piece * floats;
    std::memset(sum, 0, sizeof(float) * floats);
    const int64_t begin = first_of(all_rows, piece, pieces), end = first_of(all_rows, piece + 1, pieces);
    for (const Part& part : parts_of(s, begin, end, kSlab)) {
      Scratch copy(kInput, in_place ? 0 : floats_of_slab(s, part.end - part.first));
      const float* image = x + part.image * product(s.size) * s.channels;
      const Slab slab = slab_of(s, image, part.first, part.end, copy.data());
      const float* gradient = dy + (part.image * s.out[0] + part.first) * row * s.features;
      add(part, slab, gradient, sum);
    }
  });
}

// A small gradient: the rows of all images are summed in pieces, which are added up in order at the end.
void small_kernel_gradient(Pool& pool, const Sliding& s, const float* x, const float* dy, float* dk) {
  const Panels panels(s.groups, s.features / s.groups);
  const int64_t depth = s.taps() * s.per_group(), width = panels.width, floats = depth * width;
  const int64_t line = s.out[2], row = s.out[1] * line, pieces = pieces_of(s, floats, 512);
  Scratch sums(kKernel, pieces * floats);
  auto add = [&](const Part& part, const Slab& slab, const float* gradient, float* sum) {
    const Segments segments = segments_of(s, slab);
    const int64_t rows = part.end - part.first;
    const bool widened = width != s.features;
    Scratch wide(kOther, widened ? rows * row * width : 0);
    if (widened) {  // so that each panel can be read in whole vectors
      for (int64_t pixel = 0; pixel < rows * row; ++pixel)
        for (const Panel& panel : panels.all) {
          float* to = wide.data() + pixel * width + panel.at;
          std::memcpy(to, gradient + pixel * s.features + panel.group * (s.features / s.groups) + panel.first,
                      sizeof(float) * panel.columns);
          std::memset(to + panel.columns, 0, sizeof(float) * (panel.width() - panel.columns));
        }
      gradient = wide.data();
    }
    const int64_t some = std::max<int64_t>(1, kRows / (line * std::max(s.channels * s.step[2], width)));
    for (int64_t r = 0; r < rows; r += some)
      for (int64_t l = 0; l < s.out[1]; ++l)
        for (const Panel& panel : panels.all) {
          const int64_t largest = most(panel.vectors), count = ceil_div(segments.run, largest);
          for (size_t segment = 0; segment < segments.at.size(); ++segment) {
            const float* from = slab.data + r * s.step[0] * slab.row + l * s.step[1] * slab.line +
                                segments.at[segment] + panel.group * slab.group;
            float* to = sum + depth * panel.at + segment * segments.run * panel.width();
            for (int64_t block = 0; block < count; ++block) {
              const int64_t c = first_of(segments.run, block, count), end = first_of(segments.run, block + 1, count);
              block_of(panel.vectors, end - c)(from + c, s.step[0] * slab.row, s.step[2] * slab.pixel,
                                               gradient + (r * row + l * line) * width + panel.at, row * width, width,
                                               std::min(some, rows - r), line, to + c * panel.width(), panel.width());
            }
          }
        }
  };
  sum_in_pieces(pool, s, x, dy, pieces, floats, sums.data(), add);
  auto add_up = [&](int64_t i) {
    const Panel& panel = panels.all[i];
    for (int64_t r = 0; r < depth; ++r) {
      float total[2 * kLanes] = {};
      for (int64_t piece = 0; piece < pieces; ++piece) {
        const float* sum = sums.data() + piece * floats + depth * panel.at + r * panel.width();
        for (int64_t o = 0; o < panel.width(); ++o) total[o] += sum[o];
      }
      float* to = dk + r * s.features + panel.group * (s.features / s.groups) + panel.first;
      std::memcpy(to, total, sizeof(float) * panel.columns);
    }
  };
  if (pieces * floats < kWorthSharing)
    for (int64_t i = 0; i < panels.count(); ++i) add_up(i);
  else
    parallel(pool, panels.count(), add_up);
}

// A large gradient: threads share its channels and features, and each sum goes over all images in order. The inputs are
// copied in blocks of kBlock channels, the gradients in panels, some images at a time.
void large_kernel_gradient(Pool& pool, Sliding s, const float* x, const float* dy, float* dk) {
  Three gap = {1, 1, 1};  // between inputs that are copied: along an axis with one tap, only those that are read
  const Three step = s.step;
  for (int axis : {0, 1, 2})
    if (s.at[axis].size() == 1) std::swap(gap[axis], s.step[axis]);
  const Panels panels(s.groups, s.features / s.groups);
  const int64_t all_rows = s.batch * s.out[0], line = s.out[2], row = s.out[1] * line, per_group = s.per_group();
  const int64_t blocks = per_group / kBlock;  // of each group
  const auto parts = parts_of(s, 0, all_rows, kShared);
  const int64_t lines = s.span(1, s.out[1]), pixels = s.span(2, s.out[2]);
  const int64_t shares = std::clamp<int64_t>(ceil_div(4 * pool.num_threads(), panels.count()), 1, blocks);
  const std::vector<int64_t> taps = [&] {
    std::vector<int64_t> at;
    for (int64_t i : s.at[0])
      for (int64_t j : s.at[1])
        for (int64_t k : s.at[2]) at.push_back(((i * lines + j) * pixels + k) * kBlock);
    return at;
  }();
  for (size_t first = 0; first < parts.size();) {
    std::vector<int64_t> x_at, dy_at;  // where the copies of each part begin
    int64_t x_floats = 0, dy_floats = 0;
    size_t end = first;
    while (end < parts.size()) {
      const int64_t rows = parts[end].end - parts[end].first, slab = floats_of_slab(s, rows);
      if (end > first && std::max(x_floats + slab, dy_floats + rows * row * s.features) > kShared) break;
      x_at.push_back(x_floats);
      dy_at.push_back(dy_floats);
      x_floats += slab;
      dy_floats += rows * row * s.features;
      ++end;
    }
    Scratch inputs(kInput, x_floats), gradients(kOther, dy_floats);
    parallel(pool, end - first, [&](int64_t i) {
      const Part& part = parts[first + i];
      const int64_t rows = part.end - part.first, depth = s.span(0, rows), plane = depth * lines * pixels;
      const float* image = x + part.image * product(s.size) * s.channels;
      float* to = inputs.data() + x_at[i];  // [channels / kBlock, depth, lines, pixels, kBlock]
      for (int64_t d = 0; d < depth; ++d)
        for (int64_t l = 0; l < lines; ++l)
          for (int64_t p = 0; p < pixels; ++p, to += kBlock) {
            const Three at = {part.first * step[0] + d * gap[0] - s.low[0], l * gap[1] - s.low[1],
                              p * gap[2] - s.low[2]};
            bool in = true;
            for (int axis : {0, 1, 2}) in &= at[axis] >= 0 && at[axis] < s.size[axis];
            const float* from = image + ((at[0] * s.size[1] + at[1]) * s.size[2] + at[2]) * s.channels;
            for (int64_t c = 0; c < s.channels; c += kBlock)
              if (in)
                std::memcpy(to + c * plane, from + c, sizeof(float) * kBlock);
              else
                std::memset(to + c * plane, 0, sizeof(float) * kBlock);
          }
      const float* gradient = dy + (part.image * s.out[0] + part.first) * row * s.features;
      for (const Panel& panel : panels.all) {  // [panels, pixels, lanes]
        float* copy = gradients.data() + dy_at[i] + rows * row * panel.at;
        const float* of = gradient + panel.group * (s.features / s.groups) + panel.first;
        for (int64_t p = 0; p < rows * row; ++p)
          std::memcpy(copy + p * panel.width(), of + p * s.features, sizeof(float) * panel.width());
      }
    });
    parallel(pool, panels.count() * shares, [&](int64_t item) {
      const Panel& panel = panels.all[item / shares];
      const int64_t share = item % shares, width = panel.width();
      const Block add = block_of(panel.vectors, kBlock);
      for (int64_t block = first_of(blocks, share, shares); block < first_of(blocks, share + 1, shares); ++block) {
        float* to = dk + block * kBlock * s.features + panel.group * (s.features / s.groups) + panel.first;
        if (first == 0)
          for (int64_t r = 0; r < s.taps(); ++r)
            for (int64_t c = 0; c < kBlock; ++c)
              std::memset(to + (r * per_group + c) * s.features, 0, sizeof(float) * width);
        for (size_t i = 0; i < end - first; ++i) {
          const int64_t rows = parts[first + i].end - parts[first + i].first, plane = s.span(0, rows) * lines * pixels;
          const float* from = inputs.data() + x_at[i] + (panel.group * blocks + block) * kBlock * plane;
          const float* gradient = gradients.data() + dy_at[i] + rows * row * panel.at;
          for (size_t t = 0; t < taps.size(); ++t)
            for (int64_t l = 0; l < s.out[1]; ++l)
              add(from + taps[t] + l * s.step[1] * pixels * kBlock, s.step[0] * lines * pixels * kBlock,
                  s.step[2] * kBlock, gradient + l * line * width, row * width, width, rows, line,
                  to + static_cast<int64_t>(t) * per_group * s.features, s.features);
        }
      }
    });
    first = end;
  }
}

template <int GROUP, int... N>
constexpr auto narrow_blocks(std::integer_sequence<int, N...>) {
  return std::array<decltype(&narrow_gradient_block<1, GROUP>), sizeof...(N)>{narrow_gradient_block<N + 1, GROUP>...};
}

// The gradient of the kernel of narrow groups, [tap, channel of the group, feature]; in pieces like a small gradient.
template <int GROUP>
void narrow_kernel_gradient(Pool& pool, const Sliding& s, const float* x, const float* dy, float* dk) {
  constexpr int kTaps = std::min(8, kRegisters / 2 / GROUP), kPixels = 16, kRun = 3;
  static constexpr auto block = narrow_blocks<GROUP>(std::make_integer_sequence<int, kTaps>());
  const int64_t channels = s.channels, floats = s.taps() * GROUP * channels, line = s.out[2];
  const int64_t pixel = s.step[2] * channels, full = channels / kLanes * kLanes, pieces = pieces_of(s, floats, 256);
  const bool in_runs = GROUP >= 4 && s.run() == kRun;  // with fewer channels there are too few sums to hide latencies
  Scratch sums(kKernel, pieces * floats);
  auto add = [&](const Part& part, const Slab& slab, const float* dy, float* sum) {
    Lines lines(s);
    auto stretch = [&](const float* const* at, const float* gradient, int64_t count) {
      for (int64_t first = 0; first < s.taps(); first += in_runs ? kRun : kTaps) {
        const int64_t taps = std::min<int64_t>(in_runs ? kRun : kTaps, s.taps() - first);
        float* to = sum + first * GROUP * channels;
        for (int64_t p = 0; p < count; p += kPixels)  // all channels of some pixels, which stay in the L1 cache
          for (int64_t c = 0; c < full; c += kLanes) {
            const int64_t offset = p * pixel + c, pixels = std::min<int64_t>(kPixels, count - p);
            const float* of = gradient + p * channels + c;
            if (in_runs)
              narrow_gradient_run<kRun, GROUP>(at[first] + offset, pixel, of, channels, pixels, to + c);
            else
              block[taps - 1](at + first, offset, pixel, of, channels, pixels, to + c);
          }
        for (int64_t o = full; o < channels; ++o)
          for (int64_t i = 0; i < taps * GROUP; ++i)
            for (int64_t p = 0; p < count; ++p)
              to[i * channels + o] += at[first + i / GROUP][p * pixel + o / GROUP * GROUP + i % GROUP] *
                                      gradient[p * channels + o];
      }
    };
    for (int64_t r = 0; r < part.end - part.first; ++r)
      for (int64_t l = 0; l < s.out[1]; ++l)
        lines.each_stretch(slab, r, part.first + r, l, [&](const float* const* at, int64_t first, int64_t count) {
          stretch(at, dy + ((r * s.out[1] + l) * line + first) * channels, count);
        });
  };
  sum_in_pieces(pool, s, x, dy, pieces, floats, sums.data(), add);
  std::memset(dk, 0, sizeof(float) * floats);
  for (int64_t piece = 0; piece < pieces; ++piece)
    for (int64_t i = 0; i < floats; ++i) dk[i] += sums.data()[piece * floats + i];
}

void kernel_gradient(Pool& pool, const Problem& p, const float* x, const float* dy, float* dk) {
  const Sliding s = output_of(p);
  const int64_t floats = s.taps() * s.per_group() * s.features;
  switch (s.narrow()) {
    case 1: return narrow_kernel_gradient<1>(pool, s, x, dy, dk);
    case 2: return narrow_kernel_gradient<2>(pool, s, x, dy, dk);
    case 4: return narrow_kernel_gradient<4>(pool, s, x, dy, dk);
    case 8: return narrow_kernel_gradient<8>(pool, s, x, dy, dk);
  }
  if (floats > kSmallGradient && s.per_group() % kBlock == 0 && (s.features / s.groups) % kLanes == 0)
    large_kernel_gradient(pool, s, x, dy, dk);
  else
    small_kernel_gradient(pool, s, x, dy, dk);
}

}  // namespace

void convolve(Pool& pool, const Problem& problem, Product which, const float* a, const float* b, float* result) {
  switch (which) {
    case kOutput: return slide(pool, output_of(problem), a, b, result);
    case kInputGradient: return input_gradient(pool, problem, a, b, result);
    case kKernelGradient: return kernel_gradient(pool, problem, a, b, result);
  }
}

namespace {

// --- the handler -----------------------------------------------------------------------------------------------------

using Array = ffi::Buffer<ffi::F32>;

// Spatial axes as three; images have no second axis, signals only the last.
Three spatial(const int64_t* values, size_t rank) {
  switch (rank) {
    case 1: return {1, 1, values[0]};
    case 2: return {values[0], 1, values[1]};
    default: return {values[0], values[1], values[2]};
  }
}

ffi::Error convolution(Pool pool, Array a, Array b, ffi::Result<Array> result, int64_t which, int64_t groups,
                       ffi::Span<const int64_t> strides, ffi::Span<const int64_t> low,
                       ffi::Span<const int64_t> dilation, bool winograd) {
  const auto x = which == kInputGradient ? result->dimensions() : a.dimensions();
  const auto kernel = which == kKernelGradient ? result->dimensions() : b.dimensions();
  const auto y = which == kOutput ? result->dimensions() : which == kInputGradient ? a.dimensions() : b.dimensions();
  const size_t rank = strides.size();
  if (rank < 1 || rank > 3 || x.size() != rank + 2 || low.size() != rank || dilation.size() != rank)
    return ffi::Error::InvalidArgument("a convolution of this rank is not supported");
  Problem p{x[0], x[rank + 1], y[rank + 1], groups, {}, {}, {}, {}, {}, {}};
  p.size = spatial(x.begin() + 1, rank);
  p.window = spatial(kernel.begin(), rank);
  p.out = spatial(y.begin() + 1, rank);
  p.stride = spatial(strides.begin(), rank);
  p.low = {0, 0, 0};
  const Three given = spatial(low.begin(), rank);
  for (int axis : {0, 1, 2})
    if (axis == 2 || rank == 3 || (rank == 2 && axis == 0)) p.low[axis] = given[axis];
  p.dilation = spatial(dilation.begin(), rank);
  if (winograd && !winograd_is_possible(p))
    return ffi::Error::InvalidArgument("Winograd's algorithm is for windows of 3 or 5 at stride 1, without groups");
  try {
    const auto compute = winograd ? convolve_by_winograd : convolve;
    compute(pool, p, static_cast<Product>(which), a.typed_data(), b.typed_data(), result->typed_data());
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "convolution: out of memory");
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace cnn_jax

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_convolution, cnn_jax::convolution,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<cnn_jax::Array>()
                                  .Arg<cnn_jax::Array>()
                                  .Ret<cnn_jax::Array>()
                                  .Attr<int64_t>("product")
                                  .Attr<int64_t>("groups")
                                  .Attr<ffi::Span<const int64_t>>("strides")
                                  .Attr<ffi::Span<const int64_t>>("low")
                                  .Attr<ffi::Span<const int64_t>>("dilation")
                                  .Attr<bool>("winograd"));

#pragma GCC visibility pop
