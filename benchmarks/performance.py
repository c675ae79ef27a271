"""Runs every measurement and writes docs/performance.md with its pictures: `make performance`.

    performance.py [--runs 3] [--only PART ...] [--tiny] [--results FILE] [--docs DIR] [--folder DIR]
    performance.py --page-only [--results FILE] [--docs DIR]

Each part is a program of its own (bench.py, curve.py, drain.py, links.py, volume.py, day.py); their JSON lines are added to
the results file with the number of the run, so that what was broken off goes on with what is missing; with all of it
there everything is measured anew. The page
(page.py) tells the medians of the runs, and every ratio is made within one run first; of volume.py's turns it compares the
best. --tiny runs everything with next to nothing: it proves that the programs work, and nothing else. The exit status is 1 when
a line has problems.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from bed import HERE, Row, machine
from page import write

# The options of each program: as measured, and tiny.
PARTS = {
    "bench": ("--json", "--json --seconds 0.3 --warmup 0.1 --connections 1 64"),
    "curve": ("", "--rates 50 100 --seconds 1 --links 4"),
    "drain": ("", "--deliveries 300"),
    "links": ("", "--links 20 --seconds 1"),
    "volume": ("", "--messages 200 400 --pairs 1 --each 100"),
    "day": ("", "--speed 43200 --part 0.01"),
}
ONCE = ("volume", "day")  # one makes its own runs, the other takes 24 minutes


def measure(part: str, number: int, args: argparse.Namespace) -> int:
    """Runs one part, adds its lines to the results; returns its exit status."""
    options = PARTS[part][args.tiny].split()
    if args.folder:
        options += ["--folder", str(args.folder)]
    command = [sys.executable, str(HERE / f"{part}.py"), *options]
    rows = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                rows.append({"part": part, "run": number} | json.loads(line))
                told(rows[-1])
        except BaseException:
            process.terminate()
            raise
    if process.returncode not in (0, 1) or (process.returncode and not any(row["problems"] for row in rows)):
        raise SystemExit(f"{part}.py ended with status {process.returncode}")
    with args.results.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return process.returncode


def told(row: Row) -> None:
    """One line on standard error for whoever waits."""
    values = ", ".join(f"{name} {value}" for name, value in row.items() if isinstance(value, int | float | str))
    print(f"{time.strftime('%H:%M:%S')} {values}", *row["problems"], sep="\n  *** ", file=sys.stderr, flush=True)


def results(file: Path) -> list[Row]:
    """The lines so far."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def missing(args: argparse.Namespace) -> list[tuple[str, int]]:
    """Which parts of which runs the results have not; those of a run come before the next run's."""
    done = {(row["part"], row["run"]) for row in results(args.results) if "part" in row}
    wanted = [(part, number) for number in range(1, args.runs + 1) for part in args.only if part not in ONCE or number == 1]
    if not args.results.exists():
        args.results.write_text(json.dumps(machine() | {"day": time.strftime("%Y-%m-%d"), "tiny": args.tiny}) + "\n")
    return [one for one in wanted if one not in done]


def anew(args: argparse.Namespace) -> list[tuple[str, int]]:
    """Everything: the results had it all, and are kept under another name."""
    args.results.replace(args.results.with_suffix(".before.jsonl"))
    return missing(args)


def main() -> int:
    """Measures what is missing, writes the page; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--page-only", action="store_true")
    parser.add_argument("--results", type=Path, default=Path("run/performance.jsonl"))
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    parser.add_argument("--folder", type=Path, help="where the databases are made (default: the temporary folder)")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args.results.parent.mkdir(parents=True, exist_ok=True)
    if not args.page_only:
        for part, number in missing(args) or anew(args):
            measure(part, number, args)
    rows = results(args.results)
    write(rows, args.docs)
    return int(any(row.get("problems") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
