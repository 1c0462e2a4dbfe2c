// parallel.cpp — threads through OpenMP, and how many of them. The only file that names OpenMP.
#include "parallel.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace gv {
namespace {

constexpr int kMostThreads = 1024;

int affinity() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

// CPUs that the control group lets this process use, rounded up; 0 if there is no limit.
int cgroup_quota() {
  double quota = 0, period = 0;
  char text[64] = "";
  if (std::FILE* f = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    if (std::fscanf(f, "%63s %lf", text, &period) == 2 && std::strcmp(text, "max") != 0)
      quota = std::atof(text);
    std::fclose(f);
  } else {
    const auto number = [](const char* path) {
      double value = -1;
      if (std::FILE* g = std::fopen(path, "r")) {
        if (std::fscanf(g, "%lf", &value) != 1) value = -1;
        std::fclose(g);
      }
      return value;
    };
    quota = number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    period = number("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  }
  return quota > 0 && period > 0 ? std::max(1, int((quota + period - 1) / period)) : 0;
}

int openmp_threads() {
#if defined(_OPENMP)
  return omp_get_max_threads();
#else
  return 1;
#endif
}

// libgomp ends the process when a thread cannot be made, so ask the system first.
int threads_that_can_be_made(int wanted) {
  std::vector<std::thread> made;
  std::atomic<bool> done{false};
  try {
    for (int i = 1; i < wanted; ++i)
      made.emplace_back([&done] {
        while (!done.load(std::memory_order_acquire)) std::this_thread::yield();
      });
  } catch (const std::system_error&) {
  }
  done.store(true, std::memory_order_release);
  for (auto& t : made) t.join();
  return int(made.size()) + 1;
}

// GVCORE_NUM_THREADS, at most kMostThreads; 0 if it is not set.
int threads_of_environment() {
  const char* const text = std::getenv("GVCORE_NUM_THREADS");
  if (!text || !*text) return 0;
  char* end = nullptr;
  const long threads = std::strtol(text, &end, 10);
  while (std::isspace(static_cast<unsigned char>(*end))) ++end;
  if (threads < 1 || *end)
    throw std::invalid_argument(
        "[threads] expected GVCORE_NUM_THREADS to be a whole number of at least 1, got " + std::string(text));
  return int(std::min<long>(threads, kMostThreads));
}

struct Setting {
  std::atomic<int> threads;
  std::atomic<const char*> reason;
  const int openmp_at_start;  // omp_get_max_threads() before anyone limited it
  const int processors;
  Setting();
};

Setting::Setting()
    : threads(affinity()),
      reason("processors this process may run on"),
      openmp_at_start(openmp_threads()),
      processors(affinity()) {
#if defined(_OPENMP) && (defined(__unix__) || defined(__APPLE__))
  // The child of a process that used libgomp would wait for threads that fork did not copy.
  pthread_atfork([] { omp_pause_resource_all(omp_pause_soft); }, nullptr, nullptr);
#endif
  if (const int quota = cgroup_quota(); quota > 0 && quota < threads) {
    threads = quota;
    reason = "CPU quota of the control group";
  }
  if (std::getenv("OMP_NUM_THREADS") && openmp_at_start < threads) {
    threads = openmp_at_start;
    reason = "OMP_NUM_THREADS";
  }
  if (const int wanted = threads_of_environment(); wanted > 0) {
    threads = threads_that_can_be_made(wanted);
    reason = "GVCORE_NUM_THREADS";
  }
#if !defined(_OPENMP)
  threads = 1;
  reason = "built without OpenMP";
#endif
}

Setting& setting() {
  static Setting s;
  return s;
}

std::atomic<double> least_work{kWorthWaking};  // nanoseconds

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

int num_threads() {
  const Setting& s = setting();
  const int openmp = openmp_threads();  // threadpoolctl limits through this
  const int threads = s.threads;
  return openmp != s.openmp_at_start ? std::min(threads, openmp) : threads;
}

int set_num_threads(int n) {
  Setting& s = setting();
#if defined(_OPENMP)
  s.threads = n <= s.processors ? n : threads_that_can_be_made(std::min(n, kMostThreads));
#endif
  s.reason = "set_num_threads";
  return s.threads;
}

const char* num_threads_reason() { return setting().reason; }

double worth_waking() { return least_work; }
void set_worth_waking(double nanoseconds) { least_work = std::max(1.0, nanoseconds); }

int workers_for(double nanoseconds) {
  return std::max(1, int(std::min<double>(num_threads(), nanoseconds / least_work)));
}

void run_region(int workers, void (*task)(void*, int, int), void* context) {
  if (workers <= 1) return task(context, 0, 1);
#if defined(_OPENMP)
#pragma omp parallel num_threads(workers)
  task(context, omp_get_thread_num(), omp_get_num_threads());
#else
  task(context, 0, 1);
#endif
}

void Barrier::wait(int workers) noexcept {
  if (workers == 1) return;
  const std::uint32_t before = word_.fetch_add(1, std::memory_order_seq_cst), round = before / kRound;
  if (before % kRound + 1 == std::uint32_t(workers)) {
    word_.fetch_add(kRound - std::uint32_t(workers), std::memory_order_seq_cst);
#if defined(__linux__)
    if (sleepers_.load(std::memory_order_seq_cst) > 0)
      syscall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, workers, nullptr, nullptr, 0);
#endif
    return;
  }
  const bool room = workers <= setting().processors;
  const int spins = room ? 100 : 0, yields = room ? 2000 : 4;
  for (int i = 0; i < spins; ++i) {
    if (passed(round)) return;
    pause();
  }
  for (int i = 0; i < yields; ++i) {
    if (passed(round)) return;
    std::this_thread::yield();
  }
#if defined(__linux__)
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  for (;;) {
    const std::uint32_t now = word_.load(std::memory_order_seq_cst);
    if (now / kRound != round) break;
    // Returns at once when another has arrived since, for then the word is another.
    syscall(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, now, nullptr, nullptr, 0);
  }
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
#else
  while (!passed(round)) std::this_thread::yield();
#endif
}

}  // namespace gv
