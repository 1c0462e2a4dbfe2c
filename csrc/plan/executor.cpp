// executor.cpp — memory and workers of a plan, and the step itself. See executor.h.
#include "executor.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>

#include "../ops/batchnorm_rows.h"
#include "../ops/isa.h"
#include "../ops/optim.h"

namespace gv::plan {
namespace {

constexpr index kSlice = 16 * 1024;  // elements of the flat gradient that one worker takes at a time
constexpr index kInferenceBytes = 8 << 20;  // arena of one chunk of inference
constexpr index kInferenceRows = 1024;
constexpr index kManyRows = 512, kManyBytes = 512 * 1024;  // from which a single worker goes by rows
constexpr index kFewRows = 96;  // least share of a worker where there is no batch norm
constexpr double kLongStep = 2e8;  // nanoseconds: a longer step is worth all workers, and too long to try

std::atomic<Panels> chosen_panels{Panels::automatic};

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Panels panels() { return chosen_panels; }
void set_panels(Panels panels) { chosen_panels = panels; }

template <class T>
Executor<T>::Executor(const Graph& graph, const Options& options, const LossSettings* loss,
                      const OptimizerSettings* optimizer)
    : graph_(graph),
      options_(options),
      loss_(loss ? std::make_unique<LossSettings>(*loss) : nullptr),
      program_(make_program<T>(graph_, options, loss)),
      updates_(optimizer != nullptr) {
  if (optimizer) update_.settings = *optimizer;
  constexpr index kAlign = Buffer::kAlignment / index(sizeof(T));
  for (std::size_t i = 0; i < graph_.parameters().size(); ++i) {
    const ParameterInfo& p = graph_.parameters()[i];
    offsets_.push_back(flat_size_);
    flat_size_ += (p.size + kAlign - 1) / kAlign * kAlign;
    if (p.trainable && program_.gradients[i] >= 0)
      for (index first = 0; first < p.size; first += kSlice)
        slices_.push_back({int(i), first, std::min(kSlice, p.size - first)});
  }
  chunk_sums_.resize(std::size_t((flat_size_ + kRowChunk - 1) / kRowChunk));
  if (options_.gradients && !options_.update_inside) gradients_ = Buffer(flat_size_ * index(sizeof(T)));
}

template <class T> void Executor<T>::bind(const Bindings<T>& net, const OptimizerState<T>& state) {
  net_ = net;
  update_.bind(net.parameters, offsets_, state.state, state.updates);
  if (capacity_ >= 0) resolve();
}

// Panels of rows keep a worker's activations to itself and walk through memory in its order; panels of
// columns need no meeting inside a batch norm, and share out the packing of the weights. So rows are for many
// of them, and only where every worker gets about as many. The bounds are measured ones.
template <class T> bool Executor<T>::prefers_rows(index batch) const {
  const bool norms = !program_.statistics.empty();
  if (!options_.fuse || (norms && sizeof(T) != sizeof(float))) return false;
  if (const Panels set = panels(); set != Panels::automatic) return set == Panels::rows;
  index widest = 1;
  for (const Tensor& t : program_.tensors) widest = std::max(widest, t.per_sample);
  const index workers = num_threads(), blocks = ops::batchnorm_blocks(batch);
  const double bytes = double(batch) * double(widest) * sizeof(T);
  if (workers == 1) return batch >= kManyRows && bytes >= kManyBytes;
  if (!norms) return batch >= kFewRows * workers;
  return 2 * batch >= widest && (blocks >= 2 * workers || blocks % workers == 0);
}

template <class T> void Executor<T>::reserve(index batch) {
  if (batch > capacity_ || threads_ != num_threads()) {
    batch = std::max(batch, capacity_);
    if (const bool by_rows = prefers_rows(batch); by_rows != program_.by_rows) {
      Options options = options_;
      options.by_rows = by_rows;
      program_ = make_program<T>(graph_, options, loss_.get());
      capacity_ = -1;
    }
  }
  if (batch > capacity_) {
    const index bytes = layout(program_.tensors, arena_offsets_, batch);
    capacity_ = -1;  // until there is memory again
    arena_ = Buffer();
    arena_ = Buffer(std::max<index>(bytes, 1));
    capacity_ = batch;
    row_weights_.resize(std::size_t(batch * program_.loss_tensors.multiplicity));
    resolve();
    threads_ = 0;
  }
  if (threads_ == num_threads()) return;
  threads_ = 0;  // until there is scratch
  const int threads = num_threads();
  plan_workers(capacity_);
  scratch_each_ = 0;
  for (const auto& i : program_.instructions)
    scratch_each_ = std::max(scratch_each_, i->scratch_bytes(capacity_));
  scratch_each_ = aligned(scratch_each_) + 4096 + 64;  // workers' scratch not on the same cache sets
  scratch_ = Buffer();
  scratch_ = Buffer(scratch_each_ * team_.most());
  threads_ = threads;
}

template <class T> void Executor<T>::resolve() {
  addresses_.resize(program_.tensors.size());
  for (std::size_t i = 0; i < program_.tensors.size(); ++i) {
    const Tensor& t = program_.tensors[i];
    const auto owner = std::size_t(t.owner);
    switch (t.place) {
      case Place::arena:
      case Place::kept: addresses_[i] = arena_.data() + arena_offsets_[i]; break;
      case Place::parameter: addresses_[i] = reinterpret_cast<char*>(net_.parameters[owner]); break;
      case Place::running: addresses_[i] = reinterpret_cast<char*>(net_.running[owner]); break;
      case Place::gradient: addresses_[i] = gradients_.data() + offsets_[owner] * index(sizeof(T)); break;
    }
  }
  for (const auto& instruction : program_.instructions)
    for (Access& a : instruction->accesses()) a.slot->at = addresses_[std::size_t(a.slot->id)];
  if (loss_ && program_.loss_tensors.weight >= 0)
    std::transform(loss_->weight.begin(), loss_->weight.end(), address<T>(program_.loss_tensors.weight),
                   [](double w) { return T(w); });
  foresight_.plan(program_, graph_, update_, capacity_);
}

// How many workers each instruction wakes, and where they must meet: between phases, unless only
// worker 0 has worked since the last barrier and only it goes on.
template <class T> void Executor<T>::plan_workers(index batch) {
  const std::size_t n = program_.instructions.size();
  workers_.assign(n, 1);
  barrier_before_.assign(n, 0);
  int most = 1;
  double nanoseconds = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double each = program_.instructions[i]->nanoseconds(batch);
    workers_[i] = workers_for(each);
    most = std::max(most, workers_[i]);
    nanoseconds += each;
  }
  team_.reset(most, worth_waking() == kWorthWaking && nanoseconds < kLongStep);
  bool shared = false,
       pending = false;  // work of several workers since the last barrier; a phase boundary since then
  for (std::size_t i = 0; i < n; ++i) {
    pending |= i > 0 && program_.phases[i] != program_.phases[i - 1];
    if (i == program_.loss) shared = pending = false;  // the executor meets here by itself
    if (pending && (shared || workers_[i] > 1)) {
      barrier_before_[i] = 1;
      shared = pending = false;
    }
    shared |= workers_[i] > 1;
  }
}

template <class T> int Executor<T>::barriers() const {
  return int(std::count(barrier_before_.begin(), barrier_before_.end(), 1)) + 2;
}

template <class T> std::vector<Traffic> Executor<T>::traffic() const {
  if (capacity_ < 0) throw std::logic_error("[plan] expected a step before its traffic is asked for");
  std::vector<Traffic> result = plan::traffic(program_, capacity_, update_.settings.states());
  Traffic rest{{"Update"}, {}, {}, {}};
  for (std::size_t i = 0; i < graph_.parameters().size(); ++i) {
    if (!updates_ || program_.gradients[i] < 0) continue;
    const index bytes = graph_.parameters()[i].size * index(sizeof(T));
    const Moved update = update_traffic(bytes, update_.settings.states());
    rest.parameters.read += bytes + update.read;
    rest.parameters.written += update.written;
  }
  if (rest.parameters.read > 0) result.push_back(rest);
  return result;
}

template <class T> const T* Executor<T>::gradient(int parameter) const {
  const TensorId id = program_.gradients[std::size_t(parameter)];
  return id >= 0 ? address<T>(id) : nullptr;
}

template <class T> void Executor<T>::load_targets(const BatchSource<T>& s) {
  const LossTensors& t = program_.loss_tensors;
  const index m = t.multiplicity, elements = m * t.columns;
  const bool cross_entropy =
      loss_->kind == LossKind::cross_entropy || loss_->kind == LossKind::cross_entropy_soft;
  double denominator = 0;
  for (index r = 0; r < s.rows; ++r) {
    const index sample = s.sample(r);
    const double weight = s.sample_weight ? s.sample_weight[sample] : 1.0;
    if (t.labels >= 0) std::copy_n(s.labels + sample * m, m, address<std::int64_t>(t.labels) + r * m);
    else std::copy_n(s.target + sample * elements, elements, address<T>(t.target) + r * elements);
    for (index i = 0; i < m; ++i) {
      row_weights_[std::size_t(r * m + i)] = weight;
      const double share = !cross_entropy ? double(t.columns)
                           : loss_->weight.empty() || t.labels < 0
                               ? 1.0
                               : loss_->weight[std::size_t(s.labels[sample * m + i])];
      denominator += weight * share;
    }
  }
  denominator_ = loss_->mean ? denominator : 1.0;
  T* row_weight = address<T>(t.row_weight);
  for (index i = 0; i < s.rows * m; ++i) row_weight[i] = T(row_weights_[std::size_t(i)] / denominator_);
}

// The same sum on every worker, so that all of them know whether to go on.
template <class T> double Executor<T>::loss_value(index batch) const noexcept {
  const LossTensors& t = program_.loss_tensors;
  return ops::sum_of_rows(batch * t.multiplicity, address<double>(t.row_loss), row_weights_.data()) /
         denominator_;
}

template <class T>
void Executor<T>::run_phases(const Context<T>& c, std::size_t first, std::size_t last, int worker,
                             int team) noexcept {
  char* scratch = scratch_.data() + worker * scratch_each_;
  Context<T> own = c;
  for (std::size_t i = first; i < last; ++i) {
    if (barrier_before_[i]) barrier_.wait(team);
    const int workers = std::min(workers_[i], team);
    if (worker >= workers) continue;
    const Instruction<T>& instruction = *program_.instructions[i];
    kernels::AheadQueue ahead{};
    own.ahead = &ahead;
    ahead.read = i + 1 == program_.instructions.size() ? foresight_.next_batch(*c.source, worker, workers)
                                                       : foresight_.during(i, team > 1);
    foresight_.fetch_instruction(i + 1);
    instruction.run(own, Worker{worker, workers, scratch});
  }
}

template <class T> StepResult Executor<T>::run(const BatchSource<T>& source, const StepRequest& request) {
  for (const BatchStatistics& s : program_.statistics)
    if (s.multiplicity * source.rows < 2)
      throw std::invalid_argument("[BatchNorm] expected a training batch of more than one row, got 1");
  if (request.forward) reserve(source.rows);  // what it left behind stays where it is until the backward
  if (request.accumulate && sums_.size() == 0) sums_ = Buffer(flat_size_ * index(sizeof(T)));
  if (request.forward && loss_) load_targets(source);
  if (request.update && updates_) {
    update_.lr = request.lr;
    update_.prepare();
  }
  StepResult result;
  const Context<T> context{&ops::active_table().of<T>(),  source.rows, request.seed, request.step,
                           updates_ ? &update_ : nullptr, &source};
  const std::size_t begin = request.forward ? 0 : program_.loss;
  const std::size_t end = request.backward ? program_.instructions.size() : program_.loss;
  const bool compared = request.forward && request.backward && source.rows == capacity_ && team_.tries();
  const auto start = compared ? Clock::now() : Clock::time_point();
  parallel(compared ? team_.size() : team_.settled(), [&](int worker, int team) {
    if (worker == 0) result.workers = team;
    if (begin < program_.loss) run_phases(context, begin, program_.loss, worker, team);
    barrier_.wait(team);
    double loss = 0;
    if (request.forward && loss_) {
      loss = loss_value(context.batch);
      if (worker == 0) {
        result.loss = loss;
        if (!std::isfinite(loss) && request.stop_if_not_finite) result.status = Status::loss_not_finite;
      }
      if (!std::isfinite(loss) && request.stop_if_not_finite) return;
    }
    if (!request.backward) return;
    run_phases(context, program_.loss, end, worker, team);
    finish(context, request, loss, result, worker, team);
  });
  if (compared && result.status == Status::ok) team_.took(seconds_since(start));
  if (result.status == Status::gradient_not_finite && accumulated_ > 0) {
    // With an infinity or NaN among what was added up, no later step could end well.
    const T* sums = reinterpret_cast<const T*>(sums_.data());
    if (!std::all_of(sums, sums + flat_size_, [](T sum) { return std::isfinite(sum); })) accumulated_ = 0;
  }
  if (result.status == Status::ok && request.backward) {
    if (request.update && updates_) {
      for (std::size_t i = 0; i < graph_.parameters().size(); ++i)
        if (graph_.parameters()[i].trainable) update_.count(int(i));
      accumulated_ = 0;
    } else if (request.accumulate) {
      ++accumulated_;
    }
  }
  return result;
}

// After the last backward phase: accumulate, clip, update what was not updated inside, and commit
// the running statistics.
template <class T>
void Executor<T>::finish(const Context<T>& c, const StepRequest& r, double loss, StepResult& result,
                         int worker, int team) noexcept {
  barrier_.wait(team);
  const auto& k = *c.kernels;
  if (!options_.update_inside && (r.accumulate || accumulated_ > 0)) {
    T *sum = reinterpret_cast<T*>(sums_.data()), *gradient = reinterpret_cast<T*>(gradients_.data());
    const Range mine = share(flat_size_, kRowChunk, worker, team);
    T *to = r.accumulate ? sum : gradient, *from = r.accumulate ? gradient : sum;
    if (r.accumulate && accumulated_ == 0) std::copy(from + mine.first, from + mine.last, to + mine.first);
    else k.accumulate(mine.size(), to + mine.first, from + mine.first);
    barrier_.wait(team);
  }
  if (r.update && r.clip_norm > 0 && !clip(k, r, result, worker, team)) return;
  if (r.update && updates_) {
    const Range mine = share(index(slices_.size()), 1, worker, team);
    for (index i = mine.first; i < mine.last; ++i) {
      const Slice& s = slices_[std::size_t(i)];
      update_.apply(k, s.parameter, s.first, s.n, gradient(s.parameter) + s.first);
    }
  }
  if (!r.commit_statistics || !std::isfinite(loss)) return;
  const Range mine = share(index(program_.statistics.size()), 1, worker, team);
  for (index i = mine.first; i < mine.last; ++i) {
    const BatchStatistics& s = program_.statistics[std::size_t(i)];
    if (s.inside) continue;
    const double* moments = address<double>(s.moments);
    k.bn_update_running(s.features, s.multiplicity * c.batch, moments, moments + s.features, s.momentum,
                        address<T>(s.running_mean), address<T>(s.running_var));
  }
}

// Scales the stored gradient so that its norm is at most clip_norm, as torch's clip_grad_norm_.
template <class T>
bool Executor<T>::clip(const kernels::Kernels<T>& k, const StepRequest& r, StepResult& result, int worker,
                       int team) noexcept {
  T* flat = reinterpret_cast<T*>(gradients_.data());
  ops::run(k, ops::SumOfSquares<T>{flat_size_, flat, chunk_sums_.data()}, worker, team);
  barrier_.wait(team);
  double squares = 0;
  for (double s : chunk_sums_) squares += s;
  const double norm = std::sqrt(squares);
  if (worker == 0) {
    result.gradient_norm = norm;
    if (!std::isfinite(norm)) result.status = Status::gradient_not_finite;
  }
  if (!std::isfinite(norm)) return false;
  const double factor = r.clip_norm / (norm + 1e-6);
  if (factor < 1) ops::run(k, ops::Scale<T>{flat_size_, flat, T(factor)}, worker, team);
  barrier_.wait(team);
  return true;
}

template <class T>
index Executor<T>::infer(const BatchSource<T>& source, const std::vector<T*>& outputs, index first,
                         double seconds) {
  const auto begin = Clock::now();
  index per_sample = 1;
  for (const Tensor& t : program_.tensors)
    if (t.storage == &t - program_.tensors.data()) per_sample = std::max(per_sample, t.per_sample);
  const index fits = std::clamp<index>(
      kInferenceBytes / 8 / index(sizeof(T)) / per_sample / kRowBlock * kRowBlock, kRowBlock, kInferenceRows);
  const index chunk = std::min(source.rows, fits);
  reserve(chunk);
  std::vector<index> sizes;
  for (NodeId id : graph_.outputs()) sizes.push_back(graph_.node(id).shape.elements());
  BatchSource<T> part = source;
  do {
    part.rows = std::min(chunk, source.rows - first);
    for (std::size_t i = 0; i < part.inputs.size(); ++i) part.inputs[i].first = source.inputs[i].row(first);
    const Context<T> context{&ops::active_table().of<T>(), part.rows, 0, 0, nullptr, &part};
    const bool compared = part.rows == capacity_ && team_.tries();
    const auto start = compared ? Clock::now() : Clock::time_point();
    parallel(compared ? team_.size() : team_.settled(), [&](int worker, int team) {
      run_phases(context, 0, program_.instructions.size(), worker, team);
    });
    if (compared) team_.took(seconds_since(start));
    for (std::size_t i = 0; i < outputs.size(); ++i)
      std::copy_n(output(index(i)), part.rows * sizes[i], outputs[i] + first * sizes[i]);
    first += part.rows;
  } while (first < source.rows && seconds_since(begin) < seconds);
  return first;
}

template class Executor<float>;
template class Executor<double>;

}  // namespace gv::plan
