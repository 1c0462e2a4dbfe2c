// foresight.cpp — see foresight.h.
#include "foresight.h"

#include <algorithm>

namespace gv::plan {

template <class T>
void Foresight<T>::plan(const Program<T>& program, const Graph& graph, const Update<T>& update, index batch) {
  plan_memory(program, graph, update, batch);
  plan_objects(program);
  input_elements_.clear();
  for (const NodeId id : graph.inputs()) input_elements_.push_back(graph.node(id).shape.elements());
  next_rows_.resize(std::size_t(batch) * input_elements_.size());
}

// While the products of an instruction run, the memory that the next one will touch and the last few have
// not is on its way. The hardware follows a stream by itself, but only within a page and after a few
// misses, and a layer is a handful of short streams.
template <class T>
void Foresight<T>::plan_memory(const Program<T>& program, const Graph& graph, const Update<T>& update,
                               index batch) {
  constexpr index kRecent = 3;
  constexpr index kMost = 256 * 1024;  // of one tensor: a few of them fit in the second-level cache
  const std::size_t n = program.instructions.size();
  memory_.clear();
  first_memory_.assign(n + 1, 0);
  std::vector<index> touched(program.tensors.size(), -kRecent - 1);
  const auto stretch = [&](const void* at, index bytes) {
    if (at && bytes > 0)
      memory_.push_back({static_cast<const char*>(at), kLine, (bytes + kLine - 1) / kLine});
  };
  for (std::size_t i = 0; i < n; ++i) {  // what instruction i wants, instruction i - 1 fetches
    const Instruction<T>& instruction = *program.instructions[i];
    const std::size_t before = memory_.size();
    for (const Access& a : instruction.accesses()) {
      const Tensor& t = program.tensors[std::size_t(a.slot->id)];
      index& last = touched[std::size_t(t.storage)];
      if (index(i) - last > kRecent) stretch(a.slot->at, std::min(kMost, t.bytes(batch)));
      last = index(i);
    }
    if (const int p = instruction.updates(); p >= 0) {
      for (int which : {0, 1})
        stretch(update.state(which, p),
                std::min(kMost, graph.parameters()[std::size_t(p)].size * index(sizeof(T))));
      stretch(update.place(p), kLine);
    }
    if (i == 0) memory_.resize(before);
    first_memory_[i] = memory_.size();
  }
  first_memory_[n] = memory_.size();
}

// The objects themselves are small and all over the place; two lines reach what run() reads of most.
template <class T> void Foresight<T>::plan_objects(const Program<T>& program) {
  objects_.clear();
  first_object_.clear();
  const auto object = [&](const void* at) {
    for (index line = 0; line < 2 * kLine; line += kLine)
      objects_.push_back(static_cast<const char*>(at) + line);
  };
  for (const auto& instruction : program.instructions) {
    first_object_.push_back(objects_.size());
    object(instruction.get());
    if (const auto* group = dynamic_cast<const PanelGroup<T>*>(instruction.get())) {
      objects_.push_back(reinterpret_cast<const char*>(group->steps().data()));
      for (const auto& step : group->steps()) object(step.get());
    }
  }
  first_object_.insert(first_object_.end(), 2, objects_.size());
}

template <class T>
kernels::AheadList Foresight<T>::next_batch(const BatchSource<T>& s, int worker, int workers) noexcept {
  const index inputs = index(input_elements_.size()),
              capacity = inputs ? index(next_rows_.size()) / inputs : 0;
  const Range mine = share(std::min(s.rows_after, capacity), LoadInput<T>::kGrain, worker, workers);
  kernels::Ahead* const first = next_rows_.data() + mine.first * inputs;
  kernels::Ahead* last = first;
  for (index r = mine.first; r < mine.last; ++r)
    for (index i = 0; i < inputs; ++i) {
      const InputRows<T>& x = s.inputs[std::size_t(i)];
      const index bytes = input_elements_[std::size_t(i)] * x.item_bytes;
      *last++ = {x.row(s.sample(s.rows + r)), kLine, (bytes + kLine - 1) / kLine};
    }
  return {first, last, 0};
}

template class Foresight<float>;
template class Foresight<double>;

}  // namespace gv::plan
