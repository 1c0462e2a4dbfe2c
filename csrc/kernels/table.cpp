// table.cpp — the room's one translation unit, compiled once per instruction set with
// -DGV_ISA=<name>: it gathers the kernels into the table and exports nothing else.
#include "table.h"

#include "axpys.h"
#include "batchnorm.h"
#include "batchnorm_along.h"
#include "batchnorm_flat.h"
#include "convert.h"
#include "dots.h"
#include "elementwise.h"
#include "gemm.h"
#include "layernorm.h"
#include "loss.h"
#include "optim.h"
#include "peak.h"
#include "random.h"
#include "softmax.h"

namespace gv::kernels::GV_ISA {
namespace {

template <class T> constexpr Kernels<T> all() {
  Kernels<T> k{};
  add_gemm(k);
  add_dots(k);
  add_axpys(k);
  add_batchnorm(k);
  add_batchnorm_along(k);
  add_batchnorm_flat(k);
  add_layernorm(k);
  add_elementwise(k);
  add_convert(k);
  add_softmax(k);
  add_loss(k);
  add_optim(k);
  add_random(k);
  add_peak(k);
  return k;
}

// Constant-initialised: no code of this instruction set runs before it is chosen.
constexpr Kernels<float> kFloat = all<float>();
constexpr Kernels<double> kDouble = all<double>();

}  // namespace
}  // namespace gv::kernels::GV_ISA

#define GV_JOIN(a, b) a##b
#define GV_NAME(a, b) GV_JOIN(a, b)
#define GV_TEXT(a) #a
#define GV_STRING(a) GV_TEXT(a)

extern "C" const gv::kernels::KernelTable GV_NAME(gv_kernels_, GV_ISA) = {
    GV_STRING(GV_ISA), gv::kernels::GV_ISA::kFloat, gv::kernels::GV_ISA::kDouble};
