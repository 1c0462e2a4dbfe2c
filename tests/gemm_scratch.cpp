// gemm_scratch.cpp — random products of every layout, whole and in parts, with no more scratch than gemm_scratch
// asks for and a guard behind it: nothing is written past the scratch or past C, and every element is what a
// plain loop says.
// The scalar kernels do: their panels are as wide as the widest, so they need the most. They also stand for those of
// AVX2, with panels half as wide, and of AVX-512, for the rules follow what a table says of itself. Small integers
// keep all sums exact. Built and run by test_gemm_scratch.py.
#define GV_ISA scalar
#include <cstdio>
#include <random>
#include <vector>

#include "base/caches.h"
#include "kernels/axpys.h"
#include "kernels/dots.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "ops/gemm.h"

namespace {

using gv::Range;
using Index = gv::index;

struct Tile {
  Index panel_bytes, tallest;
  bool halves;
};

template <class T> int check(int products, unsigned seed, Tile tile) {
  gv::kernels::Kernels<T> kernels{};
  gv::kernels::scalar::add_gemm(kernels);
  gv::kernels::scalar::add_dots(kernels);
  gv::kernels::scalar::add_axpys(kernels);
  gv::kernels::scalar::add_elementwise(kernels);
  kernels.panel = tile.panel_bytes / Index(sizeof(T)), kernels.tallest = tile.tallest;
  kernels.halves = tile.halves;
  std::mt19937 random(seed);
  const auto below = [&](Index n) { return Index(random() % unsigned(n)); };
  const auto side = [&] { return below(3) == 0 ? below(12) : below(2) ? below(160) : below(2200); };
  const auto depth = [&] { return below(3) == 0 ? below(34) : below(2) ? side() : 1000 + below(1200); };
  constexpr Index kGuard = 1024;
  const T mark = T(12345);
  constexpr Index kChains[] = {0, 0, 96, 1024};
  gv::kernels::AheadQueue ahead{};
  for (int i = 0; i < products;) {
    // All that is kept of B, and more than one block of it; then one block of A that is packed and carried.
    const bool kept = i < 2, carried = !kept && i < 6, large = kept || carried;
    const Index m = kept ? 150 + below(40) : carried ? 90 + below(51) : side();
    const Index n = kept ? 2060 + below(60) : carried ? 1000 + below(1100) : side();
    const Index k = kept ? 980 + below(80) : carried ? 520 + below(500) : depth();
    if (!large && (m * n * k > 20'000'000 || (m * n * k > 1'000'000 && below(40) > 0))) continue;
    ++i;
    const bool a_by_columns = carried || below(2), b_transposed = below(2), accumulate = below(4) == 0;
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
                             carried ? 0 : kChains[below(4)],
                             below(2) ? &ahead : nullptr,
                             below(3) == 0};
    const Index size = gv::ops::gemm_scratch(g);
    std::vector<T> scratch(std::size_t(size + kGuard), mark);
    // The whole, or cut once each way, or as it is dealt to workers: each part has the scratch of the whole.
    bool right = true;
    const auto done = [&] {
      for (Index j = 0; j < kGuard; ++j)
        right &= scratch[std::size_t(size + j)] == mark && c[std::size_t(m * n + j)] == mark;
      scratch.assign(scratch.size(), mark);
    };
    const int workers = int(1 + below(4)), way = carried ? 2 : int(below(3));
    const Index row = way == 1 ? below(m + 1) : 0, column = way == 1 ? below(n + 1) : 0;
    if (way == 0)
      for (int w = 0; w < workers; ++w) gv::ops::run(kernels, g, scratch.data(), w, workers), done();
    else
      for (const Range rows : {Range{0, row}, Range{row, m}})
        for (const Range cols : {Range{0, column}, Range{column, n}})
          gv::ops::gemm_block(kernels, g, rows, cols, scratch.data()), done();
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

int main() {
  gv::find_caches();
  int wrong = 0;
  unsigned seed = 0;
  for (const Tile tile : {Tile{128, 4, false}, Tile{64, 6, false}, Tile{128, 14, true}})
    wrong |= check<float>(1000, ++seed, tile) | check<double>(1000, ++seed, tile);
  return wrong;
}
