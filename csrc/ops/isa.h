// isa.h — which instruction set's kernels run: the best that the processor has, unless
// GVCORE_ISA or set_isa chose another.
#pragma once
#include <string>
#include <vector>

#include "../kernels/table.h"

namespace gv::ops {

const kernels::KernelTable& active_table();
std::vector<std::string> available_isas();  // best first; always ends with "scalar"
void set_isa(const std::string& name);      // throws std::invalid_argument naming what is available

}  // namespace gv::ops
