// layout.cpp — offsets of the tensors in the arena: best fit over the phases in which each lives.
// Linear in the tensors but for the ordered free list (n log n).
#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "../base/memory.h"
#include "program.h"

namespace gv::plan {
namespace {

// Free stretches of the arena, by place and by size.
class FreeList {
 public:
  index take(index bytes) {
    const auto fit = by_size_.lower_bound({bytes, 0});
    if (fit == by_size_.end()) {
      const index at = end_;
      end_ += bytes;
      return at;
    }
    const auto [size, at] = *fit;
    erase(at, size);
    if (size > bytes) insert(at + bytes, size - bytes);
    return at;
  }
  void give(index at, index bytes) {
    const auto next = by_place_.lower_bound(at);
    if (next != by_place_.end() && next->first == at + bytes) {
      bytes += next->second;
      erase(next->first, next->second);
    }
    const auto after = by_place_.lower_bound(at);
    if (after != by_place_.begin()) {
      const auto [place, size] = *std::prev(after);
      if (place + size == at) {
        erase(place, size);
        at = place;
        bytes += size;
      }
    }
    insert(at, bytes);
  }
  index end() const { return end_; }

 private:
  void insert(index at, index size) {
    by_place_.emplace(at, size);
    by_size_.emplace(size, at);
  }
  void erase(index at, index size) {
    by_place_.erase(at);
    by_size_.erase({size, at});
  }
  std::map<index, index> by_place_;
  std::set<std::pair<index, index>> by_size_;
  index end_ = 0;
};

}  // namespace

index layout(std::vector<Tensor>& tensors, std::vector<index>& offsets, index batch) {
  offsets.assign(tensors.size(), -1);
  index kept = 0;
  std::vector<int> starts;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& t = tensors[i];
    if (t.place == Place::kept) {
      offsets[i] = kept;
      kept += aligned(t.bytes(batch));
    } else if (t.place == Place::arena && t.storage == TensorId(i) && t.last_phase >= 0) {
      starts.push_back(int(i));
    }
  }
  std::vector<int> ends = starts;
  std::stable_sort(starts.begin(), starts.end(), [&](int a, int b) {
    return tensors[std::size_t(a)].first_phase < tensors[std::size_t(b)].first_phase;
  });
  std::stable_sort(ends.begin(), ends.end(), [&](int a, int b) {
    return tensors[std::size_t(a)].last_phase < tensors[std::size_t(b)].last_phase;
  });
  FreeList free;
  std::size_t ended = 0;
  for (int i : starts) {
    const Tensor& t = tensors[std::size_t(i)];
    for (; ended < ends.size() && tensors[std::size_t(ends[ended])].last_phase < t.first_phase; ++ended) {
      const auto e = std::size_t(ends[ended]);
      free.give(offsets[e] - kept, aligned(std::max<index>(1, tensors[e].bytes(batch))));
    }
    offsets[std::size_t(i)] = kept + free.take(aligned(std::max<index>(1, t.bytes(batch))));
  }
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (tensors[i].place == Place::arena && offsets[i] < 0)
      offsets[i] = std::max<index>(0, offsets[std::size_t(tensors[i].storage)]);
  return kept + free.end();
}

}  // namespace gv::plan
