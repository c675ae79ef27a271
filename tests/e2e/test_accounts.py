"""Accounts from the command line, those of a demonstration, and the console's process beside a real daemon."""

import getpass
import json
import os
import pty
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from labbridge.asking import ask
from labbridge.cli import app
from labbridge.commands import Request
from labbridge.roles import ROLES
from labbridge.store import Reader
from tests.e2e.helpers import Lab
from tests.support import only, wait_until

Own = Callable[..., Lab]
CONSOLE = '[console]\nlisten = "127.0.0.1:{spare3}"\n'


def user(lab: Lab, *arguments: str, password: str | None = None) -> tuple[int, str]:
    """One `labbridge user` command; its exit status, and what it said."""
    given = ["--password-stdin"] if password is not None else []
    result = CliRunner().invoke(app, ["user", *arguments, *given, "-c", str(lab.config)], input=f"{password}\n" if given else None)
    return result.exit_code, result.output


def login(lab: Lab, account: str, password: str) -> dict[str, Any]:
    return ask(lab.folder / "labbridge.sock", Request("login", account=account, password=password))


def accounts(lab: Lab) -> dict[str, tuple[str, str, str]]:
    return {row["account"]: (row["role"], row["language"], row["state"]) for row in lab.rows("user", "list")}


def trail(lab: Lab, account: str) -> list[tuple[str, str, Any, Any]]:
    with closing(Reader(lab.url)) as reader:
        found = reversed(reader.audit_trail(subject=f"account {account}"))
        return [(one.actor, one.action, *(json.loads(text) if text else None for text in (one.old, one.new))) for one in found]


def test_the_first_administrator_is_made_before_anything_ran(own: Own) -> None:
    """And everything of an account can be changed, with the daemon running and without."""
    lab = own(started=False, hospital=False)
    assert user(lab, "add", "Anna", "--role", "administrator", password="correct horse") == (
        0,
        "account anna added: administrator\n",
    )
    assert accounts(lab) == {"anna": ("administrator", "en", "active")}
    lab.start()
    assert login(lab, "anna", "correct horse")["answer"]["role"] == "administrator"
    assert user(lab, "add", "ben", "--role", "technician", "--language", "zh", password="battery staple")[0] == 0
    assert "ben" in lab.well("user", "list")
    said = lab.well("user", "change", "ben", "--role", "supervisor", "--disable", "--reason", "on leave")
    assert said == "account ben: role supervisor, state disabled\n"
    assert login(lab, "ben", "battery staple")["answer"] == {"why": "wrong"}
    assert lab.stop() == 0
    assert user(lab, "change", "ben", "--enable", password="another staple") == (0, "account ben: state active, a new password\n")
    assert lab.well("user", "change", "ben", "--enable") == "nothing to do\n"
    lab.start()
    assert login(lab, "ben", "another staple")["answer"]["language"] == "zh"
    me = getpass.getuser()
    told = [("technician", "zh", "active"), ("supervisor", "zh", "disabled"), ("supervisor", "zh", "active")]
    said_of = [dict(zip(("role", "language", "state"), one, strict=True)) for one in told]
    assert trail(lab, "ben") == [
        (me, "account-add", None, {**said_of[0], "password": "changed"}),
        (me, "account-change", said_of[0], said_of[1]),
        ("ben", "login-failed", None, None),
        (me, "account-change", said_of[1], {**said_of[2], "password": "changed"}),
        ("ben", "login", None, None),
    ]
    assert "as written" in lab.well("verify")


def test_what_will_not_do_is_told(own: Own) -> None:
    lab = own(started=False, hospital=False)
    assert user(lab, "add", "anna", "--role", "administrator", password="correct horse")[0] == 0
    for name, role, password, wrong in [
        ("anna", "viewer", "correct horse", "there is an account anna"),
        ("a b", "viewer", "correct horse", "is no name for an account"),
        ("rules", "viewer", "correct horse", "is no name for an account"),
        ("demo-viewer", "viewer", "correct horse", "is no name for an account"),
        ("x" * 41, "viewer", "correct horse", "is no name for an account"),
        ("ben", "king", "correct horse", '"king" is no role: viewer, technician'),
        ("ben", "viewer", "short", "too short: 8 to 256"),
        ("ben", "viewer", "x" * 257, "too long: 8 to 256"),
        ("Benjamin", "viewer", "benJAMIN", "the account's name"),
        ("ben", "viewer", "", "needs a password"),
    ]:
        status, said = user(lab, "add", name, "--role", role, password=password)
        assert (status, wrong in said) == (1, True), said
    for change in (["--role", "viewer"], ["--disable"]):
        status, said = user(lab, "change", "anna", *change)
        assert (status, "last administrator" in said) == (1, True)
    assert "no language" in user(lab, "change", "anna", "--language", "fr")[1]
    assert user(lab, "change", "nobody", "--disable")[0] == 1
    assert user(lab, "change", "anna", "--disable", "--enable")[0] == 2
    status, said = user(lab, "add", "ben", "--role", "viewer")
    assert (status, "--password-stdin" in said) == (2, True)
    assert accounts(lab) == {"anna": ("administrator", "en", "active")}


@only("sqlite", "a terminal knows of no database")
def test_at_a_terminal_the_password_is_asked_for_twice_and_not_shown(own: Own) -> None:
    lab = own(started=False, hospital=False)
    arguments = ["-m", "labbridge", "user", "add", "anna", "--role", "administrator", "-c", str(lab.config)]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, *arguments])
    said = b""
    for prompt in (b"Password: ", b"confirmation: "):
        while not said.endswith(prompt):
            said += os.read(terminal, 1024)
        os.write(terminal, b"correct horse\n")
    while b"added" not in said:
        said += os.read(terminal, 1024)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(terminal)
    assert b"horse" not in said
    assert accounts(lab) == {"anna": ("administrator", "en", "active")}


# -- the console's process --------------------------------------------------------------------------------------------


def opens(lab: Lab) -> bool:
    """Whether the login page is there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{lab.ports['spare3']}/login", timeout=5) as page:
            return bool(page.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def consoles(lab: Lab) -> list[int]:
    """The processes of this laboratory's console."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"labbridge.console" in words and str(lab.config).encode() in words:
            found.append(int(process.name))
    return found


@only("sqlite", "the console is the same")
def test_the_console_lives_and_dies_with_the_daemon(own: Own) -> None:
    """Killed, it is back and everybody is still logged in; with the daemon it ends, even when that is killed."""
    lab = own(started=False, hospital=False, extra=CONSOLE)
    user(lab, "add", "anna", "--role", "administrator", password="correct horse")
    lab.start()
    wait_until(lambda: opens(lab), 10, "the console opens")
    token = login(lab, "anna", "correct horse")["answer"]["session"]
    [first] = consoles(lab)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: consoles(lab) not in ([], [first]) and opens(lab), 5, "the console is back")
    assert ask(lab.folder / "labbridge.sock", Request("whoami", session=token))["ok"]
    assert lab.status()["console"] == "running"
    second = consoles(lab)
    lab.edit('listen = "127.0.0.1:{spare3}"', 'listen = "127.0.0.1:{spare3}"\nidle = "5m"')
    lab.signal(signal.SIGHUP)
    wait_until(lambda: consoles(lab) not in ([], second) and opens(lab), 5, "another console for other settings")
    lab.kill()
    wait_until(lambda: not consoles(lab), 5, "the console has ended by itself")
    lab.start()
    wait_until(lambda: opens(lab), 10, "the console opens")
    os.kill(consoles(lab)[0], signal.SIGSTOP)
    assert lab.stop() == 0
    assert consoles(lab) == []


@only("sqlite", "accounts are the same")
def test_a_demonstration_has_accounts_for_as_long_as_it_lasts(own: Own) -> None:
    lab = own(started=False, hospital=False, extra=CONSOLE)
    lab.options = ["--simulate"]
    passwords = []
    for _ in range(2):
        lab.start()
        told = wait_until(lambda: re.findall(r"console (\S+)  log in as (.+); password (\S+)", lab.log.read_text()), 5, "told")
        passwords.append(told[-1][2])
        assert told[-1][0] == f"http://127.0.0.1:{lab.ports['spare3']}/"
        assert login(lab, "demo-supervisor", passwords[-1])["answer"]["role"] == "supervisor"
        assert lab.stop() == 0
        lab.log.write_text("")
    assert passwords[0] != passwords[1]
    assert {role for role, _, state in accounts(lab).values() if state == "active"} == set(ROLES)
    lab.options = []
    lab.start()
    wait_until(lambda: {state for *_, state in accounts(lab).values()} == {"disabled"}, 5, "no demonstration any more")
    assert login(lab, "demo-supervisor", passwords[-1])["answer"] == {"why": "wrong"}
    user(lab, "add", "anna", "--role", "administrator", password="correct horse")
    assert lab.stop() == 0
    lab.options = ["--simulate"]
    lab.start()
    wait_until(lambda: "log in with an account of yours" in lab.log.read_text(), 5, "told")
    assert {state for name, (*_, state) in accounts(lab).items() if name != "anna"} == {"disabled"}
    assert lab.stop() == 0
