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

template <class T> class Update {
 public:
  OptimizerSettings settings;
  double lr = 0;

  // Where each parameter lies, and where in the flat state (velocity, or exp_avg and exp_avg_sq) its
  // part begins; updates[i] counts how often parameter i has been updated.
  void bind(const std::vector<T*>& parameters, const std::vector<index>& offsets, T* const state[2],
            std::int64_t* updates);
  void prepare();  // once before a step that updates
  // Parameter elements [first, first + n) with their gradient.
  void apply(const kernels::Kernels<T>& k, int parameter, index first, index n,
             const T* gradient) const noexcept;
  void count(int parameter) { ++updates_[parameter]; }

  const void* place(int parameter) const { return &own_[std::size_t(parameter)]; }
  const T* state(int which, int parameter) const {  // null if the rule has none
    return state_[which] ? state_[which] + own_[std::size_t(parameter)].offset : nullptr;
  }

 private:
  struct Correction {  // Adam's, after so many updates
    double first = 1, second = 1;
  };
  struct alignas(64) Own {  // one cache line of each parameter
    T* memory;
    index offset;
    ParameterSetting setting;
    Correction correction;
    bool first;
  };
  Correction correction_after(std::int64_t updates) const;

  std::vector<Own> own_;
  T* state_[2] = {nullptr, nullptr};
  std::int64_t* updates_ = nullptr;
  bool settled_ = false;  // nothing in own_ changes any more from step to step
};

}  // namespace gv::plan
