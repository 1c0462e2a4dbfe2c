// types.h — the few names that every room shares: sizes, dtypes, activations, and the
// constants of the same-bits rules. No code that computes lives here, because this header is
// compiled under every instruction set (an inline function would become one weak symbol).
#pragma once
#include <cstddef>
#include <cstdint>

namespace gv {

using index = std::ptrdiff_t;  // sizes, strides and offsets, counted in elements

enum class DType : std::uint8_t { f32, f64 };

// How numbers are stored in an array that a batch is taken from; b8 is a bool: 0, or anything else for 1.
enum class Stored : std::uint8_t { b8, i8, u8, i16, u16, i32, u32, i64, u64, f16, f32, f64 };

// The order is the order of gv::kActivationNames in ops/activation.cpp.
enum class Activation : std::uint8_t {
  identity,
  relu,
  leaky_relu,
  elu,
  selu,
  gelu,
  gelu_tanh,
  silu,
  softplus,
  tanh,
  sigmoid
};

// Same bits for every thread count and instruction set: the order of every sum is fixed here.
constexpr index kRowBlock = 128;      // column sums: rows of one block
constexpr index kBlockPartials = 4;   // row r of a block goes to partial r mod 4: (0 + 1) + (2 + 3)
constexpr index kRowPartials = 16;    // sums along a row: element i goes to partial i mod 16
constexpr index kRowChunk = 4096;     // chunks of a row sum are added in ascending order in double
constexpr index kChainRows = 1024;    // dW: the chain of FMAs restarts every so many rows

}  // namespace gv
