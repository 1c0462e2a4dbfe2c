// plan.cpp — plans for Python: inference, a training step in one call (or two around a loss written
// in Python), and the gradients. The Python side keeps shapes; inputs are converted row by row as they
// are gathered. Here memory is checked, labels are checked against the classes, and the interpreter's
// lock is released.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "../plan/executor.h"
#include "arrays.h"
#include "gil.h"
#include "inputs.h"

namespace py = pybind11;

namespace gv::plan {
namespace {

constexpr double kUninterrupted = 0.1;  // seconds of inference until Ctrl-C is looked for

std::string shape_text(const py::array& a) { return py::str(a.attr("shape")); }

// Contiguous, of the plan's dtype, writeable where asked: what the Python side has promised.
template <class E> E* memory(const py::handle& object, const char* name, bool writes, index size = -1) {
  if (!py::isinstance<py::array>(object))
    throw py::type_error(std::string("[plan] expected ") + name + " to be an array");
  auto a = py::reinterpret_borrow<py::array>(object);
  if (!py::dtype::of<E>().is(a.dtype()) && !py::dtype::of<E>().equal(a.dtype()))
    throw py::type_error(std::string("[plan] expected ") + name + " of dtype " +
                         std::string(py::str(py::dtype::of<E>())) + ", got " +
                         std::string(py::str(a.dtype())));
  if (!(a.flags() & py::array::c_style) || !(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
    throw py::value_error(std::string("[plan] expected ") + name + " to be contiguous and aligned");
  if (writes && !a.writeable())
    throw py::value_error(std::string("[plan] expected ") + name + " to be writeable");
  if (size >= 0 && a.size() != size)
    throw py::value_error(std::string("[plan] expected ") + name + " of " + std::to_string(size) +
                          " elements, got " + shape_text(a));
  return static_cast<E*>(const_cast<void*>(a.data()));
}

class Busy {
 public:
  explicit Busy(std::atomic_flag& flag) : flag_(flag) {
    if (flag_.test_and_set(std::memory_order_acquire))
      throw std::runtime_error(
          "[plan] this net is already running in another thread; give each thread its own copy");
  }
  ~Busy() { flag_.clear(std::memory_order_release); }

 private:
  std::atomic_flag& flag_;
};

LossSettings loss_settings(const py::dict& d) {
  LossSettings s;
  const auto kind = d["kind"].cast<std::string>();
  const bool labels = d.contains("labels") && d["labels"].cast<bool>();
  s.kind = kind == "mse"     ? LossKind::mse
           : kind == "l1"    ? LossKind::l1
           : kind == "huber" ? LossKind::huber
           : kind == "bce"   ? LossKind::bce
           : labels          ? LossKind::cross_entropy
                             : LossKind::cross_entropy_soft;
  s.mean = d["reduction"].cast<std::string>() == "mean";
  if (d.contains("label_smoothing")) s.label_smoothing = d["label_smoothing"].cast<double>();
  if (d.contains("delta")) s.delta = d["delta"].cast<double>();
  if (d.contains("weight") && !d["weight"].is_none()) s.weight = d["weight"].cast<std::vector<double>>();
  return s;
}

OptimizerSettings optimizer_settings(const py::dict& d) {
  OptimizerSettings s;
  const auto number = [&](const char* name, double& into) {
    if (d.contains(name)) into = d[name].cast<double>();
  };
  s.rule = d["kind"].cast<std::string>() == "sgd" ? Rule::sgd : Rule::adam;
  number("momentum", s.momentum);
  number("dampening", s.dampening);
  number("beta1", s.beta1);
  number("beta2", s.beta2);
  number("eps", s.eps);
  if (d.contains("nesterov")) s.nesterov = d["nesterov"].cast<bool>();
  if (d.contains("decoupled")) s.decoupled = d["decoupled"].cast<bool>();
  for (const auto& p : d["parameters"].cast<std::vector<std::pair<double, double>>>())
    s.parameters.push_back({p.second, p.first});
  return s;
}

// What a step raises when it refuses to write; `found` says what was expected and found. Never freed.
PyObject* not_finite = nullptr;

template <class T> class Plan {
 public:
  Plan(const Graph& graph, const py::dict& options, const py::object& loss, const py::object& optimizer) {
    Options o;
    o.training = trains_ = options["training"].cast<bool>();
    o.gradients = options["gradients"].cast<bool>();
    o.update_inside = options["update_inside"].cast<bool>();
    o.fuse = options["fuse"].cast<bool>();
    if (options.contains("checkpoint_every")) o.checkpoint_every = options["checkpoint_every"].cast<index>();
    if (!loss.is_none()) loss_ = std::make_unique<LossSettings>(loss_settings(loss.cast<py::dict>()));
    std::unique_ptr<OptimizerSettings> settings;
    if (!optimizer.is_none()) {
      settings = std::make_unique<OptimizerSettings>(optimizer_settings(optimizer.cast<py::dict>()));
      updates_ = true;
      states_ = settings->states();
    }
    executor_ = std::make_unique<Executor<T>>(graph, o, loss_.get(), settings.get());
  }

  void bind(const py::list& parameters, const py::list& buffers, const py::list& state,
            const py::object& updates) {
    const Busy busy(executor_->busy());
    const Graph& g = executor_->graph();
    Bindings<T> net;
    if (parameters.size() != g.parameters().size() || buffers.size() != g.buffers().size() ||
        state.size() != std::size_t(states_))
      throw py::value_error("[plan] expected as many parameters, buffers and states as the plan has");
    for (std::size_t i = 0; i < g.parameters().size(); ++i)
      net.parameters.push_back(
          memory<T>(parameters[i], g.parameters()[i].name.c_str(), updates_, g.parameters()[i].size));
    for (std::size_t i = 0; i < g.buffers().size(); ++i)
      net.running.push_back(memory<T>(buffers[i], g.buffers()[i].name.c_str(), trains_, g.buffers()[i].size));
    OptimizerState<T> own;
    for (std::size_t i = 0; i < state.size(); ++i)
      own.state[i] = memory<T>(state[i], "optimiser state", true, executor_->flat_size());
    if (updates_) own.updates = memory<std::int64_t>(updates, "updates", true, index(g.parameters().size()));
    executor_->bind(net, own);
    keep_ = py::make_tuple(parameters, buffers, state, updates);
    rows_ = rows_between_ = -1;
  }

  py::list infer(const py::list& inputs) {
    const Busy busy(executor_->busy());
    BatchSource<T> source;
    load(source, inputs, py::none());
    py::list results;
    std::vector<T*> outputs;
    for (NodeId id : executor_->graph().outputs()) {
      const Shape& s = executor_->graph().node(id).shape;
      std::vector<index> sizes{source.rows};
      sizes.insert(sizes.end(), s.sizes.begin(), s.sizes.begin() + s.rank);
      py::array_t<T> out(sizes);
      outputs.push_back(out.mutable_data());
      results.append(std::move(out));
    }
    for (index done = 0; done < source.rows;) {
      {
        const bind::GilReleased released;
        done = executor_->infer(source, outputs, done, kUninterrupted);
      }
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    }
    return results;
  }

  // Forward, loss, backward, update. Returns (loss, gradient norm before clipping, threads).
  py::tuple step(const py::list& inputs, const py::object& target, const py::object& sample_weight,
                 const py::object& order, const StepRequest& request) {
    const Busy busy(executor_->busy());
    BatchSource<T>& source = source_;  // kept, so that a step allocates nothing
    load(source, inputs, order);
    load_target(source, target, sample_weight);
    return run(source, request);
  }

  // Steps on the batches order[cuts[i] : cuts[i + 1]], i = 0, 1, …, with their rates, until `seconds`
  // have passed or a step fails; losses[i] is filled in. Returns how many steps were done; the step
  // that failed raises in the next call, where it is the first, with everything as before it.
  index steps(const py::list& inputs, const py::object& target, const py::object& sample_weight,
              const py::object& order, const py::object& cuts, const py::object& rates,
              const py::object& losses, StepRequest request, double seconds) {
    const Busy busy(executor_->busy());
    BatchSource<T>& source = source_;
    load(source, inputs, order);
    load_target(source, target, sample_weight);
    const double* rate = memory<double>(rates, "rates", false);
    const index n = py::reinterpret_borrow<py::array>(rates).size(), rows = source.rows;
    const std::int64_t* cut = memory<std::int64_t>(cuts, "cuts", false, n + 1);
    double* loss = memory<double>(losses, "losses", true, n);
    for (index i = 0; i < n; ++i)
      if (cut[i] < 0 || cut[i] >= cut[i + 1] || cut[i + 1] > rows)
        throw py::value_error("[plan] expected ascending cuts within the order");
    const std::int64_t* whole = source.order;
    if (!whole) throw py::value_error("[plan] expected an order");
    index done = 0;
    StepResult result;
    {
      const bind::GilReleased released;
      const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
      for (; done < n; ++done, ++request.step) {
        source.order = whole + cut[done];
        source.rows = cut[done + 1] - cut[done];
        source.rows_after = done + 1 < n ? cut[done + 2] - cut[done + 1] : 0;
        request.lr = rate[done];
        result = executor_->run(source, request);
        if (result.status != Status::ok) break;
        loss[done] = result.loss;
        if (done + 1 < n && std::chrono::steady_clock::now() > end) {
          ++done;
          break;
        }
      }
    }
    rows_ = source.rows;
    if (result.status != Status::ok && done == 0) refuse(result);
    return done;
  }

  // The first half of a step whose loss is written in Python: returns the prediction.
  py::array_t<T> forward(const py::list& inputs, const py::object& order, StepRequest request) {
    const Busy busy(executor_->busy());
    if (loss_) throw std::runtime_error("[plan] expected a plan without a loss of its own");
    BatchSource<T> source;
    load(source, inputs, order);
    request.backward = false;
    run(source, request);
    rows_between_ = source.rows;
    const Shape& s = executor_->graph().node(executor_->graph().outputs()[0]).shape;
    std::vector<index> sizes{source.rows};
    sizes.insert(sizes.end(), s.sizes.begin(), s.sizes.begin() + s.rank);
    py::array_t<T> out(sizes);
    std::copy_n(executor_->output(), out.size(), out.mutable_data());
    return out;
  }

  // The second half, from the gradient of the prediction.
  py::tuple backward(const py::object& gradient, StepRequest request) {
    const Busy busy(executor_->busy());
    if (rows_between_ < 0) throw std::runtime_error("[plan] expected a forward before backward");
    const Shape& s = executor_->graph().node(executor_->graph().outputs()[0]).shape;
    const T* from = memory<T>(gradient, "dprediction", false, rows_between_ * s.elements());
    std::copy_n(from, rows_between_ * s.elements(), executor_->seed_gradient());
    BatchSource<T> source;
    source.rows = rows_between_;
    rows_between_ = -1;
    request.forward = false;
    return run(source, request);
  }

  // Copies of the gradients of the last step that stored them, by parameter; None where frozen.
  py::list gradients() const {
    const Busy busy(executor_->busy());
    if (rows_ < 0) throw std::runtime_error("[plan] expected a step before gradients");
    py::list result;
    const Graph& g = executor_->graph();
    for (std::size_t i = 0; i < g.parameters().size(); ++i) {
      const T* from = executor_->gradient(int(i));
      if (!from) {
        result.append(py::none());
        continue;
      }
      py::array_t<T> copy(g.parameters()[i].shape);
      std::copy_n(from, g.parameters()[i].size, copy.mutable_data());
      result.append(std::move(copy));
    }
    return result;
  }

  // Of each tapped value: a copy of it and of the gradient with respect to it (None if there is none),
  // as of the last step, which had `rows` samples.
  py::list taps(index rows) const {
    const Busy busy(executor_->busy());
    if (rows != rows_) throw std::runtime_error("[plan] expected a step of so many rows before taps");
    py::list result;
    const Graph& g = executor_->graph();
    for (index i = 0; i < executor_->taps(); ++i) {
      const Shape& s = g.node(g.taps()[std::size_t(i)]).shape;
      std::vector<index> sizes{rows};
      sizes.insert(sizes.end(), s.sizes.begin(), s.sizes.begin() + s.rank);
      const auto copy = [&](const T* from) -> py::object {
        if (!from) return py::none();
        py::array_t<T> to(sizes);
        std::copy_n(from, to.size(), to.mutable_data());
        return std::move(to);
      };
      result.append(py::make_tuple(copy(executor_->tap_value(i)), copy(executor_->tap_gradient(i))));
    }
    return result;
  }

  // Of each instruction: its steps, and (read, written) in bytes by kind.
  py::list traffic() const {
    const Busy busy(executor_->busy());
    const auto pair = [](const Moved& m) { return py::make_tuple(m.read, m.written); };
    py::list result;
    for (const Traffic& t : executor_->traffic()) {
      py::dict entry;
      entry["steps"] = t.steps;
      entry["activations"] = pair(t.activations);
      entry["parameters"] = pair(t.parameters);
      entry["rest"] = pair(t.rest);
      result.append(std::move(entry));
    }
    return result;
  }

  void forget_accumulated() {
    const Busy busy(executor_->busy());
    executor_->forget_accumulated();
  }

  Executor<T>& executor() { return *executor_; }

 private:
  void load(BatchSource<T>& source, const py::list& inputs, const py::object& order) {
    if (keep_.empty()) throw std::runtime_error("[plan] expected a plan that is bound");
    rows_between_ = -1;
    const Graph& g = executor_->graph();
    if (inputs.size() != g.inputs().size())
      throw py::value_error("[plan] expected " + std::to_string(g.inputs().size()) + " inputs, got " +
                            std::to_string(inputs.size()));
    index samples = -1;
    source.inputs.clear();
    source.rows_after = 0;
    source.order = source.labels = nullptr;
    source.target = nullptr;
    source.sample_weight = nullptr;
    for (std::size_t i = 0; i < g.inputs().size(); ++i) {
      index n = 0;
      source.inputs.push_back(bind::stored_rows<T>(inputs[i], g.node(g.inputs()[i]).shape.elements(), n));
      if (samples >= 0 && n != samples) throw py::value_error("[plan] expected inputs of one length");
      samples = n;
    }
    samples_ = source.rows = samples;
    if (order.is_none()) return;
    source.order = memory<std::int64_t>(order, "order", false);
    source.rows = py::reinterpret_borrow<py::array>(order).size();
    for (index i = 0; i < source.rows; ++i)
      if (source.order[i] < 0 || source.order[i] >= samples)
        throw py::value_error("[plan] expected indices in [0, " + std::to_string(samples) + "), got " +
                              std::to_string(source.order[i]));
  }

  void load_target(BatchSource<T>& source, const py::object& target, const py::object& sample_weight) {
    if (!loss_) throw std::runtime_error("[plan] expected a plan with a loss");
    const Shape& s = executor_->graph().node(executor_->graph().outputs()[0]).shape;
    const index classes = s.last();
    if (loss_->kind == LossKind::cross_entropy) {
      const index each = classes ? s.elements() / classes : 0;
      source.labels = memory<std::int64_t>(target, "labels", false, samples_ * each);
      for (index r = 0; r < source.rows; ++r)
        for (index i = 0, at = source.sample(r) * each; i < each; ++i)
          if (const std::int64_t label = source.labels[at + i]; label < 0 || label >= classes)
            throw py::value_error("[cross_entropy] expected labels in [0, " + std::to_string(classes) +
                                  "), got " + std::to_string(label) + " in row " +
                                  std::to_string(source.sample(r)));
    } else {
      source.target = memory<T>(target, "target", false, samples_ * s.elements());
    }
    if (!sample_weight.is_none())
      source.sample_weight = memory<double>(sample_weight, "sample_weight", false, samples_);
  }

  py::tuple run(const BatchSource<T>& source, const StepRequest& request) {
    StepResult result;
    rows_ = source.rows;
    {
      const bind::GilReleased released;
      result = executor_->run(source, request);
    }
    refuse(result);
    return py::make_tuple(result.loss, result.gradient_norm, result.workers);
  }

  void refuse(const StepResult& result) const {
    if (result.status == Status::loss_not_finite)
      fail("TrainStep", "expected a finite loss, got " + std::string(py::str(py::float_(result.loss))));
    if (result.status == Status::gradient_not_finite)
      fail("clip_grad_norm",
           "expected a finite gradient norm, got " + std::string(py::str(py::float_(result.gradient_norm))),
           ": the first non-finite gradient is that of " + first_bad_gradient());
  }

  [[noreturn]] static void fail(const std::string& op, const std::string& found,
                                const std::string& more = "") {
    const py::object error = py::handle(not_finite)("[" + op + "] " + found + more + "; nothing was written");
    error.attr("found") = found;
    PyErr_SetObject(not_finite, error.ptr());
    throw py::error_already_set();
  }

  std::string first_bad_gradient() const {
    const Graph& g = executor_->graph();
    for (std::size_t i = 0; i < g.parameters().size(); ++i) {
      const T* d = executor_->gradient(int(i));
      for (index j = 0; d && j < g.parameters()[i].size; ++j)
        if (!std::isfinite(d[j])) return g.parameters()[i].name;
    }
    return "none (their squares overflow)";
  }

  std::unique_ptr<LossSettings> loss_;
  std::unique_ptr<Executor<T>> executor_;
  BatchSource<T> source_;
  bool trains_ = false, updates_ = false;
  int states_ = 0;
  py::tuple keep_;  // what is bound
  index samples_ = 0;
  index rows_ = -1;  // of the last step, whose gradients and taps are there
  index rows_between_ = -1;  // of a forward that waits for its backward
};

template <class T> void register_plan_of(py::module_& m, const char* name) {
  using P = Plan<T>;
  py::class_<P>(m, name)
      .def(py::init<const Graph&, const py::dict&, const py::object&, const py::object&>(), py::arg("graph"),
           py::arg("options"), py::arg("loss"), py::arg("optimizer"))
      .def("bind", &P::bind, py::arg("parameters"), py::arg("buffers"), py::arg("state"), py::arg("updates"))
      .def("infer", &P::infer)
      .def("step", &P::step)
      .def("steps", &P::steps)
      .def("forward", &P::forward)
      .def("backward", &P::backward)
      .def("gradients", &P::gradients)
      .def("taps", &P::taps)
      .def("traffic", &P::traffic)
      .def("forget_accumulated", &P::forget_accumulated)
      .def_property_readonly("accumulated", [](P& p) { return p.executor().accumulated(); })
      .def_property_readonly("flat_size", [](P& p) { return p.executor().flat_size(); })
      .def_property_readonly("instructions", [](P& p) { return p.executor().instructions(); })
      .def_property_readonly("barriers", [](P& p) { return p.executor().barriers(); })
      .def_property_readonly("by_rows", [](P& p) { return p.executor().by_rows(); })
      .def_property_readonly("arena_bytes", [](P& p) { return p.executor().arena_bytes(); });
}

}  // namespace
}  // namespace gv::plan

void register_plan(py::module_& m) {
  using namespace gv::plan;
  static const std::pair<const char*, Panels> kinds[] = {
      {"automatic", Panels::automatic}, {"columns", Panels::columns}, {"rows", Panels::rows}};
  m.def("panels", [] {
    for (const auto& [name, kind] : kinds)
      if (kind == panels()) return name;
    return "";
  });
  m.def("set_panels", [](const std::string& wanted) {
    for (const auto& [name, kind] : kinds)
      if (wanted == name) return set_panels(kind);
    throw py::value_error("[set_panels] expected automatic, columns or rows, got " + wanted);
  });
  m.def("zeros", [](gv::index count, const py::dtype& dtype) {
    const bool wide = dtype.equal(py::dtype::of<double>());
    if (!wide && !dtype.equal(py::dtype::of<float>()))
      throw py::type_error("[zeros] expected float32 or float64, got " + std::string(py::str(dtype)));
    if (count < 0) throw py::value_error("[zeros] expected count >= 0, got " + std::to_string(count));
    return gv::bind::lasting_zeros(wide ? gv::DType::f64 : gv::DType::f32, {count}).object();
  });
  not_finite = PyErr_NewException("gvcore._core.NotFinite", PyExc_FloatingPointError, nullptr);
  if (!not_finite) throw py::error_already_set();
  m.attr("NotFinite") = py::handle(not_finite);
  py::class_<StepRequest>(m, "StepRequest", "What a step does besides forward and backward.")
      .def(py::init<>())
      .def_readwrite("lr", &StepRequest::lr)
      .def_readwrite("clip_norm", &StepRequest::clip_norm)
      .def_readwrite("update", &StepRequest::update)
      .def_readwrite("accumulate", &StepRequest::accumulate)
      .def_readwrite("commit_statistics", &StepRequest::commit_statistics)
      .def_readwrite("stop_if_not_finite", &StepRequest::stop_if_not_finite)
      .def_readwrite("seed", &StepRequest::seed)
      .def_readwrite("step", &StepRequest::step);
  register_plan_of<float>(m, "PlanFloat32");
  register_plan_of<double>(m, "PlanFloat64");
}
