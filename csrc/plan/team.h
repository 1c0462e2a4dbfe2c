// team.h — how many workers a step wakes. What it costs to hand a layer's values from one processor to
// another differs tenfold between machines, and so does what else runs there. So the first runs try a team of
// all workers that the work seems worth, half as many and so on down to one, and the fastest stays, until
// they are compared again. No result depends on it.
#pragma once
#include <algorithm>
#include <array>
#include <limits>

namespace gv::plan {

class Team {
 public:
  // At most `most` workers; without `tries` always as many.
  void reset(int most, bool tries) {
    sizes_ = 0;
    for (int n = most; n > 0 && (sizes_ == 0 || tries) && sizes_ < kSizes; n /= 2)
      size_[std::size_t(sizes_++)] = n;
    steady_ = kFirstSteady;
    chosen_ = -1;
    compare();
  }

  // Workers of the next run, and how long it took, if it can be compared with the others.
  int size() const { return size_[std::size_t(now_)]; }
  int most() const { return size_[0]; }
  // Of a run that cannot.
  int settled() const { return settled_ ? size() : most(); }
  bool tries() const { return sizes_ > 1; }
  void took(double seconds) {
    if (settled_) {
      if (++runs_ < steady_) return;
      steady_ = std::min(2 * steady_, kMostSteady);
      compare();
      return;
    }
    double& least = least_[std::size_t(now_)];
    if (runs_ > 0) least = std::min(least, seconds);  // the first one finds the caches of another team
    if (++runs_ < kRuns) return;
    runs_ = 0;
    if (++now_ < sizes_) return;
    now_ = 0;
    if (++rounds_ < kRounds) return;  // the very first runs are slow for reasons of their own
    for (int i = 1; i < sizes_; ++i)
      if (least_[std::size_t(i)] < kClearly * least_[std::size_t(now_)]) now_ = i;
    // Another choice than the last time may be the doing of others, which passes: it is looked at again soon.
    if (now_ != chosen_) steady_ = kFirstSteady;
    chosen_ = now_;
    settled_ = true;
  }

 private:
  static constexpr int kSizes = 12;  // 1,024 workers and their halves
  static constexpr int kRuns = 4, kRounds = 2;  // with each size
  static constexpr int kFirstSteady = 200, kMostSteady = 6400;  // runs until the sizes are compared again
  static constexpr double kClearly = 0.97;

  void compare() {
    least_.fill(std::numeric_limits<double>::infinity());
    now_ = runs_ = rounds_ = 0;
    settled_ = sizes_ == 1;
  }

  std::array<int, kSizes> size_{1};
  std::array<double, kSizes> least_{};
  int sizes_ = 1, now_ = 0, runs_ = 0, rounds_ = 0, steady_ = kFirstSteady;
  int chosen_ = -1;  // the last time
  bool settled_ = true;
};

}  // namespace gv::plan
