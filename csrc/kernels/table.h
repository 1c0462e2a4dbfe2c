// table.h — the only door of this room: every kernel's signature, shapes and contract.
// The kernels are compiled once per instruction set and collected into one table each. They are
// serial, noexcept, allocate nothing, and cannot fail: whoever calls has checked everything.
//
// Words used below. A matrix argument x comes with ldx, the distance between its rows in
// elements; elements of a row are contiguous. Any size may be 0. "panel" is rows x cols.
// Column vectors (m, a, c, …) have cols elements. "y may be x" means exactly the same pointer
// and ld; otherwise outputs do not overlap inputs. Sums follow base/types.h.
#pragma once
#include "../base/types.h"

namespace gv::kernels {

struct ActivationParams {  // what the activation's name leaves open
  double alpha;            // negative_slope (leaky_relu), alpha (elu), beta (softplus)
};

struct
    SgdParams {  // T-rounded by the kernel; g = fma(wd, p, g); v = fma(mom, v, (1-damp)*g); p = fma(-lr, d, p)
  double lr, momentum, dampening, weight_decay;
  bool nesterov, first;  // first: v = g (the raw gradient after decay) instead of the recurrence
};

struct AdamParams {
  double lr, beta1, beta2, eps, weight_decay;
  double correction1, correction2;  // 1 - beta1^step, sqrt(1 - beta2^step), computed by the caller
  bool decoupled;
};

constexpr index kLineBytes = 64;
constexpr index kShortAhead = 24;  // lines: as much as a processor waits for at a time

// Memory that will be wanted soon, in stretches of cache lines. A product has load slots to spare: each step of
// its loop fetches two lines that will be read into the second-level cache, and before each tile it fetches
// stretches that are short, and takes a few lines that will be written from the processors that hold them. What
// was taken is gone.
struct Ahead {
  const char* at;
  index lines;
};
struct AheadList {
  const Ahead *next, *last;
  index done;  // lines of *next that were taken
};
constexpr index kStripBytes = 2 * kLineBytes;  // what a step of a product's loop fetches
struct AheadStrips {  // so many bytes of each of some rows, `stride` bytes apart, then those beside them
  const char* at;
  index rows, stride, strips;
  index done;  // rows of the first strip that were taken
};
struct AheadQueue {
  Ahead stretch;  // these two are of the product's own operands, and come first
  AheadStrips strips;
  AheadList read, write;
};

// The longest rows whose partial sums, 4 for each column or 12, leave room in an L1.
constexpr index kShortRowBytes = 2048, kShortPairBytes = 1280;

struct PhiloxKey {  // key of Philox4x32-10; the counter is (index / 4, step), word index % 4
  std::uint64_t seed;
  std::uint32_t site;
  std::uint64_t step;
};

constexpr index kOverlap = 16;  // lanes of the longest vector

template <class T> struct Kernels {
  // ---- gemm.h -------------------------------------------------------------------------------
  // c (m x n) = from + a (m x k) * b (k x n). Element (i, p) of a is a[i*ras + p*kas], where
  // ras == 1 or kas == 1; b, from and c are row-major. Each c element is one chain of FMAs in ascending
  // p that begins with that of from, or with 0 when from is null; c may be from, else it is not read. A tile has
  // at most `low` rows, 1 <= low. more: the columns of c behind these n are next, and asked for. ahead may be null.
  void (*gemm)(index m, index n, index k, const T* a, index ras, index kas, const T* b, index ldb,
               const T* from, index ldf, T* c, index ldc, index low, bool more, AheadQueue* ahead);
  index panel;  // the best number of columns of a b that is packed
  index tallest;  // rows of a tile for such a panel, at most
  bool halves;  // whether the last half of a vector takes a shorter one
  // dst (cols x rows) = transpose of src (rows x cols).
  void (*transpose)(index rows, index cols, const T* src, index lds, T* dst, index ldd);
  // dst (rows x cols) = src.
  void (*copy)(index rows, index cols, const T* src, index lds, T* dst, index ldd);

  // ---- dots.h -------------------------------------------------------------------------------
  // c (m x n) = or += a (m x k) * bᵀ, b n x k row-major, with the chains of gemm: for few rows of a.
  void (*dots)(index m, index n, index k, const T* a, index lda, const T* b, index ldb, T* c, index ldc,
               bool accumulate);

  // ---- axpys.h ------------------------------------------------------------------------------
  // c (m x n) = or += a (m x k) * b (k x n), with the layouts and chains of gemm: 1 <= m <= 3, k >= 1.
  void (*axpys)(index m, index n, index k, const T* a, index ras, index kas, const T* b, index ldb, T* c,
                index ldc, bool accumulate);

  // ---- batchnorm.h --------------------------------------------------------------------------
  // One block of 1 <= rows <= kRowBlock: mean and m2 (sum of squared distances from the mean),
  // both in double, with a shifted two-pass sum (engine rule: E[x²]-E[x]² is never used).
  // next is the block that is read after this one, of the same size and ldx, or null: it is asked for
  // meanwhile. It may lie behind the end of the matrix, for it is not read.
  void (*moments)(index rows, index cols, const T* x, index ldx, const T* next, double* mean, double* m2);
  // (mean, m2) of n_a rows becomes that of n_a + n_b rows (Chan, Golub, LeVeque 1979).
  void (*moments_merge)(index cols, index n_a, double* mean, double* m2, index n_b, const double* mean_b,
                        const double* m2_b);
  // From the moments of count rows: m = T(mean), shift = mean - m (what m cannot hold, as T),
  // rstd = 1/sqrt(m2/count + eps), a = gamma*rstd, c = beta - (mean - m)*a.
  // gamma and beta may be null (1 and 0). All outputs have cols elements.
  void (*bn_coefficients)(index cols, index count, const double* mean, const double* m2, double eps,
                          const T* gamma, const T* beta, T* m, T* shift, T* rstd, T* a, T* c);
  // The same for inference: m = running_mean, a = gamma / sqrt(running_var + eps), c = beta.
  void (*bn_inference_coefficients)(index cols, const T* running_mean, const T* running_var, double eps,
                                    const T* gamma, const T* beta, T* m, T* a, T* c);
  // running = (1 - momentum)*running + momentum*batch, with the unbiased variance m2/(count-1).
  void (*bn_update_running)(index cols, index count, const double* mean, const double* m2, double momentum,
                            T* running_mean, T* running_var);
  // y = fma(x - m, a, c); then relu if asked; then + residual if residual is not null.
  // y may be x; y may be residual.
  void (*bn_apply)(index rows, index cols, const T* x, index ldx, const T* m, const T* a, const T* c,
                   bool relu, const T* residual, index ldr, T* y, index ldy);
  // One block of rows <= kRowBlock: sum_dy = Σ g, sum_dyx = Σ g*(x - m), where g = dy, or with
  // relu: g = dy where fma(x - m, a, c) > 0, else 0 (a NaN pre-activation passes dy on).
  void (*bn_backward_sums)(index rows, index cols, const T* dy, index lddy, const T* x, index ldx, const T* m,
                           const T* a, const T* c, bool relu, double* sum_dy, double* sum_dyx);
  // The same without relu, and sum_x = Σ (x - m), for a caller who knows but the rounded mean. next_dy
  // and next_x as in moments.
  void (*bn_backward_sums_and_shift)(index rows, index cols, const T* dy, index lddy, const T* x, index ldx,
                                     const T* m, const T* next_dy, const T* next_x, double* sum_dy,
                                     double* sum_dyx, double* sum_x);
  // From the sums over count rows: dgamma = rstd*(sum_dyx - shift*sum_dy), dbeta = sum_dy, and
  // c1, c2, c3 with dx = c1*(g + c2*(x - m) + c3) (Ioffe & Szegedy 2015, section 3, rearranged).
  void (*bn_backward_coefficients)(index cols, index count, const double* sum_dy, const double* sum_dyx,
                                   const T* shift, const T* rstd, const T* gamma, T* dgamma, T* dbeta, T* c1,
                                   T* c2, T* c3);
  // dx = c1*(g + fma(c2, x - m, c3)), g as in bn_backward_sums. dx may be dy or x.
  void (*bn_backward_apply)(index rows, index cols, const T* dy, index lddy, const T* x, index ldx,
                            const T* m, const T* a, const T* c, bool relu, const T* c1, const T* c2,
                            const T* c3, T* dx, index lddx);

  // ---- batchnorm_along.h: for a block that comes from memory, of rows of at most kShortRowBytes (kShortPairBytes)
  // bytes. -------------------------------------------------------------------------------------
  // As moments.
  void (*moments_along)(index rows, index cols, const T* x, index ldx, double* mean, double* m2);
  // As bn_backward_sums_and_shift.
  void (*bn_backward_sums_along)(index rows, index cols, const T* dy, index lddy, const T* x, index ldx,
                                 const T* m, double* sum_dy, double* sum_dyx, double* sum_x);

  // ---- batchnorm_flat.h: n elements of a matrix without gaps, the first of them in column `first` of
  // cols. A column vector has kOverlap elements more, its first ones again and again. past: y (dx) is
  // written past the caches, for a result that is larger than they are. ---------------------------
  // As bn_apply. y may be x.
  void (*bn_apply_flat)(index n, index first, index cols, const T* x, const T* m, const T* a, const T* c,
                        bool past, T* y);
  // As bn_backward_apply. dx may be dy.
  void (*bn_backward_apply_flat)(index n, index first, index cols, const T* dy, const T* x, const T* m,
                                 const T* c1, const T* c2, const T* c3, bool past, T* dx);

  // ---- layernorm.h: over each row; statistics as the row sums of base/types.h ---------------
  // y = (x - mean)*rstd*gamma + beta; mean and rstd have rows elements. y may be x.
  void (*layernorm)(index rows, index cols, const T* x, index ldx, const T* gamma, const T* beta, double eps,
                    T* y, index ldy, T* mean, T* rstd);
  void (*layernorm_backward)(index rows, index cols, const T* dy, index lddy, const T* x, index ldx,
                             const T* mean, const T* rstd, const T* gamma, T* dx, index lddx);
  // One block of rows <= kRowBlock: dgamma = Σ dy*(x - mean)*rstd, dbeta = Σ dy.
  void (*layernorm_param_sums)(index rows, index cols, const T* dy, index lddy, const T* x, index ldx,
                               const T* mean, const T* rstd, double* dgamma, double* dbeta);

  // ---- elementwise.h: panels; y (dx) may be any of the inputs --------------------------------
  void (*activation)(Activation kind, ActivationParams params, index rows, index cols, const T* x, index ldx,
                     T* y, index ldy);
  // dx = dy * f'(x), x the input of the activation. relu'(0) = 0.
  void (*activation_backward)(Activation kind, ActivationParams params, index rows, index cols, const T* dy,
                              index lddy, const T* x, index ldx, T* dx, index lddx);
  // The same of relu or leaky_relu for n elements, y (dx) written past the caches, apart from the inputs.
  void (*activation_past)(Activation kind, ActivationParams params, index n, const T* x, T* y);
  void (*activation_backward_past)(Activation kind, ActivationParams params, index n, const T* dy, const T* x,
                                   T* dx);
  void (*add)(index rows, index cols, const T* x, index ldx, const T* z, index ldz, T* y, index ldy);
  void (*sub)(index rows, index cols, const T* x, index ldx, const T* z, index ldz, T* y, index ldy);
  void (*mul)(index rows, index cols, const T* x, index ldx, const T* z, index ldz, T* y, index ldy);
  // y = scale * x + shift: one multiplication, then one addition.
  void (*affine)(index rows, index cols, const T* x, index ldx, T scale, T shift, T* y, index ldy);
  // y = x + v, y = x * v, with v (cols) added to or multiplied into every row.
  void (*add_row)(index rows, index cols, const T* x, index ldx, const T* v, T* y, index ldy);
  void (*mul_row)(index rows, index cols, const T* x, index ldx, const T* v, T* y, index ldy);
  // One block of rows <= kRowBlock: sum[j] = Σ_r x[r][j], and Σ_r x[r][j]*z[r][j].
  void (*column_sums)(index rows, index cols, const T* x, index ldx, double* sum);
  void (*column_dots)(index rows, index cols, const T* x, index ldx, const T* z, index ldz, double* sum);

  // ---- convert.h ----------------------------------------------------------------------------
  // y = T(x)*scale + shift for n numbers stored as `from`, at any address; T(x) is rounded once, as a C
  // cast does, the product and the sum are rounded each. A shift of 0, of either sign, adds nothing.
  // Numbers of type T with scale 1 and shift 0 are copied.
  void (*convert)(Stored from, index n, const void* x, T scale, T shift, T* y);

  // ---- softmax.h: over each row. y may be x; dx may be dy -----------------------------------
  void (*softmax)(index rows, index cols, const T* x, index ldx, T* y, index ldy);
  void (*log_softmax)(index rows, index cols, const T* x, index ldx, T* y, index ldy);
  // From the result y, not from x.
  void (*softmax_backward)(index rows, index cols, const T* dy, index lddy, const T* y, index ldy, T* dx,
                           index lddx);
  void (*log_softmax_backward)(index rows, index cols, const T* dy, index lddy, const T* y, index ldy, T* dx,
                               index lddx);

  // ---- loss.h: row_loss[r] is the row's loss (already times class weight, not yet times
  // row_weight); dx is the gradient of Σ_r row_weight[r]*row_loss[r]. row_weight may be null (1).
  // dx may be x.
  // labels in [0, classes). class_weight may be null. Smoothing as in torch.nn.CrossEntropyLoss.
  void (*cross_entropy)(index rows, index classes, const T* x, index ldx, const std::int64_t* labels,
                        const T* class_weight, double label_smoothing, const T* row_weight, double* row_loss,
                        T* dx, index lddx);
  // The same with a probability for every class.
  void (*cross_entropy_soft)(index rows, index classes, const T* x, index ldx, const T* target, index ldt,
                             const T* class_weight, double label_smoothing, const T* row_weight,
                             double* row_loss, T* dx, index lddx);
  // row_loss = Σ_j f(x - target): squares; absolute values (gradient 0 at 0); Huber.
  void (*mse)(index rows, index cols, const T* x, index ldx, const T* target, index ldt, const T* row_weight,
              double* row_loss, T* dx, index lddx);
  void (*l1)(index rows, index cols, const T* x, index ldx, const T* target, index ldt, const T* row_weight,
             double* row_loss, T* dx, index lddx);
  void (*huber)(index rows, index cols, const T* x, index ldx, const T* target, index ldt, double delta,
                const T* row_weight, double* row_loss, T* dx, index lddx);
  // Binary cross-entropy on logits; pos_weight (cols) may be null.
  void (*bce)(index rows, index cols, const T* x, index ldx, const T* target, index ldt, const T* pos_weight,
              const T* row_weight, double* row_loss, T* dx, index lddx);

  // ---- optim.h: flat arrays of n elements, in place -----------------------------------------
  // v may be null when momentum is 0.
  void (*sgd)(index n, T* p, const T* g, T* v, const SgdParams& params);
  // Kingma & Ba 2015 with PyTorch's order of operations; decoupled decay: Loshchilov & Hutter 2019.
  void (*adam)(index n, T* p, const T* g, T* exp_avg, T* exp_avg_sq, const AdamParams& params);
  void (*scale)(index n, T* x, T factor);
  void (*accumulate)(index n, T* x, const T* y);  // x += y
  // One chunk of n <= kRowChunk elements: Σ (scale x)² (partials in T, result in double).
  double (*sum_of_squares)(index n, const T* x, T scale);

  // ---- random.h: element i of a call is logical element first + i ---------------------------
  // y = keep ? x/(1-p) : 0; keep when the uniform number is >= p. y may be x.
  void (*dropout)(index n, std::uint64_t first, PhiloxKey key, double p, const T* x, T* y);
  void (*uniform)(index n, std::uint64_t first, PhiloxKey key, double low, double high, T* y);
  void (*normal)(index n, std::uint64_t first, PhiloxKey key, double mean, double std, T* y);

  // ---- peak.h: what the processor can do at most, for the benchmarks ------------------------
  // rounds times 12 independent chains x = fma(x, sink[0], sink[1]) on whole vectors; sink[2] takes
  // one lane of their sum. Returns the number of flop.
  double (*fma_chains)(index rounds, T* sink);
  // y = fma(factor, x, y), n elements.
  void (*add_scaled)(index n, T factor, const T* x, T* y);
};

struct KernelTable {
  const char* name;  // "scalar", "avx2", "avx512"
  Kernels<float> f32;
  Kernels<double> f64;
  template <class T> const Kernels<T>& of() const;
};
template <> inline const Kernels<float>& KernelTable::of<float>() const { return f32; }
template <> inline const Kernels<double>& KernelTable::of<double>() const { return f64; }

}  // namespace gv::kernels

// One exported symbol per instruction set; ops/isa.h chooses among them.
extern "C" {
extern const gv::kernels::KernelTable gv_kernels_scalar;
extern const gv::kernels::KernelTable gv_kernels_avx2;
extern const gv::kernels::KernelTable gv_kernels_avx512;
}
