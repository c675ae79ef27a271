"""A laboratory's day: what its analyzers send, and when. Invented specimens, always the same ones.

A PCR laboratory with 3,000 samples on four GeneXpert links (ASTM), a line that measures 200 tests on each of 1,000
specimens and sends them as its modules finish, 20 at a time (HL7), two blood counters with 800 specimens each (W1, HL7).
Blood and serum come in the morning, swabs until the evening; nights are quiet but not empty. One PCR run in fifty fails
and one blood tube in forty has no readable barcode: these wait for a person, everything else is released.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from workloads import END, RESULTS, START, frame, w1

SPECIMENS = {"pcr": 3000, "line": 1000, "count-1": 800, "count-2": 800}
PCR_LINKS, TESTS, MODULE = 4, 200, 20
LINKS = [*(("pcr", 0) for _ in range(PCR_LINKS)), ("line", 1), ("count-1", 2), ("count-2", 3)]  # name, analyzer
FAILED, UNREAD = 50, 40  # one in so many
MAPPINGS = Path(__file__).parent.parent / "mappings"
# Arrivals in each hour of the day, in thousandths.
MORNING = (8, 6, 6, 6, 8, 16, 50, 110, 150, 140, 110, 85, 60, 50, 45, 40, 30, 20, 14, 12, 10, 8, 8, 8)
SWABS = (10, 8, 8, 8, 8, 10, 20, 40, 60, 80, 90, 90, 80, 80, 85, 85, 75, 55, 35, 25, 18, 12, 10, 8)
TARGETS = (("SARSCOV2", "SARS-CoV-2"), ("FLUA", "Flu A"), ("FLUB", "Flu B"), ("RSV", "RSV"))


class Due(NamedTuple):
    """A message, the seconds after the beginning when it is due, the place of its link in ``LINKS``."""

    at_s: float
    link: int
    content: bytes | list[bytes]  # a block, or frames
    results: int  # that reach the hospital; none where a person must look first


class Sent(NamedTuple):
    """A message before it is written: the second of the day, what, the number of the specimen, which module."""

    second: float
    name: str
    number: int
    module: int = 0


def options(parser: argparse.ArgumentParser) -> None:
    """What may be chosen of a day."""
    parser.add_argument("--speed", type=float, default=60.0, help="times as fast as the day was")
    parser.add_argument("--hours", type=float, nargs=2, default=[0.0, 24.0], help="of the day, from and to")
    parser.add_argument("--part", type=float, default=1.0, help="share of the specimens")


def day(speed: float, begin: float, end: float, part: float) -> Iterator[Due]:
    """The messages of these hours of the day, in order."""
    for sent in sorted(one for one in schedule(part) if begin * 3600 <= one.second < end * 3600):
        yield written(sent, (sent.second - begin * 3600) / speed)


def schedule(part: float) -> Iterator[Sent]:
    """Everything that is sent in a day, in any order."""
    chance = Random(4)  # always the same day
    for name, count in SPECIMENS.items():
        hours = chance.choices(range(24), SWABS if name == "pcr" else MORNING, k=int(count * part))
        for number, hour in enumerate(hours):
            second = (hour + chance.random()) * 3600
            modules = TESTS // MODULE if name == "line" else 1
            for module in range(modules):
                yield Sent(second, name, number, module)
                second = min(second + chance.uniform(30, 120), 86399.9)


def written(sent: Sent, at_s: float) -> Due:
    """A message as it is sent."""
    if sent.name == "pcr":
        failed = sent.number % FAILED == FAILED - 1
        return Due(at_s, sent.number % PCR_LINKS, pcr(sent.number, failed), 0 if failed else len(TARGETS))
    link = LINKS.index((sent.name, list(SPECIMENS).index(sent.name)))
    if sent.name == "line":
        return Due(at_s, link, line(sent.number, sent.module), MODULE)
    unread = sent.number % UNREAD == UNREAD - 1
    message = w1(sent.number + 1000 * link)
    return Due(at_s, link, message.replace(b"|SMP", b"|NOREAD") if unread else message, 0 if unread else RESULTS)


def pcr(number: int, failed: bool) -> list[bytes]:
    """The frames of one cartridge: four targets, each with its Ct and end point; all ERROR where the run failed."""
    records = [
        f"H|@^\\|URM-{number:06}||GeneXpert PC^GeneXpert^6.4|||||LIS||P|1394-97|20250107123412",
        f"P|1||||SAMPLE^{number:06}^^^|||||||||||||||||||||",
        f"O|1|PCR{number:010}||^^^COVFLUPLUS|R|20250107111918|||||||||ORH||||||||||F",
    ]
    for place, (target, name) in enumerate(TARGETS):
        positive = not failed and number % 7 == place
        code = f"^COVFLUPLUS^^{target}^Xpert Xpress CoV-2 Flu RSV plus^1^{name}"
        answer = "ERROR" if failed else "POSITIVE" if positive else "NEGATIVE"
        when = "tech7|20250107101918|20250107105359|Cepheid-QA1^806900^630900^1113243001^72200^20270825"
        cycles, end = f"{24.1 if positive else 0:.1f}", f"{number % 90}.0"
        rows = (f"{code}^|{answer}^|||||F||{when}", f"{code}^Ct|^{cycles}|||", f"{code}^EndPt|^{end}|||")
        records += [f"R|{len(records) - 2 + n}|{row}" for n, row in enumerate(rows)]
    records.append("L|1|N")
    return [frame(n, record.encode()) for n, record in enumerate(records, 1)]


def line(number: int, module: int) -> bytes:
    """What one module of the line found, in its MLLP block."""
    segments = [
        f"MSH|^~\\&|LINE|LAB|LIS|CENTRAL|20250107093015||ORU^R01|{number:06}{module:02}|P|2.5",
        f"PID|1||LPAT{number:06}^^^HOSP^MR||SAMPLE^LINE||19800229|M",
        f"OBR|1||LIN{number:010}|{module}^Module|||20250107092940",
    ]
    for place, (test, unit, value) in enumerate(tests()[module * MODULE : (module + 1) * MODULE], 1):
        segments.append(f"OBX|{place}|NM|{test}||{value}|{unit}|||||F|||20250107092940")
    return START + "".join(f"{segment}\r" for segment in segments).encode() + END


def tests() -> list[tuple[str, str, str]]:
    """What the line measures: numeric tests of the catalogue, each with its unit and a value that is as it should be."""
    if not _TESTS:
        usual: dict[str, tuple[str, str]] = {}
        for row in _rows("limits.csv"):
            if row["kind"] == "reference" and row["sex"] != "F":
                usual.setdefault(row["test"], (row["low"], row["high"]))
        for row in _rows("tests.csv"):
            if (row["kind"], row["release"]) == ("number", "auto"):
                low, high = usual.get(row["test"], ("", ""))
                value = (float(low or 0) + float(high or float(low or 1) * 2)) / 2
                _TESTS.append((row["test"], row["unit"], f"{value:.{row['decimals']}f}"))
        del _TESTS[TESTS:]
    return _TESTS


_TESTS: list[tuple[str, str, str]] = []


def mapping() -> str:
    """The line's code map: its codes are the catalogue's."""
    return "code,analyzer_unit,test\n" + "".join(f"{test},{unit},{test}\n" for test, unit, _ in tests())


def _rows(name: str) -> list[dict[str, str]]:
    with (MAPPINGS / name).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))
