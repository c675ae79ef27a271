"""Commands that change something: over the control socket of the daemon, or alone with the store's lock."""

import getpass
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from labbridge import accounts, asking, commands, revision, saving
from labbridge.cli.common import CONFIGURATION, DEFAULT_CONFIG, ConfigFile, console, fail, local, reading, settings_of
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

Reports = Annotated[list[int] | None, typer.Option("--report", help="Only this report, as `labbridge trace` numbers it.")]
Told = Annotated[str, typer.Option("--told", help="Call-back: who was told of the critical values.")]
ToldAt = Annotated[str, typer.Option("--told-at", help="Call-back: when, as 2026-11-21T03:15:00+08:00; now if not given.")]
ReadBack = Annotated[bool, typer.Option("--read-back", help="Call-back: the listener has read the values back.")]
Preview = Annotated[bool, typer.Option("--preview", help="Change nothing; show what the hospital would receive.")]
Specimen = Annotated[str, typer.Argument(help="The specimen's id.")]


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
    for leaf in (answer.get("answer") or {}).get("leaves", ()):
        console.print(shown(f"{leaf['destination']} would receive for {leaf['specimen']}:"), markup=False)
        for line in leaf["text"].splitlines():
            console.print(shown(f"  {line}"), markup=False)
    if not answer.get("ok"):
        fail(str(answer.get("error")))
    if not answer.get("said"):
        console.print("nothing to do")


def _alone(settings: Settings, path: Path, request: Request) -> dict[str, Any]:
    """No daemon runs: takes the store's lock and runs the same function."""
    if request.command == "map":
        with _writing(settings, 30) as store:
            return saving.alone(path, request, getpass.getuser(), store)
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
    specimen: Specimen,
    reason: Because = "",
    tests: Tests = None,
    reports: Reports = None,
    told: Told = "",
    told_at: ToldAt = "",
    read_back: ReadBack = False,
    correction: Correction = False,
    preview: Preview = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Release what is held of a specimen: all of it, or the tests named.

    Results without a mapping or a value stay held; results overtaken by a later measurement become superseded. A critical
    value leaves only with a call-back: --told "Dr. Li" --read-back, or `labbridge call-back` before.
    """
    call = {"told": told, "told_at": told_at, "read_back": read_back}
    chosen = {"specimen": specimen, "tests": tests, "reports": reports}
    perform(config, "release", **chosen, **call, reason=reason, correction=correction, preview=preview)


def not_reportable(
    specimen: Specimen,
    reason: Because = "",
    tests: Tests = None,
    reports: Reports = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what was released already.")] = False,
    preview: Preview = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Tell the hospital that no result can be had: of all that is held of a specimen, or of the tests named.

    The hospital receives OBX-11 X without a value, and the reason in an NTE. A test named with --test is meant also where it
    was released already: X then takes the place of its value.
    """
    chosen = {"specimen": specimen, "tests": tests, "reports": reports, "everything": everything}
    perform(config, "not-reportable", **chosen, reason=reason, preview=preview)


def recollect(
    specimen: Specimen,
    reason: Because = "",
    tests: Tests = None,
    reports: Reports = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what was released already.")] = False,
    preview: Preview = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Tell the hospital that no result can be had of this specimen, and ask for a new one.

    As `not-reportable`; the NTE asks to collect and send a new specimen, and says why.
    """
    chosen = {"specimen": specimen, "tests": tests, "reports": reports, "everything": everything}
    perform(config, "recollect", **chosen, reason=reason, preview=preview)


def edit(
    specimen: Specimen,
    test: Annotated[str, typer.Argument(help="The test, as tests.csv names it.")],
    value: Annotated[str, typer.Argument(help="Its value in the unit of tests.csv.")],
    reason: Because = "",
    reports: Reports = None,
    told: Told = "",
    told_at: ToldAt = "",
    read_back: ReadBack = False,
    correction: Correction = False,
    preview: Preview = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Give a test another value, or one where no report has it (a manual differential), and release it.

    The value is rounded, judged by the limits and flagged as any value; what the analyzer sent is kept. The hospital receives
    OBX-11 C where it had a value before, F otherwise. A critical value needs a call-back.
    """
    call = {"told": told, "told_at": told_at, "read_back": read_back}
    chosen = {"specimen": specimen, "tests": [test], "value": value, "reports": reports}
    perform(config, "edit", **chosen, **call, reason=reason, correction=correction, preview=preview)


def comment(
    specimen: Specimen,
    note: Annotated[str, typer.Argument(help="The comment.")],
    reports: Reports = None,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Keep a comment with a specimen. The hospital receives nothing."""
    perform(config, "comment", specimen=specimen, note=note, reports=reports)


def call_back(
    specimen: Specimen,
    told: Told = "",
    told_at: ToldAt = "",
    read_back: ReadBack = False,
    tests: Tests = None,
    reports: Reports = None,
    reason: Because = "",
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Keep who was told of a specimen's critical values, or of the tests named, and when. The hospital receives nothing.

    Only what was read back counts for `release`; a value that is changed afterwards must be told again.
    """
    call = {"told": told, "told_at": told_at, "read_back": read_back}
    perform(config, "call-back", specimen=specimen, tests=tests, reports=reports, reason=reason, **call)


def acknowledge(specimen: Specimen, reason: Because = "", config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Silence the signal of a specimen's held critical values; they stay held. The hospital receives nothing."""
    perform(config, "acknowledge", specimen=specimen, reason=reason)


def viewed(specimen: Specimen, reason: Because = "", config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Write into the audit trail that you have looked at a specimen. The hospital receives nothing."""
    perform(config, "viewed", specimen=specimen, reason=reason)


def reject(
    specimen: Annotated[str, typer.Argument(help="The specimen's id, or #NUMBER of a message that `pending` shows.")],
    reason: Because = "",
    tests: Tests = None,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Reject what is held of a specimen: it is kept, and never delivered. Settles a message with #NUMBER."""
    perform(config, "reject", specimen=specimen, tests=tests, reason=reason)


def correct_id(
    specimen: Annotated[str, typer.Argument(help="The wrong specimen id.")] = "",
    to: Annotated[str, typer.Option("--to", help="The right specimen id.")] = "",
    reason: Because = "",
    reports: Reports = None,
    pairs: Annotated[str, typer.Option("--pairs", help='A shifted batch: [{"report": 12, "to": "8826110042"}, …].')] = "",
    preview: Preview = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Propose the right specimen id for all reports of a specimen, for some of them, or for a shifted batch.

    Nothing changes until another person confirms it (`confirm-id`). Then the hospital receives, for the old id, OBX-11 W for
    every test that was delivered, and for the right id the results, decided anew with that specimen's history.
    """
    chosen = {"specimen": specimen, "reports": reports, "to": to, "text": pairs}
    perform(config, "correct-id", **chosen, reason=reason, preview=preview)


def confirm_id(
    proposal: Annotated[int, typer.Argument(help="The proposal's number; without it the open ones are listed.")] = 0,
    reason: Because = "",
    preview: Preview = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Confirm what another person proposed with `correct-id`: the second pair of eyes. Without a number: what is proposed.

    What was delivered under the wrong id is withdrawn (OBX-11 W), what waits under it is cancelled, and the results leave under
    the right id unless that specimen's own results hold them. Critical values are held until they are called back.
    """
    if proposal:
        perform(config, "confirm-id", proposal=proposal, reason=reason, preview=preview)
    else:
        settings = settings_of(config)
        with reading(settings) as reader:
            proposals = reader.proposals()
        for one in proposals:
            pairs = ", ".join(f"report {pair['report']} -> {pair['to']}" for pair in msgspec.json.decode(one.document))
            console.print(
                shown(f"proposal {one.id}, {local(one.at, settings)}, by {one.actor}: {pairs} ({one.reason})"), markup=False
            )
        if not proposals:
            console.print("nothing is proposed")


def withdraw_id(
    proposal: Annotated[int, typer.Argument(help="The proposal's number.")],
    reason: Because = "",
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Drop a proposal of `correct-id`; nothing is sent."""
    perform(config, "withdraw-id", proposal=proposal, reason=reason)


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


def send_again(deliveries: Deliveries = None, reason: Because = "", config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Send what was delivered (or cancelled) once more: a new delivery of the same content with a new MSH-10.

    Refused where a test of it has left again since, or its report was rejected: an old value must not follow a newer one.
    """
    perform(config, "send-again", deliveries=deliveries, reason=reason)


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
