"""`make fuzz`: every target under atheris, one after the other; ends with 1 when one of them found a fault.

    python -m tests.fuzz [TARGET…]         SECONDS_EACH for each; without it ten minutes in all
    python -m tests.fuzz TARGET FILE…      these inputs once more, with the traceback

What was found lies in run/fuzz, and how to repeat it is printed. Of the captures that LABBRIDGE_CORPUS names nothing
stays: the fuzzer works on a copy in a folder that is removed, but a finding may show pieces of one.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.targets import ROOT, TARGETS

FOUND = ROOT / "run" / "fuzz"
SECONDS_EACH = float(os.environ.get("SECONDS_EACH") or 580 / len(TARGETS))
SECONDS_ONE, MEGABYTES = 10, 2048  # one input may take so long, and so much
WORDS = 400  # of the seeds, that the fuzzer puts in


def main(arguments: list[str]) -> int:
    """The exit status."""
    names = [name for name in arguments if name in TARGETS]
    files = [Path(name) for name in arguments if name not in TARGETS]
    if files:
        return repeat(names[0], files)
    found = [name for name in names or TARGETS if not fuzz(name)]
    print(f"{len(names or TARGETS) - len(found)} passed, {len(found)} failed")
    return 1 if found else 0


def repeat(name: str, files: list[Path]) -> int:
    """These inputs once more; a fault shows itself."""
    for file in files:
        print(f"{name} {file}: {file.stat().st_size} bytes", flush=True)
        TARGETS[name].run(file.read_bytes())
    return 0


def fuzz(name: str) -> bool:
    """One target for its time; whether it found nothing."""
    before = set(findings(name))
    FOUND.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work, seeds = Path(folder, "work"), Path(folder, "seeds")
        work.mkdir()
        seeds.mkdir()
        for number, seed in enumerate(TARGETS[name].seeds()):
            (seeds / f"{number:04d}").write_bytes(seed[: TARGETS[name].longest])
        Path(folder, "words").write_text(dictionary(seeds))
        began = time.monotonic()
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.engine", name, str(work), str(seeds)),
                *(f"-max_total_time={SECONDS_EACH:.0f}", f"-max_len={TARGETS[name].longest}", f"-timeout={SECONDS_ONE}"),
                *(
                    f"-dict={folder}/words",
                    f"-rss_limit_mb={MEGABYTES}",
                    f"-artifact_prefix={FOUND}/{name}-",
                    "-print_final_stats=1",
                    "-verbosity=1",
                ),
            ],
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        seconds = time.monotonic() - began
        kept = len(list(work.iterdir()))
    told = ran.stderr.decode(errors="replace") + ran.stdout.decode(errors="replace")
    runs = re.findall(r"number_of_executed_units:\s*(\d+)|^#(\d+)\s", told, re.MULTILINE)
    reached = re.findall(r"cov: (\d+) ft: (\d+)", told)[-1:] or [("?", "?")]
    count = max((int(a or b) for a, b in runs), default=0)
    well = ran.returncode == 0
    print(
        f"{name:12} {count:>9,} runs in {seconds:4.0f} s, {reached[0][0]} edges, {reached[0][1]} features, "
        f"{kept} inputs kept: {'nothing found' if well else 'FOUND'}",
        flush=True,
    )
    if not well:
        new = sorted(set(findings(name)) - before)
        print(fault(told))
        if not new:
            print(told[-1500:])
        for file in new:
            print(f"  repeat with: {sys.executable} -m tests.fuzz {name} {file}\n  {file.read_bytes()[:400]!r}")
    return well


def dictionary(seeds: Path) -> str:
    """The words of the seeds, the most common first, as libFuzzer wants them."""
    words = Counter(word for seed in seeds.iterdir() for word in re.findall(rb"[A-Za-z][A-Za-z0-9_^-]{1,19}", seed.read_bytes()))
    return "".join(f'"{word.decode()}"\n' for word, _ in words.most_common(WORDS))


def findings(name: str) -> list[Path]:
    """The inputs that were found."""
    return sorted(FOUND.glob(f"{name}-*"))


def fault(told: str) -> str:
    """What the fuzzer says went wrong."""
    start = max(told.find("=== Uncaught Python exception"), 0) or max(told.find("ERROR: libFuzzer"), 0)
    return told[start : start + 3000]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
