"""Commands that change something: over the control socket of the daemon, or alone with the store's lock."""

import getpass
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from labbridge import accounts, asking, commands, revision
from labbridge.cli.common import CONFIGURATION, DEFAULT_CONFIG, ConfigFile, console, fail, settings_of
from labbridge.commands import CommandError, Request
from labbridge.config import Settings
from labbridge.pipeline import Moment
from labbridge.showing import shown
from labbridge.store import Store, StoreError

Because = Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the audit trail.")]
Tests = Annotated[list[str] | None, typer.Option("--test", "-t", help="Only this test or code (may be repeated).")]
Deliveries = Annotated[list[int] | None, typer.Argument(help="Numbers as `labbridge queue list` shows them.")]
Everything = Annotated[bool, typer.Option("--all", help="All that qualify.")]
Destination = Annotated[str, typer.Option("--destination", "-d", help="With --all: only this destination.")]
Correction = Annotated[
    bool, typer.Option("--correction", help="Send it as a correction even where a later measurement was released.")
]


def perform(path: Path, command: str, **options: Any) -> None:
    """Carries a command out and prints what was done; exit status 1 when it cannot be."""
    request = Request(command, **{name: value for name, value in options.items() if value is not None})
    settings = settings_of(path)
    try:
        answer = asking.ask(settings.control.path, request)
    except ConnectionError:
        answer = _alone(settings, path, request)
    except OSError as error:
        fail(f"the daemon did not answer at {settings.control.path}: {error}")
    for line in answer.get("said", ()):
        console.print(shown(line), markup=False)
    if not answer.get("ok"):
        fail(str(answer.get("error")))
    if not answer.get("said"):
        console.print("nothing to do")


def _alone(settings: Settings, path: Path, request: Request) -> dict[str, Any]:
    """No daemon runs: takes the store's lock and runs the same function."""
    command = (commands.COMMANDS | accounts.COMMANDS).get(request.command)
    if command is None:
        fail(f"no daemon runs for this configuration ({settings.control.path}): start it with `labbridge run`")
    try:
        compiled, _ = revision.build(settings, path)
    except revision.RevisionError as error:
        fail(str(error), CONFIGURATION)
    moment = Moment.of(time.time(), compiled.zone, os.urandom)
    with _writing(settings, 30) as store:
        try:
            ready = accounts.prepared(request) if request.password else request
            done = store.call(lambda tx: command(tx, compiled, moment, ready, getpass.getuser()))
        except CommandError as error:
            return {"ok": False, "error": str(error)}
    return {"ok": True, "said": done.said, "answer": done.answer}


@contextmanager
def _writing(settings: Settings, seconds: float) -> Iterator[Store]:
    """The store, for writing; exit status 1 where it cannot be had within so many seconds."""
    try:
        with closing(Store(settings.store.url)) as store:
            store.open()
            store.wait_ready(seconds)
            yield store
    except StoreError as error:
        fail(str(error))


def release(
    specimen: Annotated[str, typer.Argument(help="The specimen's id.")],
    reason: Because = "",
    tests: Tests = None,
    correction: Correction = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Release what is held of a specimen: all of it, or the tests named.

    Results without a mapping or a value stay held; results overtaken by a later measurement become superseded.
    """
    perform(config, "release", specimen=specimen, tests=tests, reason=reason, correction=correction)


def reject(
    specimen: Annotated[str, typer.Argument(help="The specimen's id, or #NUMBER of a message that `pending` shows.")],
    reason: Because = "",
    tests: Tests = None,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Reject what is held of a specimen: it is kept, and never delivered. Settles a message with #NUMBER."""
    perform(config, "reject", specimen=specimen, tests=tests, reason=reason)


def retry(
    deliveries: Deliveries = None,
    everything: Everything = False,
    destination: Destination = "",
    reason: Because = "",
    correction: Correction = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Send refused deliveries again, the same bytes with the same MSH-10."""
    chosen = {"deliveries": deliveries, "everything": everything, "destination": destination}
    perform(config, "retry", **chosen, reason=reason, correction=correction)


def cancel(
    deliveries: Deliveries = None,
    everything: Everything = False,
    destination: Destination = "",
    reason: Because = "",
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Withdraw deliveries that wait or were refused; the results stay in the store."""
    perform(config, "cancel", deliveries=deliveries, everything=everything, destination=destination, reason=reason)


def release_mapped(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Release; without it only what would leave is shown.")] = False,
    reason: Because = "mapped",
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """After a row was added to a map: show what would leave, and with --yes release it."""
    perform(config, "release-mapped", preview=not yes, reason=reason)


def pause(destination: Annotated[str, typer.Argument()], config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Stop sending to a destination until `queue resume`; what is received is kept and queued."""
    perform(config, "pause", destination=destination)


def resume(destination: Annotated[str, typer.Argument()], config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Send to a paused destination again."""
    perform(config, "resume", destination=destination)


def migrate(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Bring the database to this version (the daemon does so itself when it starts)."""
    settings = settings_of(config)
    with _writing(settings, 60):
        pass
    console.print(f"{settings.store}: up to date", markup=False)
