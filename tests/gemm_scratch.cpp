// gemm_scratch.cpp — random products of every layout with no more scratch than gemm_scratch asks for and a guard
// behind it: nothing is written past the scratch or past C, and every element is what a plain loop says.
// The scalar kernels do: how scratch is used does not depend on the instruction set. Small integers keep
// all sums exact. Built and run by test_gemm_scratch.py.
#define GV_ISA scalar
#include <cstdio>
#include <random>
#include <vector>

#include "kernels/axpys.h"
#include "kernels/dots.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "ops/gemm.h"

namespace {

using gv::Range;
using Index = gv::index;

template <class T> int check(int products, unsigned seed) {
  gv::kernels::Kernels<T> kernels{};
  gv::kernels::scalar::add_gemm(kernels);
  gv::kernels::scalar::add_dots(kernels);
  gv::kernels::scalar::add_axpys(kernels);
  gv::kernels::scalar::add_elementwise(kernels);
  std::mt19937 random(seed);
  const auto below = [&](Index n) { return Index(random() % unsigned(n)); };
  const auto side = [&] { return below(3) == 0 ? below(12) : below(2) ? below(160) : below(2200); };
  constexpr Index kGuard = 1024;
  const T mark = T(12345);
  for (int i = 0; i < products;) {
    const Index m = side(), n = side(), k = below(2) ? below(34) : side();
    if (m * n * k > 1'000'000) continue;
    ++i;
    const bool a_by_columns = below(2), b_transposed = below(2), accumulate = below(4) == 0;
    std::vector<T> a(std::size_t(m * k + 1)), b(std::size_t(n * k + 1)), c(std::size_t(m * n + kGuard), mark);
    for (T& x : a) x = T(below(7) - 3);
    for (T& x : b) x = T(below(5) - 2);
    const gv::ops::Gemm<T> g{m,
                             n,
                             k,
                             a.data(),
                             a_by_columns ? 1 : k,
                             a_by_columns ? m : 1,
                             b.data() + below(2),
                             b_transposed ? k : n,
                             b_transposed,
                             c.data(),
                             n,
                             accumulate,
                             below(3) == 0 ? 96 : 0,
                             nullptr,
                             below(3) == 0};
    const Index size = gv::ops::gemm_scratch(g);
    std::vector<T> scratch(std::size_t(size + kGuard), mark);
    gv::ops::gemm_block(kernels, g, Range{0, m}, Range{0, n}, scratch.data());
    bool right = true;
    for (Index j = 0; j < kGuard; ++j)
      right &= scratch[std::size_t(size + j)] == mark && c[std::size_t(m * n + j)] == mark;
    for (int element = 0; element < 20 && m * n > 0; ++element) {
      const Index r = below(m), j = below(n);
      T sum = accumulate ? mark : T(0);
      for (Index p = 0; p < k; ++p)
        sum += g.a[r * g.ras + p * g.kas] * g.b[b_transposed ? j * k + p : p * n + j];
      right &= c[std::size_t(r * n + j)] == sum;
    }
    if (right) continue;
    std::printf("m %td n %td k %td, A by columns %d, B transposed %d, accumulate %d, chain %td\n", m, n, k,
                a_by_columns, b_transposed, accumulate, g.chain);
    return 1;
  }
  return 0;
}

}  // namespace

int main() { return check<float>(8000, 1) | check<double>(8000, 2); }
