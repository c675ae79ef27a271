"""Whatever persons do, in whatever order: the hospital ends with what stands, and the store proves itself.

Every value is given once, so that it can be told whose it is. At each delivery the hospital checks that what is withdrawn is
there and that nothing overwrites what was measured later (``Bench.believes``).
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge.commands import CommandError
from labbridge.commands.identity import withdraw_late
from tests.commands.bench import CALLED, Bench
from tests.small_lab import analyzer, result, revision

MEMORY = "/dev/shm"  # a commit there waits for no disk
SPECIMENS, TESTS = ("S1", "S2", "S3"), ("K", "GLU", "NA", "ABO", "NEW")


class Dice:
    """Chooses the steps of a shift; hypothesis gives the seed and would else choose mostly what is refused."""

    def __init__(self, seed: int) -> None:
        self.of = random.Random(seed)

    def steps(self, count: int) -> Iterator[tuple[Any, ...]]:
        for _ in range(3):
            yield self.comes()
            yield "delivers", ""
        for _ in range(count):
            yield getattr(self, self.of.choices(list(WEIGHTS), list(WEIGHTS.values()))[0])()

    def specimen(self) -> str:
        return self.of.choice(SPECIMENS)

    def some(self) -> list[str]:
        return self.of.sample(TESTS, self.of.choice((0, 0, 1, 2)))

    def comes(self) -> tuple[Any, ...]:
        return (
            "comes",
            self.specimen(),
            self.of.sample(TESTS, self.of.randint(1, 3)),
            self.of.randint(1, 40),
            self.of.random() < 0.2,
        )

    def hospital(self) -> tuple[Any, ...]:
        what = self.of.choices(("delivers", "refuses", "flies", "lands", "retry"), (6, 1, 2, 2, 1))[0]
        if what == "delivers" and self.of.random() < 0.5:
            return "delivers", ""
        return what, *{"lands": (self.of.random() < 0.7,), "retry": ()}.get(what, (self.specimen(),))

    def settles(self) -> tuple[Any, ...]:
        what = self.of.choice(("release", "release", "reject", "not-reportable", "recollect"))
        return what, self.specimen(), self.some(), self.of.random() < 0.3

    def edit(self) -> tuple[Any, ...]:
        return "edit", self.specimen(), self.of.choice(TESTS), self.of.choice((None, self.of.randint(1, 6)))

    def notes(self) -> tuple[Any, ...]:
        return self.of.choice(("comment", "call-back", "acknowledge", "viewed")), self.specimen()

    def moves(self) -> tuple[Any, ...]:
        return "moves", {self.of.randint(1, 6): self.specimen() for _ in range(self.of.randint(1, 2))}

    def again(self) -> tuple[Any, ...]:
        return "send-again", self.of.randint(1, 8)


WEIGHTS = {"comes": 3, "hospital": 6, "settles": 4, "edit": 2, "notes": 1, "moves": 4, "again": 1}


class Shift:
    """A shift at the bench."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.given = 0
        self.whose: dict[str, str] = {}  # the specimen of every value
        self.flying: dict[int, str] = {}

    def value(self, test: str, critical: bool = False) -> str:
        """A value that nobody else has."""
        self.given += 1
        if test == "NA":
            return str(1000 + self.given)
        return f"{(7 if critical else 3) + self.given / 100:.2f}" if test == "K" else f"{10 + self.given / 100:.2f}"

    def does(self, command: str, specimen: str = "", **fields: Any) -> bool:
        """One command, or its refusal; what is done is in the audit trail."""
        before = len(self.bench.rows("audit"))
        try:
            done = self.bench.does(command, specimen, **fields)
        except CommandError:
            assert len(self.bench.rows("audit")) == before
            return False
        assert done.said
        preview = fields.get("preview", False)
        assert (len(self.bench.rows("audit")) > before) is not preview
        return True

    # -- steps

    def comes(self, specimen: str, codes: list[str], at: int, critical: bool) -> None:
        results = [result(code, self.value(code, critical), at=-100.0 * at - self.given, unit=_unit(code)) for code in codes]
        if len(self.bench.rows("report")) < 12:
            self.bench.comes(*results, specimen=specimen)

    def delivers(self, lane: str) -> None:
        for name in (lane,) if lane else SPECIMENS:
            if name not in self.flying.values():
                self.bench.delivers("AA", name)

    def refuses(self, lane: str) -> None:
        if lane not in self.flying.values():
            self.bench.delivers("AE", lane)

    def flies(self, lane: str) -> None:
        rows = self.bench.waiting().get(("his", lane))
        if rows and rows[0].state == "queued" and not rows[0].due and lane not in self.flying.values():
            self.flying[rows[0].id] = lane

    def lands(self, accepted: bool) -> None:
        """The answer to what flew; meanwhile it may have been cancelled."""
        for number in self.flying:
            cancelled = self.bench.rows("delivery")[number - 1].state != "queued"
            if accepted:
                self.bench.takes(number)
                now = self.bench.moment()
                self.bench.store.call(lambda tx: withdraw_late(tx, self.bench.revision, now, number))  # noqa: B023 (run at once)
            elif not cancelled:
                self.bench.takes(number, "AE")
        self.flying.clear()

    def settles(self, command: str, specimen: str, codes: list[str], flag: bool) -> None:
        if flag:
            self.does(command, specimen, tests=codes, preview=True, **CALLED)
        self.does(command, specimen, tests=codes, everything=flag and command != "release", **CALLED)

    def edit(self, specimen: str, test: str, number: int | None) -> None:
        if test == "NEW":
            test = "TSH"
        value = "A" if test == "ABO" else self.value(test)
        self.does("edit", specimen, tests=[test], value=value, reports=[number] if number else [], **CALLED)

    def notes(self, command: str, specimen: str) -> None:
        self.does(command, specimen, note="seen", tests=["K"] if command == "call-back" else [], **CALLED)

    def moves(self, pairs: dict[int, str]) -> None:
        there = [row.id for row in self.bench.rows("report") if row.state != "rejected"]
        pairs = {there[number % len(there)]: to for number, to in pairs.items()} if there else pairs
        text = "[" + ", ".join(f'{{"report": {number}, "to": "{to}"}}' for number, to in pairs.items()) + "]"
        self.does("correct-id", text=text, preview=True)
        if self.does("correct-id", text=text):
            number = max(one.id for one in self.bench.reader.proposals())
            assert not self.does("confirm-id", proposal=number)
            assert self.does("confirm-id", proposal=number, actor="super")

    def retry(self) -> None:
        if any(row.state == "refused" for rows in self.bench.waiting().values() for row in rows):
            self.does("retry", everything=True)

    def step(self, what: str, *arguments: Any) -> None:
        steps: dict[str, Callable[..., None]] = {
            **dict.fromkeys(("release", "reject", "not-reportable", "recollect"), lambda *more: self.settles(what, *more)),
            **dict.fromkeys(("comment", "call-back", "acknowledge", "viewed"), lambda *more: self.notes(what, *more)),
            **{name: getattr(self, name) for name in ("comes", "delivers", "refuses", "flies", "lands", "edit", "moves", "retry")},
            "send-again": lambda number: self.does("send-again", deliveries=[number]),
        }
        steps[what](*arguments)

    # -- the end of the shift

    def over(self) -> None:
        """All is delivered: the hospital has what stands, under the right id alone."""
        self.lands(True)
        for _ in range(40):
            self.bench.delivers()
            if not self.bench.waiting():
                break
            self.retry()
        assert not self.bench.waiting()
        stands = {(name, test): values[-1][0] for name in SPECIMENS for test, values in self.bench.released(name).items()}
        assert {key: value for key, (value, _) in self.bench.now.items()} == stands
        values = [value for value in stands.values() if value not in ("X", "A")]
        assert len(set(values)) == len(values), "one value under two ids"
        assert len({row.control_id for row in self.bench.rows("delivery")}) == len(self.bench.rows("delivery"))
        self.bench.proven()


def _unit(code: str) -> str:
    return "" if code == "ABO" else "mmol/L"


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "repeats are held": ({}, {}),
    "the last measured counts": ({"repeat": "latest-measured", "hold": "panel"}, {}),
    "every message repeats all": ({"repeat": "latest-measured"}, {"resend": "cumulative"}),
    "parts wait": ({"hold": "result"}, {"wait": 1800.0}),
}


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(2, 20))
def test_the_hospital_ends_with_what_stands(variant: str, seed: int, count: int) -> None:
    """Nothing lost, nothing under two ids, withdrawn exactly what was there, the newer never overwritten, all audited."""
    of_rules, of_revision = VARIANTS[variant]
    rules = analyzer(**of_rules)
    with TemporaryDirectory(dir=MEMORY if Path(MEMORY).is_dir() else None) as folder:
        bench = Bench(Path(folder), rules, revision(rules, **of_revision))
        try:
            shift = Shift(bench)
            for what, *arguments in Dice(seed).steps(count):
                shift.step(what, *arguments)
            shift.over()
        finally:
            bench.close()
