// random.cpp — see random.h.
#include "random.h"

namespace gv::ops {
namespace {

// The 64-bit words of a key, in order: two numbers (w + 1/2) / 2^32 each, exact in double.
class Words {
 public:
  Words(const kernels::Kernels<double>& k, kernels::PhiloxKey key) : kernels_(k), key_(key) {}

  std::uint64_t next() noexcept {
    if (used_ == kAtOnce) {
      kernels_.uniform(kAtOnce, drawn_, key_, 0.0, 1.0, numbers_);
      drawn_ += kAtOnce;
      used_ = 0;
    }
    const auto high = std::uint64_t(numbers_[used_] * 0x1p32),
               low = std::uint64_t(numbers_[used_ + 1] * 0x1p32);
    used_ += 2;
    return high << 32 | low;
  }

  // Every integer below bound as likely as any other.
  std::uint64_t below(std::uint64_t bound) noexcept {
    auto product = Product(next()) * bound;
    if (std::uint64_t(product) < bound) {
      const std::uint64_t unfair = (0 - bound) % bound;
      while (std::uint64_t(product) < unfair) product = Product(next()) * bound;
    }
    return std::uint64_t(product >> 64);
  }

 private:
  __extension__ typedef unsigned __int128 Product;
  static constexpr index kAtOnce = 256;
  const kernels::Kernels<double>& kernels_;
  const kernels::PhiloxKey key_;
  std::uint64_t drawn_ = 0;
  index used_ = kAtOnce;
  double numbers_[kAtOnce];
};

}  // namespace

void permutation(const kernels::Kernels<double>& k, index n, kernels::PhiloxKey key,
                 std::int64_t* out) noexcept {
  for (index i = 0; i < n; ++i) out[i] = i;
  Words words(k, key);
  for (index i = n - 1; i > 0; --i) {
    const auto j = index(words.below(std::uint64_t(i) + 1));
    const std::int64_t kept = out[i];
    out[i] = out[j];
    out[j] = kept;
  }
}

}  // namespace gv::ops
