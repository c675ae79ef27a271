"""``python -m tests.torture CLASS``: one class of torture; exit status 1 when a promise broke.

    kill disk stall hospital links machine doubt postgres
        --rounds 100 --seed 1       the first so many rounds of this seed
        --round 17                  this round alone, on a laboratory of its own
        --fault NAME                with a mistake planted in the daemon
        --planted                   instead: every mistake that this class must find
    power                           power cuts: see ``power --help``
    all --seed 1                    everything, and docs/evidence/torture.md; an interrupted run goes on
        --share 0.02                a trial of so much of it, which writes no evidence

A chunk of rounds shares a laboratory, and chunks run side by side (``--workers``).
"""

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from tests.torture import command, launcher, suite
from tests.torture.classes import CLASSES, Chunk, chunks, run


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whatever runs is ended
    if arguments[:1] == ["power"]:
        return command.main(arguments[1:])
    if arguments[:1] == ["chunk"]:
        name, seed, numbers, fault = arguments[1:]
        with tempfile.TemporaryDirectory(prefix="torture-") as folder:
            result = run(Chunk(name, int(seed), [*map(int, numbers.split(","))], fault), Path(folder) / "lab")
        print(json.dumps(result))
        return 0
    parser = argparse.ArgumentParser(prog="tests.torture", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=[*CLASSES, "all"])
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--round", type=int)
    parser.add_argument("--fault", default="", choices=["", *launcher.FAULTS, *launcher.MISTAKES])
    parser.add_argument("--planted", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--share", type=float, default=1.0)
    options = parser.parse_args(arguments)
    name, seed = options.name, options.seed
    if name == "all":
        return suite.everything(seed, options.workers, options.share)
    if options.planted:
        wanted = suite.planted(seed, [name])
    elif options.round is not None:
        wanted = [Chunk(name, seed, [options.round], options.fault)]
    else:
        wanted = list(chunks(name, seed, options.rounds or CLASSES[name].rounds, options.fault))
    state = suite.State(None, seed)
    suite.run(wanted, state, options.workers)
    if len(state.done) < len(wanted):
        return 1
    if options.planted:
        return 0 if all(one["problems"] for one in state.done.values()) else 1
    whole = suite.total(state, wanted)
    print(suite.row(f"{name}, seed {seed}", whole))
    return 1 if whole["problems"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
