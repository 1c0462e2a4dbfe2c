// loss.h — the loss at the end of a training plan: value per row and gradient of the prediction in
// one instruction; the sum over rows is the executor's, so that it can stop before anything is
// written. loss = Σ_r w_r·l_r / Σ_r w_r·c_r over the rows r, with w the sample weights and c the
// class weights of cross-entropy (1 elsewhere, and the number of elements for element-wise losses).
#pragma once
#include <string>

#include "../ops/loss.h"
#include "step.h"

namespace gv::plan {

using ops::LossKind;

struct LossSettings {
  LossKind kind = LossKind::cross_entropy;
  bool mean = true;             // else sum
  double label_smoothing = 0;
  double delta = 1;             // huber
  std::vector<double> weight;   // class weights (cross-entropy) or pos_weight (bce); may be empty
};

struct LossTensors {
  index multiplicity = 1, columns = 1;  // rows = multiplicity * batch
  TensorId labels = -1, target = -1, row_weight = -1, row_loss = -1, weight = -1;
};

template <class T> class Loss final : public Instruction<T> {
 public:
  Loss(const LossSettings& settings, const LossTensors& t, TensorId prediction, TensorId gradient)
      : settings_(settings), t_(t) {
    this->reads(prediction_, prediction, Reach::all);
    this->reads(labels_, t.labels, Reach::all);
    this->reads(target_, t.target, Reach::all);
    this->reads(row_weight_, t.row_weight, Reach::all);
    this->reads(weight_, t.weight, Reach::all);
    this->writes(row_loss_, t.row_loss, Reach::all);
    this->writes(gradient_, gradient, Reach::all);
  }
  void run(const Context<T>& c, const Worker& w) const noexcept override;
  index scratch_bytes(index) const override { return 0; }
  double nanoseconds(index batch) const override {
    return double(t_.multiplicity * batch) * (40 + double(t_.columns));
  }

 private:
  const LossSettings settings_;
  const LossTensors t_;
  Ref<T> prediction_, target_, row_weight_, weight_, gradient_;
  Ref<std::int64_t> labels_;
  Ref<double> row_loss_;
};

}  // namespace gv::plan
