"""How a step chooses its team: times that a test can make up, in team_choice.cpp."""

from __future__ import annotations

from pathlib import Path

from own_program import compiled, runs


def test_a_team_is_chosen_by_its_times(tmp_path: Path) -> None:
    runs(compiled(tmp_path, "team_choice"))
