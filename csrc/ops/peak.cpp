// peak.cpp — see peak.h. All workers meet before and after each pass, and worker 0 reads the clock
// there: a pass is as long as its slowest worker.
#include "peak.h"

#include <chrono>
#include <utility>

#include "../base/memory.h"
#include "../base/parallel.h"
#include "isa.h"

namespace gv::ops {
namespace {

// The first pass wakes the threads and fills the caches, and is not recorded.
template <class F> std::vector<double> timed(int workers, int passes, F&& pass) {
  std::vector<double> seconds(std::size_t(passes), 0.0);
  Barrier barrier;
  parallel(workers, [&](int worker, int team) {
    for (int i = -1; i < passes; ++i) {
      barrier.wait(team);
      const auto start = std::chrono::steady_clock::now();
      pass(worker, team);
      barrier.wait(team);
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
      if (worker == 0 && i >= 0) seconds[std::size_t(i)] = elapsed.count();
    }
  });
  return seconds;
}

}  // namespace

template <class T> Passes fma_passes(int workers, index rounds, int passes) {
  const auto& kernels = active_table().of<T>();
  std::vector<double> work(std::size_t(workers), 0.0);
  auto seconds = timed(workers, passes, [&](int worker, int) {
    T sink[3] = {T(0.5), T(0.25), T(0)};  // the chains stay near term / (1 - factor)
    work[std::size_t(worker)] = kernels.fma_chains(rounds, sink);
  });
  double total = 0;
  for (double part : work) total += part;
  return {total, std::move(seconds)};
}

template <class T> Passes memory_passes(int workers, index n, int passes) {
  const auto& kernels = active_table().of<T>();
  // Not a multiple of a page apart: some processors take such a load for a use of the last store.
  const index bytes = aligned(n * index(sizeof(T))) + 33 * Buffer::kAlignment;
  Buffer memory(2 * bytes);
  const T* x = reinterpret_cast<const T*>(memory.data());
  T* y = reinterpret_cast<T*>(memory.data() + bytes);
  auto seconds = timed(workers, passes, [&](int worker, int team) {
    const Range part = share(n, Buffer::kAlignment / index(sizeof(T)), worker, team);
    kernels.add_scaled(part.size(), T(0.5), x + part.first, y + part.first);
  });
  return {3.0 * double(n) * double(sizeof(T)), std::move(seconds)};
}

template Passes fma_passes<float>(int, index, int);
template Passes fma_passes<double>(int, index, int);
template Passes memory_passes<float>(int, index, int);

}  // namespace gv::ops
