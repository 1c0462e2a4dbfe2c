// activation.cpp — see activation.h.
#include "activation.h"

#include <cstring>

namespace gv::ops {

const char* const kActivationNames[kActivations] = {"identity", "relu", "leaky_relu", "elu",
                                                    "selu",     "gelu", "gelu_tanh",  "silu",
                                                    "softplus", "tanh", "sigmoid"};

bool activation_named(const char* name, Activation& kind) {
  for (int i = 0; i < kActivations; ++i) {
    if (std::strcmp(name, kActivationNames[i]) != 0) continue;
    kind = Activation(i);
    return true;
  }
  return false;
}

}  // namespace gv::ops
