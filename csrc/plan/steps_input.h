// steps_input.h — where a batch comes from: rows of the caller's arrays, in their order or
// gathered by an index.
#pragma once
#include <cstring>

#include "step.h"

namespace gv::plan {

template <class T> struct BatchSource {
  index rows = 0;
  std::vector<const T*> inputs;             // each (samples, elements), rows contiguous
  const std::int64_t* order = nullptr;      // the sample of each row; null: 0, 1, 2, …
  const std::int64_t* labels = nullptr;     // targets: (samples, multiplicity) labels, or
  const T* target = nullptr;                // (samples, elements)
  const double* sample_weight = nullptr;    // (samples), may be null

  index sample(index row) const { return order ? index(order[row]) : row; }
};

template <class T> class LoadInput final : public Instruction<T> {
 public:
  LoadInput(int input, index elements, TensorId y) : input_(std::size_t(input)), elements_(elements) {
    this->writes(y_, y, false);
  }
  void run(const Context<T>& c, const Worker& w) const noexcept override {
    const Range rows = share(c.batch, 8, w.id, w.team);
    const T* x = c.source->inputs[input_];
    for (index r = rows.first; r < rows.last; ++r)
      std::memcpy(y_.get() + r * elements_, x + c.source->sample(r) * elements_,
                  std::size_t(elements_) * sizeof(T));
  }
  index scratch_bytes(index) const override { return 0; }
  double nanoseconds(index batch) const override { return double(batch) * double(elements_) * 0.2; }

 private:
  const std::size_t input_;
  const index elements_;
  Ref<T> y_;
};

}  // namespace gv::plan
