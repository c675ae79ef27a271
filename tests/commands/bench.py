"""A bench for commands: a real store, reports as intake writes them, a person, and a hospital that believes what it is told."""

import itertools
from pathlib import Path
from typing import Any

from labbridge import pipeline
from labbridge.batch import context_of, write_outcome
from labbridge.commands import COMMANDS, CommandError, Done, Request
from labbridge.model import Decision, Report, decode
from labbridge.pipeline import AnalyzerRules, Moment, Revision
from labbridge.states import States
from labbridge.store import Reader, Store, Transaction, verify
from labbridge.store.rows import Delivery
from tests.small_lab import NOW, ZONE, analyzer, moment, report, revision

CALLED = {"told": "Dr. Li", "read_back": True}
Told = tuple[str, str, str, str]  # test, value, OBX-11, the note behind it


class Bench:
    """One laboratory's store without its daemon; every step takes a second."""

    def __init__(self, folder: Path, rules: AnalyzerRules | None = None, compiled: Revision | None = None) -> None:
        self.rules = rules or analyzer()
        self.revision = compiled or revision(self.rules)
        self.seconds, self.messages, self.commands = 0.0, 0, 0
        self.numbers = itertools.count(1)
        self.store = Store(f"sqlite:///{folder}/lab.db", clock=lambda: NOW + self.seconds)
        self.store.open()
        self.store.wait_ready(60)
        self.reader = Reader(f"sqlite:///{folder}/lab.db")
        self.now: dict[tuple[str, str], tuple[str, str]] = {}  # at the hospital, by specimen and test: value and time

    def close(self) -> None:
        self.reader.close()
        assert self.store.close()

    def moment(self) -> Moment:
        """Now; no two control ids are alike."""
        return Moment.of(NOW + self.seconds, ZONE, lambda size: next(self.numbers).to_bytes(size, "big"))

    # -- what comes

    def comes(self, *results: Any, specimen: str = "S1", **more: Any) -> int:
        """A message with one report; its number."""
        self.seconds += 1
        self.messages += 1
        said = report(*results, specimen=specimen, **more)
        digest = str(self.messages).encode().ljust(32)

        def job(tx: Transaction) -> int:
            now = self.moment()
            key = pipeline.key_of(said, self.rules, now)
            context = context_of(tx, {key} - {""})
            outcome = pipeline.decide(said, key, b"", digest, context, self.rules, self.revision, now)
            message = tx.message(direction="in", analyzer="a-1", kind="stored", body=digest)
            number = tx.revision(self.revision.digest, self.revision.body)
            write_outcome(tx, outcome, message, "a-1", digest, number)
            return int(tx.reports_of(said.specimen.id)[-1].report_id)

        return self.store.call(job)

    # -- what a person does

    def does(self, command: str, specimen: str = "", /, actor: str = "tech", **fields: Any) -> Done:
        """One command that must be carried out."""
        self.seconds += 1
        request = Request(command, specimen=specimen, **{"reason": "because", **fields})
        done = self.store.call(lambda tx: COMMANDS[command](tx, self.revision, self.moment(), request, actor))
        self.commands += 1
        return done

    def refuses(self, command: str, specimen: str = "", /, **fields: Any) -> str:
        """One command that cannot be carried out: why."""
        try:
            said = self.does(command, specimen, **fields).said
        except CommandError as error:
            return str(error)
        raise AssertionError(said)

    def moves(self, to: str, *reports: int, specimen: str = "", **fields: Any) -> Done:
        """Two persons correct a specimen id."""
        proposal = self.does("correct-id", specimen, reports=list(reports), to=to, **fields).answer["proposal"]
        return self.does("confirm-id", actor="super", proposal=proposal)

    # -- the hospital

    def waiting(self) -> dict[tuple[str, str], list[Delivery]]:
        """The lanes with what waits in them."""
        lanes: dict[tuple[str, str], list[Delivery]] = {}
        for row in self.store.call(lambda tx: tx.waiting_deliveries()):
            lanes.setdefault((row.destination, row.lane), []).append(row)
        return lanes

    def delivers(self, answer: str = "AA", lane: str = "") -> list[list[Told]]:
        """The hospital takes (or refuses) the head of each lane, again and again while it takes them."""
        told = []
        while heads := [rows[0] for (_, name), rows in self.waiting().items() if lane in ("", name) and rows[0].state == "queued"]:
            for head in heads:
                told.append(self.takes(head.id, answer))
            if answer != "AA":
                break
        return told

    def takes(self, number: int, answer: str = "AA") -> list[Told]:
        """The hospital's answer to one delivery."""
        self.seconds += 1

        def job(tx: Transaction) -> bytes:
            row = tx.find_delivery(number)
            assert row is not None
            tx.attempt(delivery_id=number, outcome=f"{'accepted' if answer == 'AA' else 'refused'} {answer}")
            tx.set_delivery_state(number, "delivered" if answer == "AA" else "refused")
            return row.payload

        payload = self.store.call(job)
        if answer != "AA":
            return []
        specimen, told = "", []
        lines = [line.split("|") for line in payload.decode().split("\r")]
        for line, after in zip(lines, [*lines[1:], [""]], strict=True):
            if line[0] == "OBR":
                specimen = line[3]
            elif line[0] == "OBX":
                one = line[3].split("^")[0], line[5], line[11], after[3] if after[0] == "NTE" else ""
                told.append(one)
                self.believes(specimen, one, line[14])
        return told

    def believes(self, specimen: str, one: Told, time: str) -> None:
        """What the hospital makes of one OBX."""
        test, value, status, _ = one
        before = self.now.get((specimen, test))
        if status == "W":
            assert before is not None, f"{test} of {specimen} was withdrawn and is not there"
            del self.now[specimen, test]
            return
        if before is not None and time < before[1]:
            assert before not in self.released(specimen).get(test, []), f"{test} {value} of {specimen} overwrites a newer one"
        self.now[specimen, test] = ("X" if status == "X" else value), time

    # -- the truth

    def released(self, specimen: str) -> dict[str, list[tuple[str, str]]]:
        """What stands as released of a specimen, by test: value and time, the last measured last."""
        found: dict[str, list[tuple[str, str]]] = {}
        for row in self.store.call(lambda tx: tx.history([specimen])[specimen]):
            for one in pipeline.standing(decode(document, Decision) for document in row.decisions):
                if one.verdict.action == "release":
                    time = "" if one.measured_at is None else moment(one.measured_at - NOW).stamp
                    found.setdefault(one.test, []).append(("X" if one.status == "X" else one.value, time))
        return {test: sorted(values, key=lambda each: each[1]) for test, values in found.items()}

    def states(self) -> list[str]:
        return [row.state for row in self.rows("report")]

    def report(self, number: int) -> Report:
        return decode(self.store.call(lambda tx: tx.reports([number]))[0].document, Report)

    def standing(self, number: int) -> dict[str, tuple[str, str]]:
        """What stands of a report, by test: action and value."""
        [row] = self.store.call(lambda tx: tx.reports([number]))
        now = pipeline.standing(decode(document, Decision) for document in row.decisions)
        return {one.test or one.code: (one.verdict.action, one.value) for one in now}

    def rows(self, table: str) -> list[Any]:
        with self.reader.snapshot() as snapshot:
            return list(snapshot.exec_driver_sql(f"SELECT * FROM {table} ORDER BY id"))

    def proven(self) -> None:
        """`labbridge verify` has nothing to say."""
        assert verify(self.reader, states=States()).problems == []
