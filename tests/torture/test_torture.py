"""Kill -9 at random moments under load: promises 1, 2 and 3 hold. ``make torture`` runs a hundred rounds."""

from pathlib import Path

import pytest

from tests.torture.harness import FEW, torture


def _holds(folder: Path, rounds: int, url: str = "sqlite:///lab.db") -> None:
    score = torture(folder, rounds, seed=1, url=url, say=lambda _: None)
    assert score.problems == []
    assert score.kills == rounds
    assert len(score.acknowledged) > FEW * rounds, "there was a load"


def test_ten_rounds_of_kill_9_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    _holds(tmp_path, 10)


@pytest.mark.postgresql
def test_rounds_of_kill_9_on_postgresql_lose_nothing_and_double_nothing(tmp_path: Path, postgresql_url: str) -> None:
    _holds(tmp_path, 4, postgresql_url)
