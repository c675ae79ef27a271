"""``python -m tests.torture --rounds 100 --seed 1``: prints the score; exit status 1 when a promise broke.

``python -m tests.torture power --images 3000 --seed 1``: the same of power cuts.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from tests.torture import command
from tests.torture.harness import torture


def main() -> int:
    if sys.argv[1:2] == ["power"]:
        return command.main(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        score = torture(Path(folder), options.rounds, options.seed)
    print(
        f"seed {options.seed}: {score.kills} kills, {len(score.acknowledged)} messages acknowledged, "
        f"{len(score.problems)} problems; listening again after {statistics.median(score.seconds_to_listen):.2f} s (median)"
    )
    for problem in score.problems[:20]:
        print(problem)
    return 1 if score.problems else 0


if __name__ == "__main__":
    sys.exit(main())
