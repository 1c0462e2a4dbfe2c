// recompute.cpp — gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): where the forward part
// is cut into segments, and the forward steps of a segment once more before its backward. Only the
// values that cross a cut stay in memory from forward to backward; the others get new tensors, which
// live in the phases of their segment. The steps are the same, so are the bits; only batch norm is
// applied again from its kept statistics instead of being measured again.
#include <algorithm>
#include <numeric>

#include "lower.h"

namespace gv::plan {

// A layer is a product with a parameter. From the k-th to the 2k-th layer of a segment, and never
// behind the last layer of the net, the cut is at the first place where the fewest values cross: the
// output of a layer in a plain stack, the sum at the end of a residual block.
template <class T> void Lowering<T>::find_segments() {
  const auto& nodes = graph_.nodes();
  const NodeId n = NodeId(nodes.size());
  const index every = std::min<index>(options_.checkpoint_every, n);
  if (every <= 0 || !options_.gradients) return;

  std::vector<NodeId> last_use(nodes.size(), -1);
  std::vector<index> crossing(nodes.size(), 0), layers(nodes.size(), 0);  // behind each node, up to it
  for (NodeId id = 0; id < n; ++id)
    for (NodeId in : graph_.node(id).inputs)
      last_use[std::size_t(in)] = std::max(last_use[std::size_t(in)], home(id));
  for (NodeId id = 0; id < n; ++id)  // inputs are there anyway
    if (graph_.node(id).op != Op::input && last_use[std::size_t(id)] > home(id)) {
      ++crossing[std::size_t(home(id))];
      --crossing[std::size_t(last_use[std::size_t(id)])];
    }
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    layers[i] = nodes[i].op == Op::linear || nodes[i].op == Op::matmul_parameter;
    if (i > 0) crossing[i] += crossing[i - 1], layers[i] += layers[i - 1];
  }

  for (index before = 0;;) {  // layers before the segment
    NodeId cut = -1;
    for (NodeId id = segments_.back(); id < n; ++id) {
      const auto i = std::size_t(id);
      if (layers[i] > before + 2 * every || layers[i] == layers.back()) break;
      if (layers[i] >= before + every && (cut < 0 || crossing[i] < crossing[std::size_t(cut)])) cut = id;
    }
    if (cut < 0) break;
    before = layers[std::size_t(cut)];
    segments_.push_back(cut + 1);
  }
  std::vector<int> segment(nodes.size(), 0);
  for (std::size_t i = 1; i < segments_.size(); ++i) segment[std::size_t(segments_[i])] = 1;
  std::partial_sum(segment.begin(), segment.end(), segment.begin());
  const auto segment_of = [&](NodeId id) { return segment[std::size_t(home(id))]; };
  for (NodeId id = 0; id < n; ++id)
    for (NodeId in : graph_.node(id).inputs)
      if (segment_of(in) < segment_of(id)) facts(home(in)).kept = true;
}

// What nobody will read, such as the way from the last value that the backward needs to the end of
// the segment, is dropped by schedule().
template <class T> void Lowering<T>::recompute_segment_of(NodeId id) {
  if (id >= segments_.back()) return;
  NodeId end = -1;
  for (; id < segments_.back(); segments_.pop_back()) end = segments_.back();
  for (NodeId i = segments_.back(); i < end; ++i)
    if (!facts(i).kept) lower(i);
}

template class Lowering<float>;
template class Lowering<double>;

}  // namespace gv::plan
