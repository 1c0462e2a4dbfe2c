// foresight.h — what is fetched before it is wanted: while an instruction's products run, they have load slots to
// spare (Ahead in kernels/table.h) for the memory that the next instructions will touch, and in the end for the
// rows of the next batch. In a team most of what comes is being written by others, and to fetch it would take it
// from them; there it is what everybody reads in full and nobody has written for a while, such as the weights.
// Nothing but time depends on it.
#pragma once
#include <vector>

#include "program.h"
#include "steps_input.h"
#include "update.h"

namespace gv::plan {

template <class T> class Foresight {
 public:
  // Once every tensor of the program has its address; for so many samples at most.
  void plan(const Program<T>& program, const Graph& graph, const Update<T>& update, index batch);

  // What instruction i fetches while it runs.
  kernels::AheadList during(std::size_t i, bool in_team) const {
    const Lists& lists = in_team ? in_team_ : alone_;
    return {lists.memory.data() + lists.first[i], lists.memory.data() + lists.last[i], 0};
  }
  // The worker's share of the next step's rows.
  kernels::AheadList next_batch(const BatchSource<T>& source, int worker, int workers) noexcept;
  // The objects of instruction i; i may be the number of instructions.
  void fetch_instruction(std::size_t i) const {
    for (std::size_t o = first_object_[i]; o < first_object_[i + 1]; ++o) __builtin_prefetch(objects_[o]);
  }

 private:
  struct Lists {
    std::vector<kernels::Ahead> memory;
    std::vector<std::size_t> first, last;  // by instruction that fetches it
  };
  Lists list(const Program<T>& program, const Graph& graph, const Update<T>& update, index batch,
             bool in_team) const;
  void plan_objects(const Program<T>& program);

  static constexpr index kLine = kernels::kLineBytes;
  Lists alone_, in_team_;
  std::vector<const char*> objects_;  // lines of the instructions themselves
  std::vector<std::size_t> first_object_;  // of each instruction; two more at the end
  std::vector<kernels::Ahead> next_rows_;  // by row and input
  std::vector<index> input_elements_;
};

}  // namespace gv::plan
