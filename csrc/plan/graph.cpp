// graph.cpp — the builders of graph.h: shape inference and checks.
#include "graph.h"

#include <algorithm>

namespace gv::plan {
namespace {

[[noreturn]] void fail(const std::string& op, const std::string& expected, const std::string& got) {
  throw std::invalid_argument("[" + op + "] expected " + expected + ", got " + got);
}

std::string text(const std::vector<index>& sizes) {
  std::string s = "(";
  for (std::size_t i = 0; i < sizes.size(); ++i) s += (i ? ", " : "") + std::to_string(sizes[i]);
  return s + (sizes.size() == 1 ? ",)" : ")");
}

// Numbers come from Python, and may be those of another graph.
template <class Item> const Item& item(const std::vector<Item>& items, const char* what, int number) {
  if (number < 0 || std::size_t(number) >= items.size())
    fail("graph", std::string("the number of a ") + what + " of this graph", std::to_string(number));
  return items[std::size_t(number)];
}

// The trailing shape that both broadcast to (NumPy's rule, batch axis apart); rank -1 if none.
Shape broadcast(const Shape& a, const Shape& b) {
  Shape out;
  out.rank = std::max(a.rank, b.rank);
  for (int i = 0; i < out.rank; ++i) {
    const int ia = i - (out.rank - a.rank), ib = i - (out.rank - b.rank);
    const index na = ia >= 0 ? a.sizes[std::size_t(ia)] : 1, nb = ib >= 0 ? b.sizes[std::size_t(ib)] : 1;
    if (na != nb && na != 1 && nb != 1) {
      out.rank = -1;
      return out;
    }
    out.sizes[std::size_t(i)] = na == 1 ? nb : na;
  }
  return out;
}

}  // namespace

const char* name_of(Op op) {
  switch (op) {
    case Op::add:
    case Op::add_parameter: return "add";
    case Op::sub: return "subtract";
    case Op::mul:
    case Op::mul_parameter: return "multiply";
    default: return "graph";
  }
}

index Shape::elements() const {
  index n = 1;
  for (int i = 0; i < rank; ++i)
    if (__builtin_mul_overflow(n, sizes[std::size_t(i)], &n))
      throw std::invalid_argument("[shape] too many elements in " + text());
  return n;
}

bool Shape::operator==(const Shape& other) const {
  return rank == other.rank && std::equal(sizes.begin(), sizes.begin() + rank, other.sizes.begin());
}

std::string Shape::text() const {
  std::string s = "(batch";
  for (int i = 0; i < rank; ++i) s += ", " + std::to_string(sizes[std::size_t(i)]);
  return s + (rank ? ")" : ",)");
}

int Graph::add_parameter_info(std::string name, std::vector<index> shape, bool trainable) {
  index size = 1;
  for (index n : shape)
    if (n < 0 || __builtin_mul_overflow(size, n, &size))
      fail("graph", "parameter " + name + " of sizes whose product is below 2**63", text(shape));
  parameters_.push_back({std::move(name), std::move(shape), size, trainable});
  return int(parameters_.size()) - 1;
}

int Graph::add_buffer_info(std::string name, index size) {
  buffers_.push_back({std::move(name), size});
  return int(buffers_.size()) - 1;
}

NodeId Graph::append(Node node) {
  (void)node.shape.elements();
  nodes_.push_back(std::move(node));
  return NodeId(nodes_.size()) - 1;
}

NodeId Graph::input(Shape shape) {
  Node node{Op::input, shape, {}};
  inputs_.push_back(append(std::move(node)));
  return inputs_.back();
}

void Graph::output(NodeId x) {
  (void)node(x);
  outputs_.push_back(x);
}

void Graph::tap(NodeId x) {
  (void)node(x);
  taps_.push_back(x);
}

const Node& Graph::node(NodeId id) const { return item(nodes_, "value", id); }
const ParameterInfo& Graph::parameter(int number) const { return item(parameters_, "parameter", number); }
const BufferInfo& Graph::buffer(int number) const { return item(buffers_, "buffer", number); }

void Graph::check_vector(const char* op, const char* what, int parameter, index size) const {
  if (parameter < 0) return;
  const ParameterInfo& p = this->parameter(parameter);
  if (p.shape.size() != 1 || p.size != size)
    fail(op, std::string(what) + " of shape (" + std::to_string(size) + ",)", text(p.shape));
}

NodeId Graph::linear(NodeId x, int weight, int bias) {
  const Node& in = node(x);
  const ParameterInfo& w = parameter(weight);
  if (w.shape.size() != 2) fail("linear", "weight of shape (out_features, in_features)", text(w.shape));
  if (in.shape.rank < 1)
    fail("linear", "x of shape (batch, …, " + std::to_string(w.shape[1]) + ")", in.shape.text());
  if (in.shape.last() != w.shape[1])
    fail("linear", "x with " + std::to_string(w.shape[1]) + " features (weight " + text(w.shape) + ")",
         std::to_string(in.shape.last()) + " features: x " + in.shape.text());
  check_vector("linear", "bias", bias, w.shape[0]);
  Node out{Op::linear, in.shape, {x}};
  out.shape.sizes[std::size_t(out.shape.rank - 1)] = w.shape[0];
  out.parameters[0] = weight;
  out.parameters[1] = bias;
  return append(std::move(out));
}

NodeId Graph::matmul_parameter(NodeId x, int parameter) {
  const Node& in = node(x);
  const ParameterInfo& p = this->parameter(parameter);
  if (p.shape.size() != 2 || in.shape.rank < 1 || in.shape.last() != p.shape[0])
    fail("matmul", "x (batch, …, k) and a parameter (k, n)", in.shape.text() + " and " + text(p.shape));
  Node out{Op::matmul_parameter, in.shape, {x}};
  out.shape.sizes[std::size_t(out.shape.rank - 1)] = p.shape[1];
  out.parameters[0] = parameter;
  return append(std::move(out));
}

NodeId Graph::matmul(NodeId a, NodeId b) {
  const Shape &sa = node(a).shape, &sb = node(b).shape;
  const bool stacked = sa.rank == 3 && sb.rank == 3;
  if (sa.rank != sb.rank || sa.rank < 2 || (stacked && sa.sizes[0] != sb.sizes[0]) ||
      sa.last() != sb.sizes[std::size_t(sb.rank - 2)])
    fail("matmul", "values (batch, …, m, k) and (batch, …, k, n) of equal rank",
         sa.text() + " and " + sb.text());
  Node out{Op::matmul, sa, {a, b}};
  out.shape.sizes[std::size_t(sa.rank - 1)] = sb.last();
  return append(std::move(out));
}

NodeId Graph::expanded(NodeId x, const Shape& shape) {
  if (node(x).shape == shape) return x;
  return append(Node{Op::expand, shape, {x}});
}

NodeId Graph::binary(Op op, NodeId a, NodeId b) {
  const Shape shape = broadcast(node(a).shape, node(b).shape);
  if (shape.rank < 0)
    fail(name_of(op), "values of one trailing shape", node(a).shape.text() + " and " + node(b).shape.text());
  const NodeId left = expanded(a, shape), right = expanded(b, shape);
  return append(Node{op, shape, {left, right}});
}

NodeId Graph::affine(NodeId x, double scale, double shift) {
  Node out{Op::affine, node(x).shape, {x}};
  out.alpha = scale;
  out.beta = shift;
  return append(std::move(out));
}

NodeId Graph::with_parameter(Op op, NodeId x, int parameter, const std::string& called) {
  const ParameterInfo& p = this->parameter(parameter);
  Shape given;
  given.rank = int(p.shape.size());
  const bool fits = given.rank <= 3;
  if (fits) std::copy(p.shape.begin(), p.shape.end(), given.sizes.begin());
  const Shape shape = fits ? broadcast(node(x).shape, given) : Shape{{}, -1};
  if (shape.rank < 0)
    fail(called, "a parameter that broadcasts over the trailing axes of " + node(x).shape.text(),
         text(p.shape));
  Node out{op, shape, {expanded(x, shape)}};
  out.parameters[0] = parameter;
  return append(std::move(out));
}

NodeId Graph::activation(NodeId x, Activation kind, double alpha) {
  Node out{Op::activation, node(x).shape, {x}};
  out.activation = kind;
  out.alpha = alpha;
  return append(std::move(out));
}

NodeId Graph::softmax(NodeId x, bool log) {
  if (node(x).shape.rank < 1)
    fail(log ? "log_softmax" : "softmax", "x of shape (batch, …, classes)", node(x).shape.text());
  return append(Node{log ? Op::log_softmax : Op::softmax, node(x).shape, {x}});
}

NodeId Graph::batchnorm(NodeId x, int gamma, int beta, int running_mean, int running_var, double eps,
                        double momentum) {
  const Shape& shape = node(x).shape;
  const index features = buffer(running_mean).size;
  (void)buffer(running_var);
  if (shape.rank < 1 || shape.last() != features)
    fail("batch_norm", "x of shape (batch, …, " + std::to_string(features) + ")", shape.text());
  check_vector("batch_norm", "gamma", gamma, features);
  check_vector("batch_norm", "beta", beta, features);
  Node out{Op::batchnorm, shape, {x}};
  out.parameters[0] = gamma;
  out.parameters[1] = beta;
  out.buffers[0] = running_mean;
  out.buffers[1] = running_var;
  out.eps = eps;
  out.momentum = momentum;
  return append(std::move(out));
}

NodeId Graph::layernorm(NodeId x, int gamma, int beta, double eps) {
  const Shape& shape = node(x).shape;
  if (shape.rank < 1) fail("layer_norm", "x of shape (batch, …, features)", shape.text());
  check_vector("layer_norm", "gamma", gamma, shape.last());
  check_vector("layer_norm", "beta", beta, shape.last());
  Node out{Op::layernorm, shape, {x}};
  out.parameters[0] = gamma;
  out.parameters[1] = beta;
  out.eps = eps;
  return append(std::move(out));
}

NodeId Graph::dropout(NodeId x, double p) {
  Node out{Op::dropout, node(x).shape, {x}};
  out.alpha = p;
  out.site = dropout_sites_++;
  return append(std::move(out));
}

NodeId Graph::reshape(NodeId x, Shape shape) {
  if (shape.elements() != node(x).shape.elements())
    fail("reshape", "as many elements as in " + node(x).shape.text(), shape.text());
  return append(Node{Op::reshape, shape, {x}});
}

NodeId Graph::concatenate(const std::vector<NodeId>& parts, int axis) {
  if (parts.empty()) fail("concatenate", "at least one value", "none");
  Shape shape = node(parts[0]).shape;
  if (axis < 0 || axis >= shape.rank)
    fail("concatenate", "a trailing axis of " + shape.text(), "axis " + std::to_string(axis + 1));
  const auto at = std::size_t(axis);
  for (std::size_t i = 1; i < parts.size(); ++i) {
    Shape part = node(parts[i]).shape;
    const index size = part.rank == shape.rank ? part.sizes[at] : 0;
    part.sizes[at] = shape.sizes[at];
    if (!(part == shape))
      fail("concatenate", "shapes equal but for the axis, as " + shape.text(), node(parts[i]).shape.text());
    shape.sizes[at] += size;
  }
  Node out{Op::concatenate, shape, parts};
  out.axis = axis;
  return append(std::move(out));
}

}  // namespace gv::plan
