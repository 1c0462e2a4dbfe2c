// convert.h — numbers of any stored type as T, scaled and shifted on the way. Contract: table.h. The
// loops are plain: the compiler's vectors do what its scalars do, because a conversion, a product and a
// sum are each rounded by IEEE rules and nothing is reordered. binary16 is unpacked by hand, so that every
// instruction set has it. Not here: which rows, and from where.
#pragma once
#include "table.h"
#include "vec.h"

namespace gv::kernels::GV_ISA {
namespace {

struct Boolean {
  std::uint8_t byte;
};
struct Half {
  std::uint16_t bits;
};

// A number at any address, also in the middle of another.
template <class S> struct __attribute__((packed, may_alias)) Packed {
  S value;
};

template <class T, class S> inline T number(S x) { return T(x); }
template <class T> inline T number(Boolean x) { return x.byte != 0 ? T(1) : T(0); }

// IEEE 754 binary16: sign, 5 bits of exponent (bias 15), 10 bits of fraction. Exact, and without
// subnormals on the way: they would be lost where a caller has turned them off.
template <class T> inline T number(Half x) {
  const std::uint32_t magnitude = x.bits & 0x7fffu, sign = std::uint32_t(x.bits & 0x8000u) << 16;
  const std::uint32_t rebias = magnitude >= 0x7c00u ? 224u : 112u;  // all ones stay all ones
  const float small = float(std::int32_t(magnitude)) * 0x1p-24f;
  std::uint32_t small_bits;
  __builtin_memcpy(&small_bits, &small, sizeof small_bits);
  const std::uint32_t normal_bits = (magnitude << 13) + (rebias << 23);
  const std::uint32_t result_bits = (magnitude < 0x400u ? small_bits : normal_bits) | sign;
  float result;
  __builtin_memcpy(&result, &result_bits, sizeof result);
  return T(result);
}

template <class S, class T>
void convert_from(index n, const void* __restrict x, T scale, T shift, T* __restrict y) noexcept {
  const auto* __restrict from = static_cast<const Packed<S>*>(x);
  const T added = shift == T(0) ? -T(0) : shift;  // -0 leaves every number as it is, 0 does not leave -0
  for (index i = 0; i < n; ++i) y[i] = number<T>(from[i].value) * scale + added;
}

template <class T>
void convert(Stored from, index n, const void* x, T scale, T shift, T* y) noexcept {
  constexpr Stored own = sizeof(T) == 4 ? Stored::f32 : Stored::f64;
  if (from == own && scale == T(1) && shift == T(0)) {
    __builtin_memcpy(y, x, std::size_t(n) * sizeof(T));
    return;
  }
  switch (from) {
    case Stored::b8: return convert_from<Boolean>(n, x, scale, shift, y);
    case Stored::i8: return convert_from<std::int8_t>(n, x, scale, shift, y);
    case Stored::u8: return convert_from<std::uint8_t>(n, x, scale, shift, y);
    case Stored::i16: return convert_from<std::int16_t>(n, x, scale, shift, y);
    case Stored::u16: return convert_from<std::uint16_t>(n, x, scale, shift, y);
    case Stored::i32: return convert_from<std::int32_t>(n, x, scale, shift, y);
    case Stored::u32: return convert_from<std::uint32_t>(n, x, scale, shift, y);
    case Stored::i64: return convert_from<std::int64_t>(n, x, scale, shift, y);
    case Stored::u64: return convert_from<std::uint64_t>(n, x, scale, shift, y);
    case Stored::f16: return convert_from<Half>(n, x, scale, shift, y);
    case Stored::f32: return convert_from<float>(n, x, scale, shift, y);
    case Stored::f64: return convert_from<double>(n, x, scale, shift, y);
  }
}

template <class T> constexpr void add_convert(Kernels<T>& k) { k.convert = &convert<T>; }

}  // namespace
}  // namespace gv::kernels::GV_ISA
