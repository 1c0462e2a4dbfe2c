// vec.h — the vector in which the kernels are written: GCC/Clang vector types of the width of
// the instruction set, so + - * / < ?: work on them as on numbers. vec_<isa>.h gives what has no
// operator: fma, sqrt and the loads and stores of the first n lanes. In the scalar variant a
// vector has one lane, and the same source is the reference. Every operation is IEEE-exact, so
// the same source gives the same bits under every instruction set.
//
// Interface (T is float or double):
//   vec<T>, lanes<T>()                the vector and its number of elements
//   bits<T>                           the integer vector of the same shape (result of a comparison)
//   load(p), store(p, v)              lanes<T>() elements, any alignment
//   load_n(p, n), store_n(p, v, n)    the first n lanes, 0 <= n <= lanes; the others load as 0
//   set1<T>(x)                        every lane x
//   fma(a, b, c)                      a * b + c, rounded once
//   sqrt(v)                           IEEE square root
//   as_bits<T>(v), from_bits<T>(b)    the same bits as integers, and back
//   store_past(p, v)                  a store past the caches, p aligned to the vector
//   stores_past_done()                orders those before what follows, for other threads
//   half<T>, lower_half(v), load_half_n(p, n)   with AVX-512: a vector of half the size
//   fetch(p)                          asks for the cache line of p, which need not exist
//   own(p)                            the same to write it: others who hold the line give it up
#pragma once
#include "../base/types.h"

#ifndef GV_ISA
#error "kernels are compiled with -DGV_ISA=<name>, once per instruction set"
#endif

namespace gv::kernels::GV_ISA {
namespace {

#if defined(__AVX512F__)
template <class T> constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
template <class T> constexpr int kVectorBytes = 32;
#else
template <class T> constexpr int kVectorBytes = sizeof(T);
#endif

template <class T> struct IntOf;
template <> struct IntOf<float> {
  using type = std::int32_t;
};
template <> struct IntOf<double> {
  using type = std::int64_t;
};

template <class T> struct VecOf {
  using Int = typename IntOf<T>::type;
  typedef T type __attribute__((vector_size(kVectorBytes<T>)));
  typedef T unaligned __attribute__((vector_size(kVectorBytes<T>), aligned(sizeof(T)), may_alias));
  typedef Int bits __attribute__((vector_size(kVectorBytes<T>)));
};
template <class T> using vec = typename VecOf<T>::type;
template <class T> using bits = typename VecOf<T>::bits;
template <class T> constexpr index lanes() { return kVectorBytes<T> / index(sizeof(T)); }

template <class T> inline vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VecOf<T>::unaligned*>(p);
}
template <class T> inline void store(T* p, vec<T> v) {
  *reinterpret_cast<typename VecOf<T>::unaligned*>(p) = v;
}
template <class T> inline vec<T> set1(T x) { return x - vec<T>{}; }  // x - 0 keeps every x, -0 too
template <class T> inline bits<T> as_bits(vec<T> v) { return reinterpret_cast<bits<T>>(v); }
template <class T> inline vec<T> from_bits(bits<T> b) { return reinterpret_cast<vec<T>>(b); }
inline void fetch(const void* p) { __builtin_prefetch(p, 0, 2); }  // into L2: L1 is for what is at hand
inline void own(const void* p) {
#if defined(__x86_64__)
  __asm__ volatile("prefetchw %0" : : "m"(*static_cast<const char*>(p)));  // GCC has it for some targets only
#else
  __builtin_prefetch(p, 1);
#endif
}

}  // namespace
}  // namespace gv::kernels::GV_ISA

#if defined(__AVX512F__)
#include "vec_avx512.h"
#elif defined(__AVX2__)
#include "vec_avx2.h"
#else
#include "vec_scalar.h"
#endif
