"""Turns: the caller's thread stands aside while jobs run, never for long, and every job is answered once all the same."""

import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge.store import Store, Transaction
from labbridge.store.turns import Turns
from tests.support import PATIENCE

from .support import open_ready, received


class Caller:
    """A thread like a reactor's: makes the calls that are carried to it, and works on otherwise."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self.rounds = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.ended.is_set():
            self.rounds += 1
            try:
                self.calls.get(timeout=0.0005)()
            except queue.Empty:
                continue

    def worked(self) -> bool:
        """Whether the thread gets on."""
        before, until = self.rounds, time.monotonic() + 5 * PATIENCE
        while self.rounds < before + 2 and time.monotonic() < until:
            time.sleep(0.001)
        return self.rounds >= before + 2


@contextmanager
def in_turns(url: str) -> Iterator[tuple[Store, Caller]]:
    """A store and the thread that gives its turns to it."""
    caller = Caller()
    store = Store(url, wake=caller.calls.put, in_turns=True)
    caller.thread.start()
    open_ready(store)
    yield store, caller
    assert store.close()
    caller.ended.set()
    caller.thread.join(5 * PATIENCE)


def test_the_caller_stands_aside_while_a_job_runs(store_url: str) -> None:
    """What the caller's thread does, it does before a job or after it."""
    with in_turns(store_url) as (store, caller):

        def job(tx: Transaction) -> int:
            before = caller.rounds
            for _ in range(10):
                received(tx)
            time.sleep(0.005)
            return caller.rounds - before

        moved = [store.call(job) for _ in range(20)]
        assert moved.count(0) >= 15  # a machine that stops the job for so long that the caller goes on is allowed for
        assert caller.worked()


def test_a_long_job_does_not_stop_the_caller(store_url: str) -> None:
    """A job that waits, as for a server on the network, has the caller go on meanwhile."""
    with in_turns(store_url) as (store, caller):
        assert store.call(lambda tx: caller.worked())
        assert store.call(received)


def test_the_caller_goes_on_while_the_disk_is_waited_for() -> None:
    """A turn ends when the jobs have run, not when they are durable."""
    changed, calls = threading.Condition(), list[Callable[[], None]]()
    turns = Turns(changed, calls.append)
    with changed:
        turns.ask()
        turns.ask()
        assert not turns.may_run
    assert len(calls) == 1
    caller = threading.Thread(target=calls.pop())
    caller.start()
    with changed:
        assert changed.wait_for(lambda: turns.may_run, 5 * PATIENCE)
    turns.over()
    caller.join(5 * PATIENCE)
    assert not caller.is_alive()
    with changed:
        turns.ask()
    assert calls == []  # what waits now runs when the group before it is answered
    turns.done(lambda: True)
    assert len(calls) == 1


@settings(max_examples=25, deadline=None)
@given(
    jobs=st.lists(
        st.tuples(st.booleans(), st.booleans(), st.sampled_from([0, 0, 0, 3]), st.sampled_from([0.0, 0.0, 0.005, 0.05])),
        min_size=1,
        max_size=30,
    )
)
def test_every_job_is_answered_once(jobs: list[tuple[bool, bool, int, float]]) -> None:
    """From the caller's thread or another, well or not, now or a little later, in a hurry or not: each job has one answer."""
    answers: list[tuple[int, bool]] = []
    with tempfile.TemporaryDirectory() as folder, in_turns(f"sqlite:///{Path(folder) / 'lab.db'}") as (store, caller):
        for number, (own, well, pause, patience) in enumerate(jobs):

            def job(tx: Transaction, well: bool = well) -> None:
                received(tx)
                if not well:
                    raise ValueError("no")

            def submit(number: int = number, job: Callable[[Transaction], None] = job, patience: float = patience) -> None:
                store.submit(job, lambda _: answers.append((number, True)), lambda _: answers.append((number, False)), patience)

            caller.calls.put(submit) if own else submit()
            time.sleep(pause / 1000)
        until = time.monotonic() + 10 * PATIENCE
        while len(answers) < len(jobs) and time.monotonic() < until:
            time.sleep(0.002)
        assert sorted(answers) == [(number, well) for number, (_, well, _, _) in enumerate(jobs)]
