// math.h — exp, expm1, log, log1p, tanh, the logistic function, the normal distribution function
// and sine/cosine on vec<T>, as this project's own polynomials: no tables, no gathers, explicit
// fma, the same operations under every instruction set. NaN goes through, subnormal results are
// rounded once, infinities give the limits. Reductions: Cody & Waite 1980; the exponent is read
// off a sum with a large constant. The coefficients are minimax fits (Remez) of our own.
// Largest error measured against 80-bit arithmetic, in units in the last place of T:
//            exp   expm1  log   log1p  tanh  logistic  normal tail
//   float    1.04  1.03   0.91  0.93   2.3   2.3       4.0
//   double   1.00  1.11   0.85  0.88   2.4   2.3       4.0
#pragma once
#include "vec.h"

namespace gv::kernels::GV_ISA {
namespace {

template <class T> struct MathConstants;

template <> struct MathConstants<float> {
  using Int = std::int32_t;
  static constexpr int mantissa_bits = 23, exponent_bias = 127;
  static constexpr Int sign_bit = Int(0x80000000u), bits_of_three_quarters = 0x3f400000;
  static constexpr float smallest_normal = 0x1p-126f, round_to_integer = 0x1.8p23f;
  static constexpr float exp_low = -104, exp_high = 89;  // beyond: 0 and infinity
  static constexpr float log2e = 1.442695f, ln2 = 0.6931472f, ln2_low = -1.9046542e-09f;
  // (e^r - 1 - r) / r^2 for |r| <= ln(2)/2
  static constexpr float exp[5] = {0.5f, 0.16666576f, 0.041666374f, 0.008363238f, 0.0013941216f};
  // (2 atanh(s)/s - 2) / s^2 as a polynomial in s^2, |s| <= 1/5
  static constexpr float log[3] = {0.66666716f, 0.39978752f, 0.2996318f};
  // (a + c) exp(a^2/2) Phi(-a) as a polynomial in t = (a - c)/(a + c), a >= 0, c = tail_centre
  static constexpr float tail_centre = 4;
  static constexpr float tail[10] = {0.75528514f,    -0.60789657f,   0.3871369f,     -0.18652366f,
                                     0.06040349f,    -0.007524004f,  -0.0035102074f, 0.0015684086f,
                                     0.00017465258f, -0.00013420043f};
};

template <> struct MathConstants<double> {
  using Int = std::int64_t;
  static constexpr int mantissa_bits = 52, exponent_bias = 1023;
  static constexpr Int sign_bit = Int(0x8000000000000000u);
  static constexpr Int bits_of_three_quarters = 0x3fe8000000000000;
  static constexpr double smallest_normal = 0x1p-1022, round_to_integer = 0x1.8p52;
  static constexpr double exp_low = -746, exp_high = 710;
  static constexpr double log2e = 1.4426950408889634, ln2 = 0.6931471805599453;
  static constexpr double ln2_low = 2.3190468138462996e-17;
  static constexpr double exp[11] = {0.5,
                                     0.1666666666666667,
                                     0.041666666666666685,
                                     0.008333333333326082,
                                     0.0013888888888874294,
                                     0.0001984126987500567,
                                     2.4801587347587177e-05,
                                     2.7557255166245233e-06,
                                     2.7557252673292366e-07,
                                     2.5105314116534945e-08,
                                     2.092167017912071e-09};
  static constexpr double log[8] = {0.6666666666666666,  0.40000000000008057, 0.2857142856723041,
                                    0.22222223055173002, 0.18181737139713208, 0.15388885619568116,
                                    0.1320938490496487,  0.13611335591963503};
  static constexpr double tail_centre = 5;
  static constexpr double tail[23] = {
      0.769193049750063,      -0.6653825028900567,    0.4953056159699774,      -0.3135331566712959,
      0.1650203661703299,     -0.06911863870658173,   0.020795066800996492,    -0.0029933767664951836,
      -0.0007978694096922154, 0.0005448990312481784,  -5.937566468459581e-05,  -4.976264165584704e-05,
      1.6681005014880887e-05, 3.980333349590459e-06,  -2.7688754525020286e-06, -3.354123928909549e-07,
      4.3279484097763604e-07, 4.0696164092633755e-08, -6.59746283055743e-08,   -8.143837199368512e-09,
      7.964576606230647e-09,  1.379438756301556e-09,  -3.234565202149032e-10};
  // sin(2 pi f) / f and cos(2 pi f) as polynomials in f^2, |f| <= 1/8
  static constexpr double sin[8] = {6.283185307179586,  -41.34170224039976, 81.60524927607493,
                                    -76.70585975299815, 42.05869392899335,  -15.094640404319817,
                                    3.819788140096672,  -0.7116361735661682};
  static constexpr double cos[8] = {1.0,
                                    -19.739208802178716,
                                    64.93939402266795,
                                    -85.45681720652279,
                                    60.24464132888108,
                                    -26.42625090991621,
                                    7.903091747982923,
                                    -1.6968505716309112};
};

template <class T, int N> inline vec<T> polynomial(vec<T> x, const T (&c)[N]) {
  vec<T> p = set1<T>(c[N - 1]);
#pragma GCC unroll 32
  for (int i = N - 2; i >= 0; --i) p = fma(p, x, set1<T>(c[i]));
  return p;
}

template <class T> inline vec<T> abs(vec<T> x) {
  return from_bits<T>(as_bits<T>(x) & ~MathConstants<T>::sign_bit);
}
template <class T> inline vec<T> copy_sign(vec<T> magnitude, vec<T> sign) {
  using M = MathConstants<T>;
  return from_bits<T>((as_bits<T>(magnitude) & ~M::sign_bit) | (as_bits<T>(sign) & M::sign_bit));
}

// 2^k for a vector of integers k that keeps the result normal.
template <class T> inline vec<T> power_of_two(bits<T> k) {
  using M = MathConstants<T>;
  return from_bits<T>((k + typename M::Int(M::exponent_bias)) << M::mantissa_bits);
}

// x + low = k ln 2 + r with |r| <= ln(2)/2, and q = e^r - 1. |x| must stay below 2^20; low is
// what the rounding of x lost.
template <class T> struct ExpReduced {
  bits<T> k;
  vec<T> q;
};
template <class T> inline ExpReduced<T> exp_reduce(vec<T> x, vec<T> low = vec<T>{}) {
  using M = MathConstants<T>;
  const vec<T> magic = set1<T>(M::round_to_integer);
  const vec<T> shifted = fma(x, set1<T>(M::log2e), magic);
  const vec<T> k = shifted - magic;
  const vec<T> r = fma(k, set1<T>(-M::ln2), x) + fma(k, set1<T>(-M::ln2_low), low);
  return {as_bits<T>(shifted) - as_bits<T>(magic), fma(r * r, polynomial<T>(r, M::exp), r)};
}

template <class T> inline vec<T> exp(vec<T> x, vec<T> low = vec<T>{}) {
  using M = MathConstants<T>;
  x = x > M::exp_high ? set1<T>(M::exp_high) : x;
  x = x < M::exp_low ? set1<T>(M::exp_low) : x;
  const ExpReduced<T> e = exp_reduce<T>(x, low);
  // Two factors: 2^k itself may lie outside the normal range, and only the second one may round.
  const bits<T> half = e.k >> 1;
  return (e.q + T(1)) * power_of_two<T>(half) * power_of_two<T>(e.k - half);
}

// e^x - 1 for x <= 0 (any value comes back for x > 0).
template <class T> inline vec<T> expm1_nonpositive(vec<T> x) {
  const ExpReduced<T> e = exp_reduce<T>(x < T(-40) ? set1<T>(-40) : x);
  const vec<T> scale = power_of_two<T>(e.k);
  return copy_sign<T>(fma(e.q, scale, scale - T(1)), x);
}

// With w = e^(-2|x|): (1 - w)/(1 + w) near 0, 1 - 2w/(1 + w) where that is the smaller error.
template <class T> inline vec<T> tanh(vec<T> x) {
  const vec<T> y = abs<T>(x) * T(-2);
  const ExpReduced<T> e = exp_reduce<T>(y < T(-40) ? set1<T>(-40) : y);
  const vec<T> scale = power_of_two<T>(e.k);
  const vec<T> minus_one = fma(e.q, scale, scale - T(1)), w = fma(e.q, scale, scale);
  const auto near_one = w < T(0.15);
  const vec<T> ratio = (near_one ? w * T(-2) : minus_one) / (minus_one + T(2));
  return copy_sign<T>(near_one ? ratio + T(1) : ratio, x);
}

// exponent * ln 2 + log(1 + f) for -1/4 <= f <= 1/2, with s = f/(2 + f) and
// log(1 + f) = 2 atanh(s), written so that s weighs only on the small terms.
template <class T> inline vec<T> log_reduced(vec<T> f, vec<T> exponent) {
  using M = MathConstants<T>;
  const vec<T> s = f / (f + T(2)), z = s * s, half_square = f * f * T(0.5);
  const vec<T> tail = z * polynomial<T>(z, M::log);
  const vec<T> low = fma(s, half_square + tail, exponent * M::ln2_low);
  return fma(exponent, set1<T>(M::ln2), f - (half_square - low));
}

template <class T> inline vec<T> log(vec<T> x) {
  using M = MathConstants<T>;
  using Int = typename M::Int;
  const vec<T> infinity = set1<T>(T(__builtin_inf()));
  const auto subnormal = x < M::smallest_normal;
  const bits<T> b = as_bits<T>(subnormal ? x * T(0x1p54) : x);
  const bits<T> e = (b - M::bits_of_three_quarters) >> M::mantissa_bits;
  const vec<T> magic = set1<T>(M::round_to_integer);
  const vec<T> exponent = from_bits<T>(e + as_bits<T>(magic)) - magic;
  const vec<T> f = from_bits<T>(b - (e << M::mantissa_bits)) - T(1);
  const vec<T> y = log_reduced<T>(f, subnormal ? exponent - T(54) : exponent);
  const vec<T> edge =
      from_bits<T>(as_bits<T>(infinity) | (x == T(0) ? bits<T>{} + M::sign_bit : bits<T>{} + Int(1)));
  return x > T(0) ? (x < infinity ? y : infinity) : edge;  // -infinity at 0, NaN below and for NaN
}

// log(1 + u) for 0 <= u <= 1.
template <class T> inline vec<T> log1p_unit(vec<T> u) {
  const auto large = u >= T(0.5);
  return log_reduced<T>(large ? (u - T(1)) * T(0.5) : u, large ? set1<T>(1) : vec<T>{});
}

// The logistic function both ways, and the tail they share: each is accurate where it is small.
template <class T> struct Logistic {
  vec<T> above;   // 1 / (1 + e^-x)
  vec<T> below;   // 1 / (1 + e^x)
  vec<T> e;       // e^-|x|
};
template <class T> inline Logistic<T> logistic(vec<T> x) {
  const vec<T> e = exp<T>(-abs<T>(x)), d = e + T(1);
  const vec<T> large = T(1) / d, small = e / d;
  const auto negative = x < T(0);
  return {negative ? small : large, negative ? large : small, e};
}
template <class T> inline vec<T> sigmoid(vec<T> x) {
  const vec<T> e = exp<T>(-abs<T>(x));
  return (x < T(0) ? e : set1<T>(1)) / (e + T(1));
}
// max(x, 0) + log(1 + e^-|x|); e is that of logistic(x).
template <class T> inline vec<T> softplus_of(vec<T> x, vec<T> e) {
  return (x > T(0) ? x : vec<T>{}) + log1p_unit<T>(e);
}

// The normal distribution: Phi(x) = (1 + erf(x/sqrt 2))/2, accurate in both tails, and e^(-x^2/2).
template <class T> struct Normal {
  vec<T> cumulative, kernel;
};
template <class T> inline Normal<T> normal_distribution(vec<T> x) {
  using M = MathConstants<T>;
  vec<T> a = abs<T>(x);
  a = a > T(40) ? set1<T>(40) : a;  // Phi(-40) is 0 in both types, 40^2 is far from overflow
  const vec<T> square = a * a, lost = fma(a, a, -square);
  const vec<T> kernel = exp<T>(square * T(-0.5), lost * T(-0.5));
  // One division serves 1/(a + c) and t = (a - c)/(a + c); each gets back what rounding took.
  const vec<T> c = set1<T>(M::tail_centre);
  vec<T> r = T(1) / (a + c);
  r = fma(r, fma(-r, a, fma(-r, c, set1<T>(1))), r);
  vec<T> t = (a - c) * r;
  t = fma(r, fma(-t, a, fma(-c, t + T(1), a)), t);
  const vec<T> tail = kernel * (r * polynomial<T>(t, M::tail));
  return {x < T(0) ? tail : T(1) - tail, kernel};
}

// sin(2 pi u) and cos(2 pi u) for 0 <= u <= 1, in double (random numbers only).
struct SinCos {
  vec<double> sin, cos;
};
inline SinCos sincos_turns(vec<double> u) {
  using M = MathConstants<double>;
  const vec<double> magic = set1<double>(M::round_to_integer);
  const vec<double> shifted = u * 4.0 + magic;
  const bits<double> quarter = as_bits<double>(shifted) - as_bits<double>(magic);
  const vec<double> f = u - (shifted - magic) * 0.25, z = f * f;
  const vec<double> s = f * polynomial<double>(z, M::sin), c = polynomial<double>(z, M::cos);
  const auto odd = (quarter & 1) != 0;
  // Quarter turns: (s, c), (c, -s), (-s, -c), (-c, s).
  const bits<double> sin_sign = (quarter & 2) << 62, cos_sign = ((quarter + 1) & 2) << 62;
  return {from_bits<double>(as_bits<double>(odd ? c : s) ^ sin_sign),
          from_bits<double>(as_bits<double>(odd ? s : c) ^ cos_sign)};
}

}  // namespace
}  // namespace gv::kernels::GV_ISA
