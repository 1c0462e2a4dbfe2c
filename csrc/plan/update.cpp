// update.cpp — see update.h.
#include "update.h"

#include <cmath>

namespace gv::plan {

template <class T> void Update<T>::prepare() {
  if (settings.rule != Rule::adam) return;
  corrections.resize(parameters.size());
  Correction last{-1, 1, 1};
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const std::int64_t count = updates[i] + 1;
    if (count != last.updates)
      last = {count, 1 - std::pow(settings.beta1, double(count)),
              std::sqrt(1 - std::pow(settings.beta2, double(count)))};
    corrections[i] = last;
  }
}

template <class T>
void Update<T>::apply(const kernels::Kernels<T>& k, int parameter, index first, index n,
                      const T* gradient) const noexcept {
  const auto i = std::size_t(parameter);
  const ParameterSetting& own = settings.parameters[i];
  T* p = parameters[i] + first;
  const index at = offsets[i] + first;
  if (settings.rule == Rule::sgd) {
    const kernels::SgdParams params{lr * own.lr_scale, settings.momentum, settings.dampening,
                                    own.weight_decay,  settings.nesterov, updates[i] == 0};
    k.sgd(n, p, gradient, state[0] ? state[0] + at : nullptr, params);
  } else {
    const kernels::AdamParams params{lr * own.lr_scale,     settings.beta1,    settings.beta2,
                                     settings.eps,          own.weight_decay,  corrections[i].first,
                                     corrections[i].second, settings.decoupled};
    k.adam(n, p, gradient, state[0] + at, state[1] + at, params);
  }
}

template struct Update<float>;
template struct Update<double>;

}  // namespace gv::plan
