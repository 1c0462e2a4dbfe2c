// differentiate.cpp — backward: the nodes in descending order, each turning the gradient of its
// value into gradients of its inputs and parameters (reverse-mode differentiation; Griewank &
// Walther 2008, chapter 3). Iterative and linear in the number of nodes.
#include "lower.h"
#include "steps_elementwise.h"
#include "steps_linear.h"
#include "steps_norm_rows.h"
#include "steps_shape.h"

namespace gv::plan {

template <class T> TensorId Lowering<T>::gradient_of(int index) {
  if (!trainable(index)) return -1;
  TensorId& id = program_.gradients[std::size_t(index)];
  const auto size = graph_.parameters()[std::size_t(index)].size;
  if (id < 0)
    id = program_.tensor(options_.update_inside ? Place::kept : Place::gradient, 0, size, sizeof(T), index);
  return id;
}

template <class T> void Lowering<T>::contribute(NodeId id, TensorId gradient) {
  Facts& f = facts(id);
  if (!f.needs_gradient) return;
  if (f.gradient < 0) {
    f.gradient = gradient;
    return;
  }
  const TensorId sum = make_like(id);
  const auto [multiplicity, columns] = view(id);
  program_.step(
      std::make_unique<Binary<T>>(Arithmetic::add, multiplicity, columns, f.gradient, gradient, sum));
  f.gradient = sum;
}

template <class T> void Lowering<T>::backward() {
  facts(graph_.outputs()[0]).gradient = program_.seed_gradient;
  for (NodeId id = NodeId(facts_.size()) - 1; id >= 0; --id)
    if (facts(id).needs_gradient && facts(id).gradient >= 0) {
      if (facts(id).folded_into < 0) recompute_segment_of(id);
      differentiate(id);
    }
  for (NodeId id : graph_.taps()) {
    const TensorId gradient = facts(id).gradient;
    program_.tap_gradients.push_back(gradient);
    if (gradient >= 0) program_.tensors[std::size_t(gradient)].place = Place::kept;
  }
}

template <class T> void Lowering<T>::differentiate(NodeId id) {
  const Node& n = graph_.node(id);
  const Facts f = facts(id);
  const NodeId x = n.inputs.empty() ? -1 : n.inputs[0];
  const auto [multiplicity, columns] = view(id);
  if (f.folded_into >= 0 && n.op == Op::activation) return contribute(x, f.gradient);
  switch (n.op) {
    case Op::input: return;
    case Op::linear:
    case Op::matmul_parameter: return differentiate_product(id);
    case Op::matmul: return differentiate_matmul(id);
    case Op::add:
    case Op::sub:
    case Op::mul: return differentiate_binary(id);
    case Op::affine: {
      const TensorId dx = make_like(x);
      program_.step(std::make_unique<Affine<T>>(n.alpha, 0.0, multiplicity, columns, f.gradient, dx));
      return contribute(x, dx);
    }
    case Op::add_parameter:
    case Op::mul_parameter: return differentiate_parameter_row(id);
    case Op::expand: {
      const Shape& small = graph_.node(x).shape;
      const TensorId dx = make_like(x);
      program_.whole(std::make_unique<ExpandGradient<T>>(broadcast_source(small, n.shape), true,
                                                         small.elements(), f.gradient, dx));
      return contribute(x, dx);
    }
    case Op::activation: {
      // ReLU tells its slope from its output as well, which the next product keeps anyway.
      const TensorId from = n.activation == Activation::relu ? f.value : value(x), dx = make_like(x);
      program_.step(std::make_unique<ActivationBackward<T>>(n.activation, n.alpha, multiplicity, columns,
                                                            f.gradient, from, dx));
      return contribute(x, dx);
    }
    case Op::softmax:
    case Op::log_softmax: {
      const TensorId dx = make_like(x);
      program_.whole(std::make_unique<SoftmaxGradient<T>>(n.op == Op::log_softmax, multiplicity, columns,
                                                          f.gradient, f.value, dx));
      return contribute(x, dx);
    }
    case Op::batchnorm: return differentiate_batchnorm(id);
    case Op::layernorm: return differentiate_layernorm(id);
    case Op::dropout: {
      if (!options_.training || n.alpha == 0) return contribute(x, f.gradient);
      const TensorId dx = make_like(x);
      program_.step(std::make_unique<Dropout<T>>(n.alpha, n.site, multiplicity, columns, f.gradient, dx));
      return contribute(x, dx);
    }
    case Op::reshape: return contribute(x, f.gradient);
    case Op::concatenate: {
      index end = 0;  // columns to the right of the part
      const Shape& whole = n.shape;
      index wide = 1;
      for (int i = n.axis; i < whole.rank; ++i) wide *= whole.sizes[std::size_t(i)];
      for (std::size_t i = n.inputs.size(); i-- > 0;) {
        const Shape& part = graph_.node(n.inputs[i]).shape;
        index w = 1;
        for (int axis = n.axis; axis < part.rank; ++axis) w *= part.sizes[std::size_t(axis)];
        end += w;
        if (!facts(n.inputs[i]).needs_gradient) continue;
        const TensorId dx = make_like(n.inputs[i]);
        program_.whole(std::make_unique<CopyColumns<T>>(wide ? whole.elements() / wide : 0, w, f.gradient,
                                                        wide, wide - end, dx, w, 0));
        contribute(n.inputs[i], dx);
      }
      return;
    }
  }
}

template <class T> TensorId Lowering<T>::operand(NodeId id) {
  const NodeId norm = graph_.node(id).op == Op::batchnorm ? id : facts(id).folded_into;
  if (!options_.fuse || norm < 0 || facts(norm).sum >= 0 || facts(id).uses != 1) return value(id);
  const TensorId again = make_like(id);
  const auto [multiplicity, columns] = view(id);
  program_.step(std::make_unique<BatchNormAgain<T>>(multiplicity, columns, facts(norm).relu >= 0,
                                                    value(graph_.node(norm).inputs[0]), -1,
                                                    facts(norm).statistics, again));
  return again;
}

// The bias first, by columns while dy's panel is in cache; dx before the update of the weight that it reads.
template <class T> void Lowering<T>::differentiate_product(NodeId id) {
  const Node& n = graph_.node(id);
  const NodeId x = n.inputs[0];
  const TensorId dy = facts(id).gradient;
  const auto [multiplicity, columns] = view(id);
  const index inner = graph_.node(x).shape.last();
  const int weight = n.parameters[0];
  if (const int bias = n.parameters[1]; trainable(bias)) {
    const bool inside = options_.update_inside;
    program_.step(std::make_unique<ColumnSums<T>>(
        multiplicity, columns, dy, -1, inside ? -1 : gradient_of(bias), bias, inside ? parameter(bias) : -1));
  }
  if (facts(x).needs_gradient) {
    const TensorId dx = make_like(x);
    program_.step(std::make_unique<Product<T>>(multiplicity, inner, columns, dy, parameter(weight),
                                               n.op == Op::matmul_parameter, -1, dx));
    contribute(x, dx);
  }
  if (!trainable(weight)) return;
  const bool as_linear = n.op == Op::linear;
  const index rows = as_linear ? columns : inner, wide = as_linear ? inner : columns;
  const TensorId read = operand(x);
  const TensorId left = as_linear ? dy : read, right = as_linear ? read : dy;
  const TensorId stored = options_.update_inside ? -1 : gradient_of(weight);
  program_.whole(std::make_unique<ProductGradient<T>>(multiplicity, rows, wide, left, right, stored, weight,
                                                      options_.update_inside ? parameter(weight) : -1));
}

template <class T> void Lowering<T>::differentiate_matmul(NodeId id) {
  const Node& n = graph_.node(id);
  const NodeId a = n.inputs[0], b = n.inputs[1];
  const TensorId dy = facts(id).gradient;
  const Shape& y = n.shape;
  const index rows = y.sizes[std::size_t(y.rank - 2)], stack = y.rank == 3 ? y.sizes[0] : 1;
  const index inner = graph_.node(a).shape.last(), columns = y.last();
  if (facts(b).needs_gradient) {
    const TensorId db = make_like(b);
    program_.whole(
        std::make_unique<StackedProduct<T>>(stack, inner, columns, rows, value(a), true, dy, false, db));
    contribute(b, db);
  }
  if (facts(a).needs_gradient) {
    const TensorId da = make_like(a);
    program_.whole(
        std::make_unique<StackedProduct<T>>(stack, rows, inner, columns, dy, false, value(b), true, da));
    contribute(a, da);
  }
}

template <class T> void Lowering<T>::differentiate_batchnorm(NodeId id) {
  const Node& n = graph_.node(id);
  const Facts& f = facts(id);
  const NodeId x = n.inputs[0];
  const auto [multiplicity, columns] = view(id);
  const TensorId dx = facts(x).needs_gradient ? make_like(x) : -1;
  const int gamma = n.parameters[0], beta = n.parameters[1];
  typename BatchNormGradient<T>::Tensors t{f.gradient, value(x), parameter(gamma), f.statistics, dx, -1, -1};
  typename BatchNormGradient<T>::Commit commit;
  if (options_.update_inside) {
    if (trainable(gamma)) commit.gamma = gamma, commit.gamma_memory = parameter(gamma);
    if (trainable(beta)) commit.beta = beta, commit.beta_memory = parameter(beta);
    if (f.batch_statistics >= 0) {
      BatchStatistics& s = program_.statistics[std::size_t(f.batch_statistics)];
      commit.statistics = s;
      s.inside = true;
    }
  } else {
    t.dgamma = gradient_of(gamma);
    t.dbeta = gradient_of(beta);
  }
  const bool relu = f.relu >= 0, fixed = !options_.training;
  if (!options_.by_rows) {
    program_.step(std::make_unique<BatchNormGradient<T>>(multiplicity, columns, relu, fixed, t, commit));
  } else {
    const TensorId blocks = block_sums(multiplicity, columns);
    const TensorId coefficients = gradient_coefficients(columns);
    program_.step(std::make_unique<BatchNormGradientSums<T>>(multiplicity, columns, relu, t.dy, t.x,
                                                             t.statistics, blocks));
    program_.whole(std::make_unique<BatchNormGradientCoefficients<T>>(multiplicity, columns, fixed, t, blocks,
                                                                      coefficients, commit));
    if (dx >= 0)
      program_.step(std::make_unique<BatchNormGradientApply<T>>(multiplicity, columns, relu, t.dy, t.x,
                                                                t.statistics, coefficients, dx));
  }
  if (dx >= 0) contribute(x, dx);
}

template <class T> void Lowering<T>::differentiate_layernorm(NodeId id) {
  const Node& n = graph_.node(id);
  const Facts& f = facts(id);
  const NodeId x = n.inputs[0];
  const auto [multiplicity, columns] = view(id);
  const TensorId dgamma = gradient_of(n.parameters[0]), dbeta = gradient_of(n.parameters[1]);
  if (dgamma >= 0 || dbeta >= 0)
    program_.step(std::make_unique<LayerNormParameterGradient<T>>(multiplicity, columns, f.gradient, value(x),
                                                                  f.mean, f.rstd, dgamma, dbeta));
  if (!facts(x).needs_gradient) return;
  const TensorId dx = make_like(x);
  program_.whole(std::make_unique<LayerNormGradient<T>>(multiplicity, columns, f.gradient, value(x), f.mean,
                                                        f.rstd, parameter(n.parameters[0]), dx));
  contribute(x, dx);
}

template <class T> void Lowering<T>::differentiate_parameter_row(NodeId id) {
  const Node& n = graph_.node(id);
  const NodeId x = n.inputs[0];
  const TensorId dy = facts(id).gradient;
  const ParameterInfo& p = graph_.parameters()[std::size_t(n.parameters[0])];
  const auto [multiplicity, columns] = parameter_view(id);
  const bool multiply = n.op == Op::mul_parameter;
  if (const TensorId dp = gradient_of(n.parameters[0]); dp >= 0) {
    const bool expanded = columns != p.size;
    const TensorId row = expanded ? program_.tensor(Place::arena, 0, columns, sizeof(T)) : dp;
    program_.step(std::make_unique<ColumnSums<T>>(multiplicity, columns, dy, multiply ? value(x) : -1, row));
    if (expanded) {
      Shape small{{}, int(p.shape.size())};
      std::copy(p.shape.begin(), p.shape.end(), small.sizes.begin());
      program_.whole(
          std::make_unique<ExpandGradient<T>>(broadcast_source(small, n.shape), false, p.size, row, dp));
    }
  }
  if (!facts(x).needs_gradient) return;
  if (!multiply) return contribute(x, dy);
  const TensorId dx = make_like(x);
  program_.step(std::make_unique<RowBinary<T>>(true, multiplicity, columns, dy, facts(id).row, dx));
  contribute(x, dx);
}

template <class T> void Lowering<T>::differentiate_binary(NodeId id) {
  const Node& n = graph_.node(id);
  const TensorId dy = facts(id).gradient;
  const auto [multiplicity, columns] = view(id);
  for (int side : {1, 0}) {
    const NodeId in = n.inputs[std::size_t(side)], other = n.inputs[std::size_t(1 - side)];
    if (!facts(in).needs_gradient) continue;
    TensorId dx = dy;
    if (n.op == Op::mul) {
      dx = make_like(in);
      program_.step(
          std::make_unique<Binary<T>>(Arithmetic::mul, multiplicity, columns, value(other), dy, dx));
    } else if (n.op == Op::sub && side == 1) {
      dx = make_like(in);
      program_.step(std::make_unique<Affine<T>>(-1.0, 0.0, multiplicity, columns, dy, dx));
    }
    contribute(in, dx);
  }
}

template class Lowering<float>;
template class Lowering<double>;

}  // namespace gv::plan
