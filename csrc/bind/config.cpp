// config.cpp — threads, instruction sets and how the module was built.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>

#include "../base/caches.h"
#include "../base/parallel.h"
#include "../ops/isa.h"
#include "../ops/peak.h"
#include "gil.h"

namespace py = pybind11;

namespace {

// (flop or bytes of one pass, seconds of each pass), with the active instruction set.
py::tuple checked(gv::ops::Passes (*measure)(int, gv::index, int), int workers, gv::index size, int passes) {
  if (workers < 1 || size < 1 || passes < 1)
    throw std::invalid_argument("[peak] expected at least 1 worker, size and pass");
  gv::ops::Passes result;
  {
    const gv::bind::GilReleased released;
    result = measure(workers, size, passes);
  }
  return py::make_tuple(result.work, result.seconds);
}

}  // namespace

void register_config(py::module_& m) {
  m.attr("__version__") = GV_VERSION;
#if defined(__clang__)
  m.attr("compiler") = "Clang " __clang_version__;
#elif defined(__GNUC__)
  m.attr("compiler") = "GCC " __VERSION__;
#else
  m.attr("compiler") = "unknown";
#endif
  gv::find_caches();
  gv::num_threads();  // both read the environment: what cannot be read is an ImportError
  gv::ops::active_table();
  m.attr("caches") = py::make_tuple(gv::caches().first, gv::caches().second);
  m.def("available_isas", &gv::ops::available_isas);
  m.def("active_isa", [] { return std::string(gv::ops::active_table().name); });
  m.def("set_isa", &gv::ops::set_isa);
  m.def("num_threads", &gv::num_threads);
  m.def("set_num_threads", &gv::set_num_threads, py::call_guard<gv::bind::GilReleased>());
  m.def("num_threads_reason", [] { return std::string(gv::num_threads_reason()); });
  m.def("worth_waking", &gv::worth_waking);
  m.def("set_worth_waking", &gv::set_worth_waking);
  m.def(
      "team_size",
      [](int workers) {
        int team = 0;
        gv::parallel(workers, [&](int worker, int size) {
          if (worker == 0) team = size;
        });
        return team;
      },
      py::call_guard<gv::bind::GilReleased>(),
      "The size of the team that a region of so many workers really gets.");
  m.def("fma_passes_float32", [](int workers, gv::index rounds, int passes) {
    return checked(&gv::ops::fma_passes<float>, workers, rounds, passes);
  });
  m.def("fma_passes_float64", [](int workers, gv::index rounds, int passes) {
    return checked(&gv::ops::fma_passes<double>, workers, rounds, passes);
  });
  m.def("memory_passes", [](int workers, gv::index elements, int passes) {
    return checked(&gv::ops::memory_passes<float>, workers, elements, passes);
  });
}
