// functional.cpp — gathers the families into the submodule _core.functional.
#include "functional.h"

void register_functional(pybind11::module_& m) {
  using namespace gv::bind;
  auto functional =
      m.def_submodule("functional", "The kernels of gvcore.functional, checked but undocumented.");
  register_products(functional);
  register_norms(functional);
  register_activations(functional);
  register_losses(functional);
  register_updates(functional);
}
