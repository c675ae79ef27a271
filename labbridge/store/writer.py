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
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from itertools import chain, repeat
from queue import SimpleQueue
from typing import Any, Literal, TypeVar, cast

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from .engine import StoreError, StoreLocked, StoreUnavailable, create_file, display, explain, is_sqlite, parse, writing
from .lock import FileLock, take_advisory
from .migrations import migrate
from .statements import Statements
from .transaction import Cursor, Memory, Transaction

R = TypeVar("R")
StateName = Literal["opening", "ready", "unavailable", "locked", "unusable", "closed"]
Outcome = tuple["_Job", Callable[[Any], None], Any]

GROUP_JOBS = 512
GROUP_BYTES = 8 * 1024 * 1024
GROUP_SECONDS = 0.05  # of running jobs, before the group is committed

_LOCK_GRACE = 5.0  # the lock of a process that was killed lives until PostgreSQL notices
_PAUSE_SECONDS = 1.0
_RETRY_SECONDS = (0.0, 1.0, 2.0, 5.0)

_LOST: dict[StateName, type[StoreError]] = {"locked": StoreLocked, "unusable": StoreError}

_log = logging.getLogger(__name__)


class StoreState(msgspec.Struct, frozen=True):
    """Whether jobs can be committed now, and if not, why."""

    name: StateName
    why: str = ""


class _Job(msgspec.Struct, frozen=True):
    run: Callable[[Transaction], Any]
    done: Callable[[Any], None]
    failed: Callable[[Exception], None]
    waited_for: bool = False  # by a thread that is blocked in call(): it is answered directly


class _Session:
    """One connection that writes, and what its writer remembers."""

    def __init__(self, connection: Connection, statements: Statements, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._raw = connection.connection
        self._cursor = cast(Cursor, self._raw.cursor())
        self._statements = statements
        self._clock = clock
        # psycopg begins by itself.
        self._begin = "BEGIN IMMEDIATE" if connection.dialect.name == "sqlite" else ""
        self._memory = Memory()
        self._memory.load(self._cursor, statements)
        self._raw.rollback()
        self._used = time.monotonic()

    def alive(self) -> bool:
        """Whether the connection still works; asked after a pause, in which a server may have been restarted."""
        if time.monotonic() - self._used < _PAUSE_SECONDS:
            return True
        driver = self._raw.dbapi_connection
        try:
            return driver is not None and self._connection.dialect.do_ping(driver)
        except self._connection.dialect.loaded_dbapi.Error:
            return False

    def begin(self) -> Transaction:
        """Begin a transaction with the right to write."""
        if self._begin:
            self._cursor.execute(self._begin)
        return Transaction(self._cursor, self._statements, self._memory, int(self._clock() * 1_000_000))

    def commit(self, transaction: Transaction) -> None:
        """Make what the transaction wrote durable; only then does the ledger's end move."""
        link = transaction.finish()
        self._raw.commit()
        self._memory.link = link
        self._used = time.monotonic()

    def roll_back(self) -> bool:
        """Undo what was begun; tells whether the connection is of further use."""
        try:
            self._raw.rollback()
        except self._connection.dialect.loaded_dbapi.Error:
            return False
        return True

    def close(self) -> None:
        """Close the connection; on SQLite this also empties the write-ahead log."""
        self._connection.invalidate()
        self._connection.close()


class Store:
    """The store, for writing: one per process, one process per store.

    ``wake`` carries the answers to the caller's thread (a reactor's ``callFromThread``); ``on_state`` is told of every
    change in the same way. Raises StoreError when the URL is malformed or of a database that is not supported.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float] = time.time,
        wake: Callable[[Callable[[], None]], None] | None = None,
        on_state: Callable[[StoreState], None] | None = None,
    ) -> None:
        self._url = parse(url)
        self.name = display(self._url)
        self._engine = writing(self._url)
        self._statements = Statements(self._engine.dialect)
        self._clock = clock
        self._wake = wake or _directly
        self._on_state = on_state
        self._lock = FileLock(self.name) if is_sqlite(self._url) else None
        self._session: _Session | None = None
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._waiting: deque[_Job] = deque()
        self._closing = threading.Event()
        self._changed = threading.Condition()  # guards the state, and what enters the queue because of it
        self._state = StoreState("opening", f"the store {self.name} is not open yet")
        self._was_ready = False
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)

    @property
    def state(self) -> StoreState:
        """Whether jobs can be committed now."""
        return self._state

    def open(self) -> None:
        """Open the store, making or migrating it as needed, and start to write.

        SQLite: ready when this returns; raises StoreLocked, naming the process that has it, or StoreError. PostgreSQL:
        the connection is made in the background, again and again; see ``wait_ready`` and ``on_state``.
        """
        if self._lock:
            create_file(self._url)
            self._lock.acquire()
            try:
                self._connect()
            except BaseException:
                self._lock.release()
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

    def submit(self, job: Callable[[Transaction], R], done: Callable[[R], None], failed: Callable[[Exception], None]) -> None:
        """Have a job run in the writer's next transaction, from any thread.

        ``done`` gets what the job returned once it is durable; ``failed`` gets the job's own exception, or StoreError
        (StoreUnavailable when the same job may succeed later). Exactly one of them is called, through ``wake``.
        """
        self._submit(_Job(job, done, failed))

    def call(self, job: Callable[[Transaction], R], timeout: float = 30) -> R:
        """Run a job and wait for it; raises what ``failed`` would get. Not for a reactor's thread."""
        answer: Future[R] = Future()
        self._submit(_Job(job, answer.set_result, answer.set_exception, waited_for=True))
        try:
            return answer.result(timeout)
        except TimeoutError:
            if answer.done():
                raise
            raise StoreUnavailable(f"the store {self.name} has not answered within {timeout} s") from None

    def close(self, timeout: float = 10) -> bool:
        """Finish what is waiting, close, release the lock; tells whether that was done within ``timeout`` seconds."""
        with self._changed:
            self._closing.set()
            self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _submit(self, job: _Job) -> None:
        with self._changed:
            if self._state.name == "ready" and not self._closing.is_set():
                self._queue.put(job)
                return
        self._settle([(job, job.failed, self._refusal())])

    # From here on: the writer's thread

    def _work(self) -> None:
        try:
            while session := self._session or self._reconnect():
                if not self._take():
                    break
                if not session.alive():
                    session.close()
                    self._session = None
                    continue  # what waits is refused only if the connection cannot be made again at once
                self._settle(self._commit_group())
        except Exception:
            _log.exception("the store's writer stopped")
        finally:
            self._end()

    def _take(self) -> bool:
        """Move what was submitted to what is waiting; False when the store is closing and nothing is left."""
        last = False
        if not self._waiting:
            last = self._receive(self._queue.get())
        for _ in range(self._queue.qsize()):
            last |= self._receive(self._queue.get())
        if last:
            self._queue.put(None)
        return bool(self._waiting)

    def _receive(self, job: _Job | None) -> bool:
        if job is None:
            return True
        self._waiting.append(job)
        return False

    def _commit_group(self) -> list[Outcome]:
        """Run what is waiting in one transaction, or else each job alone."""
        group: list[_Job] = []
        try:
            session = self._usable()
            transaction = session.begin()
            results = self._run(transaction, group)
            session.commit(transaction)
            return [(job, job.done, result) for job, result in zip(group, results, strict=True)]
        except Exception as error:
            blame = self._recover(error)
        if not group or not self._session:  # not the jobs' fault: let none of them wait
            group += self._waiting
            self._waiting.clear()
            return [(job, job.failed, blame) for job in group]
        if len(group) == 1:
            return [(group[0], group[0].failed, blame)]
        return [self._alone(job) for job in group]

    def _run(self, transaction: Transaction, group: list[_Job]) -> list[Any]:
        """Run waiting jobs until the group is full; each moves into the group before it runs."""
        results: list[Any] = []
        until = time.monotonic() + GROUP_SECONDS
        while self._waiting and len(group) < GROUP_JOBS and transaction.size < GROUP_BYTES:
            job = self._waiting.popleft()
            group.append(job)
            results.append(job.run(transaction))
            if time.monotonic() > until:
                break
        return results

    def _alone(self, job: _Job) -> Outcome:
        try:
            session = self._usable()
            transaction = session.begin()
            result = job.run(transaction)
            session.commit(transaction)
        except Exception as error:
            return job, job.failed, self._recover(error)
        return job, job.done, result

    def _usable(self) -> _Session:
        if self._session is None:
            raise self._refusal()
        return self._session

    def _recover(self, error: Exception) -> Exception:
        """Roll back, or give up the connection when even that fails; gives the error as the job's owner gets it."""
        if isinstance(error, self._engine.dialect.loaded_dbapi.Error):
            error = explain(error, self._url)
        if self._session and not self._session.roll_back():
            self._session.close()
            self._session = None
            if not isinstance(error, StoreUnavailable):
                error = StoreUnavailable(f"the store {self.name}: the connection is lost")
            self._set_state("unavailable", str(error))
        return error

    def _settle(self, outcomes: Iterable[Outcome]) -> None:
        answers: list[tuple[Callable[[Any], None], Any]] = []
        for job, answer, value in outcomes:
            if job.waited_for:
                answer(value)
            else:
                answers.append((answer, value))
        if answers:
            self._wake(partial(_answer, answers))

    def _connect(self) -> None:
        """Connect, lock, migrate and remember; raises StoreError."""
        try:
            connection = self._engine.connect()
            try:
                if not self._lock:
                    take_advisory(connection, self.name)
                migrate(connection)
                self._session = _Session(connection, self._statements, self._clock)
            except BaseException:
                connection.invalidate()
                connection.close()
                raise
        except (DBAPIError, self._engine.dialect.loaded_dbapi.Error) as error:
            raise explain(error, self._url) from None
        self._was_ready = True
        self._set_state("ready")

    def _reconnect(self) -> _Session | None:
        """Connect, again and again; None when the store is closing, or can never be had."""
        retries = chain(_RETRY_SECONDS, repeat(_RETRY_SECONDS[-1]))
        give_up = time.monotonic() + _LOCK_GRACE
        while not self._closing.wait(next(retries)):
            try:
                self._connect()
                return self._session
            except StoreUnavailable as error:
                self._set_state("unavailable", str(error))
            except StoreError as error:
                locked = isinstance(error, StoreLocked)
                if not self._was_ready and (not locked or time.monotonic() > give_up):
                    self._set_state("locked" if locked else "unusable", str(error))
                    return None
                self._set_state("unavailable", str(error))
        return None

    def _end(self) -> None:
        if self._session:
            self._session.close()
        if self._lock:
            self._lock.release()
        if self._state.name not in _LOST:
            self._set_state("closed", f"the store {self.name} is closed")

    def _set_state(self, name: StateName, why: str = "") -> None:
        """Change the state; when jobs cannot be committed, those that wait are told so."""
        with self._changed:
            before, self._state = self._state, StoreState(name, why)
            self._changed.notify_all()
            while name != "ready" and not self._queue.empty():
                self._receive(self._queue.get())
        if name != "ready":
            refused = [(job, job.failed, self._refusal()) for job in self._waiting]
            self._waiting.clear()
            self._settle(refused)
        if self._on_state and self._state != before:
            self._wake(partial(self._on_state, self._state))

    def _refusal(self) -> StoreError:
        kind = _LOST.get(self._state.name, StoreUnavailable)
        return kind(self._state.why or f"the store {self.name} is closing")


def _answer(answers: list[tuple[Callable[[Any], None], Any]]) -> None:
    """Give every answer; one that goes wrong does not keep the others back."""
    for answer, value in answers:
        try:
            answer(value)
        except Exception:
            _log.exception("what waited for the store went wrong")


def _directly(call: Callable[[], None]) -> None:
    call()
