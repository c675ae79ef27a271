"""Sessions, failed tries and roles: state machines on a clock of their own, and every command through the real socket."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from labbridge import daemon, roles
from labbridge.asking import ask
from labbridge.commands import Request
from labbridge.sessions import LOCKED_S, NAMES, TRIES, Session, Sessions, Tries
from labbridge.store.rows import Account
from tests.support import Laboratory, running
from tests.test_docs import bare, rows_with

IDLE = 900.0
STEPS = st.sampled_from([0.0, 1.0, 60.0, IDLE / 2, IDLE - 1, IDLE, IDLE + 1])


class SessionMachine(RuleBasedStateMachine):
    """Sessions against a plain list of who is logged in."""

    tokens = Bundle("tokens")

    @initialize()
    def nobody(self) -> None:
        self.now = 0.0
        self.real = Sessions(IDLE)
        self.model: dict[str, list[Any]] = {}  # token: account, role, seen

    @rule(seconds=STEPS)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=tokens, account=st.sampled_from(["anna", "ben"]), role=st.sampled_from(roles.ROLES))
    def begin(self, account: str, role: str) -> str:
        token = self.real.begin(Account(1, account, role, "en", "active"), self.now)
        assert token not in self.model
        self.model = {one: about for one, about in self.model.items() if self._lives(one)}
        self.model[token] = [account, role, self.now]
        return token

    @rule(token=tokens)
    def find(self, token: str) -> None:
        found = self.real.find(token, self.now)
        if self._lives(token):
            assert isinstance(found, Session)
            assert [found.account, found.role] == self.model[token][:2]
        else:
            assert found == ("expired" if token in self.model else "unknown")
            self.model.pop(token, None)

    @rule(token=tokens)
    def alive(self, token: str) -> None:
        found = self.real.find(token, self.now)
        if isinstance(found, Session):
            found.seen = self.model[token][2] = self.now
        else:
            self.model.pop(token, None)

    @rule(token=consumes(tokens))
    def logout(self, token: str) -> None:
        self.real.end(token)
        self.model.pop(token, None)

    @rule(account=st.sampled_from(["anna", "ben"]), role=st.sampled_from(roles.ROLES))
    def another_role(self, account: str, role: str) -> None:
        self.real.follow(account, role, "zh")
        for about in self.model.values():
            about[1] = role if about[0] == account else about[1]

    @rule(account=st.sampled_from(["anna", "ben"]))
    def disabled(self, account: str) -> None:
        self.real.end_all(account)
        self.model = {token: about for token, about in self.model.items() if about[0] != account}

    @rule(token=tokens)
    def another_password(self, token: str) -> None:
        if token in self.model:
            account = self.model[token][0]
            self.real.end_all(account, but=token)
            self.model = {one: about for one, about in self.model.items() if one == token or about[0] != account}

    @invariant()
    def nothing_more_is_kept(self) -> None:
        assert len(self.real._sessions) == len(self.model)

    def _lives(self, token: str) -> bool:
        return token in self.model and self.now < self.model[token][2] + IDLE


class TriesMachine(RuleBasedStateMachine):
    """Tries against the list of all tries since the last right one."""

    @initialize()
    def nobody(self) -> None:
        self.now = 0.0
        self.real = Tries()
        self.model: dict[str, list[float]] = {"anna": [], "ben": []}

    @rule(seconds=st.sampled_from([0.0, 1.0, 60.0, LOCKED_S - 1, LOCKED_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=st.sampled_from(["anna", "ben"]))
    def wrong(self, name: str) -> None:
        tries = self.model[name]
        if tries and self.now >= tries[-1] + LOCKED_S:
            tries.clear()
        may = len(tries) < TRIES
        assert self.real.begin(name, self.now) is may
        if may:
            tries.append(self.now)
        assert self.real.locked(name) is (len(tries) >= TRIES)

    @rule(name=st.sampled_from(["anna", "ben"]))
    def none(self, name: str) -> None:
        """The store was away: nothing was compared."""
        tries = self.model[name]
        if not tries or self.now >= tries[-1] + LOCKED_S or len(tries) < TRIES:
            last = tries[-1] if tries and self.now < tries[-1] + LOCKED_S else None
            assert self.real.begin(name, self.now)
            self.real.take_back(name)
            tries[:] = [] if last is None else [self.now] * len(tries)

    @rule(name=st.sampled_from(["anna", "ben"]))
    def right(self, name: str) -> None:
        self.real.forget(name)
        self.model[name].clear()


TestSessions = pytest.mark.filterwarnings("error")(SessionMachine.TestCase)
TestTries = TriesMachine.TestCase
TestSessions.settings = TestTries.settings = settings(max_examples=60, stateful_step_count=30)


def test_tries_of_many_names_need_bounded_memory() -> None:
    tries = Tries()
    for number in range(NAMES + 500):
        tries.begin(str(number), 0.0)
    assert len(tries._tries) == NAMES


# -- every command, every role, the real socket -----------------------------------------------------------------------


class People(Laboratory):
    """A laboratory with an account of each role, and their sessions."""

    sessions: dict[str, str]

    def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        return ask(self.folder / "labbridge.sock", Request(command, **fields))

    def login(self, account: str, password: str) -> dict[str, Any]:
        return self.ask("login", account=account, password=password)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    with running(tmp_path_factory.mktemp("people")) as lab:
        lab.__class__ = People
        assert isinstance(lab, People)
        for role in roles.ROLES:
            assert lab.ask("account-add", account=f"a-{role}", password=f"secret {role}", role=role)["ok"]
        lab.sessions = {role: lab.login(f"a-{role}", f"secret {role}")["answer"]["session"] for role in roles.ROLES}
        yield lab
        assert lab.stop() == 0


def documented() -> dict[str, frozenset[str]]:
    """Who may do what, as the page for operators says it."""
    table = rows_with("operations.md", "action", *roles.ROLES)
    return {bare(row["action"]): frozenset(role for role in roles.ROLES if row[role] == "✓") for row in table}


def test_the_table_of_roles_is_that_of_the_page() -> None:
    assert documented() == roles.ACTIONS


COMMANDS = sorted(daemon.COMMANDS.keys() | {action for action in roles.ACTIONS if not action.startswith("see ")})


@pytest.mark.parametrize("command", COMMANDS)
def test_promise_9_a_command_is_carried_out_for_the_roles_of_the_table_alone(people: People, command: str) -> None:
    """Whatever a screen shows or hides, the daemon looks at the role of each command again."""
    for role in roles.ROLES:
        answer = people.ask(command, session=people.sessions[role])
        refused = answer.get("answer", {}).get("why") == "role"
        assert refused is (role not in documented().get(command, ())), (role, answer)
        if refused:
            assert not answer["ok"]
            assert re.fullmatch(f"a-{role} may not {command}: the role .+ is needed", answer["error"])


def test_a_command_that_nobody_knows_is_for_nobody(people: People) -> None:
    for role in roles.ROLES:
        assert people.ask("see accounts-all", session=people.sessions[role])["answer"] == {"why": "role"}
    assert people.ask("nosuchcommand")["error"] == "no such command: nosuchcommand"


def test_without_a_session_nothing_is_carried_out_for_one(people: People) -> None:
    for session in ("x", people.sessions["viewer"] + "x"):
        for command in ("status", "release", "whoami", "alive"):
            assert people.ask(command, session=session)["answer"] == {"why": "unknown"}
    assert people.ask("whoami")["answer"] == {"why": "unknown"}


def test_whoever_acts_is_named_in_the_audit(people: People, audits: Any) -> None:
    supervisor = people.sessions["supervisor"]
    assert people.ask("pause", session=supervisor, destination="his", reason="moved")["ok"]
    assert people.ask("resume", session=people.sessions["lab-it"], destination="his")["ok"]
    assert people.ask("reload", session=people.sessions["lab-it"], reason="new map")["ok"]
    told = [(one.actor, one.action, one.subject, one.reason) for one in audits(people)]
    assert ("a-supervisor", "pause", "destination his", "moved") in told
    assert ("a-lab-it", "resume", "destination his", "") in told
    assert ("a-lab-it", "reload", "configuration", "new map") in told


# -- logging in -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def audits() -> Any:
    from contextlib import closing

    from labbridge.store import Reader

    def read(lab: Laboratory) -> list[Any]:
        with closing(Reader(f"sqlite:///{lab.folder}/lab.db")) as reader:
            return reader.audit_trail(limit=1000)

    return read


def test_login_and_logout(people: People) -> None:
    people.ask("account-add", account="  Miriam ", password="correct horse", role="viewer", language="zh")
    answer = people.login("MIRIAM", "correct horse")
    token = answer["answer"].pop("session")
    me = {"account": "miriam", "role": "viewer", "language": "zh"}
    assert answer == {"ok": True, "answer": me}
    assert people.ask("whoami", session=token)["answer"] == people.ask("alive", session=token)["answer"] == me
    assert people.login("miriam", "correct horse")["answer"]["session"] != token
    assert people.ask("logout", session=token)["ok"]
    assert people.ask("whoami", session=token)["answer"] == {"why": "unknown"}
    assert people.ask("logout", session=token)["ok"]


def test_after_five_wrong_tries_an_account_is_locked_whether_there_is_one_or_not(people: People, audits: Any) -> None:
    """Nobody learns from the answers who has an account; a new password opens it again."""
    people.ask("account-add", account="lena", password="correct horse", role="viewer")
    people.ask("account-add", account="gone", password="correct horse", role="viewer")
    people.ask("account-change", account="gone", value="disabled")
    passwords = {"lena": "wrong", "gone": "correct horse", "nobody": "wrong"}
    answers = {name: [people.login(name, word) for _ in range(TRIES + 1)] for name, word in passwords.items()}
    whys = [one["answer"]["why"] for one in answers["lena"]]
    assert whys == ["wrong"] * (TRIES - 1) + ["locked"] * 2
    assert answers["lena"] == answers["gone"] == answers["nobody"]
    assert people.login("lena", "correct horse")["answer"] == {"why": "locked"}
    told = [one.action for one in reversed(audits(people)) if one.subject == "account lena"]
    assert told == ["account-add", *["login-failed"] * (TRIES - 1), "account-locked"]
    assert not [one for one in audits(people) if one.subject == "account nobody"]
    assert people.ask("account-change", account="lena", password="another horse")["ok"]
    assert people.login("lena", "another horse")["ok"]
    assert people.login("gone", "correct horse")["answer"] == {"why": "locked"}


def test_a_right_password_forgets_the_wrong_ones(people: People) -> None:
    people.ask("account-add", account="otto", password="correct horse", role="viewer")
    for _ in range(2):
        for _ in range(TRIES - 1):
            assert people.login("otto", "wrong")["answer"] == {"why": "wrong"}
        assert people.login("otto", "correct horse")["ok"]


def test_ones_own_password_needs_the_old_one_and_ends_the_other_sessions(people: People) -> None:
    people.ask("account-add", account="paula", password="correct horse", role="viewer")
    here, there = (people.login("paula", "correct horse")["answer"]["session"] for _ in range(2))
    told = people.ask("password", session=here, password="another horse", known="wrong", account="a-administrator")
    assert told["answer"] == {"why": "wrong"}
    assert people.ask("password", session=here, password="short", known="correct horse")["error"].startswith(
        "the password is too short"
    )
    assert people.ask("password", session=here, password="another horse", known="correct horse", account="a-administrator")["ok"]
    assert people.ask("whoami", session=here)["ok"]
    assert people.ask("whoami", session=there)["answer"] == {"why": "unknown"}
    assert not people.login("paula", "correct horse")["ok"]
    assert people.login("paula", "another horse")["ok"]
    assert people.login("a-administrator", "secret administrator")["ok"], "only one's own"


def test_a_change_of_an_account_reaches_its_open_sessions(people: People) -> None:
    people.ask("account-add", account="quentin", password="correct horse", role="viewer")
    token = people.login("quentin", "correct horse")["answer"]["session"]
    assert people.ask("pause", session=token)["answer"] == {"why": "role"}
    people.ask("account-change", account="quentin", role="supervisor")
    assert people.ask("pause", session=token)["error"] == "no such destination: "
    people.ask("language", session=token, language="zh", account="lena")
    assert people.ask("whoami", session=token)["answer"] == {"account": "quentin", "role": "supervisor", "language": "zh"}
    people.ask("account-change", account="quentin", value="disabled")
    assert people.ask("whoami", session=token)["answer"] == {"why": "unknown"}
    people.ask("account-change", account="quentin", value="active")
    assert people.ask("whoami", session=token)["answer"] == {"why": "unknown"}
    assert people.login("quentin", "correct horse")["ok"]


def test_no_password_and_no_hash_is_in_the_audit_or_the_log(people: People, audits: Any) -> None:
    people.ask("account-add", account="rosa", password="a very secret word", role="viewer")
    people.ask("account-change", account="rosa", password="another secret word")
    people.login("rosa", "a wrong secret word")
    written = "".join(f"{one.old}{one.new}{one.reason}{one.subject}" for one in audits(people)) + people.log.read_text()
    assert "secret" not in written
    assert "argon2" not in written


def test_many_who_log_in_at_once_are_asked_to_try_again(people: People) -> None:
    """One password is compared at a time, and only so many wait: the analyzers come first."""
    import socket

    import msgspec

    from labbridge.sessions import WAITING

    line = msgspec.json.encode(Request("login", account="nobody else", password="x")) + b"\n"
    lines = b"".join(line.replace(b"nobody else", b"n%d" % number) for number in range(3 * WAITING))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(people.folder / "labbridge.sock"))
        connection.sendall(lines)
        with connection.makefile("rb") as answers:
            whys = [msgspec.json.decode(answers.readline())["answer"]["why"] for _ in range(3 * WAITING)]
    assert whys.count("busy") + whys.count("wrong") == 3 * WAITING
    assert whys.count("busy") > 0
    assert people.login("a-viewer", "secret viewer")["ok"]


def test_a_session_ends_where_nobody_is_there(tmp_path: Path) -> None:
    """Asking who one is does not keep it alive; a sign of life does. The daemon's end is that of all."""
    from tests.support import wait_until

    with running(tmp_path, extra='[console]\nidle = "600ms"\n') as lab:
        lab.__class__ = People
        assert isinstance(lab, People)
        lab.ask("account-add", account="sam", password="correct horse", role="viewer")
        token = lab.login("sam", "correct horse")["answer"]["session"]
        for _ in range(10):
            assert lab.ask("alive", session=token)["ok"]
            wait_until(lambda: True, 1, "")
        wait_until(lambda: not lab.ask("whoami", session=token)["ok"], 5, "expired")
        assert lab.ask("whoami", session=token)["answer"] == {"why": "unknown"}, "expired is told once"
        token = lab.login("sam", "correct horse")["answer"]["session"]
        lab.edit('idle = "600ms"', 'idle = "1h"')
        assert lab.ask("reload")["ok"]
        token = lab.login("sam", "correct horse")["answer"]["session"]
        assert lab.stop() == 0
        lab.start()
        assert lab.ask("whoami", session=token)["answer"] == {"why": "unknown"}
