// vec_avx2.h — what vec.h leaves to the instruction set, for AVX2 with FMA3.
#pragma once
#include <immintrin.h>

namespace gv::kernels::GV_ISA {
namespace {

inline vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm256_fmadd_ps(a, b, c); }
inline vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm256_fmadd_pd(a, b, c); }
inline vec<float> sqrt(vec<float> v) { return _mm256_sqrt_ps(v); }
inline vec<double> sqrt(vec<double> v) { return _mm256_sqrt_pd(v); }

inline __m256i first_lanes_32(index n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline __m256i first_lanes_64(index n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
inline vec<float> load_n(const float* p, index n) { return _mm256_maskload_ps(p, first_lanes_32(n)); }
inline vec<double> load_n(const double* p, index n) { return _mm256_maskload_pd(p, first_lanes_64(n)); }
inline void store_n(float* p, vec<float> v, index n) { _mm256_maskstore_ps(p, first_lanes_32(n), v); }
inline void store_n(double* p, vec<double> v, index n) { _mm256_maskstore_pd(p, first_lanes_64(n), v); }
inline void store_past(float* p, vec<float> v) { _mm256_stream_ps(p, v); }
inline void store_past(double* p, vec<double> v) { _mm256_stream_pd(p, v); }
inline void stores_past_done() { _mm_sfence(); }

}  // namespace
}  // namespace gv::kernels::GV_ISA
