// program.h — a graph made into instructions, in order, with the tensors they use. lower.cpp and
// differentiate.cpp write it, schedule.cpp groups it into phases, layout.cpp gives it memory,
// executor.cpp runs it.
#pragma once
#include <memory>
#include <vector>

#include "graph.h"
#include "loss.h"
#include "step.h"
#include "steps_norm.h"

namespace gv::plan {

struct Options {
  bool training = false;       // batch statistics and dropout, else running statistics and none
  bool gradients = false;      // differentiate
  bool update_inside = false;  // products update their parameter; else every gradient is stored
  bool fuse = true;            // group panel steps, fold ReLU and residual into batch norm
  index checkpoint_every = 0;  // layers in a segment that is computed again for its backward; 0: all are kept
  bool by_rows = false;  // panels of rows instead of columns: for a batch of many rows
};

template <class T> struct Program {
  // A step as it comes from lowering, before grouping: one of the two.
  struct Item {
    std::unique_ptr<PanelStep<T>> panel;
    std::unique_ptr<Instruction<T>> whole;
  };

  bool by_rows = false;
  std::vector<Tensor> tensors;
  std::vector<Item> items;  // forward, then from `backward` on the backward part
  std::size_t backward = 0;

  std::vector<std::unique_ptr<Instruction<T>>> instructions;  // what schedule() makes of the items
  std::vector<int> phases;  // of each instruction; a barrier between two phases
  std::size_t loss = 0;  // instructions before: forward and loss; from it on: backward

  std::vector<TensorId> outputs;
  std::vector<TensorId> tap_values, tap_gradients;  // -1 where the loss does not depend on it
  std::vector<TensorId> gradients;  // by parameter; -1: none, or updated inside
  std::vector<BatchStatistics> statistics;
  TensorId seed_gradient = -1;  // gradient of the first output, where backward starts
  LossTensors loss_tensors;

  TensorId tensor(Place place, index per_sample, index fixed, int element_bytes, int owner = -1) {
    Tensor t{place, per_sample, fixed, element_bytes, owner};
    tensors.push_back(t);
    tensors.back().storage = TensorId(tensors.size()) - 1;
    return tensors.back().storage;
  }
  void step(std::unique_ptr<PanelStep<T>> s) { items.push_back({std::move(s), nullptr}); }
  void whole(std::unique_ptr<Instruction<T>> s) { items.push_back({nullptr, std::move(s)}); }
};

// The instructions of a graph; loss may be null (inference, or a loss computed by the caller).
template <class T> Program<T> make_program(const Graph& graph, const Options& options,
                                           const LossSettings* loss);

// schedule.cpp: groups, phases, lifetimes, and which tensors overwrite their inputs.
template <class T> void schedule(Program<T>& program, bool fuse);

// layout.cpp: offsets in the arena for so many samples; returns its size in bytes.
index layout(std::vector<Tensor>& tensors, std::vector<index>& offsets, index batch);

}  // namespace gv::plan
