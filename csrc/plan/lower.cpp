// lower.cpp — forward: one or two instructions for each node of the graph, and which nodes fold
// into a batch norm.
#include "lower.h"

#include "steps_elementwise.h"
#include "steps_input.h"
#include "steps_linear.h"
#include "steps_norm_rows.h"
#include "steps_shape.h"

namespace gv::plan {

template <class T>
Lowering<T>::Lowering(const Graph& graph, const Options& options, Program<T>& program)
    : graph_(graph), options_(options), program_(program), facts_(graph.nodes().size()) {
  for (std::size_t i = 0; i < graph.parameters().size(); ++i)
    parameters_.push_back(program.tensor(Place::parameter, 0, graph.parameters()[i].size, sizeof(T), int(i)));
  for (std::size_t i = 0; i < graph.buffers().size(); ++i)
    running_.push_back(program.tensor(Place::running, 0, graph.buffers()[i].size, sizeof(T), int(i)));
  program.gradients.assign(graph.parameters().size(), -1);
}

template <class T> typename Lowering<T>::View Lowering<T>::view(NodeId id) const {
  const Shape& s = graph_.node(id).shape;
  const index columns = s.last();
  return {columns ? s.elements() / columns : 0, columns};
}

template <class T> TensorId Lowering<T>::make_like(NodeId id) {
  return program_.tensor(Place::arena, graph_.node(id).shape.elements(), 0, sizeof(T));
}

template <class T> TensorId Lowering<T>::make_value(NodeId id) { return facts(id).value = make_like(id); }

// relu(batchnorm), batchnorm + residual and relu(batchnorm) + residual, where nobody else looks at
// the value in between and the residual is there in time.
template <class T> void Lowering<T>::find_folds() {
  const auto& nodes = graph_.nodes();
  std::vector<NodeId> user(nodes.size(), -1);
  for (std::size_t i = 0; i < nodes.size(); ++i)
    for (NodeId in : nodes[i].inputs) {
      ++facts(in).uses;
      user[std::size_t(in)] = NodeId(i);
    }
  for (NodeId out : graph_.outputs()) facts(out).uses += 2;
  for (NodeId tap : graph_.taps()) facts(tap).uses += 2;
  if (!options_.fuse) return;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].op != Op::batchnorm) continue;
    Facts& f = facts_[i];
    NodeId end = NodeId(i);
    const auto next = [&] { return facts(end).uses == 1 ? user[std::size_t(end)] : -1; };
    if (const NodeId n = next();
        n >= 0 && graph_.node(n).op == Op::activation && graph_.node(n).activation == Activation::relu) {
      f.relu = end = n;
      facts(n).folded_into = NodeId(i);
    }
    if (const NodeId n = next(); n >= 0 && graph_.node(n).op == Op::add) {
      const auto& in = graph_.node(n).inputs;
      const NodeId other = in[0] == end ? in[1] : in[0];
      if (in[0] != in[1] && other < NodeId(i)) {
        f.sum = n;
        facts(n).folded_into = NodeId(i);
      }
    }
  }
}

template <class T> void Lowering<T>::find_needs() {
  for (NodeId tap : graph_.taps()) facts(tap).needs_gradient = true;
  for (std::size_t i = 0; i < facts_.size(); ++i) {
    const Node& n = graph_.nodes()[i];
    bool needs = trainable(n.parameters[0]) || trainable(n.parameters[1]);
    for (NodeId in : n.inputs) needs |= facts(in).needs_gradient;
    facts_[i].needs_gradient |= needs;
  }
}

template <class T> void Lowering<T>::forward() {
  find_folds();
  find_needs();
  find_segments();
  for (std::size_t i = 0; i < graph_.inputs().size(); ++i) {
    const NodeId id = graph_.inputs()[i];
    program_.whole(std::make_unique<LoadInput<T>>(int(i), graph_.node(id).shape.elements(), make_value(id)));
  }
  for (NodeId id = 0; id < NodeId(facts_.size()); ++id) lower(id);
  for (NodeId id : graph_.outputs()) {
    program_.outputs.push_back(value(id));
    program_.tensors[std::size_t(value(id))].place = Place::kept;
  }
  for (NodeId id : graph_.taps()) {
    program_.tap_values.push_back(value(id));
    program_.tensors[std::size_t(value(id))].place = Place::kept;
  }
}

template <class T> void Lowering<T>::lower(NodeId id) {
  const Node& n = graph_.node(id);
  const NodeId x = n.inputs.empty() ? -1 : n.inputs[0];
  const auto [multiplicity, columns] = view(id);
  const auto binary = [&](Arithmetic kind) {
    const TensorId a = value(x), b = value(n.inputs[1]);
    program_.step(std::make_unique<Binary<T>>(kind, multiplicity, columns, a, b, make_value(id)));
  };
  if (facts(id).folded_into >= 0) return;
  switch (n.op) {
    case Op::input: return;
    case Op::linear:
    case Op::matmul_parameter: {
      const index inner = graph_.node(x).shape.last();
      program_.step(std::make_unique<Product<T>>(multiplicity, columns, inner, value(x),
                                                 parameter(n.parameters[0]), n.op == Op::linear,
                                                 parameter(n.parameters[1]), make_value(id)));
      return;
    }
    case Op::matmul: {
      const Shape &a = graph_.node(x).shape, &y = n.shape;
      const index rows = y.sizes[std::size_t(y.rank - 2)], stack = y.rank == 3 ? y.sizes[0] : 1;
      program_.whole(std::make_unique<StackedProduct<T>>(stack, rows, columns, a.last(), value(x), false,
                                                         value(n.inputs[1]), false, make_value(id)));
      return;
    }
    case Op::add: return binary(Arithmetic::add);
    case Op::sub: return binary(Arithmetic::sub);
    case Op::mul: return binary(Arithmetic::mul);
    case Op::affine:
      program_.step(
          std::make_unique<Affine<T>>(n.alpha, n.beta, multiplicity, columns, value(x), make_value(id)));
      return;
    case Op::add_parameter:
    case Op::mul_parameter: return lower_parameter_row(id);
    case Op::expand:
      program_.whole(std::make_unique<Expand<T>>(broadcast_source(graph_.node(x).shape, n.shape), true,
                                                 graph_.node(x).shape.elements(), value(x), make_value(id)));
      return;
    case Op::activation:
      program_.step(std::make_unique<ActivationForward<T>>(n.activation, n.alpha, multiplicity, columns,
                                                           value(x), make_value(id)));
      return;
    case Op::softmax:
    case Op::log_softmax:
      program_.whole(std::make_unique<Softmax<T>>(n.op == Op::log_softmax, multiplicity, columns, value(x),
                                                  make_value(id)));
      return;
    case Op::batchnorm: return lower_batchnorm(id);
    case Op::layernorm: {
      Facts& f = facts(id);
      f.mean = program_.tensor(Place::arena, multiplicity, 0, sizeof(T));
      f.rstd = program_.tensor(Place::arena, multiplicity, 0, sizeof(T));
      program_.whole(std::make_unique<LayerNorm<T>>(multiplicity, columns, n.eps, value(x),
                                                    parameter(n.parameters[0]), parameter(n.parameters[1]),
                                                    f.mean, f.rstd, make_value(id)));
      return;
    }
    case Op::dropout:
      if (!options_.training || n.alpha == 0) {
        facts(id).value = value(x);
        return;
      }
      program_.step(
          std::make_unique<Dropout<T>>(n.alpha, n.site, multiplicity, columns, value(x), make_value(id)));
      return;
    case Op::reshape: facts(id).value = value(x); return;
    case Op::concatenate: return lower_concatenate(id);
  }
}

template <class T> void Lowering<T>::lower_batchnorm(NodeId id) {
  const Node& n = graph_.node(id);
  Facts& f = facts(id);
  const auto [multiplicity, columns] = view(id);
  const NodeId end = f.sum >= 0 ? f.sum : f.relu >= 0 ? f.relu : id;
  NodeId residual = -1;
  if (f.sum >= 0) {
    const auto& in = graph_.node(f.sum).inputs;
    residual = in[0] == (f.relu >= 0 ? f.relu : id) ? in[1] : in[0];
  }
  const TensorId y = make_value(end), r = residual >= 0 ? value(residual) : -1;
  if (f.statistics >= 0)
    return program_.step(std::make_unique<BatchNormAgain<T>>(multiplicity, columns, f.relu >= 0,
                                                             value(n.inputs[0]), r, f.statistics, y));
  if (options_.gradients || options_.training)
    f.statistics = program_.tensor(Place::arena, 0, Statistics<T>::kRows * columns, sizeof(T));
  typename BatchNorm<T>::Tensors t{value(n.inputs[0]),
                                   parameter(n.parameters[0]),
                                   parameter(n.parameters[1]),
                                   r,
                                   y,
                                   f.statistics,
                                   -1,
                                   -1,
                                   -1};
  const TensorId mean = running_[std::size_t(n.buffers[0])], var = running_[std::size_t(n.buffers[1])];
  if (options_.training) {
    t.moments = program_.tensor(Place::kept, 0, 2 * columns, sizeof(double));
    f.batch_statistics = int(program_.statistics.size());
    program_.statistics.push_back({t.moments, mean, var, multiplicity, columns, n.momentum});
  } else {
    t.running_mean = mean;
    t.running_var = var;
  }
  if (!options_.by_rows || !options_.training)
    return program_.step(std::make_unique<BatchNorm<T>>(multiplicity, columns, n.eps, f.relu >= 0, t));
  const TensorId blocks = block_sums(multiplicity, columns);
  program_.step(std::make_unique<BatchNormMoments<T>>(multiplicity, columns, t.x, blocks));
  program_.whole(std::make_unique<BatchNormCoefficients<T>>(multiplicity, columns, n.eps, blocks, t.gamma,
                                                            t.beta, t.statistics, t.moments));
  program_.step(
      std::make_unique<BatchNormAgain<T>>(multiplicity, columns, f.relu >= 0, t.x, r, t.statistics, y));
}

template <class T> TensorId Lowering<T>::block_sums(index multiplicity, index columns) {
  if (block_sums_ < 0) block_sums_ = program_.tensor(Place::arena, 0, 0, sizeof(double));
  Tensor& t = program_.tensors[std::size_t(block_sums_)];
  t.per_sample = std::max(t.per_sample, block_sums_per_sample(multiplicity, columns));
  t.fixed = std::max(t.fixed, 2 * columns);
  return block_sums_;
}

template <class T> TensorId Lowering<T>::gradient_coefficients(index columns) {
  if (coefficients_ < 0) coefficients_ = program_.tensor(Place::arena, 0, 0, sizeof(T));
  Tensor& t = program_.tensors[std::size_t(coefficients_)];
  t.fixed = std::max(t.fixed, 3 * columns);
  return coefficients_;
}

// A parameter that is a suffix of the trailing shape is used as it lies; any other is expanded.
template <class T> typename Lowering<T>::View Lowering<T>::parameter_view(NodeId id) const {
  const Node& n = graph_.node(id);
  const ParameterInfo& p = graph_.parameters()[std::size_t(n.parameters[0])];
  const index all = n.shape.elements();
  bool suffix = p.size > 1 || all == 1;
  for (std::size_t i = 0; suffix && i < p.shape.size(); ++i)
    suffix = p.shape[p.shape.size() - 1 - i] == n.shape.sizes[std::size_t(n.shape.rank) - 1 - i];
  return suffix ? View{all / p.size, p.size} : View{1, all};
}

template <class T> void Lowering<T>::lower_parameter_row(NodeId id) {
  const Node& n = graph_.node(id);
  const ParameterInfo& p = graph_.parameters()[std::size_t(n.parameters[0])];
  const auto [multiplicity, columns] = parameter_view(id);
  TensorId row = parameter(n.parameters[0]);
  if (columns != p.size) {
    row = program_.tensor(Place::arena, 0, columns, sizeof(T));
    Shape small{{}, int(p.shape.size())};
    std::copy(p.shape.begin(), p.shape.end(), small.sizes.begin());
    program_.whole(std::make_unique<Expand<T>>(broadcast_source(small, n.shape), false, p.size,
                                               parameter(n.parameters[0]), row));
  }
  facts(id).row = row;
  program_.step(std::make_unique<RowBinary<T>>(n.op == Op::mul_parameter, multiplicity, columns,
                                               value(n.inputs[0]), row, make_value(id)));
}

template <class T> void Lowering<T>::lower_concatenate(NodeId id) {
  const Node& n = graph_.node(id);
  const TensorId y = make_value(id);
  const auto width = [&](const Shape& s) {
    index w = 1;
    for (int i = n.axis; i < s.rank; ++i) w *= s.sizes[std::size_t(i)];
    return w;
  };
  const index wide = width(n.shape), multiplicity = wide ? n.shape.elements() / wide : 0;
  index at = 0;
  for (NodeId part : n.inputs) {
    const index w = width(graph_.node(part).shape);
    program_.whole(std::make_unique<CopyColumns<T>>(multiplicity, w, value(part), w, 0, y, wide, at));
    at += w;
  }
}

template <class T> Program<T> make_program(const Graph& graph, const Options& options,
                                           const LossSettings* loss) {
  Program<T> program;
  program.by_rows = options.by_rows;
  Lowering<T> lowering(graph, options, program);
  lowering.forward();
  const NodeId out = graph.outputs().at(0);
  const Shape& shape = graph.node(out).shape;
  if (options.gradients) {
    program.seed_gradient = program.tensor(loss ? Place::arena : Place::kept, shape.elements(), 0, sizeof(T));
    if (loss) {
      LossTensors& t = program.loss_tensors;
      t.columns = shape.last();
      t.multiplicity = t.columns ? shape.elements() / t.columns : 0;
      if (loss->kind == LossKind::cross_entropy)
        t.labels = program.tensor(Place::kept, t.multiplicity, 0, sizeof(std::int64_t));
      else t.target = program.tensor(Place::kept, shape.elements(), 0, sizeof(T));
      t.row_weight = program.tensor(Place::kept, t.multiplicity, 0, sizeof(T));
      t.row_loss = program.tensor(Place::kept, t.multiplicity, 0, sizeof(double));
      if (!loss->weight.empty()) t.weight = program.tensor(Place::kept, 0, t.columns, sizeof(T));
      program.whole(std::make_unique<Loss<T>>(*loss, t, lowering.value(out), program.seed_gradient));
    }
    program.backward = program.items.size();
    lowering.backward();
  } else {
    program.backward = program.items.size();
  }
  schedule(program, options.fuse);
  return program;
}

std::vector<index> broadcast_source(const Shape& small, const Shape& big) {
  std::vector<index> source(std::size_t(big.elements()));
  for (std::size_t j = 0; j < source.size(); ++j) {
    index rest = index(j), stride = 1, from = 0;
    for (int i = big.rank - 1, s = small.rank - 1; i >= 0; --i, --s) {
      const index size = big.sizes[std::size_t(i)], at = rest % size;
      rest /= size;
      if (s < 0) continue;
      const index own = small.sizes[std::size_t(s)];
      from += own == 1 ? 0 : at * stride;
      stride *= own;
    }
    source[j] = from;
  }
  return source;
}

template class Lowering<float>;
template class Lowering<double>;
template Program<float> make_program(const Graph&, const Options&, const LossSettings*);
template Program<double> make_program(const Graph&, const Options&, const LossSettings*);

}  // namespace gv::plan
