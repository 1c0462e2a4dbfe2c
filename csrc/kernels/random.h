// random.h — random numbers by counter: Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel
// random numbers: as easy as 1, 2, 3"). Element i depends on (key, i) alone, never on an address,
// a chunk or a thread. Logical element i is word i mod 4 of the block with counter
//   (block mod 2^32, block / 2^32 + 2^16 * (step / 2^32), step mod 2^32, site), block = i / 4,
// under the 64-bit key `seed`: distinct for every i < 2^50 and step < 2^48.
// A word w stands for the uniform number (w + 1/2) / 2^32, in double whatever T is.
#pragma once
#include "math.h"
#include "rowsum.h"
#include "table.h"

namespace gv::kernels::GV_ISA {
namespace {

// Words are kept in 64-bit lanes, one block per lane: that is where the product of two words fits.
typedef std::uint64_t words __attribute__((vector_size(kVectorBytes<double>)));
constexpr index kBlocks = lanes<double>();  // blocks made at a time
constexpr std::uint64_t kWord = 0xffffffffu;

inline words multiply_words(words a, std::uint32_t b) {
#if defined(__AVX512F__)
  // The masked form: GCC 12 warns of an uninitialised value inside the plain one.
  return reinterpret_cast<words>(
      _mm512_maskz_mul_epu32(0xff, reinterpret_cast<__m512i>(a), _mm512_set1_epi64(b)));
#elif defined(__AVX2__)
  return reinterpret_cast<words>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), _mm256_set1_epi64x(b)));
#else
  return a * std::uint64_t(b);
#endif
}

struct PhiloxBlocks {
  words w[4];
};

// The ten rounds on kBlocks counters (c[0] … c[3]), key (k0, k1).
inline PhiloxBlocks philox_rounds(PhiloxBlocks c, std::uint32_t k0, std::uint32_t k1) {
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const words p0 = multiply_words(c.w[0], 0xD2511F53u), p1 = multiply_words(c.w[2], 0xCD9E8D57u);
    c = {{(p1 >> 32) ^ c.w[1] ^ std::uint64_t(k0), p1 & kWord, (p0 >> 32) ^ c.w[3] ^ std::uint64_t(k1),
          p0 & kWord}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

// Blocks first, first + 1, … of a key.
inline PhiloxBlocks philox(PhiloxKey key, std::uint64_t first) {
  words block;
  for (index b = 0; b < kBlocks; ++b) block[b] = first + std::uint64_t(b);
  const words zero{};
  return philox_rounds({{block & kWord, ((block >> 32) + ((key.step >> 32) << 16)) & kWord,
                         zero + (key.step & kWord), zero + std::uint64_t(key.site)}},
                       std::uint32_t(key.seed), std::uint32_t(key.seed >> 32));
}

// (w + 1/2) / 2^32: the word is the low half of the double 2^52 + w.
inline vec<double> uniform_of(words w) {
  constexpr std::uint64_t two_to_52 = 0x4330000000000000u;
  const vec<double> number = reinterpret_cast<vec<double>>(w | two_to_52) - 0x1p52;
  return (number + 0.5) * 0x1p-32;
}

// Calls group(i, p, k): elements i … i + k of the call come from p[0 … k], k <= 4 * kBlocks, out of
// what make(blocks, ordered) leaves in logical order. A vector may be read from any p[0 … k - 1].
template <class Number, class Make, class Group>
inline void for_groups(index n, std::uint64_t first, PhiloxKey key, Make&& make, Group&& group) {
  alignas(64) Number ordered[4 * kBlocks + 16] = {};
  index skip = index(first % 4);
  std::uint64_t block = first / 4;
  for (index i = 0; i < n; block += std::uint64_t(kBlocks)) {
    make(philox(key, block), ordered);
    const index made = 4 * kBlocks - skip, k = n - i < made ? n - i : made;
    group(i, ordered + skip, k);
    i += k;
    skip = 0;
  }
}

// The words of the blocks as 32-bit numbers: two words fill a lane, and lanes alternate.
inline void order_words(PhiloxBlocks b, std::uint32_t* ordered) {
  alignas(64) std::uint64_t low[kBlocks], high[kBlocks], pairs[2 * kBlocks];
  const words w01 = b.w[0] | (b.w[1] << 32), w23 = b.w[2] | (b.w[3] << 32);
  __builtin_memcpy(low, &w01, sizeof low);
  __builtin_memcpy(high, &w23, sizeof high);
  for (index i = 0; i < kBlocks; ++i) {
    pairs[2 * i] = low[i];
    pairs[2 * i + 1] = high[i];
  }
  __builtin_memcpy(ordered, pairs, sizeof pairs);
}

// v[j] holds number j of every block.
inline void order_numbers(const vec<double> (&v)[4], double* ordered) {
  alignas(64) double columns[4][kBlocks];
  for (int j = 0; j < 4; ++j) store(columns[j], v[j]);
  for (index i = 0; i < kBlocks; ++i)
    for (index j = 0; j < 4; ++j) ordered[4 * i + j] = columns[j][i];
}

template <class T> struct UnsignedOf;
template <> struct UnsignedOf<float> {
  using type = std::uint32_t;
};
template <> struct UnsignedOf<double> {
  using type = std::uint64_t;
};

// lanes<T>() words, each widened to the size of T.
template <class T> struct WordsOf {
  typedef std::uint32_t narrow __attribute__((vector_size(lanes<T>() * 4)));
  using Wide = typename UnsignedOf<T>::type;
  typedef Wide wide __attribute__((vector_size(kVectorBytes<T>)));
  static wide read(const std::uint32_t* p) {
    narrow w;
    __builtin_memcpy(&w, p, sizeof w);
    return __builtin_convertvector(w, wide);
  }
};

template <class T>
void dropout(index n, std::uint64_t first, PhiloxKey key, double p, const T* x, T* y) noexcept {
  using Words = WordsOf<T>;
  if (p >= 1) {
    for_row<T>(n, [=](index i, auto k) { store_n(y + i, vec<T>{}, k); });
    return;
  }
  // Kept when w / 2^32 >= p: w >= ceil(p * 2^32), or w > that less one, which fits 32 bits.
  const double scaled = p * 0x1p32;
  std::uint64_t threshold = std::uint64_t(scaled);
  if (double(threshold) < scaled) ++threshold;
  const T scale = T(1 / (1 - p));
  const bool all = threshold == 0;
  const auto limit = typename Words::wide{} + typename Words::Wide(all ? 0 : threshold - 1);
  for_groups<std::uint32_t>(
      n, first, key, [](PhiloxBlocks b, std::uint32_t* ordered) { order_words(b, ordered); },
      [=](index i, const std::uint32_t* w, index count) {
        for_row<T>(count, [=](index e, auto k) {
          const vec<T> kept = load_n(x + i + e, k) * scale;
          store_n(y + i + e, all ? kept : Words::read(w + e) > limit ? kept : vec<T>{}, k);
        });
      });
}

// low + (high - low) * u; u lies inside (0, 1), so only rounding to T can give low or high itself.
template <class T>
void uniform(index n, std::uint64_t first, PhiloxKey key, double low, double high, T* y) noexcept {
  const vec<double> start = set1<double>(low), width = set1<double>(high - low);
  for_groups<double>(
      n, first, key,
      [=](PhiloxBlocks b, double* ordered) {
        vec<double> u[4];
        for (int j = 0; j < 4; ++j) u[j] = fma(uniform_of(b.w[j]), width, start);
        order_numbers(u, ordered);
      },
      [=](index i, const double* u, index k) {
        for (index e = 0; e < k; ++e) y[i + e] = T(u[e]);
      });
}

// Box & Muller 1958: words 2j and 2j + 1 give elements 2j and 2j + 1 as r·cos and r·sin.
template <class T>
void normal(index n, std::uint64_t first, PhiloxKey key, double mean, double std, T* y) noexcept {
  const vec<double> centre = set1<double>(mean), width = set1<double>(std);
  for_groups<double>(
      n, first, key,
      [=](PhiloxBlocks b, double* ordered) {
        vec<double> z[4];
        for (int j = 0; j < 4; j += 2) {
          const vec<double> radius = sqrt(log<double>(uniform_of(b.w[j])) * -2.0);
          const SinCos angle = sincos_turns(uniform_of(b.w[j + 1]));
          z[j] = fma(radius * angle.cos, width, centre);
          z[j + 1] = fma(radius * angle.sin, width, centre);
        }
        order_numbers(z, ordered);
      },
      [=](index i, const double* z, index k) {
        for (index e = 0; e < k; ++e) y[i + e] = T(z[e]);
      });
}

template <class T> constexpr void add_random(Kernels<T>& k) {
  k.dropout = &dropout<T>;
  k.uniform = &uniform<T>;
  k.normal = &normal<T>;
}

}  // namespace
}  // namespace gv::kernels::GV_ISA
