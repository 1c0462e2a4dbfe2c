// random.cpp — filling arrays with random numbers and drawing permutations, by (seed, site, step).
#include "../ops/random.h"

#include "../ops/isa.h"
#include "arrays.h"

namespace gv::bind {
namespace {

void fill(const char* op, ops::Distribution distribution, const py::object& out_in, std::uint64_t seed,
          std::uint32_t site, double first, double second, std::uint64_t step) {
  const Array out = floats(op, "out", out_in);
  expect_in_place(op, out);
  with_dtype(out.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto& k = ops::active_table().of<T>();
    const ops::RandomFill<T> g{distribution, out.size(), {seed, site, step},
                               first,        second,     reinterpret_cast<T*>(out.data())};
    Region(5.0 * double(g.n)).run([&](int worker, int workers) { ops::run(k, g, worker, workers); });
  });
}

py::array_t<std::int64_t> permutation(index n, std::uint64_t seed, std::uint32_t site, std::uint64_t step) {
  if (n < 0) refuse("permutation", "n >= 0", std::to_string(n));
  py::array_t<std::int64_t> order(n);
  std::int64_t* out = order.mutable_data();
  const GilReleased released;
  ops::permutation(ops::active_table().of<double>(), n, {seed, site, step}, out);
  return order;
}

}  // namespace
}  // namespace gv::bind

void register_random(pybind11::module_& m) {
  using namespace gv::bind;
  using gv::ops::Distribution;
  m.def(
      "uniform",
      [](const py::object& out, std::uint64_t seed, std::uint32_t site, double low, double high,
         std::uint64_t step) { fill("uniform", Distribution::uniform, out, seed, site, low, high, step); },
      py::arg("out"), py::arg("seed"), py::arg("site"), py::arg("low") = 0.0, py::arg("high") = 1.0,
      py::arg("step") = 0, "Fill out with numbers from (low, high).");
  m.def(
      "normal",
      [](const py::object& out, std::uint64_t seed, std::uint32_t site, double mean, double std,
         std::uint64_t step) { fill("normal", Distribution::normal, out, seed, site, mean, std, step); },
      py::arg("out"), py::arg("seed"), py::arg("site"), py::arg("mean") = 0.0, py::arg("std") = 1.0,
      py::arg("step") = 0, "Fill out with normally distributed numbers.");
  m.def("permutation", &permutation, py::arg("n"), py::arg("seed"), py::arg("site"), py::arg("step") = 0,
        "A random order of 0 … n-1.");
}
