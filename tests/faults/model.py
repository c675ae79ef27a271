"""What faulty analyzers were told and what a faulty hospital took, held against each other.

Every (specimen, version) has three values that no other has at the same time, so that a result that stands under
another specimen shows; and a patient of its own.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from labbridge.simulators.hospital import NOT_TAKEN
from tests.support import astm, oru
from tests.support import field as field_of

VERSIONS = 3
ABREAST = 4  # specimens that one analyzer has in hand: messages that leave together are never of the same one
COUNTERS = ("lost", "doubled", "misfiled", "inversions", "missed")
SPOILED = "王小".encode("gbk")

Key = tuple[str, int]
HL7_CODES = {"WBC": ("6690-2^WBC^LN", "10*9/L"), "RBC": ("789-8^RBC^LN", "10*12/L"), "PLT": ("777-3^PLT^LN", "10*9/L")}
ASTM_UNITS = {"WBC": "10*3/uL", "RBC": "10*6/uL", "PLT": "10*3/uL"}


@dataclass
class Score:
    """The counters of acceptance, each 0 when the promises held, and what they say."""

    acknowledged: int = 0
    taken: int = 0
    slowest: float = 0.0  # answer to an analyzer, seconds
    drawn: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))
    problems: list[str] = field(default_factory=list)

    def against(self, counter: str, what: str) -> None:
        """Counts one finding."""
        self.counts[counter] += 1
        self.problems.append(f"{counter}: {what}")


class Model:
    """Knows every message that was made, acknowledged and taken."""

    def __init__(self, seed: int, first: int) -> None:
        self.dice = random.Random(seed)
        self.first = first  # of the specimens: no two runs on one store share any
        self.values: dict[Key, dict[str, str]] = {}
        self.acknowledged: list[Key] = []
        self.spoiled: set[str] = set()  # specimens of which a name could not be read: a person must look
        self.taken: list[tuple[str, bytes]] = []  # MSH-10 and message, in order

    def source(self, analyzer: int, protocol: str) -> Iterator[bytes]:
        """The messages of one analyzer: some specimens abreast, three versions each, measured later and later."""
        number = 0
        while True:
            specimens = [f"{self.first + analyzer:06d}{number + index:06d}" for index in range(ABREAST)]
            number += ABREAST
            for version in range(1, VERSIONS + 1):
                for specimen in specimens:
                    yield self._message(protocol, specimen, version)

    def _message(self, protocol: str, specimen: str, version: int) -> bytes:
        draw = self.dice.randrange
        values = {
            "WBC": f"{(400 + 3 * draw(150) + version) / 100:.2f}",
            "RBC": f"{(430 + 3 * draw(25) + version) / 100:.2f}",
            "PLT": f"{150 + 3 * draw(60) + version}",
        }
        self.values[specimen, version] = values
        stamp = f"2026112110{version:02d}00"
        if protocol == "hl7":
            number = f"{specimen}{version}"
            message = oru(
                specimen, int(number), [(*HL7_CODES[test][:1], value, HL7_CODES[test][1]) for test, value in values.items()], stamp
            )
            return message.replace(b"|P1^^^^MR|", f"|P{specimen}^^^^MR|".encode())
        records = astm(specimen, [(test, value, ASTM_UNITS[test]) for test, value in values.items()], stamp)
        text = "".join(f"{record}\r" for record in records)
        return text.replace("|P1|", f"|P{specimen}|").encode()

    def heard(self, message: bytes, fate: str) -> None:
        """An analyzer was told that its message is stored."""
        key = self.key_of(message)
        self.acknowledged.append(key)
        if SPOILED in message:
            self.spoiled.add(key[0])

    def key_of(self, message: bytes) -> Key:
        """Which of the messages that were made this one is."""
        version = re.search(rb"2026112110(\d\d)00", message)
        specimen = re.search(rb"\bP(\d{12})\b", message)
        assert version
        assert specimen
        return specimen[1].decode(), int(version[1])

    def took(self, message: bytes, fate: str) -> None:
        """The hospital has got a message."""
        if fate not in NOT_TAKEN:
            self.taken.append((field_of(message, b"MSH", 9), message))

    # -- the judgement ---------------------------------------------------------------------------------------------

    def judge(self, score: Score, journal: Callable[[Key], str]) -> None:
        """Counts everything against the promises; ``journal`` tells the state of the report on a key, if there is one."""
        score.acknowledged, score.taken = len(self.acknowledged), len(self.taken)
        contents: dict[str, bytes] = {}
        ids: dict[tuple[Key, str], set[str]] = defaultdict(set)
        order: dict[tuple[str, str], list[int]] = defaultdict(list)
        for control_id, message in self.taken:
            if contents.setdefault(control_id, message) != message:
                score.against("doubled", f"{control_id} came with two contents")
            for specimen, test, version in self._results(message, score):
                seen = ids[(specimen, version), test]
                if control_id not in seen:
                    order[specimen, test].append(version)
                seen.add(control_id)
        for (key, test), numbers in ids.items():
            if len(numbers) > 1:
                score.against("doubled", f"{test} of {key} came as {sorted(numbers)}")
        for (specimen, test), versions in order.items():
            if versions != sorted(versions):
                score.against("inversions", f"{test} of {specimen} came as versions {versions}")
        for key in sorted(set(self.acknowledged)):
            state = journal(key)
            missing = [test for test in self.values[key] if not ids.get((key, test))]
            if not state:
                score.against("lost", f"{key} was acknowledged, and is not in the journal")
            elif missing and not (key[0] in self.spoiled and state == "held"):
                score.against("lost", f"{key} was acknowledged, is {state}, and the hospital never got {missing}")

    def _results(self, message: bytes, score: Score) -> Iterator[tuple[str, str, int]]:
        """Specimen, test and version of each result of a message that the hospital took."""
        rows = [line.split("|") for line in message.decode("utf-8", "replace").split("\r")]
        specimens = {row[3] for row in rows if row[0] == "OBR"}
        results = {row[3].split("^")[0]: row[5] for row in rows if row[0] == "OBX"}
        patient = field_of(message, b"PID", 3).split("^")[0]
        specimen = min(specimens, default="")
        fits = [
            version
            for version in range(1, VERSIONS + 1)
            if results and results.items() <= self.values.get((specimen, version), {}).items()
        ]
        if len(specimens) != 1 or patient != f"P{specimen}" or not fits:
            score.against("misfiled", f"{results} under specimen {sorted(specimens)}, patient {patient}")
            return
        for test in results:
            yield specimen, test, fits[0]
