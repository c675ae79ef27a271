"""What the end-to-end tests share: a hospital that can be told what to say, and a laboratory with its own hands."""

import contextlib
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from labbridge.cli import app
from tests.support import END, START, AstmClient, Hospital, Laboratory, MllpClient, field, oru, wait_until

WBC = ("6690-2^WBC^LN", "5.50", "10*9/L")
RBC = ("789-8^RBC^LN", "4.50", "10*12/L")
UNKNOWN = ("99999^NEW^99MRC", "1", "g")

_numbers = itertools.count(70_000_001)

Plan = Callable[[bytes, int], str | bytes | None]  # a message, and how often it came before


def fresh() -> str:
    """A specimen id that no other test has."""
    return str(next(_numbers))


def why(decided: dict[str, Any]) -> list[dict[str, Any]]:
    """The reasons of a verdict as --json prints it."""
    reasons: list[dict[str, Any]] = decided["verdict"].get("reasons", [])
    return reasons


def taken(client: MllpClient, message: bytes) -> None:
    """Awaits the answer to a message that was sent: it is accepted, at the latest when it was sent again, as AE demands."""
    while (code := field(client.answer(), b"MSA", 1)) == "AE":
        client.raw(START + message + END)
    assert code == "AA"


def specimen_of(message: bytes) -> str:
    """The specimen that a delivered message is about."""
    return field(message, b"OBR", 3)


def observations(message: bytes) -> dict[str, list[str]]:
    """The fields of each OBX of a delivered message, by the hospital's code."""
    found = {}
    for line in message.decode().split("\r"):
        if line.startswith("OBX|"):
            fields = line.split("|")
            found[fields[3].split("^")[0]] = fields
    return found


class Ward(Hospital):
    """A hospital that accepts, but where a test has a plan for a specimen."""

    def __init__(self, port: int) -> None:
        super().__init__(port, self._decide)
        self.plans: dict[str, Plan] = {}
        self._seen: Counter[str] = Counter()
        self._guard = threading.Lock()

    def _decide(self, message: bytes) -> str | bytes | None:
        specimen = specimen_of(message)
        with self._guard:
            before = self._seen[specimen]
            self._seen[specimen] += 1
        plan = self.plans.get(specimen)
        return plan(message, before) if plan else "AA"

    def of(self, specimen: str) -> list[tuple[str, bytes]]:
        """What came for a specimen, in order: control id and message."""
        return [(control_id, message) for control_id, message in self.got() if specimen_of(message) == specimen]

    def wait(self, specimen: str, count: int = 1, seconds: float = 10) -> list[tuple[str, bytes]]:
        """Waits until so many messages came for a specimen."""
        wait_until(lambda: len(self.of(specimen)) >= count, seconds, f"{count} messages for {specimen} at the hospital")
        return self.of(specimen)


MORE_ANALYZERS = """
[[analyzer]]
name = "plain-hl7"
profile = "generic-hl7"
listen = "127.0.0.1:{spare1}"
qc_ids = ["^99[0-9]{4}$"]

[[analyzer]]
name = "plain-astm"
profile = "generic-astm"
listen = "127.0.0.1:{spare2}"
specimen_pattern = "^[0-9]{8}$"
"""


class Lab(Laboratory):
    """A laboratory with its hospital, whose commands run in this process."""

    def __init__(self, folder: Path, *, extra: str = "", **options: Any) -> None:
        super().__init__(folder, extra=MORE_ANALYZERS + extra, **options)
        self.plain_hl7, self.plain_astm = self.ports["spare1"], self.ports["spare2"]
        self.ward = Ward(self.his)

    def cli(self, *arguments: str) -> tuple[int, str]:
        """One labbridge command; its exit status, and what it said on both outputs."""
        result = CliRunner().invoke(app, [*arguments, "-c", str(self.config)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    def well(self, *arguments: str) -> str:
        """One labbridge command that must succeed."""
        status, said = self.cli(*arguments)
        assert status == 0, said
        return said

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """What a command prints with --json."""
        return [json.loads(line) for line in self.well(*arguments, "--json").splitlines()]

    def held(self, specimen: str) -> list[dict[str, Any]]:
        """The held reports of a specimen, as `pending` lists them."""
        return [row for row in self.rows("pending", "--limit", "1000") if row.get("specimen") == specimen]

    def reasons(self, specimen: str) -> set[str]:
        """Why anything of this specimen is held."""
        rows = self.held(specimen)
        return {reason["code"] for row in rows for reason in [*row["reasons"], *itertools.chain(*map(why, row["results"]))]}

    def messages(self, kind: str) -> list[dict[str, Any]]:
        """The messages of a kind that wait for a person."""
        return [row for row in self.rows("pending", "--limit", "1000") if row.get("kind") == kind]

    def story(self, specimen: str, what: str) -> list[dict[str, Any]]:
        """The events of one sort that `trace` tells of a specimen."""
        return [row for row in self.rows("trace", specimen) if row["what"] == what]

    def queue(self, specimen: str = "") -> list[dict[str, Any]]:
        """What waits for the hospital."""
        return [row for row in self.rows("queue", "list", "--limit", "100000") if specimen in ("", row["specimen"])]

    @contextlib.contextmanager
    def hl7_client(self, port: int = 0) -> Iterator[MllpClient]:
        """A connection of the HL7 analyzer, or of another."""
        with contextlib.closing(MllpClient(port or self.hl7)) as client:
            yield client

    @contextlib.contextmanager
    def astm_client(self, port: int = 0) -> Iterator[AstmClient]:
        """A connection of the ASTM analyzer, or of another."""
        with contextlib.closing(AstmClient(port or self.astm)) as client:
            yield client

    def tell(self, specimen: str, *results: tuple[str, str, str], stamp: str = "20261121101500") -> None:
        """Sends one HL7 message and sees it accepted."""
        with self.hl7_client() as client:
            assert b"\rMSA|AA|" in client.send(oru(specimen, 1, list(results) or [WBC], stamp))

    def end(self) -> None:
        """Ends both for certain."""
        self.ward.stop()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def laboratory(folder: Path, *, started: bool = True, hospital: bool = True, **options: Any) -> Iterator[Lab]:
    """A laboratory of a test's own."""
    lab = Lab(folder, **options)
    try:
        if hospital:
            lab.ward.start()
        if started:
            lab.start()
        yield lab
    finally:
        lab.end()
