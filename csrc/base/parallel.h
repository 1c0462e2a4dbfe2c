// parallel.h — the only header that knows threads: how many there are, a region in which they
// run, the barrier between them and each one's share of a range. Everything else in csrc is
// serial code that is told which worker it is. OpenMP itself is named in parallel.cpp alone.
#pragma once
#include <atomic>
#include <type_traits>

#include "types.h"

namespace gv {

// Threads that a region uses at most: set_num_threads, else GVCORE_NUM_THREADS, else
// min(OMP_NUM_THREADS, affinity mask, cgroup quota). The first call, when the module is imported, throws
// std::invalid_argument where GVCORE_NUM_THREADS cannot be read.
int num_threads();
int set_num_threads(int n);  // n >= 1; returns what was set: n, or as many as the system can make
const char* num_threads_reason();  // "set_num_threads", "GVCORE_NUM_THREADS", …

// Workers worth waking for work of so many nanoseconds on one thread, at most num_threads(): one for
// every worth_waking() of them. Tests lower it to deal small work too; no result depends on it.
int workers_for(double nanoseconds);
constexpr double kWorthWaking = 3000;
double worth_waking();
void set_worth_waking(double nanoseconds);

// Runs task(context, worker, workers) on every worker and returns when all are done. workers == 1
// runs inline. If OpenMP gives a smaller team, the task is told the true team size. The task must
// not throw. Regions do not nest.
void run_region(int workers, void (*task)(void* context, int worker, int workers), void* context);

template <class F> void parallel(int workers, F&& body) {
  run_region(
      workers,
      [](void* context, int worker, int team) {
        (*static_cast<std::remove_reference_t<F>*>(context))(worker, team);
      },
      &body);
}

// The rows (columns, elements) first <= i < last.
struct Range {
  index first, last;
  index size() const { return last - first; }
};

// Worker's contiguous share of n items, cut at multiples of grain; shares differ by one grain at most.
inline Range share(index n, index grain, int worker, int workers) {
  if (workers == 1) return {0, n};  // no divisions, for the sake of many small pieces
  const index grains = (n + grain - 1) / grain;
  const index base = grains / workers, extra = grains % workers;
  const index first = worker * base + (worker < extra ? worker : extra);
  const index last = first + base + (worker < extra ? 1 : 0);
  return {first * grain < n ? first * grain : n, last * grain < n ? last * grain : n};
}

// All workers of a region meet here; wait() is told the team size of the region. Spins for about a
// microsecond, then yields, then sleeps; with more workers than processors it never spins.
class Barrier {
 public:
  void wait(int workers) noexcept;

 private:
  bool passed(std::uint32_t round) const { return word_.load(std::memory_order_acquire) / kRound != round; }

  // Rounds that are over, and the workers that arrived in this one: in one word, for most of a barrier's time goes
  // into cache lines on their way from one processor to another.
  static constexpr std::uint32_t kRound = 1 << 16;
  alignas(64) std::atomic<std::uint32_t> word_{0};
  alignas(64) std::atomic<int> sleepers_{0};
};

}  // namespace gv
