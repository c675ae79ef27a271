"""Retention at work: when it steps, how long it rests, what it does when the store is away."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from labbridge import keeping
from labbridge.keeping import AFRESH_S, PAUSE_S, REST_S, Keeper
from labbridge.store import Link, StoreUnavailable, Transaction
from labbridge.store.retention import Step

DAY = 86_400.0


class Writer:
    """A store that runs a job when it is told to."""

    head = Link(0, b"")

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[Any], Any], Callable[[Any], None], Callable[[Exception], None]]] = []

    def submit(self, job: Callable[[Any], Any], done: Callable[[Any], None], failed: Callable[[Exception], None]) -> None:
        self.jobs.append((job, done, failed))

    def run(self, error: Exception | None = None) -> None:
        [(job, done, failed)] = self.jobs
        self.jobs.clear()
        failed(error) if error else done(job(None))


class World:
    """A keeper, its steps as a test says, and the time."""

    def __init__(self, keep: float | None) -> None:
        self.clock, self.writer = Clock(), Writer()
        self.asked: list[tuple[int, int, int]] = []
        self.steps: list[Step] = []
        writer: Any = self.writer
        self.keeper = Keeper(writer, keep, self.clock, lambda: 1000 * DAY + self.clock.seconds())
        self.keeper.start()

    def step(self, tx: Transaction, after: int, cutoff: int, since: int) -> Step:
        self.asked.append((after, cutoff, since))
        return self.steps.pop(0)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    one = World(730 * DAY)
    monkeypatch.setattr(keeping, "step", one.step)
    return one


def test_it_steps_rests_and_goes_on_where_it_was(world: World) -> None:
    world.steps = [Step(40, 200), Step(40, 0, done=True), Step(41, 5, done=True)]
    world.writer.run()
    assert not world.writer.jobs
    world.clock.advance(PAUSE_S)
    world.writer.run()
    world.clock.advance(REST_S - 1)
    assert not world.writer.jobs
    world.clock.advance(1)
    world.writer.run()
    begin = int(270 * DAY * 1e6)
    assert [(after, cutoff // 10**8, since) for after, cutoff, since in world.asked] == [
        (0, begin // 10**8, 0),
        (40, begin // 10**8, 0),
        (40, (begin + int(REST_S * 1e6)) // 10**8, 0),
    ]


def test_once_a_day_it_begins_afresh(world: World) -> None:
    """What waited when it became old may be settled by now."""
    world.steps = [Step(40, done=True), Step(40, done=True)]
    world.writer.run()
    world.clock.advance(AFRESH_S + 1)
    world.writer.run()
    assert [after for after, *_ in world.asked] == [0, 0]


def test_it_goes_on_when_the_store_is_back(world: World) -> None:
    world.steps = [Step(7)]
    world.writer.run(StoreUnavailable("away"))
    world.clock.advance(REST_S)
    world.writer.run()
    assert len(world.asked) == 1


def test_it_ends_with_the_daemon_and_keeps_everything_by_default(world: World) -> None:
    world.steps = [Step(7)]
    world.writer.run()
    world.keeper.stopping = True
    world.clock.advance(REST_S)
    assert not world.writer.jobs
    assert not World(None).writer.jobs
