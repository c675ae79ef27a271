"""Who is logged in, and what they may do: every request of the control socket passes here first.

A request with a ``session`` acts as that session's account, whose role is looked up in the table of ``roles`` each time;
one without acts as the user of the operating system who opened the socket, and may do everything. Sessions are kept in
the daemon's memory alone: they end with it, at the logout, after ``[console] idle`` without a sign of life (``alive``),
and when their account is disabled or its password changed. Passwords are compared in a thread of their own, one at a time.
"""

import hashlib
import secrets
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import msgspec
import structlog

from labbridge import accounts, roles
from labbridge.commands import CommandError, Request
from labbridge.said import Said, either, not_carried_out
from labbridge.store import Store, StoreUnavailable, Transaction
from labbridge.store.rows import Account

log = structlog.get_logger()

R = TypeVar("R")
Reply = Callable[[dict[str, Any]], None]
CarryOut = Callable[[Request, str, Reply], None]

TRIES, LOCKED_S = 5, 900.0
NAMES = 10_000  # whose tries are remembered
WAITING = 32  # passwords to compare

_WHY = {
    "expired": Said("nobody was there for a while: log in again"),
    "unknown": Said("not logged in: log in again"),
    "wrong": Said("the name or the password is wrong"),
    "locked": Said("too many tries: wait {n} minutes, or ask an administrator for a new password", n=f"{LOCKED_S / 60:.0f}"),
    "busy": Said("too many people log in at once: try again"),
}


def _refused(why: str, error: Said | None = None) -> dict[str, Any]:
    return {"ok": False, "error": error or _WHY[why], "answer": {"why": why}}


class Tries:
    """Failed tries of each name, whether there is such an account or not; the time comes from the caller."""

    def __init__(self) -> None:
        self._tries: dict[str, tuple[int, float]] = {}  # how many, and when the last one was

    def begin(self, name: str, now: float) -> bool:
        """Counts a try before it is known how it ends; tells whether it may be made at all."""
        count, last = self._tries.pop(name, (0, now))
        if now >= last + LOCKED_S:
            count = 0
        locked = count >= TRIES
        self._tries[name] = (count, last) if locked else (count + 1, now)
        if len(self._tries) > NAMES:
            del self._tries[next(iter(self._tries))]
        return not locked

    def take_back(self, name: str) -> None:
        """A try that was begun was none: nothing was compared."""
        count, last = self._tries.get(name, (0, 0.0))
        if count:
            self._tries[name] = (count - 1, last)

    def locked(self, name: str) -> bool:
        """Whether the tries of a name are used up."""
        return self._tries.get(name, (0, 0.0))[0] >= TRIES

    def forget(self, name: str) -> None:
        """Starts anew: the password was right, or there is a new one."""
        self._tries.pop(name, None)


class Session(msgspec.Struct):
    """Somebody who is logged in."""

    account: str
    role: str
    language: str
    seen: float  # the last sign of life


class Sessions:
    """The sessions, by the digest of their token; the time comes from the caller."""

    def __init__(self, idle: float) -> None:
        self.idle = idle
        self._sessions: dict[bytes, Session] = {}

    def begin(self, account: Account, now: float) -> str:
        """A new session's token."""
        self._sessions = {key: one for key, one in self._sessions.items() if now < one.seen + self.idle}
        token = secrets.token_urlsafe(32)
        self._sessions[_key(token)] = Session(account.name, account.role, account.language, now)
        return token

    def find(self, token: str, now: float) -> Session | str:
        """The session of a token, or why there is none: expired (told once), unknown."""
        session = self._sessions.get(_key(token))
        if session is None:
            return "unknown"
        if now >= session.seen + self.idle:
            self.end(token)
            return "expired"
        return session

    def end(self, token: str) -> None:
        """Ends one session."""
        self._sessions.pop(_key(token), None)

    def follow(self, account: str, role: str, language: str) -> None:
        """An account has another role or language."""
        for session in self._sessions.values():
            if session.account == account:
                session.role, session.language = role, language

    def end_all(self, account: str, but: str = "") -> None:
        """Ends the sessions of an account, but for the one with this token."""
        kept = _key(but) if but else b""
        self._sessions = {key: one for key, one in self._sessions.items() if one.account != account or key == kept}


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Desk:
    """Asks everybody who they are; logs in and out; lets pass what a role allows."""

    def __init__(self, store: Store, idle: float, now: Callable[[], float], wake: Callable[..., None]) -> None:
        self.sessions = Sessions(idle)
        self.tries = Tries()
        self._store = store
        self._now = now
        self._wake = wake
        self._thread = ThreadPoolExecutor(1, "passwords")
        self._waiting, self._closed = 0, False
        self._own = {"login": self._login, "logout": self._logout, "whoami": self._whoami, "alive": self._alive}

    def close(self) -> None:
        """Compares no more passwords."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def admit(self, request: Request, peer: str, reply: Reply, carry_out: CarryOut) -> None:
        """Answers what is about logging in; has everything else carried out, if whoever asks may do it."""
        if request.command in self._own:
            self._own[request.command](request, reply)
        elif not request.session:
            self._pass(request, peer, reply, carry_out)
        elif isinstance(session := self.sessions.find(request.session, self._now()), str):
            reply(_refused(session))
        elif not roles.may(session.role, request.command):
            allowed = [role for role in roles.ROLES if roles.may(role, request.command)]
            needed = either(allowed or ["that of nobody"])
            log.warning("refused", account=session.account, role=session.role, command=request.command[:40])
            who = {"account": session.account, "command": request.command[:40], "role": needed}
            error = Said("{account} may not {command}: the role {role} is needed", **who)
            reply(_refused("role", error))
        else:
            if request.command in ("password", "language"):
                request = msgspec.structs.replace(request, account=session.account)
            self._pass(request, session.account, reply, carry_out)

    def _pass(self, request: Request, actor: str, reply: Reply, carry_out: CarryOut) -> None:
        """Has a command carried out; one about an account with its new password hashed, and the old one compared."""
        if request.command not in accounts.COMMANDS:
            carry_out(request, actor, reply)
            return
        told = partial(self._changed, request, reply)
        if request.command == "password" and request.session:
            self._check(actor, request.known, lambda _: self._prepare(request, actor, told, carry_out), reply)
        elif request.password:
            self._prepare(request, actor, told, carry_out)
        else:
            carry_out(request, actor, told)

    def _prepare(self, request: Request, actor: str, told: Reply, carry_out: CarryOut) -> None:
        def done(ready: Request | CommandError) -> None:
            if isinstance(ready, CommandError):
                told({"ok": False, "error": ready.said})
            else:
                carry_out(ready, actor, told)

        self._in_thread(lambda: _prepared(request), done, told)

    def _changed(self, request: Request, reply: Reply, answer: dict[str, Any]) -> None:
        """Lets the sessions of an account know what became of it."""
        if answer["ok"]:
            now = answer["answer"]
            self.sessions.follow(now["account"], now["role"], now["language"])
            if now["state"] != "active":
                self.sessions.end_all(now["account"])
            elif request.password:
                self.sessions.end_all(now["account"], but=request.session)
                self.tries.forget(now["account"])
        reply(answer)

    # -- about logging in

    def _whoami(self, request: Request, reply: Reply) -> None:
        session = self.sessions.find(request.session, self._now())
        if isinstance(session, str):
            reply(_refused(session))
        else:
            reply({"ok": True, "answer": {"account": session.account, "role": session.role, "language": session.language}})

    def _alive(self, request: Request, reply: Reply) -> None:
        session = self.sessions.find(request.session, self._now())
        if isinstance(session, Session):
            session.seen = self._now()
        self._whoami(request, reply)

    def _logout(self, request: Request, reply: Reply) -> None:
        session = self.sessions.find(request.session, self._now())
        self.sessions.end(request.session)
        if isinstance(session, Session):
            self._audit(session.account, "logout", partial(reply, {"ok": True}), reply)
        else:
            reply({"ok": True})

    def _login(self, request: Request, reply: Reply) -> None:
        def let_in(account: Account) -> None:
            token = self.sessions.begin(account, self._now())
            who = {"account": account.name, "role": account.role, "language": account.language}
            reply({"ok": True, "answer": {"session": token, **who}})

        def right(account: Account) -> None:
            self._store.submit(
                partial(_entered, account), lambda now: let_in(now) if now else reply(_refused("wrong")), _away(reply)
            )

        self._check(accounts.named(request.account)[: accounts.LONGEST], request.password, right, reply)

    def _check(self, name: str, password: str, right: Callable[[Account], None], reply: Reply) -> None:
        """Compares a password with that of an account; after too many wrong ones the account is locked."""

        def compared(account: Account | None, well: bool) -> None:
            if account is not None and well:
                self.tries.forget(name)
                right(account)
                return
            why = "locked" if self.tries.locked(name) else "wrong"
            reply(_refused(why))  # at once: the time that a commit takes would tell that there is such an account
            if account is not None:
                action = "account-locked" if why == "locked" else "login-failed"
                self._audit(name, action, lambda: None, lambda answer: log.error("not in the audit", action=action))

        def found(account: Account | None) -> None:
            hash = account.hash if account is not None and account.state == "active" else ""
            self._in_thread(lambda: accounts.matches(hash, password), partial(compared, account), not_compared)

        def not_compared(answer: dict[str, Any]) -> None:
            self.tries.take_back(name)
            reply(answer)

        if self.tries.begin(name, self._now()):
            self._store.submit(lambda tx: tx.account(name), found, _away(not_compared))
        else:
            reply(_refused("locked"))

    def _audit(self, account: str, action: str, done: Callable[[], None], reply: Reply) -> None:
        def job(tx: Transaction) -> None:
            tx.audit(actor=account, action=action, subject=f"account {account}")

        self._store.submit(job, lambda _: done(), _away(reply))

    def _in_thread(self, work: Callable[[], R], done: Callable[[R], None], reply: Reply) -> None:
        if self._waiting >= WAITING or self._closed:
            reply(_refused("busy"))
            return
        self._waiting += 1

        def over(future: Future[R]) -> None:
            self._waiting -= 1
            done(future.result())

        self._thread.submit(work).add_done_callback(lambda future: future.cancelled() or self._wake(over, future))


def _prepared(request: Request) -> Request | CommandError:
    try:
        return accounts.prepared(request)
    except CommandError as error:
        return error


def _entered(account: Account, tx: Transaction) -> Account | None:
    """Writes down who came in; None where the account was changed while its password was compared."""
    now = tx.account(account.name)
    if now is None or (now.hash, now.state) != (account.hash, "active"):
        return None
    tx.audit(actor=now.name, action="login", subject=f"account {now.name}")
    return now


def _away(reply: Reply) -> Callable[[Exception], None]:
    def failed(error: Exception) -> None:
        away = isinstance(error, StoreUnavailable)
        why = Said("the store cannot be reached: try again") if away else not_carried_out(error)
        reply({"ok": False, "error": why})

    return failed
