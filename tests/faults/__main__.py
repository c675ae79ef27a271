"""``python -m tests.faults --fault all --seconds 60 --connections 20``: prints a table; exit status 1 when a promise broke.

``--fault each`` (what ``make faults`` runs) is every fault alone, and then all of them mixed for five times as long.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from labbridge.simulators.faults import FAULTS
from tests.faults.harness import ALL, Load, faults, laboratory
from tests.faults.model import COUNTERS, Score

HEAD = ("fault", "befell", "acknowledged", "taken", *COUNTERS, "slowest")


def row(name: str, score: Score) -> str:
    """A line of the table."""
    cells = (name, sum(score.drawn.values()), score.acknowledged, score.taken, *score.counts.values(), f"{score.slowest:.2f} s")
    return "".join(
        f"{cell!s:>{max(len(head), 7) + 2}}" if index else f"{cell!s:14}"
        for index, (cell, head) in enumerate(zip(cells, HEAD, strict=True))
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fault", default="each", choices=[*FAULTS, ALL, "each"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pace", type=float, default=1.0, help="by what the times of the analyzers' faults are multiplied")
    options = parser.parse_args()
    problems = 0
    print("".join(f"{head:>{max(len(head), 7) + 2}}" if index else f"{head:14}" for index, head in enumerate(HEAD)))
    for name in [*FAULTS, ALL] if options.fault == "each" else [options.fault]:
        seconds = options.seconds * (5 if options.fault == "each" and name == ALL else 1)
        with tempfile.TemporaryDirectory() as folder:
            lab = laboratory(Path(folder))
            try:
                score = faults(lab, name, Load(seconds, options.connections, options.seed, pace=options.pace))
            finally:
                lab.stop()
        print(row(name, score), flush=True)
        for problem in score.problems[:10]:
            print("   ", problem)
        problems += len(score.problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
