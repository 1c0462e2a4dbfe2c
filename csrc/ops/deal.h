// deal.h — how work that has no order is cut into shares: a panel without gaps by elements, any
// other panel by rows. No arithmetic.
#pragma once
#include "../base/parallel.h"

namespace gv::ops {

// A share of a panel: `rows` rows of `cols` elements from row `row`, column `col`.
struct PanelShare {
  index rows, cols, row, col;
  index at(index ld) const { return row * ld + col; }
};

// flat: the rows of every operand follow one another without gaps.
inline PanelShare share_of_panel(index rows, index cols, bool flat, int worker, int workers) {
  constexpr index kElementGrain = 64, kRowGrain = 1;
  if (flat) {
    const Range part = share(rows * cols, kElementGrain, worker, workers);
    return {1, part.size(), 0, part.first};
  }
  const Range part = share(rows, kRowGrain, worker, workers);
  return {part.size(), cols, part.first, 0};
}

// Rows of which each is the work of one worker.
inline Range share_of_rows(index rows, int worker, int workers) { return share(rows, 4, worker, workers); }

}  // namespace gv::ops
