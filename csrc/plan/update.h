// update.h — the optimiser as the instructions see it: one rule applied to a stretch of the flat
// parameters. Whether a gradient comes from a register tile's scratch or from the stored gradient
// makes no difference to the bits: the kernel is the same.
#pragma once
#include <vector>

#include "../kernels/table.h"

namespace gv::plan {

enum class Rule : std::uint8_t { sgd, adam };

// What the user set, per parameter: decay and the factor on the rate.
struct ParameterSetting {
  double weight_decay = 0, lr_scale = 1;
};

struct OptimizerSettings {
  Rule rule = Rule::sgd;
  double momentum = 0, dampening = 0;
  bool nesterov = false;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  bool decoupled = true;
  std::vector<ParameterSetting> parameters;

  int states() const { return rule == Rule::adam ? 2 : momentum != 0 ? 1 : 0; }
};

template <class T> struct Update {
  OptimizerSettings settings;
  double lr = 0;
  std::vector<T*> parameters;             // by parameter index
  std::vector<index> offsets;             // of each parameter in the flat state
  T* state[2] = {nullptr, nullptr};       // velocity, or exp_avg and exp_avg_sq
  std::int64_t* updates = nullptr;        // how often each parameter has been updated

  struct Correction {
    std::int64_t updates;
    double first, second;
  };
  mutable std::vector<Correction> corrections;  // Adam's, by parameter, made by prepare()

  void prepare();  // once before a step that updates
  // Parameter elements [first, first + n) with their gradient.
  void apply(const kernels::Kernels<T>& k, int parameter, index first, index n,
             const T* gradient) const noexcept;
};

}  // namespace gv::plan
