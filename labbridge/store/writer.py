"""The one writer: a thread that runs whatever jobs are waiting in one transaction, commits, and only then answers.

While one transaction commits, jobs wait; the next transaction takes them all, so under load the cost of an fsync is
shared and without load nothing waits for a timer. When a job of a group fails, the group is rolled back and every job
runs again alone: one that fails, fails alone.

    opening ──▶ ready ◀──▶ unavailable     (PostgreSQL: the connection is lost, and made again in the background)
       │          └──────▶ closed
       ├──▶ locked                         (another process writes to this store)
       └──▶ unusable                       (a newer version made this store, or it is none)
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from itertools import chain, count, repeat
from typing import Any, Literal, TypeVar

import msgspec
from sqlalchemy import Engine

from .engine import StoreError, StoreLocked, StoreUnavailable, display, explain, is_sqlite, parse, write_log_again, writing
from .ledger import START, Link, last_link
from .lock import open_file, take_advisory, take_file
from .migrations import migrate
from .schema import FACTS
from .transaction import Transaction
from .turns import Turns

R = TypeVar("R")
StateName = Literal["opening", "ready", "unavailable", "locked", "unusable", "closed"]
Outcome = tuple[Callable[[Any], None], Any]  # who is told, and what

GROUP_JOBS = 512
GROUP_BYTES = 8 * 1024 * 1024
GROUP_SECONDS = 0.05  # of running jobs, before the group is committed

_LOCK_GRACE = 5.0  # the lock of a process that was killed lives until PostgreSQL notices
_PAUSE_SECONDS = 1.0
_RETRY_SECONDS = (0.0, 1.0, 2.0, 5.0)

_LOST: dict[StateName, type[StoreError]] = {"locked": StoreLocked, "unusable": StoreError}

_NEVER = float("inf")
_NEXT_ID = "SELECT coalesce(max(id), 0) + 1 FROM {}"

_log = logging.getLogger(__name__)


class StoreState(msgspec.Struct, frozen=True):
    """Whether jobs can be committed now, and if not, why."""

    name: StateName
    why: str = ""


class _Job(msgspec.Struct):
    run: Callable[[Transaction], Any]
    done: Callable[[Any], None]
    failed: Callable[[Exception], None]
    alone: bool = False  # it was in a group that failed


class _Session:
    """One connection that writes: locked, migrated, with what the one writer knows without asking."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._sqlite = engine.dialect.name == "sqlite"
        self._connection = engine.connect()
        try:
            if not self._sqlite:
                take_advisory(self._connection, name)
            migrate(self._connection)
            numbered = (*(fact.name for fact in FACTS), "spool", "account", "proposal")
            self._ids = {name: count(self._first(_NEXT_ID.format(name))[0]) for name in numbered}
            self.link = last_link(self._first)
            self._connection.rollback()
        except BaseException:
            self.close()
            raise
        self._raw = self._connection.connection
        self._cursor = self._raw.cursor()
        self._used = time.monotonic()

    def _first(self, statement: str) -> Any:
        return self._connection.exec_driver_sql(statement).first()

    def alive(self) -> bool:
        """Whether the connection still works; asked after a pause, in which a server may have been restarted."""
        if time.monotonic() - self._used > _PAUSE_SECONDS:
            try:
                self._cursor.execute("SELECT 1")
                self._raw.rollback()
            except Exception:
                return False
        return True

    def begin(self, at: int) -> Transaction:
        """Begin a transaction with the right to write."""
        if self._sqlite:  # the other driver begins by itself
            self._cursor.execute("BEGIN IMMEDIATE")
        return Transaction(self._cursor, self._sqlite, self._ids, self.link, at)

    def commit(self, link: Link) -> None:
        """Make what a transaction wrote durable; only then does the ledger's end move, to ``link``."""
        self._raw.commit()
        self.link = link
        self._used = time.monotonic()

    def roll_back(self) -> bool:
        """Undo what was begun; tells whether the connection is of further use."""
        try:
            self._raw.rollback()
        except Exception:
            return False
        return True

    def close(self) -> None:
        """Close the connection; on SQLite this also empties the write-ahead log."""
        self._connection.invalidate()
        self._connection.close()


class Store:
    """The store, for writing: one per process, one process per store.

    ``wake`` carries the answers to the caller's thread (a reactor's ``callFromThread``); ``on_state`` is told of every
    change in the same way. With ``in_turns`` the caller's thread stands aside while jobs run (see ``turns``). Raises
    StoreError when the URL is malformed or of a database that is not supported.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float] = time.time,
        wake: Callable[[Callable[[], None]], None] = lambda call: call(),
        on_state: Callable[[StoreState], None] = lambda state: None,
        in_turns: bool = False,
    ) -> None:
        self._url = parse(url)
        self.name = display(self._url)
        self._engine = writing(self._url)
        self._clock = clock
        self._wake = wake
        self._on_state = on_state
        self._lock = -1  # the lock's open file
        self._session: _Session | None = None
        self._changed = threading.Condition()  # guards what follows
        self._state = StoreState("opening", f"the store {self.name} is not open yet")
        self._waiting: deque[_Job] = deque()
        self._due = _NEVER  # when the first of them wants to run
        self._turns = Turns(self._changed, wake if in_turns else None)
        self._closing = False
        self._was_ready = False
        self._head = START
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)

    @property
    def state(self) -> StoreState:
        """Whether jobs can be committed now."""
        return self._state

    @property
    def head(self) -> Link:
        """The end of the ledger as it was last committed; before the store was ever open, its beginning."""
        return self._head

    def open(self) -> None:
        """Open the store, making or migrating it as needed, and start to write.

        SQLite: ready when this returns; raises StoreLocked, naming the process that has it, or StoreError. PostgreSQL:
        the connection is made in the background, again and again; see ``wait_ready`` and ``on_state``.
        """
        if is_sqlite(self._url):
            self._lock = take_file(self.name)
            try:
                os.close(open_file(self.name))
                self._connect()
            except BaseException:
                os.close(self._lock)
                raise
        self._thread.start()

    def wait_ready(self, timeout: float) -> None:
        """Wait until jobs can be committed; raises StoreError at once when that will never be.

        Raises StoreUnavailable after ``timeout`` seconds.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._state.name in ("ready", "closed", *_LOST), timeout)
            if self._state.name != "ready":
                raise self._refusal()

    def submit(
        self, job: Callable[[Transaction], R], done: Callable[[R], None], failed: Callable[[Exception], None], patience: float = 0.0
    ) -> None:
        """Have a job run in the writer's next transaction, from any thread.

        ``done`` gets what the job returned once it is durable; ``failed`` gets the job's own exception, or StoreError
        (StoreUnavailable when the same job may succeed later). Exactly one of them is called, through ``wake``. A job with
        ``patience`` waits so many seconds for a transaction that is made for another's sake.
        """
        with self._changed:
            if self._state.name == "ready" and not self._closing:
                self._waiting.append(_Job(job, done, failed))
                self._due = min(self._due, time.monotonic() + patience)
                if patience:
                    self._changed.notify_all()  # the writer looks at the time
                else:
                    self._turns.ask()
                return
        self._settle([(failed, self._refusal())])

    def call(self, job: Callable[[Transaction], R], timeout: float = 30) -> R:
        """Run a job and wait for it; raises what ``failed`` would get. Not for the thread that ``wake`` carries to."""
        answer: Future[R] = Future()
        self.submit(job, answer.set_result, answer.set_exception)
        if not wait([answer], timeout).done:
            raise StoreUnavailable(f"the store {self.name} has not answered within {timeout} s")
        return answer.result()

    def close(self, timeout: float = 10) -> bool:
        """Finish what is waiting, close, release the lock; tells whether that was done within ``timeout`` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _answered(self, outcomes: list[Outcome]) -> None:
        try:
            _answer(outcomes)
        finally:
            self._turns.done(lambda: self._waiting and self._due <= time.monotonic())

    # From here on: the writer's thread

    def _work(self) -> None:
        try:
            while session := self._session or self._reconnect():
                self._wait()
                if not self._waiting:
                    break
                if session.alive():
                    self._wake(partial(self._answered, self._commit(session)))
                else:  # what waits is refused only if the connection cannot be made again at once
                    self._drop(session)
        except Exception:
            _log.exception("the store's writer stopped")
        finally:
            self._end()

    def _wait(self) -> None:
        """Wait until a job wants to run and may, or the store is closing."""
        with self._changed:
            while not self._closing:
                left = self._due - time.monotonic() if self._waiting else _NEVER
                if left <= 0:
                    if self._turns.may_run:
                        break
                    self._turns.ask()
                self._changed.wait(left if 0 < left < _NEVER else None)

    def _commit(self, session: _Session) -> list[Outcome]:
        """Run waiting jobs in one transaction until it is full; gives what is to be told."""
        group: list[_Job] = []
        results: list[Any] = []
        try:
            transaction = session.begin(int(self._clock() * 1_000_000))
            until = time.monotonic() + GROUP_SECONDS
            while self._waiting:
                group.append(self._waiting.popleft())
                results.append(group[-1].run(transaction))
                full = len(group) >= GROUP_JOBS or transaction.size >= GROUP_BYTES or time.monotonic() > until
                if full or group[-1].alone:
                    break
            link = transaction.finish()
            with self._changed:
                self._due = self._due if self._waiting else _NEVER
                self._turns.over()
            session.commit(link)
            self._head = link
        except Exception as error:
            return self._failed(session, group, explain(error, self._url))
        return [(job.done, result) for job, result in zip(group, results, strict=True)]

    def _failed(self, session: _Session, group: list[_Job], error: Exception) -> list[Outcome]:
        """Roll back, or give up the connection when even that fails."""
        with self._changed:
            self._due = 0.0  # for those that are still waiting, or wait again
            self._turns.over()
        if not session.roll_back():
            self._drop(session)
            if not isinstance(error, StoreUnavailable):
                error = StoreUnavailable(f"the store {self.name}: the connection is lost")
            self._set_state("unavailable", str(error))
        elif len(group) > 1:
            for job in reversed(group):
                job.alone = True
                self._waiting.appendleft(job)
            return []
        elif not group:  # not the jobs' fault: let none of them wait
            group = [self._waiting.popleft() for _ in range(len(self._waiting))]
        return [(job.failed, error) for job in group]

    def _settle(self, outcomes: list[Outcome]) -> None:
        if outcomes:
            self._wake(partial(_answer, outcomes))

    def _connect(self) -> _Session:
        """Connect, lock, migrate and remember; raises StoreError."""
        try:
            if is_sqlite(self._url):
                write_log_again(self.name)
            session = self._session = _Session(self._engine, self.name)
        except Exception as error:
            raise explain(error, self._url) from None
        self._was_ready, self._head = True, session.link
        self._set_state("ready")
        return session

    def _reconnect(self) -> _Session | None:
        """Connect, again and again; None when the store is closing, or can never be had."""
        retries = chain(_RETRY_SECONDS, repeat(_RETRY_SECONDS[-1]))
        give_up = time.monotonic() + _LOCK_GRACE
        while not self._closing_within(next(retries)):
            try:
                return self._connect()
            except StoreError as error:
                locked = isinstance(error, StoreLocked)
                passing = isinstance(error, StoreUnavailable) or (locked and time.monotonic() < give_up)
                if not passing and not self._was_ready:
                    self._set_state("locked" if locked else "unusable", str(error))
                    return None
                self._set_state("unavailable", str(error))
        return None

    def _closing_within(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._closing, seconds)

    def _drop(self, session: _Session) -> None:
        session.close()
        self._session = None

    def _end(self) -> None:
        if self._session:
            self._drop(self._session)
        if self._lock >= 0:
            os.close(self._lock)
        if self._state.name not in _LOST:
            self._set_state("closed", f"the store {self.name} is closed")

    def _set_state(self, name: StateName, why: str = "") -> None:
        """Change the state; when jobs cannot be committed, those that wait are told so."""
        with self._changed:
            before, self._state = self._state, StoreState(name, why)
            refused: list[Outcome] = []
            if name != "ready":
                refused = [(job.failed, self._refusal()) for job in self._waiting]
                self._waiting.clear()
            self._changed.notify_all()
        self._settle(refused)
        if self._state != before:
            self._wake(partial(self._on_state, self._state))

    def _refusal(self) -> StoreError:
        kind = _LOST.get(self._state.name, StoreUnavailable)
        return kind(self._state.why or f"the store {self.name} is closing")


def _answer(outcomes: list[Outcome]) -> None:
    """Give every answer; one that goes wrong does not keep the others back."""
    for answer, value in outcomes:
        try:
            answer(value)
        except Exception:
            _log.exception("what waited for the store went wrong")
