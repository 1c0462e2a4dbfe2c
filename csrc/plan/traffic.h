// traffic.h — how many bytes of its tensors a plan moves between memory and cache in a step, from the
// accesses that its steps declare. An account, not a measurement: a panel is taken to stay in cache
// while its group works on it, a product to find its left operand again for its next panel, and an
// access to touch all of its tensor. Not in it: the batch as the caller holds it, scratch, and what
// the executor does by itself (targets, sum of the loss, clipping, accumulation).
#pragma once
#include <string>
#include <vector>

#include "program.h"

namespace gv::plan {

struct Moved {  // bytes
  index read = 0, written = 0;
};

struct Traffic {  // of one instruction
  std::vector<std::string> steps;
  Moved activations;  // whatever grows with the batch
  Moved parameters;   // with their gradients and the state of the optimiser
  Moved rest;         // statistics, parameters expanded to rows
};

// By instruction, for so many samples and an optimiser with so many numbers of state for each parameter.
template <class T>
std::vector<Traffic> traffic(const Program<T>& program, index batch, int states);

// An update of so many bytes of parameters in place, their gradient not counted.
Moved update_traffic(index bytes, int states);

}  // namespace gv::plan
