// vec_scalar.h — what vec.h leaves to the instruction set, for one lane: the reference variant.
// fmaf and fma are correctly rounded in every C library, so they agree with the hardware's FMA.
#pragma once

namespace gv::kernels::GV_ISA {
namespace {

inline vec<float> fma(vec<float> a, vec<float> b, vec<float> c) {
  return vec<float>{__builtin_fmaf(a[0], b[0], c[0])};
}
inline vec<double> fma(vec<double> a, vec<double> b, vec<double> c) {
  return vec<double>{__builtin_fma(a[0], b[0], c[0])};
}
inline vec<float> sqrt(vec<float> v) { return vec<float>{__builtin_sqrtf(v[0])}; }
inline vec<double> sqrt(vec<double> v) { return vec<double>{__builtin_sqrt(v[0])}; }

template <class T> inline vec<T> load_n(const T* p, index n) { return n > 0 ? load(p) : vec<T>{}; }
template <class T, class V> inline void store_n(T* p, V v, index n) {
  if (n > 0) *p = v[0];
}
template <class T, class V> inline void store_past(T* p, V v) { *p = v[0]; }
inline void stores_past_done() {}

}  // namespace
}  // namespace gv::kernels::GV_ISA
