// loss.cpp — see loss.h.
#include "loss.h"

namespace gv::plan {

template <class T> void Loss<T>::run(const Context<T>& c, const Worker& w) const noexcept {
  const index rows = t_.multiplicity * c.batch, ld = t_.columns;
  const ops::Loss<T> args{settings_.kind,
                          rows,
                          ld,
                          prediction_.get(),
                          ld,
                          labels_.get(),
                          target_.get(),
                          ld,
                          weight_.get(),
                          settings_.label_smoothing,
                          settings_.delta,
                          row_weight_.get(),
                          row_loss_.get(),
                          gradient_.get(),
                          ld};
  ops::run(*c.kernels, args, w.id, w.team);
}

template class Loss<float>;
template class Loss<double>;

}  // namespace gv::plan
