// steps_input.h — where a batch comes from: rows of the caller's arrays, in their order or
// gathered by an index, and converted to the plan's numbers on the way. A row is read where it lies; no
// array is copied as a whole. Not here: whether an array lies in rows (bind/inputs.h).
#pragma once
#include <algorithm>

#include "step.h"

namespace gv::plan {

// An input as it lies in memory: a sample's numbers follow one another, samples are any distance apart.
template <class T> struct InputRows {
  const char* first;  // the sample 0, at any address
  index row_bytes;    // from one sample to the next; 0 and negative ones, too
  Stored stored;
  index item_bytes;
  T scale = 1, shift = 0;  // what the plan gets is number * scale + shift

  const char* row(index sample) const { return first + sample * row_bytes; }
};

template <class T> struct BatchSource {
  index rows = 0;
  std::vector<InputRows<T>> inputs;
  const std::int64_t* order = nullptr;      // the sample of each row; null: 0, 1, 2, …
  index rows_after = 0;  // how many rows of the order behind these the next step will take
  const std::int64_t* labels = nullptr;     // targets: (samples, multiplicity) labels, or
  const T* target = nullptr;                // (samples, elements)
  const double* sample_weight = nullptr;    // (samples), may be null

  index sample(index row) const { return order ? index(order[row]) : row; }
};

template <class T> class LoadInput final : public Instruction<T> {
 public:
  static constexpr index kGrain = 4;  // rows are dealt in so many
  LoadInput(int input, index elements, TensorId y) : input_(std::size_t(input)), elements_(elements) {
    this->writes(y_, y, Reach::all);
  }
  void run(const Context<T>& c, const Worker& w) const noexcept override {
    const Range rows = share(c.batch, kGrain, w.id, w.team);
    const BatchSource<T>& source = *c.source;
    const InputRows<T>& x = source.inputs[input_];
    const index bytes = elements_ * x.item_bytes;
    // The processor cannot guess where the next row of a shuffled order lies. Its first lines are fetched
    // here a few rows ahead; the rest of it is a stream that the processor follows by itself.
    const index ahead = source.order ? std::clamp<index>(kAheadBytes / std::max<index>(bytes, 1), 3, 16) : 0;
    for (index r = rows.first - ahead; r < rows.last; ++r) {
      if (ahead > 0 && r + ahead < rows.last) fetch(x.row(source.sample(r + ahead)), bytes);
      if (r < rows.first) continue;
      c.kernels->convert(x.stored, elements_, x.row(source.sample(r)), x.scale, x.shift,
                         y_.get() + r * elements_);
    }
  }
  index scratch_bytes(index) const override { return 0; }
  double nanoseconds(index batch) const override { return double(batch) * double(elements_) * 0.2; }

 private:
  static constexpr index kAheadBytes = 2048, kFetchBytes = 512, kLine = kernels::kLineBytes;

  static void fetch(const char* row, index bytes) {
    for (index at = 0; at < std::min(bytes, kFetchBytes); at += kLine) __builtin_prefetch(row + at);
  }

  const std::size_t input_;
  const index elements_;
  Ref<T> y_;
};

}  // namespace gv::plan
