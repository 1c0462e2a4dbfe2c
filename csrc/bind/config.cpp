// config.cpp — threads, instruction sets and how the module was built.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../base/parallel.h"
#include "../ops/isa.h"

namespace py = pybind11;

void register_config(py::module_& m) {
  m.attr("__version__") = GV_VERSION;
#if defined(__clang__)
  m.attr("compiler") = "Clang " __clang_version__;
#elif defined(__GNUC__)
  m.attr("compiler") = "GCC " __VERSION__;
#else
  m.attr("compiler") = "unknown";
#endif
  m.def("available_isas", &gv::ops::available_isas);
  m.def("active_isa", [] { return std::string(gv::ops::active_table().name); });
  m.def("set_isa", &gv::ops::set_isa);
  m.def("num_threads", &gv::num_threads);
  m.def("set_num_threads", &gv::set_num_threads, py::call_guard<py::gil_scoped_release>());
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
      py::call_guard<py::gil_scoped_release>(),
      "The size of the team that a region of so many workers really gets.");
}
