// activation.h — activations and their gradients on panels of any size, and their names. The
// formulas are in kernels/elementwise.h.
#pragma once
#include "../kernels/table.h"
#include "deal.h"
#include "past.h"

namespace gv::ops {

constexpr int kActivations = 11;
extern const char* const kActivationNames[kActivations];  // in the order of Activation

// False if there is no such activation.
bool activation_named(const char* name, Activation& kind);

template <class T> struct ActivationForward {
  Activation kind;
  kernels::ActivationParams params;
  index rows, cols;
  const T* x;
  index ldx;
  T* y;  // may be x
  index ldy;
};

template <class T> struct ActivationBackward {
  Activation kind;
  kernels::ActivationParams params;
  index rows, cols;
  const T* dy;
  index lddy;
  const T* x;
  index ldx;
  T* dx;  // may be dy
  index lddx;
};

// Memory is what relu and leaky_relu wait for; the others compute for longer than a store takes.
inline bool activation_worth_past(Activation kind, index bytes) {
  return (kind == Activation::relu || kind == Activation::leaky_relu) && worth_past(bytes);
}

template <class T>
void run(const kernels::Kernels<T>& k, const ActivationForward<T>& g, int worker, int workers) noexcept {
  const bool flat = g.ldx == g.cols && g.ldy == g.cols;
  const PanelShare s = share_of_panel(g.rows, g.cols, flat, worker, workers);
  if (flat && g.x != g.y && activation_worth_past(g.kind, g.rows * g.cols * index(sizeof(T))))
    return k.activation_past(g.kind, g.params, s.cols, g.x + s.col, g.y + s.col);
  k.activation(g.kind, g.params, s.rows, s.cols, g.x + s.at(g.ldx), g.ldx, g.y + s.at(g.ldy), g.ldy);
}

template <class T>
void run(const kernels::Kernels<T>& k, const ActivationBackward<T>& g, int worker, int workers) noexcept {
  const bool flat = g.lddy == g.cols && g.ldx == g.cols && g.lddx == g.cols;
  const PanelShare s = share_of_panel(g.rows, g.cols, flat, worker, workers);
  if (flat && g.dx != g.dy && g.dx != g.x &&
      activation_worth_past(g.kind, g.rows * g.cols * index(sizeof(T))))
    return k.activation_backward_past(g.kind, g.params, s.cols, g.dy + s.col, g.x + s.col, g.dx + s.col);
  k.activation_backward(g.kind, g.params, s.rows, s.cols, g.dy + s.at(g.lddy), g.lddy, g.x + s.at(g.ldx),
                        g.ldx, g.dx + s.at(g.lddx), g.lddx);
}

}  // namespace gv::ops
