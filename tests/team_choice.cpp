// team_choice.cpp — which team a step settles on when its runs take times that are made up, and how long a wrong
// choice lasts. Exit status 0, or the line of what failed.
#include <cstdio>

#include "plan/team.h"

namespace {

int failed = 0;
#define EXPECT(what) ((what) || failed || (failed = std::printf("line %d: %s\n", __LINE__, #what)))

// Runs a step so often; with two workers it takes `two`, with one `one`. Returns how often one worker ran it.
int alone(gv::plan::Team& team, int runs, double two, double one) {
  int count = 0;
  for (int i = 0; i < runs; ++i) {
    const bool single = team.size() == 1;
    count += single;
    team.took(single ? one : two);
  }
  return count;
}

}  // namespace

int main() {
  constexpr int kTrial = 16, kHalf = kTrial / 2;  // runs that compare one worker with two
  gv::plan::Team team;
  team.reset(2, true);
  EXPECT(team.tries() && team.most() == 2);

  // The faster team stays, and comparisons become rare.
  EXPECT(alone(team, kTrial, 1, 2) == kHalf);
  for (const int steady : {200, 400, 800, 1600, 3200, 6400, 6400}) {
    EXPECT(alone(team, steady, 1, 2) == 0);
    EXPECT(alone(team, kTrial, 1, 2) == kHalf);
  }

  // Somebody takes a processor just when they are compared: one worker is chosen, but not for long.
  EXPECT(alone(team, 6400, 1, 2) == 0);
  EXPECT(alone(team, kTrial, 5, 2) == kHalf);
  EXPECT(alone(team, 200, 1, 2) == 200);
  EXPECT(alone(team, kTrial, 1, 2) == kHalf);
  EXPECT(alone(team, 200, 1, 2) == 0);

  // Without comparing it is always all of them.
  team.reset(2, false);
  EXPECT(!team.tries() && team.size() == 2 && team.settled() == 2);
  EXPECT(alone(team, 1000, 5, 1) == 0);
  return failed != 0;
}
