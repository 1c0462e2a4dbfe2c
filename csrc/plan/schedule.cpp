// schedule.cpp — from a list of steps to instructions in phases. Steps that share panels are
// grouped; a new phase (a barrier) begins where an instruction touches what another one of the
// phase has written, or writes what another one touches; a tensor's memory is free again in the
// phase after its last use. Everything here is linear in the number of accesses.
#include <algorithm>

#include "program.h"

namespace gv::plan {
namespace {

// Takes out steps of the backward part whose results nobody reads: recomputation lowers whole segments.
template <class T> void drop_unread(Program<T>& program) {
  std::vector<char> read(program.tensors.size(), 0);
  const auto first = program.items.begin() + std::ptrdiff_t(program.backward);
  for (auto item = program.items.end(); item != first;) {
    --item;
    const Accesses* step = item->panel.get();
    if (!step) step = item->whole.get();
    bool wanted = false;
    for (const Access& a : step->accesses()) {
      const auto id = std::size_t(a.slot->id);
      wanted |= a.writes && (read[id] || program.tensors[id].place != Place::arena);
    }
    if (!wanted) *item = {};
    else
      for (const Access& a : step->accesses())
        if (!a.writes) read[std::size_t(a.slot->id)] = 1;
  }
  program.items.erase(
      std::remove_if(first, program.items.end(), [](const auto& item) { return !item.panel && !item.whole; }),
      program.items.end());
}

// Items to instructions: consecutive panel steps join the open group where they can; what is
// deferrable waits until the group closes.
template <class T> void group(Program<T>& program, bool fuse) {
  std::unique_ptr<PanelGroup<T>> open;
  std::vector<std::unique_ptr<Instruction<T>>> waiting;
  const auto close = [&] {
    if (open) program.instructions.push_back(std::move(open));
    for (auto& w : waiting) program.instructions.push_back(std::move(w));
    waiting.clear();
  };
  for (std::size_t i = 0; i < program.items.size(); ++i) {
    if (i == program.backward) {
      close();
      program.loss = program.instructions.size();
    }
    auto& item = program.items[i];
    if (item.panel && program.by_rows && item.panel->all_rows && item.panel->deferrable()) {
      waiting.push_back(std::make_unique<PanelGroup<T>>(std::move(item.panel), false));
    } else if (item.panel) {
      if (!open || !fuse || !open->takes(*item.panel)) {
        close();
        open = std::make_unique<PanelGroup<T>>(std::move(item.panel), program.by_rows);
      } else {
        open->append(std::move(item.panel));
      }
    } else if (open && fuse && item.whole->deferrable()) {
      waiting.push_back(std::move(item.whole));
    } else {
      close();
      program.instructions.push_back(std::move(item.whole));
    }
  }
  close();
  if (program.backward >= program.items.size()) program.loss = program.instructions.size();
  program.items.clear();
}

template <class T> void assign_phases(Program<T>& program) {
  std::vector<int> written(program.tensors.size(), -1), touched(program.tensors.size(), -1);
  int phase = 0;
  program.phases.clear();
  for (std::size_t i = 0; i < program.instructions.size(); ++i) {
    const auto& accesses = program.instructions[i]->accesses();
    bool conflict = i == program.loss && i > 0;  // the loss is looked at between forward and backward
    for (const Access& a : accesses) {
      const auto id = std::size_t(a.slot->id);
      conflict |= written[id] == phase || (a.writes && touched[id] == phase);
    }
    if (conflict) ++phase;
    program.phases.push_back(phase);
    for (const Access& a : accesses) {
      const auto id = std::size_t(a.slot->id);
      touched[id] = phase;
      if (a.writes) written[id] = phase;
      Tensor& t = program.tensors[id];
      t.first_phase = std::min(t.first_phase, phase);
      t.last_phase = std::max(t.last_phase, phase);
    }
  }
}

// Lets a panel step's output take the memory of an input that nobody needs afterwards, if all else
// that touches that memory in the same phase is local to the same group.
template <class T> void merge_overwrites(Program<T>& program) {
  auto& tensors = program.tensors;
  std::vector<std::size_t> last_use(tensors.size(), 0);  // number of the last step that touches it
  std::size_t number = 0;
  const auto each_step = [&](auto&& visit) {
    number = 0;
    for (std::size_t i = 0; i < program.instructions.size(); ++i)
      if (const auto* g = dynamic_cast<const PanelGroup<T>*>(program.instructions[i].get()))
        for (const auto& s : g->steps()) visit(++number, i, *s, s.get(), g->by_rows());
      else visit(++number, i, *program.instructions[i], static_cast<PanelStep<T>*>(nullptr), false);
  };
  each_step([&](std::size_t n, std::size_t, const Accesses& step, PanelStep<T>*, bool) {
    for (const Access& a : step.accesses()) last_use[std::size_t(a.slot->id)] = n;
  });
  struct Use {
    std::size_t instruction;
    int phase_before;
    bool local;
  };  // of the memory of a root
  std::vector<Use> uses(tensors.size(), Use{std::size_t(-1), -1, true});
  each_step([&](std::size_t n, std::size_t i, const Accesses& step, PanelStep<T>* panel, bool by_rows) {
    for (const Access& a : step.accesses()) {
      Use& u = uses[std::size_t(tensors[std::size_t(a.slot->id)].storage)];
      if (u.instruction != i)
        u = {i, u.instruction == std::size_t(-1) ? -1 : program.phases[u.instruction], true};
      u.local &= a.local(by_rows);
    }
    if (!panel) return;
    const auto [out, inputs] = panel->overwrites();
    if (out < 0 || tensors[std::size_t(out)].place != Place::arena) return;
    Tensor& to = tensors[std::size_t(out)];
    for (const TensorId in : inputs) {
      if (in < 0 || to.storage != out) continue;
      const Tensor& from = tensors[std::size_t(in)];
      const Use& u = uses[std::size_t(from.storage)];
      const bool same_size = to.per_sample == from.per_sample && to.fixed == from.fixed &&
                             to.element_bytes == from.element_bytes;
      const bool done_with = last_use[std::size_t(in)] == n && u.local && u.phase_before < program.phases[i];
      if (from.place != Place::arena || !same_size || !done_with) continue;
      Tensor& root = tensors[std::size_t(from.storage)];
      root.last_phase = std::max(root.last_phase, to.last_phase);
      to.storage = from.storage;
    }
  });
}

}  // namespace

template <class T> void schedule(Program<T>& program, bool fuse) {
  drop_unread(program);
  group(program, fuse);
  assign_phases(program);
  merge_overwrites(program);
}

template void schedule(Program<float>&, bool);
template void schedule(Program<double>&, bool);

}  // namespace gv::plan
