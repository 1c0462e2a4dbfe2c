// peak.h — measures what the processor can do at most, on several threads at once: the limits to which
// the benchmarks relate every other time. Regions of its own, because it reads the clock.
#pragma once
#include <vector>

#include "../base/types.h"

namespace gv::ops {

struct Passes {
  double work;                  // flop or bytes of one pass, all workers together
  std::vector<double> seconds;  // of each pass
};

// Independent chains of fused multiply-adds in registers; the work is flop.
template <class T> Passes fma_passes(int workers, index rounds, int passes);

// y += factor * x over two arrays of n elements in all, each worker its share; the work is bytes,
// 3 * n * sizeof(T): x and y are read and y is written.
template <class T> Passes memory_passes(int workers, index n, int passes);

}  // namespace gv::ops
