// gil.h — C++ that runs without the interpreter's lock.
#pragma once
#include <pybind11/pybind11.h>

#if defined(__GLIBCXX__)
#include <cxxabi.h>

#include <chrono>
#include <thread>
#endif

namespace gv::bind {

// The lock is released for as long as this lives. A daemon thread may come back when the interpreter is shutting
// down: CPython before 3.14 then ends it by unwinding its stack, in the middle of asking for the lock. A destructor
// must not be unwound, and what lies below it (Python objects that are given back) must not run without the lock, so
// the thread stays here until the process is gone, as it does from CPython 3.14 on.
class GilReleased {
 public:
  GilReleased() : state_(PyEval_SaveThread()) {}
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;
  ~GilReleased() {
#if defined(__GLIBCXX__)
    try {
      PyEval_RestoreThread(state_);
    } catch (abi::__forced_unwind&) {
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
#else
    PyEval_RestoreThread(state_);
#endif
  }

 private:
  PyThreadState* const state_;
};

}  // namespace gv::bind
