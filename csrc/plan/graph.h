// graph.h — what a Module.forward does, as a list of nodes in order of use: the result of
// tracing. A node's value has a symbolic batch, then a trailing shape of rank <= 3, features last.
// Nothing here computes or knows an order of memory: see lower.h for that.
#pragma once
#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../base/types.h"

namespace gv::plan {

// Sizes behind the batch axis. Products are checked against overflow.
struct Shape {
  std::array<index, 3> sizes{};
  int rank = 0;

  index elements() const;
  index last() const { return rank ? sizes[std::size_t(rank - 1)] : 1; }
  bool operator==(const Shape& other) const;
  std::string text() const;  // "(batch, 4, 8)"
};

enum class Op : std::uint8_t {
  input,
  linear,            // x, parameter weight (out, in), parameter bias or -1
  matmul_parameter,  // x @ parameter (in, out)
  matmul,            // value @ value, sample by sample
  add,
  sub,
  mul,     // two values of one shape
  affine,            // scale * x + shift
  add_parameter,
  mul_parameter,  // x with a parameter that broadcasts over the trailing axes
  expand,            // trailing broadcast of a value
  activation,
  softmax,
  log_softmax,  // over the last axis
  batchnorm,
  layernorm,
  dropout,
  reshape,           // of the trailing axes: the same memory
  concatenate        // along a trailing axis
};

// What messages and the tracer call an operation of + - *: "add", "subtract", "multiply"; others "graph".
const char* name_of(Op op);

using NodeId = int;

struct Node {
  Op op;
  Shape shape;
  std::vector<NodeId> inputs;
  int parameters[2] = {-1, -1};  // weight and bias, gamma and beta; indices into Graph::parameters
  int buffers[2] = {-1, -1};     // running mean and variance; indices into Graph::buffers
  Activation activation = Activation::identity;
  double alpha = 0;              // activation parameter; affine scale; dropout p
  double beta = 0;               // affine shift
  double eps = 0, momentum = 0;  // normalisations
  int axis = 0;                  // concatenate: trailing axis
  int site = -1;                 // dropout: its place in the random stream
};

struct ParameterInfo {
  std::string name;
  std::vector<index> shape;
  index size = 0;
  bool trainable = true;
};

struct BufferInfo {
  std::string name;
  index size = 0;
};

// Builds itself node by node; every builder checks its arguments and throws std::invalid_argument
// with "[op] expected …, got …".
class Graph {
 public:
  int add_parameter_info(std::string name, std::vector<index> shape, bool trainable);
  int add_buffer_info(std::string name, index size);

  NodeId input(Shape shape);
  NodeId linear(NodeId x, int weight, int bias);
  NodeId matmul_parameter(NodeId x, int parameter);
  NodeId matmul(NodeId a, NodeId b);
  NodeId binary(Op op, NodeId a, NodeId b);             // add, sub, mul; expands what must broadcast
  NodeId affine(NodeId x, double scale, double shift);
  // add_parameter, mul_parameter, or what is built of them and `called` otherwise in messages.
  NodeId with_parameter(Op op, NodeId x, int parameter, const std::string& called);
  NodeId activation(NodeId x, Activation kind, double alpha);
  NodeId softmax(NodeId x, bool log);
  NodeId batchnorm(NodeId x, int gamma, int beta, int running_mean, int running_var, double eps,
                   double momentum);
  NodeId layernorm(NodeId x, int gamma, int beta, double eps);
  NodeId dropout(NodeId x, double p);
  NodeId reshape(NodeId x, Shape shape);
  NodeId concatenate(const std::vector<NodeId>& parts, int axis);
  void output(NodeId x);
  void tap(NodeId x);  // keep its value, and the gradient with respect to it, to be looked at after a step

  const Node& node(NodeId id) const;  // of this graph, else std::invalid_argument
  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<NodeId>& inputs() const { return inputs_; }
  const std::vector<NodeId>& outputs() const { return outputs_; }
  const std::vector<NodeId>& taps() const { return taps_; }
  const std::vector<ParameterInfo>& parameters() const { return parameters_; }
  const std::vector<BufferInfo>& buffers() const { return buffers_; }

 private:
  NodeId append(Node node);
  const ParameterInfo& parameter(int number) const;
  const BufferInfo& buffer(int number) const;
  NodeId expanded(NodeId x, const Shape& shape);
  void check_vector(const char* op, const char* what, int parameter, index size) const;

  std::vector<Node> nodes_;
  std::vector<NodeId> inputs_, outputs_, taps_;
  std::vector<ParameterInfo> parameters_;
  std::vector<BufferInfo> buffers_;
  int dropout_sites_ = 0;
};

}  // namespace gv::plan
