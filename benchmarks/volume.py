"""Cost against what is stored: a store with so many messages beside one with next to none, in pairs.

    volume.py [--messages 10000 100000 1000000] [--pairs 6] [--each 10000] [--folder DIR]

The large store is filled by fill.py (W1; some 12 KB a message). In turn, on the empty and on the large store: a daemon is
started, and with the hospital down `--each` messages come in (``intake``); while they wait and twenty specimens are held,
``trace``, ``pending`` and ``queue`` (list) are asked for beside the daemon; then the hospital comes back (``drain``). Prints a JSON
line for each store and turn: ``stored``, ``fill_s``, and for intake and drain the CPU per message (``_cpu_us``) and
messages per second; for the questions the milliseconds of the reading itself (``_ms``, the median of many, of trace for
specimens at random) and of the whole command as a person waits for it (``_command_ms``). At last the largest store is proven
(``verify``): how many facts it has, and the seconds for a million of them.
"""

import argparse
import contextlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bed import Bed, Child, Row, arrived, connected, drained, ended, parser, refusals, run, said
from fill import FIRST, TEMPLATES, fill
from workloads import w1

from labbridge.store import Reader

HELD, ASKED, COMMANDS = 20, 100, 5
LONGEST_S, BACK_S = 3600.0, 60.0


def measure(args: argparse.Namespace) -> Iterator[Row]:
    """A line for each store, volume and turn."""
    with tempfile.TemporaryDirectory(prefix="labbridge-bench-", dir=args.folder) as name, contextlib.ExitStack() as stack:
        empty, large = (Bed(Path(name) / kind, stack) for kind in ("empty", "large"))
        seed(empty)
        seeded = Path(name) / "seeded.db"
        shutil.copy(empty.store, seeded)
        shutil.copy(seeded, large.store)
        stored, number = 0, 1000
        for messages in sorted(args.messages):
            began = time.monotonic()
            fill(large.store, stored, messages)
            stored, took = messages, time.monotonic() - began
            for _ in range(args.pairs):
                shutil.copy(seeded, empty.store)  # what the last turn brought is no part of an empty store
                for place, count in ((empty, 0), (large, messages)):
                    row = {"what": "volume", "beside": messages, "stored": count}
                    yield row | {"mb": size_mb(place), "fill_s": round(took, 1)} | turn(place, count, number, args.each)
                number += args.each
        yield verified(large)


def verified(place: Bed) -> Row:
    """How long it takes to prove that all of a store is as it was written."""
    began = time.monotonic()
    said = json.loads(command(place, "verify", "--json", well=False))
    seconds, facts = time.monotonic() - began, said["facts"]
    row = {"what": "verify", "facts": facts, "seconds": round(seconds, 1), "million_s": round(seconds / facts * 1e6, 1)}
    return row | {"problems": [f"verify: {problem}" for problem in said["problems"]]}


def seed(place: Bed) -> None:
    """Ten messages that are delivered, and then twenty that are held."""
    sink, daemon = place.hospital(), place.daemon()
    with connected(place.ports["w1"]) as sock:
        done = [said(sock, w1(number)) for number in range(TEMPLATES)]
        drained(sink, TEMPLATES)
        done += [said(sock, w1(100 + number).replace(b"|SMP", b"|NOREAD")) for number in range(HELD)]
    problems = arrived(sink, TEMPLATES) + ended(daemon)
    sink.stop()
    if problems or not all(done):
        raise SystemExit(f"the first messages did not come through: {problems}")


def turn(place: Bed, stored: int, number: int, each: int) -> Row:
    """Intake, questions and drain on one store."""
    began = time.monotonic()
    daemon = place.daemon()
    started, cpu = time.monotonic() - began, daemon.cpu_s()
    sent = place.load("w1", 64, LONGEST_S, number, "--messages", str(each))
    row = {"start_s": round(started, 2), **cost("intake", daemon, cpu, sent["messages"], sent["ended"] - sent["began"])}
    row |= {"intake_p99_ms": sent["p99_ms"]} | questions(place, stored, number)
    sink, cpu = place.hospital(), daemon.cpu_s()
    counts = drained(sink, sent["messages"], BACK_S)
    row |= cost("drain", daemon, cpu, counts["messages"], counts["last"] - counts["first"])
    row["memory_mb"] = daemon.memory_mb()
    row["problems"] = refusals(sent) + arrived(sink, sent["messages"]) + ended(daemon)
    sink.stop()
    return row


def cost(what: str, daemon: Child, cpu_before: float, messages: int, seconds: float) -> Row:
    """What so many messages took."""
    cpu = (daemon.cpu_s() - cpu_before) / max(messages, 1)
    return {f"{what}_cpu_us": round(cpu * 1e6, 1), f"{what}_per_second": round(messages / max(seconds, 1e-9), 1)}


def questions(place: Bed, stored: int, turn: int) -> Row:
    """What it takes to ask; in every turn for other specimens, so that none was read before."""
    chance = random.Random(turn)
    numbers = [FIRST + chance.randrange(stored) if stored else n % TEMPLATES for n in range(ASKED)]
    specimens = [f"SMP{number:010}" for number in numbers]
    with contextlib.closing(Reader(f"sqlite:///{place.store}")) as reader:
        row = {"trace_ms": timed([lambda one=one: reader.trace(one).attempts for one in specimens])}
        row |= {"pending_ms": timed([lambda: reader.pending(100)] * ASKED), "queue_ms": timed([reader.queued] * (ASKED // 10))}
    asked = {
        "trace": [("trace", one) for one in specimens],
        "pending": [("pending",)] * ASKED,
        "queue": [("queue", "list")] * ASKED,
    }
    for name, words in asked.items():
        row[f"{name}_command_ms"] = timed([partial(command, place, *some) for some in words[:COMMANDS]])
    return row


def timed(calls: list[Callable[[], object]]) -> float:
    """The median of the calls, each of which must find something, in milliseconds."""
    times = []
    for call in calls:
        began = time.perf_counter()
        found = call()
        times.append((time.perf_counter() - began) * 1e3)
        if not found:
            raise SystemExit("a question was answered with nothing")
    return round(statistics.median(times), 3)


def command(place: Bed, *words: str, well: bool = True) -> bytes:
    """What a command prints; ``well`` is that it must succeed."""
    program = Path(sys.executable).with_name("labbridge")
    return subprocess.run((program, *words, "-c", place.config), check=well, capture_output=True).stdout


def size_mb(place: Bed) -> int:
    """The size of the store's file."""
    return round(place.store.stat().st_size / 1e6)


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--messages", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options.add_argument("--pairs", type=int, default=6)
    options.add_argument("--each", type=int, default=10_000, help="messages of a turn")
    sys.exit(run(measure, options.parse_args()))
