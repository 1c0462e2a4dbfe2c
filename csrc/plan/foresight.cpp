// foresight.cpp — see foresight.h.
#include "foresight.h"

#include <algorithm>

namespace gv::plan {

template <class T>
void Foresight<T>::plan(const Program<T>& program, const Graph& graph, const Update<T>& update, index batch) {
  alone_ = list(program, graph, update, batch, false);
  in_team_ = list(program, graph, update, batch, true);
  plan_objects(program);
  input_elements_.clear();
  for (const NodeId id : graph.inputs()) input_elements_.push_back(graph.node(id).shape.elements());
  next_rows_.resize(std::size_t(batch) * input_elements_.size());
}

// The hardware follows a stream by itself, but only within a page and after a few misses, and a layer is a
// handful of short streams, first the shortest, which no stream foretells. What the last few instructions have
// touched is left out: it is in cache.
template <class T>
typename Foresight<T>::Lists Foresight<T>::list(const Program<T>& program, const Graph& graph,
                                                const Update<T>& update, index batch, bool in_team) const {
  constexpr index kRecent = 3;
  constexpr index kMost = 256 * 1024;  // of one tensor: a few of them fit in the second-level cache
  const std::size_t n = program.instructions.size();
  Lists lists;
  std::vector<index> touched(program.tensors.size(), -kRecent - 1), written = touched;
  const auto stretch = [&](const void* at, index bytes) {
    if (at && bytes > 0)
      lists.memory.push_back({static_cast<const char*>(at), (std::min(kMost, bytes) + kLine - 1) / kLine});
  };
  std::vector<std::size_t> end(n);  // of what instruction i wants
  for (std::size_t i = 0; i < n; ++i) {
    const Instruction<T>& instruction = *program.instructions[i];
    for (const Access& a : instruction.accesses()) {
      const Tensor& t = program.tensors[std::size_t(a.slot->id)];
      index &last = touched[std::size_t(t.storage)], &write = written[std::size_t(t.storage)];
      const bool wanted = !in_team || (a.reach == Reach::all && !a.writes && index(i) - write > kRecent);
      if (i > 0 && wanted && index(i) - last > kRecent) stretch(a.slot->at, t.bytes(batch));
      last = index(i);
      if (a.writes) write = last;
    }
    if (i > 0 && !in_team)
      for (const int p : instruction.updates()) {
        for (int which : {0, 1})
          stretch(update.state(which, p), graph.parameters()[std::size_t(p)].size * index(sizeof(T)));
        stretch(update.place(p), kLine);
      }
    std::stable_partition(lists.memory.begin() + std::ptrdiff_t(i > 0 ? end[i - 1] : 0), lists.memory.end(),
                          [](const kernels::Ahead& a) { return a.lines <= kernels::kShortAhead; });
    end[i] = lists.memory.size();
  }
  // Whoever has products fetches for the others up to the next that has.
  lists.first.assign(n, 0);
  lists.last.assign(n, 0);
  std::size_t next = n;
  for (std::size_t i = n; i-- > 0;) {
    if (!program.instructions[i]->has_products()) continue;
    if (next < n) lists.first[i] = end[i], lists.last[i] = end[next];
    next = i;
  }
  return lists;
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
      *last++ = {x.row(s.sample(s.rows + r)), (bytes + kLine - 1) / kLine};
    }
  return {first, last, 0};
}

template class Foresight<float>;
template class Foresight<double>;

}  // namespace gv::plan
