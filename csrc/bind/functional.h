// functional.h — the families of gvcore.functional, each bound in a file of its own. Every function
// checks all of its arguments before it writes anything.
#pragma once
#include <pybind11/pybind11.h>

namespace gv::bind {

void register_products(pybind11::module_& m);
void register_norms(pybind11::module_& m);
void register_activations(pybind11::module_& m);
void register_losses(pybind11::module_& m);
void register_updates(pybind11::module_& m);

}  // namespace gv::bind
