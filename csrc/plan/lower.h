// lower.h — what lowering (lower.cpp: forward), differentiation (differentiate.cpp: backward) and
// recomputation (recompute.cpp: forward again, within the backward) know about each node while they
// write a Program.
#pragma once
#include "program.h"

namespace gv::plan {

template <class T> class Lowering {
 public:
  Lowering(const Graph& graph, const Options& options, Program<T>& program);
  void forward();
  void backward();  // starts from program.seed_gradient

  TensorId value(NodeId id) const { return facts_[std::size_t(id)].value; }

 private:
  struct Facts {
    TensorId value = -1;                    // -1: folded into a batch norm, never materialised;
                                            // in the backward part that of the recomputation
    TensorId statistics = -1, mean = -1, rstd = -1;
    TensorId row = -1;                      // parameter expanded to a full row
    TensorId gradient = -1;
    bool needs_gradient = false;            // something trainable lies before it
    int uses = 0;
    NodeId relu = -1, sum = -1;             // of a batch norm: the nodes folded into it
    NodeId folded_into = -1;                // of such a node: the batch norm
    int batch_statistics = -1;              // of a batch norm: its place in program.statistics
    bool kept = false;                      // what it computes is not recomputed: used in a later segment
  };
  struct View {
    index multiplicity, columns;
  };  // how a value is seen as rows and columns

  Facts& facts(NodeId id) { return facts_[std::size_t(id)]; }
  View view(NodeId id) const;
  View parameter_view(NodeId id) const;  // of add_parameter and mul_parameter: rows of the parameter
  TensorId make_value(NodeId id);
  TensorId make_like(NodeId id);  // another tensor of the node's size
  TensorId parameter(int index) const { return index < 0 ? -1 : parameters_[std::size_t(index)]; }
  bool trainable(int index) const { return index >= 0 && graph_.parameters()[std::size_t(index)].trainable; }
  TensorId gradient_of(int parameter);  // where a parameter's gradient is stored; -1 if frozen

  void find_folds();
  void find_needs();
  void find_segments();
  NodeId home(NodeId id) const {  // the node with whose steps the value is computed
    const NodeId norm = facts_[std::size_t(id)].folded_into;
    return norm >= 0 ? norm : id;
  }
  void recompute_segment_of(NodeId id);
  void lower(NodeId id);
  void lower_batchnorm(NodeId id);
  void lower_parameter_row(NodeId id);
  void lower_concatenate(NodeId id);
  // What the batch norms of a plan by rows share, for they work one after the other: the sums of the blocks of
  // rows, and the coefficients of the gradient.
  TensorId block_sums(index multiplicity, index columns);
  TensorId gradient_coefficients(index columns);

  void differentiate(NodeId id);
  void differentiate_product(NodeId id);
  void differentiate_matmul(NodeId id);
  void differentiate_batchnorm(NodeId id);
  void differentiate_layernorm(NodeId id);
  void differentiate_parameter_row(NodeId id);
  void differentiate_binary(NodeId id);
  // The value of a product's operand for its backward: kept, or computed again from a batch norm's input.
  TensorId operand(NodeId id);
  // Adds to the gradient of a value; contributions arrive in descending order of use.
  void contribute(NodeId id, TensorId gradient);

  const Graph& graph_;
  const Options options_;
  Program<T>& program_;
  std::vector<Facts> facts_;
  std::vector<TensorId> parameters_, running_;
  TensorId block_sums_ = -1, coefficients_ = -1;
  std::vector<NodeId> segments_{0};  // first nodes; in the backward part those that are left to do
};

}  // namespace gv::plan
