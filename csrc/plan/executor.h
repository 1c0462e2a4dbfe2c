// executor.h — runs a plan: one parallel region a step, phases separated by barriers, and the
// commit point in the middle. Forward writes nothing that lasts; only when the loss is found finite
// do the backward phases and finish() write parameters, optimiser state and running statistics.
#pragma once
#include <atomic>
#include <memory>

#include "../base/memory.h"
#include "foresight.h"
#include "program.h"
#include "steps_input.h"
#include "team.h"
#include "traffic.h"
#include "update.h"

namespace gv::plan {

enum class Status : std::uint8_t { ok, loss_not_finite, gradient_not_finite };

template <class T> struct Bindings {  // the net's memory, by index of parameter and of buffer
  std::vector<T*> parameters, running;
};

template <class T> struct OptimizerState {  // flat, in the order of the parameters
  T* state[2] = {nullptr, nullptr};
  std::int64_t* updates = nullptr;  // by parameter
};

struct StepRequest {
  bool forward = true, backward = true;  // a loss in Python comes in between
  double lr = 0;
  double clip_norm = 0;                  // 0: no clipping
  bool update = true;                    // else gradients are only stored
  bool accumulate = false;               // add to the accumulated gradient, do not update
  bool commit_statistics = true;
  bool stop_if_not_finite = true;        // else gradients are computed all the same
  std::uint64_t seed = 0, step = 0;
};

struct StepResult {
  Status status = Status::ok;
  double loss = 0, gradient_norm = 0;
  int workers = 1;
};

// How plans cut what they compute; automatic: by the batch and the threads. For tests, no result depends on it.
enum class Panels { automatic, columns, rows };
Panels panels();
void set_panels(Panels panels);

template <class T> class Executor {
 public:
  // loss may be null; then no target is loaded. optimizer may be null; then nothing is updated.
  Executor(const Graph& graph, const Options& options, const LossSettings* loss,
           const OptimizerSettings* optimizer);

  void bind(const Bindings<T>& net, const OptimizerState<T>& state);
  // Memory for so many samples, and for the current number of threads; cheap if there is enough. Else what the
  // last run has left is gone.
  void reserve(index batch);

  StepResult run(const BatchSource<T>& source, const StepRequest& request);
  // Forward over the rows from `first` on, of which there is one at least, in chunks, until all are done or `seconds` have
  // passed; outputs[i] is (rows, elements of output i). Returns how many rows of all are done.
  index infer(const BatchSource<T>& source, const std::vector<T*>& outputs, index first, double seconds);

  const Graph& graph() const { return graph_; }
  const T* output(index i = 0) const { return address<T>(program_.outputs[std::size_t(i)]); }
  index taps() const { return index(program_.tap_values.size()); }
  const T* tap_value(index i) const { return address<T>(program_.tap_values[std::size_t(i)]); }
  const T* tap_gradient(index i) const {  // null where the loss does not depend on it
    const TensorId id = program_.tap_gradients[std::size_t(i)];
    return id >= 0 ? address<T>(id) : nullptr;
  }
  T* seed_gradient() { return address<T>(program_.seed_gradient); }
  // The gradient of a parameter after a run with request.update == false; null if frozen.
  const T* gradient(int parameter) const;
  index flat_size() const { return flat_size_; }
  int accumulated() const { return accumulated_; }  // gradients that the next update will use
  void forget_accumulated() { accumulated_ = 0; }
  index arena_bytes() const { return arena_.size(); }
  bool by_rows() const { return program_.by_rows; }
  int barriers() const;      // of one step at the reserved size
  index instructions() const { return index(program_.instructions.size()); }
  // Of one step at the reserved size, by instruction; last, what is not updated inside them.
  std::vector<Traffic> traffic() const;
  std::atomic_flag& busy() { return busy_; }

 private:
  struct Slice {  // of the flat gradient
    int parameter;
    index first, n;
  };

  template <class E> E* address(TensorId id) const {
    return reinterpret_cast<E*>(addresses_[std::size_t(id)]);
  }
  bool prefers_rows(index batch) const;
  void resolve();
  void plan_workers(index batch);
  void load_targets(const BatchSource<T>& source);
  double loss_value(index batch) const noexcept;
  void run_phases(const Context<T>& c, std::size_t first, std::size_t last, int worker, int team) noexcept;
  void finish(const Context<T>& c, const StepRequest& r, double loss, StepResult& result, int worker,
              int team) noexcept;
  bool clip(const kernels::Kernels<T>& k, const StepRequest& r, StepResult& result, int worker,
            int team) noexcept;

  const Graph graph_;
  const Options options_;
  const std::unique_ptr<LossSettings> loss_;
  Program<T> program_;
  Update<T> update_;
  const bool updates_;
  Bindings<T> net_;

  std::vector<index> offsets_;  // of each parameter in the flat gradient and state
  index flat_size_ = 0;
  std::vector<Slice> slices_;
  Buffer gradients_, sums_;     // flat, by parameter; the second for accumulation
  int accumulated_ = 0;
  std::vector<double> chunk_sums_;

  Buffer arena_, scratch_;
  index capacity_ = -1, scratch_each_ = 0;
  int threads_ = 0;
  std::vector<index> arena_offsets_;
  std::vector<char*> addresses_;
  std::vector<int> workers_;          // worth waking for each instruction
  std::vector<char> barrier_before_;
  Foresight<T> foresight_;
  Team team_;

  std::vector<double> row_weights_;   // of the loss value
  double denominator_ = 1;
  Barrier barrier_;
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
};

}  // namespace gv::plan
