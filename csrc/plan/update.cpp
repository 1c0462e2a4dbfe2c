// update.cpp — see update.h.
#include "update.h"

#include <algorithm>
#include <cmath>

namespace gv::plan {

template <class T>
void Update<T>::bind(const std::vector<T*>& parameters, const std::vector<index>& offsets, T* const state[2],
                     std::int64_t* updates) {
  own_.resize(parameters.size());
  for (std::size_t i = 0; i < own_.size(); ++i)
    own_[i] = {parameters[i],
               offsets[i],
               settings.parameters.empty() ? ParameterSetting{} : settings.parameters[i],
               {},
               true};
  state_[0] = state[0];
  state_[1] = state[1];
  updates_ = updates;
  settled_ = false;
}

template <class T> typename Update<T>::Correction Update<T>::correction_after(std::int64_t updates) const {
  const double t = double(updates);
  return {1 - std::pow(settings.beta1, t), std::sqrt(1 - std::pow(settings.beta2, t))};
}

template <class T> void Update<T>::prepare() {
  // Whoever has the state may set the counts back.
  if (settled_ && std::find(updates_, updates_ + own_.size(), 0) == updates_ + own_.size()) return;
  settled_ = settings.rule == Rule::sgd;
  std::int64_t last = -1;
  Correction correction;
  for (std::size_t i = 0; i < own_.size(); ++i) {
    own_[i].first = updates_[i] == 0;
    settled_ &= !own_[i].first;
    if (settings.rule != Rule::adam) continue;
    if (updates_[i] != last) correction = correction_after((last = updates_[i]) + 1);
    own_[i].correction = correction;
  }
}

template <class T>
void Update<T>::apply(const kernels::Kernels<T>& k, int parameter, index first, index n,
                      const T* gradient) const noexcept {
  const Own& own = own_[std::size_t(parameter)];
  T* p = own.memory + first;
  const index at = own.offset + first;
  const double rate = lr * own.setting.lr_scale;
  if (settings.rule == Rule::sgd) {
    const kernels::SgdParams params{
        rate, settings.momentum, settings.dampening, own.setting.weight_decay, settings.nesterov, own.first};
    k.sgd(n, p, gradient, state_[0] ? state_[0] + at : nullptr, params);
  } else {
    const kernels::AdamParams params{rate,
                                     settings.beta1,
                                     settings.beta2,
                                     settings.eps,
                                     own.setting.weight_decay,
                                     own.correction.first,
                                     own.correction.second,
                                     settings.decoupled};
    k.adam(n, p, gradient, state_[0] + at, state_[1] + at, params);
  }
}

template class Update<float>;
template class Update<double>;

}  // namespace gv::plan
