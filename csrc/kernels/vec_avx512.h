// vec_avx512.h — what vec.h leaves to the instruction set, for AVX-512 (F, VL, BW, DQ).
#pragma once
#include <immintrin.h>

namespace gv::kernels::GV_ISA {
namespace {

inline vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm512_fmadd_ps(a, b, c); }
inline vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm512_fmadd_pd(a, b, c); }
// The plain intrinsics pass an undefined vector along, of which GCC 12 warns at every use.
inline vec<float> sqrt(vec<float> v) { return _mm512_maskz_sqrt_ps(__mmask16(-1), v); }
inline vec<double> sqrt(vec<double> v) { return _mm512_maskz_sqrt_pd(__mmask8(-1), v); }

inline vec<float> load_n(const float* p, index n) {
  return _mm512_maskz_loadu_ps(__mmask16((1u << n) - 1u), p);
}
inline vec<double> load_n(const double* p, index n) {
  return _mm512_maskz_loadu_pd(__mmask8((1u << n) - 1u), p);
}
inline void store_n(float* p, vec<float> v, index n) {
  _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1u), v);
}
inline void store_n(double* p, vec<double> v, index n) {
  _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1u), v);
}

// Vectors of half the size, and the lower half of a whole one.
template <class T> struct HalfOf {
  typedef T type __attribute__((vector_size(32)));
};
template <class T> using half = typename HalfOf<T>::type;
inline half<float> lower_half(vec<float> v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7); }
inline half<double> lower_half(vec<double> v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3); }
inline half<float> fma(half<float> a, half<float> b, half<float> c) { return _mm256_fmadd_ps(a, b, c); }
inline half<double> fma(half<double> a, half<double> b, half<double> c) { return _mm256_fmadd_pd(a, b, c); }
inline half<float> load_half_n(const float* p, index n) {
  return _mm256_maskz_loadu_ps(__mmask8((1u << n) - 1u), p);
}
inline half<double> load_half_n(const double* p, index n) {
  return _mm256_maskz_loadu_pd(__mmask8((1u << n) - 1u), p);
}
inline void store_n(float* p, half<float> v, index n) {
  _mm256_mask_storeu_ps(p, __mmask8((1u << n) - 1u), v);
}
inline void store_n(double* p, half<double> v, index n) {
  _mm256_mask_storeu_pd(p, __mmask8((1u << n) - 1u), v);
}

inline void store_past(float* p, vec<float> v) { _mm512_stream_ps(p, v); }
inline void store_past(double* p, vec<double> v) { _mm512_stream_pd(p, v); }
inline void stores_past_done() { _mm_sfence(); }

}  // namespace
}  // namespace gv::kernels::GV_ISA
