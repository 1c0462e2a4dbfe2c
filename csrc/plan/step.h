// step.h — what a plan is made of. An Instruction does one worker's share of its work: no region,
// no barrier, no allocation. A PanelStep works on rows or columns that do not depend on each other, so a
// chain of them can run panel by panel while the panel is in cache: that is all that fusing means here, and
// why it cannot change a bit. A panel is some columns with all their rows, or, in a plan that goes by rows
// (a large batch), some rows with all their columns.
#pragma once
#include <array>
#include <memory>
#include <unordered_map>
#include <vector>

#include "../base/parallel.h"
#include "../kernels/table.h"
#include "tensor.h"

namespace gv::plan {

template <class T> class Update;
template <class T> struct BatchSource;

template <class T> struct Context {
  const kernels::Kernels<T>* kernels;
  index batch;                // samples in this step
  std::uint64_t seed, step;   // of the random stream (dropout)
  const Update<T>* update;    // null where nothing is updated inside instructions
  const BatchSource<T>* source;
  bool fresh = false;  // other workers have just written parts of what panels read in full
  kernels::AheadQueue* ahead = nullptr;  // of this worker, never null where something runs
};

struct Worker {
  int id, team;
  char* scratch;  // at least the scratch_bytes() of what runs, 64-byte aligned
};

// What a step touches of a tensor when it works on a panel: the same rows and columns; these columns of a
// vector; these rows with all their columns; everything.
enum class Reach : std::uint8_t { own, column, row, all };

struct Access {
  Slot* slot;
  bool writes;
  Reach reach;
  // Whether panels do not meet there.
  bool local(bool by_rows) const {
    return reach == Reach::own || reach == (by_rows ? Reach::row : Reach::column);
  }
};

class Accesses {
 public:
  virtual ~Accesses() = default;
  std::vector<Access>& accesses() { return accesses_; }
  const std::vector<Access>& accesses() const { return accesses_; }
  // Parameters that it updates: the optimiser's state of these is memory that it touches as well.
  const std::vector<int>& updates() const { return updates_; }

 protected:
  void updates(int parameter) {
    if (parameter >= 0) updates_.push_back(parameter);
  }
  void reads(Slot& slot, TensorId id, Reach reach = Reach::own) { touch(slot, id, false, reach); }
  void writes(Slot& slot, TensorId id, Reach reach = Reach::own) { touch(slot, id, true, reach); }

 private:
  void touch(Slot& slot, TensorId id, bool write, Reach reach) {
    slot.id = id;
    if (id >= 0) accesses_.push_back({&slot, write, reach});
  }
  std::vector<Access> accesses_;
  std::vector<int> updates_;
};

template <class T> class Instruction : public Accesses {
 public:
  virtual void run(const Context<T>&, const Worker&) const noexcept = 0;
  virtual index scratch_bytes(index batch) const = 0;
  virtual double nanoseconds(index batch) const = 0;  // on one worker, roughly
  virtual bool has_products() const { return false; }
  // Nothing in the chain needs its result soon, so it need not interrupt a panel group.
  virtual bool deferrable() const { return false; }
};

template <class T> class PanelStep : public Accesses {
 public:
  PanelStep(index multiplicity, index columns, bool all_rows)
      : multiplicity(multiplicity), columns(columns), all_rows(all_rows) {}
  const index multiplicity;  // rows = multiplicity * batch
  const index columns;
  const bool all_rows;  // a column needs all of its rows at once (batch statistics): never by rows

  // Rows are dealt in so many.
  virtual index row_grain() const { return 4; }
  // Nothing in the chain needs its result soon, so it need not interrupt a group.
  virtual bool deferrable() const { return false; }
  virtual void panel(const Context<T>&, Range rows, Range cols, char* scratch) const noexcept = 0;
  virtual index scratch_bytes(index) const { return 0; }
  virtual double nanoseconds(index batch) const {  // one pass over the activations in cache
    return double(multiplicity * batch) * double(columns) * 0.06;
  }
  // The inputs of which the output may take the memory of one that nobody needs afterwards; -1: none.
  struct Overwrite {
    TensorId output = -1;
    std::array<TensorId, 2> inputs{-1, -1};
  };
  virtual Overwrite overwrites() const { return {}; }
};

// A chain of panel steps with the same rows and, unless it goes by rows, the same columns. Panels go to
// workers; where no step needs all rows, rows are dealt too.
template <class T> class PanelGroup final : public Instruction<T> {
 public:
  PanelGroup(std::unique_ptr<PanelStep<T>> first, bool by_rows);
  bool takes(const PanelStep<T>& step) const;
  void append(std::unique_ptr<PanelStep<T>> step);
  const std::vector<std::unique_ptr<PanelStep<T>>>& steps() const { return steps_; }
  bool by_rows() const { return by_rows_; }

  void run(const Context<T>&, const Worker&) const noexcept override;
  index scratch_bytes(index batch) const override;
  double nanoseconds(index batch) const override;
  bool has_products() const override { return products_ > 0; }

 private:
  struct Touch {
    bool writes = false, whole = false, writes_whole = false;  // how the steps so far touch a tensor
  };
  void run_rows(const Context<T>&, const Worker&) const noexcept;
  void run_columns(const Context<T>&, const Worker&) const noexcept;
  void run_panels(const Context<T>&, Range rows, Range cols, char* scratch) const noexcept;

  std::unordered_map<TensorId, Touch> touched_;
  std::vector<std::unique_ptr<PanelStep<T>>> steps_;
  const index multiplicity_, columns_;
  const bool by_rows_;
  bool all_rows_ = false;
  index widest_ = 1, row_grain_ = 1;  // of the steps
  int products_ = 0;
};

}  // namespace gv::plan
