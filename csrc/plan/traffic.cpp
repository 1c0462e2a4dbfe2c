// traffic.cpp — see traffic.h.
#include "traffic.h"

#include <cxxabi.h>

#include <cstdlib>
#include <typeinfo>
#include <unordered_map>

namespace gv::plan {
namespace {

// "Product" of gv::plan::Product<float>.
std::string step_name(const Accesses& step) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(typeid(step).name(), nullptr, nullptr, &status), std::free);
  std::string name = status == 0 ? text.get() : typeid(step).name();
  name = name.substr(0, name.find('<'));
  return name.substr(name.rfind(':') + 1);
}

// What an instruction has done so far with one piece of memory.
struct Touched {
  bool at_hand = false;  // its panel was read or written by a step before
  bool came_in = false;  // and was read first, so that it was there before the instruction
  bool written = false;
};

class Account {
 public:
  Account(const std::vector<Tensor>& tensors, const std::vector<std::size_t>& last_use, index batch,
          int states)
      : tensors_(tensors), last_use_(last_use), batch_(batch), states_(states) {}

  // `steps` in the order in which they take a panel; whoever is `alone` has no panels.
  Traffic of(std::size_t instruction, const std::vector<const Accesses*>& steps, bool alone,
             bool by_rows) const {
    Traffic traffic;
    std::unordered_map<TensorId, Touched> memory;
    for (const Accesses* step : steps) {
      traffic.steps.push_back(step_name(*step));
      for (const Access& a : step->accesses())
        if (!a.writes) {
          const Tensor& t = tensor(a);
          Touched& touched = memory[t.storage];
          // Read in full, it is more than the panel that lies in cache.
          if (!a.local(by_rows) || !touched.at_hand) of_kind(traffic, t).read += t.bytes(batch_);
          if (a.local(by_rows) && !touched.at_hand) touched.at_hand = touched.came_in = true;
        }
      for (const Access& a : step->accesses())
        if (a.writes) {
          Touched& touched = memory[tensor(a).storage];
          touched.at_hand = touched.written = true;
        }
    }
    // In the end a panel goes back to memory, if anybody wants it or what it overwrote came from there.
    for (const auto& [storage, touched] : memory) {
      if (!touched.written) continue;
      const Tensor& t = tensors_[std::size_t(storage)];
      if (t.place == Place::parameter) {
        const Moved update = update_traffic(t.bytes(batch_), states_);
        traffic.parameters.read += update.read - (touched.came_in ? t.bytes(batch_) : 0);
        traffic.parameters.written += update.written;
      } else if (alone || touched.came_in || t.place != Place::arena ||
                 last_use_[std::size_t(storage)] > instruction) {
        of_kind(traffic, t).written += t.bytes(batch_);
      }
    }
    return traffic;
  }

 private:
  const Tensor& tensor(const Access& a) const { return tensors_[std::size_t(a.slot->id)]; }
  static Moved& of_kind(Traffic& traffic, const Tensor& t) {
    if (t.per_sample > 0) return traffic.activations;
    const bool gradient = t.place == Place::gradient || (t.place == Place::kept && t.owner >= 0);
    return t.place == Place::parameter || gradient ? traffic.parameters : traffic.rest;
  }

  const std::vector<Tensor>& tensors_;
  const std::vector<std::size_t>& last_use_;
  const index batch_;
  const int states_;
};

}  // namespace

Moved update_traffic(index bytes, int states) { return {bytes * (1 + states), bytes * (1 + states)}; }

template <class T>
std::vector<Traffic> traffic(const Program<T>& program, index batch, int states) {
  std::vector<std::size_t> last_use(program.tensors.size(), 0);  // by memory: the instruction
  for (std::size_t i = 0; i < program.instructions.size(); ++i)
    for (const Access& a : program.instructions[i]->accesses())
      last_use[std::size_t(program.tensors[std::size_t(a.slot->id)].storage)] = i;
  const Account account(program.tensors, last_use, batch, states);
  std::vector<Traffic> result;
  for (std::size_t i = 0; i < program.instructions.size(); ++i) {
    const Instruction<T>& instruction = *program.instructions[i];
    std::vector<const Accesses*> steps;
    const auto* group = dynamic_cast<const PanelGroup<T>*>(&instruction);
    if (group)
      for (const auto& step : group->steps()) steps.push_back(step.get());
    else steps.push_back(&instruction);
    result.push_back(account.of(i, steps, group == nullptr, group && group->by_rows()));
  }
  return result;
}

template std::vector<Traffic> traffic(const Program<float>&, index, int);
template std::vector<Traffic> traffic(const Program<double>&, index, int);

}  // namespace gv::plan
