// isa.cpp — see isa.h. Compiled for the baseline: it must run on every processor.
#include "isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace gv::ops {
namespace {

using kernels::KernelTable;

// All that a level of x86-64 names and the compiler may use: a virtual machine may hide any part of it.
#if defined(__clang__) && __clang_major__ < 18  // which knows features, but no levels
#define GV_RUNS_V3 \
  (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
#define GV_RUNS_V4                                                                          \
  (GV_RUNS_V3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && \
   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&              \
   __builtin_cpu_supports("avx512cd"))
#else
#define GV_RUNS_V3 __builtin_cpu_supports("x86-64-v3")
#define GV_RUNS_V4 __builtin_cpu_supports("x86-64-v4")
#endif

std::vector<const KernelTable*> tables() {
  std::vector<const KernelTable*> found;
#if defined(GV_HAVE_AVX512)
  if (GV_RUNS_V4) found.push_back(&gv_kernels_avx512);
#endif
#if defined(GV_HAVE_AVX2)
  if (GV_RUNS_V3) found.push_back(&gv_kernels_avx2);
#endif
  found.push_back(&gv_kernels_scalar);
  return found;
}

const KernelTable& named(const std::string& name, const char* setting) {
  std::string known;
  for (const KernelTable* table : tables()) {
    if (name == table->name) return *table;
    known += (known.empty() ? "" : ", ") + std::string(table->name);
  }
  throw std::invalid_argument("[isa] expected " + std::string(setting) + "one of " + known + ", got " + name);
}

std::atomic<const KernelTable*>& active() {
  static std::atomic<const KernelTable*> table{[] {
    const char* name = std::getenv("GVCORE_ISA");
    return name && *name ? &named(name, "GVCORE_ISA to be ") : tables().front();
  }()};
  return table;
}

}  // namespace

const KernelTable& active_table() { return *active().load(std::memory_order_relaxed); }

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const KernelTable* table : tables()) names.emplace_back(table->name);
  return names;
}

void set_isa(const std::string& name) { active().store(&named(name, ""), std::memory_order_relaxed); }

}  // namespace gv::ops
