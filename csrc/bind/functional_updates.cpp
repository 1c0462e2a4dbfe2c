// functional_updates.cpp — updates of parameters in place and the clipping of gradients: every
// array is checked before the first is written. Arithmetic: ops/optim.
#include <algorithm>
#include <cmath>
#include <functional>

#include "../ops/isa.h"
#include "../ops/optim.h"
#include "arrays.h"
#include "functional.h"

namespace gv::bind {
namespace {

// The arrays of one update: same dtype and shape, those written in place apart from all others.
void expect_update(const char* op, const std::vector<const Array*>& arrays, const Array& grad) {
  const Array& param = *arrays.front();
  for (const Array* a : arrays) expect_same_dtype(op, param, *a);
  for (const Array* a : arrays) {
    if (*a) expect_shape(op, *a, param.shape());
  }
  for (const Array* a : arrays) {
    if (!*a || a == &grad) continue;
    expect_in_place(op, *a);
    for (const Array* other : arrays) {
      if (other != a) expect_apart(op, *a, *other, false);
    }
  }
}

void sgd_update(const py::object& param_in, const py::object& grad_in, const py::object& velocity_in,
                double lr, double momentum, double dampening, double weight_decay, bool nesterov,
                bool first) {
  const char* op = "sgd_update";
  const Array param = floats(op, "param", param_in), grad = floats(op, "grad", grad_in);
  const Array velocity = floats_or_none(op, "velocity", velocity_in);
  expect_update(op, {&param, &grad, &velocity}, grad);
  const Vector g = input_flat(grad);
  with_dtype(param.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto& k = ops::active_table().of<T>();
    const ops::SgdUpdate<T> update{param.size(),
                                   reinterpret_cast<T*>(param.data()),
                                   g.as<T>(),
                                   velocity ? reinterpret_cast<T*>(velocity.data()) : nullptr,
                                   {lr, momentum, dampening, weight_decay, nesterov, first}};
    Region(0.1 * double(update.n)).run([&](int worker, int workers) {
      ops::run(k, update, worker, workers);
    });
  });
}

void adam_update(const py::object& param_in, const py::object& grad_in, const py::object& exp_avg_in,
                 const py::object& exp_avg_sq_in, std::int64_t step, double lr, double beta1, double beta2,
                 double eps, double weight_decay, bool decoupled) {
  const char* op = "adam_update";
  const Array param = floats(op, "param", param_in), grad = floats(op, "grad", grad_in);
  const Array exp_avg = floats(op, "exp_avg", exp_avg_in),
              exp_avg_sq = floats(op, "exp_avg_sq", exp_avg_sq_in);
  expect_update(op, {&param, &grad, &exp_avg, &exp_avg_sq}, grad);
  const Vector g = input_flat(grad);
  with_dtype(param.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto& k = ops::active_table().of<T>();
    const ops::AdamUpdate<T> update{param.size(),
                                    reinterpret_cast<T*>(param.data()),
                                    g.as<T>(),
                                    reinterpret_cast<T*>(exp_avg.data()),
                                    reinterpret_cast<T*>(exp_avg_sq.data()),
                                    {lr, beta1, beta2, eps, weight_decay, 1 - std::pow(beta1, double(step)),
                                     std::sqrt(1 - std::pow(beta2, double(step))), decoupled}};
    Region(0.3 * double(update.n)).run([&](int worker, int workers) {
      ops::run(k, update, worker, workers);
    });
  });
}

// The squares of one array, chunks in ascending order.
double sum_of_squares(const Array& a) {
  return with_dtype(a.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto& k = ops::active_table().of<T>();
    std::vector<double> chunks(std::size_t(ops::chunks_of(a.size())));
    const ops::SumOfSquares<T> g{a.size(), reinterpret_cast<const T*>(a.data()), chunks.data()};
    Region(0.1 * double(g.n)).run([&](int worker, int workers) { ops::run(k, g, worker, workers); });
    double sum = 0;
    for (const double chunk : chunks) sum += chunk;
    return sum;
  });
}

// No two of the arrays share memory: none may be scaled twice.
void expect_all_apart(const char* op, const std::vector<Array>& arrays) {
  std::vector<const Array*> by_address;
  for (const Array& a : arrays) {
    if (a.size() > 0) by_address.push_back(&a);
  }
  std::sort(by_address.begin(), by_address.end(),
            [](const Array* a, const Array* b) { return std::less<>()(a->data(), b->data()); });
  for (std::size_t i = 1; i < by_address.size(); ++i)
    expect_apart(op, *by_address[i - 1], *by_address[i], false);
}

double clip_grad_norm(const py::list& grads, const py::list& names, double max_norm) {
  const char* op = "clip_grad_norm";
  std::vector<std::string> texts;
  std::vector<Array> arrays;
  texts.reserve(grads.size());
  for (std::size_t i = 0; i < grads.size(); ++i) {
    texts.push_back(py::str(names[i]));
    arrays.push_back(floats(op, texts.back().c_str(), py::object(grads[i])));
    expect_in_place(op, arrays.back());
  }
  expect_all_apart(op, arrays);
  double total = 0;
  for (const Array& a : arrays) {
    const double sum = sum_of_squares(a);
    if (!std::isfinite(sum))
      refuse(op, "gradients of finite norm", std::to_string(sum) + " as the sum of squares of " + a.name());
    total += sum;
  }
  if (!std::isfinite(total))
    refuse(op, "gradients of finite norm", std::to_string(total) + " as the sum of their squares");
  const double norm = std::sqrt(total),
               factor = max_norm / (norm + 1e-6);  // as torch.nn.utils.clip_grad_norm_
  for (const Array& a : arrays) {
    if (!(factor < 1)) break;
    with_dtype(a.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const auto& k = ops::active_table().of<T>();
      const ops::Scale<T> g{a.size(), reinterpret_cast<T*>(a.data()), T(factor)};
      Region(0.1 * double(g.n)).run([&](int worker, int workers) { ops::run(k, g, worker, workers); });
    });
  }
  return norm;
}

}  // namespace

void register_updates(py::module_& m) {
  m.def("sgd_update", &sgd_update);
  m.def("adam_update", &adam_update);
  m.def("clip_grad_norm", &clip_grad_norm);
}

}  // namespace gv::bind
