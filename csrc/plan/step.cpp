// step.cpp — how a group of panel steps is dealt to workers, see step.h.
#include "step.h"

#include <algorithm>

namespace gv::plan {
namespace {

constexpr index kGrain = 16;              // columns: a cache line of floats, a vector of every ISA
constexpr index kPanelBytes = 64 * 1024;  // of one activation panel: a few of them stay in L2
constexpr index kNarrow = 64, kWide = 256;
constexpr index kRowsBytes = 256 * 1024;  // of the widest panel of rows

// Columns of a panel: wide enough for the register tile, narrow enough for the cache.
index panel_width(index rows, index columns, index element_bytes) {
  if (columns <= kNarrow) return std::max<index>(1, columns);
  const index fits = kPanelBytes / (std::max<index>(rows, 1) * element_bytes) / kNarrow * kNarrow;
  return std::clamp<index>(std::min(columns, std::clamp(fits, kNarrow, kWide)), 1, kWide);
}

bool reads_rows(const Accesses& step) {
  const auto& all = step.accesses();
  return std::any_of(all.begin(), all.end(),
                     [](const Access& a) { return !a.writes && a.reach == Reach::row; });
}

}  // namespace

template <class T>
PanelGroup<T>::PanelGroup(std::unique_ptr<PanelStep<T>> first, bool by_rows)
    : multiplicity_(first->multiplicity), columns_(first->columns), by_rows_(by_rows && !first->all_rows) {
  append(std::move(first));
}

// A step may join if it has the same rows (and columns) and reads in full nothing that the group
// writes, and writes nothing that the group reads in full: other workers' panels may be elsewhere.
// By rows nearly everything could join, but all that a group writes is in memory at the same time, so there is
// one product in a group.
template <class T> bool PanelGroup<T>::takes(const PanelStep<T>& step) const {
  if (step.multiplicity != multiplicity_) return false;
  if (!by_rows_ && step.row_grain() >= kRowBlock) return false;  // it takes its rows with all columns
  if (by_rows_ ? step.all_rows || (products_ > 0 && reads_rows(step)) : step.columns != columns_)
    return false;
  for (const Access& access : step.accesses()) {
    const auto found = touched_.find(access.slot->id);
    if (found == touched_.end()) continue;
    const Touch& ours = found->second;
    if (access.local(by_rows_) ? ours.writes_whole || (access.writes && ours.whole)
                               : ours.writes || access.writes)
      return false;
  }
  return true;
}

template <class T> void PanelGroup<T>::append(std::unique_ptr<PanelStep<T>> step) {
  all_rows_ |= step->all_rows;
  widest_ = std::max(widest_, step->columns);
  row_grain_ = std::max(row_grain_, step->row_grain());
  products_ += reads_rows(*step);
  auto& all = this->accesses();
  all.insert(all.end(), step->accesses().begin(), step->accesses().end());
  for (const int parameter : step->updates()) this->updates(parameter);
  for (const Access& access : step->accesses()) {
    Touch& touch = touched_[access.slot->id];
    const bool whole = !access.local(by_rows_);
    touch.writes |= access.writes;
    touch.whole |= whole;
    touch.writes_whole |= access.writes && whole;
  }
  steps_.push_back(std::move(step));
}

template <class T> void PanelGroup<T>::run(const Context<T>& context, const Worker& worker) const noexcept {
  if (by_rows_) run_rows(context, worker);
  else run_columns(context, worker);
}

template <class T>
void PanelGroup<T>::run_rows(const Context<T>& context, const Worker& worker) const noexcept {
  const Range mine = share(multiplicity_ * context.batch, row_grain_, worker.id, worker.team);
  const index fits = kRowsBytes / (widest_ * index(sizeof(T))) / kRowBlock * kRowBlock;
  const index height = std::max(kRowBlock, fits);
  for (index first = mine.first; first < mine.last; first += height) {
    const Range panel{first, std::min(mine.last, first + height)};
    for (const auto& step : steps_) step->panel(context, panel, Range{0, step->columns}, worker.scratch);
  }
}

template <class T>
void PanelGroup<T>::run_columns(const Context<T>& context, const Worker& worker) const noexcept {
  const index rows = multiplicity_ * context.batch;
  if (worker.team == 1) return run_panels(context, {0, rows}, {0, columns_}, worker.scratch);
  const index grains = std::max<index>(1, (columns_ + kGrain - 1) / kGrain);
  const int by_columns =
      all_rows_ ? worker.team : int(std::min<index>(worker.team, std::max<index>(1, columns_ / kNarrow)));
  const int by_rows = all_rows_ ? 1 : worker.team / by_columns;
  if (worker.id >= by_columns * by_rows) return;
  const Range cols =
      share(columns_, grains >= 4 * by_columns ? 2 * kGrain : kGrain, worker.id % by_columns, by_columns);
  Context<T> team = context;
  team.fresh = true;
  run_panels(team, share(rows, row_grain_, worker.id / by_columns, by_rows), cols, worker.scratch);
}

template <class T>
void PanelGroup<T>::run_panels(const Context<T>& context, Range rows, Range cols,
                               char* scratch) const noexcept {
  const index width = panel_width(multiplicity_ * context.batch, cols.size(), sizeof(T));
  for (index first = cols.first; first < cols.last; first += width) {
    const Range panel{first, std::min(cols.last, first + width)};
    for (const auto& step : steps_) step->panel(context, rows, panel, scratch);
  }
}

template <class T> index PanelGroup<T>::scratch_bytes(index batch) const {
  index most = 0;
  for (const auto& step : steps_) most = std::max(most, step->scratch_bytes(batch));
  return most;
}

template <class T> double PanelGroup<T>::nanoseconds(index batch) const {
  double sum = 0;
  for (const auto& step : steps_) sum += step->nanoseconds(batch);
  return sum;
}

template class PanelGroup<float>;
template class PanelGroup<double>;

}  // namespace gv::plan
