"""What a person may change, as store functions with an actor: run in the writer's next transaction, audited.

The daemon runs them for the control socket; with no daemon running the command line takes the store's lock and runs the
same functions. Each returns a ``Done``: what to tell the person, and what the queue in memory must do.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from labbridge import model, pipeline
from labbridge.batch import past_of, write_decision
from labbridge.delivery import Queued
from labbridge.formats.oru import UnwritableError
from labbridge.model import Decided, Decision, Reason, Report, Verdict
from labbridge.pipeline import Context, Moment, Outcome, Revision
from labbridge.store import Transaction

NEVER_RELEASED = frozenset({"no-specimen", "specimen-conflict", "patient-conflict", "no-patient"})


class CommandError(Exception):
    """The command cannot be carried out; the text says why and what to do."""


class Done(msgspec.Struct):
    """What a command did: lines for the person, deliveries that were queued, put back or withdrawn."""

    said: list[str] = []
    queued: list[Queued] = []
    again: list[int] = []
    removed: list[int] = []
    count: int = 0


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """A command as it comes over the control socket (JSON)."""

    command: str
    specimen: str = ""
    tests: list[str] = []
    deliveries: list[int] = []
    destination: str = ""
    reason: str = ""
    correction: bool = False
    everything: bool = False
    preview: bool = False


Command = Callable[[Transaction, Revision, Moment, Request, str], Done]


def release(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Releases what is held of a specimen: all of it, or the named tests."""
    return _settle_specimen(tx, revision, moment, request, actor, "release")


def reject(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Rejects what is held of a specimen: kept, never delivered; or settles a message shown as ``#number``."""
    if request.specimen.startswith("#"):
        return _settle_message(tx, request, actor)
    return _settle_specimen(tx, revision, moment, request, actor, "reject")


def _settle_message(tx: Transaction, request: Request, actor: str) -> Done:
    _need_reason(request)
    try:
        number = int(request.specimen[1:])
    except ValueError:
        raise CommandError(f"{request.specimen} is no message number: write #123") from None
    if tx.message_state(number) != "open":
        raise CommandError(f"message {number} does not wait for a person")
    tx.set_message_state(number, "settled")
    tx.audit(actor=actor, action="settle", subject=f"message {number}", reason=request.reason, old="open", new="settled")
    return Done([f"message {number} settled"], count=1)


def _need_reason(request: Request) -> None:
    if not request.reason.strip():
        raise CommandError('a reason is needed: add --reason "…"')


def _settle_specimen(
    tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str, action: Literal["release", "reject"]
) -> Done:
    _need_reason(request)
    rows = [row for row in tx.reports_of(request.specimen) if row.state == "held"]
    if not rows:
        raise CommandError(f"nothing is held for specimen {request.specimen}: see `labbridge pending`")
    done = Done()
    revision_id = tx.revision(revision.digest, revision.body)
    for row in rows:
        report, standing = _standing(row)
        blocked = [problem.code for problem in report.problems if problem.code in NEVER_RELEASED]
        if action == "release" and (blocked or not row.key):
            raise CommandError(
                f"report {row.report_id} cannot be released ({', '.join(blocked) or 'no-specimen'}): whose it is is not certain; "
                "reject it and have the specimen measured again"
            )
        try:
            outcome = _settled(tx, row, report, standing, action, request, actor, revision, moment)
        except UnwritableError as error:
            raise CommandError(f"report {row.report_id} cannot be written for the hospital: {error.reason.code}") from error
        if outcome is not None:
            _write(tx, row, standing, outcome, revision_id, request, actor, action, done)
    if not done.count:
        raise CommandError("nothing held was settled: the tests named are not held, or have no mapping or value yet")
    return done


def release_mapped(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Verifies anew what was held for want of a mapping; with ``preview`` only tells what would leave."""
    done = Done()
    revision_id = 0 if request.preview else tx.revision(revision.digest, revision.body)
    for row in tx.held_reports():
        report, standing = _standing(row)
        if all(one.test or one.verdict.action != "hold" for one in standing):
            continue
        outcome = _settled(tx, row, report, standing, "remap", request, actor, revision, moment)
        if outcome is None:
            continue
        for one in outcome.decision.results:
            done.said.append(f"{row.specimen}: {one.code} -> {one.test or '-'} {one.value} {one.unit}: {one.verdict.action}")
        if request.preview:
            done.count += len(outcome.decision.results)
        else:
            _write(tx, row, standing, outcome, revision_id, request, actor, "release-mapped", done)
    return done


def _standing(row: Any) -> tuple[Report, tuple[Decided, ...]]:
    report = model.decode(row.document, Report)
    return report, pipeline.standing(model.decode(document, model.Decision) for document in row.decisions)


def _settled(
    tx: Transaction,
    row: Any,
    report: Report,
    standing: tuple[Decided, ...],
    action: Literal["release", "reject", "remap"],
    request: Request,
    actor: str,
    revision: Revision,
    moment: Moment,
) -> Outcome | None:
    rules = revision.analyzers.get(row.analyzer)
    if rules is None:
        raise CommandError(f"analyzer {row.analyzer} is no longer configured: add it again to settle its reports")
    others = [past_of(e) for e in tx.history([row.key]).get(row.key, ()) if e.report_id != row.report_id] if row.key else []
    mine = pipeline.Past(row.analyzer, row.at / 1e6, row.digest, row.content, report, standing)
    context = Context({row.key: [*others, mine]})
    waiting = {part.destination for part in _waiting(tx, row)}
    return pipeline.settle(
        report,
        standing,
        action,
        frozenset(request.tests),
        (actor, request.reason),
        row.key,
        context,
        rules,
        revision,
        moment,
        correction=request.correction,
        together=frozenset(waiting),
    )


def _write(
    tx: Transaction,
    row: Any,
    standing: tuple[Decided, ...],
    outcome: Outcome,
    revision_id: int,
    request: Request,
    actor: str,
    action: str,
    done: Done,
) -> None:
    before = {one.index: one.verdict.action for one in standing}
    leaving = {out.destination for out in outcome.outgoing}
    for part in _waiting(tx, row):
        if part.destination in leaving:
            tx.set_delivery_state(part.id, "superseded")
            done.removed.append(part.id)
    done.queued += write_decision(tx, outcome, row.report_id, revision_id)
    tx.set_report_state(row.report_id, outcome.state)
    changed = {one.test or one.code: one.verdict.action for one in outcome.decision.results}
    old = {one.test or one.code: before.get(one.index, "") for one in outcome.decision.results}
    tx.audit(
        actor=actor,
        action=action,
        subject=f"report {row.report_id}",
        reason=request.reason,
        old=model.encode(old).decode() if old else row.state,
        new=model.encode(changed).decode() if changed else outcome.state,
    )
    done.count += max(1, len(changed))
    done.said.append(
        f"report {row.report_id}: {', '.join(f'{test} {verdict}' for test, verdict in changed.items()) or outcome.state}"
    )


def _waiting(tx: Transaction, row: Any) -> list[Any]:
    """The deliveries of a report that still wait for the rest of it."""
    return [d for d in tx.deliveries_of(row.report_id) if d.state == "queued" and d.due > tx.at]


def retry(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Sends refused deliveries again: the same bytes, unless a later measurement has been delivered since."""
    done = Done()
    for row in _chosen(tx, request, ("refused",)):
        newer = set() if request.correction else _overtaken(tx, row)
        if newer:
            tx.set_delivery_state(row.id, "superseded")
            done.removed.append(row.id)
            done.queued += _without(tx, row, newer, revision, moment, request, actor)
            done.said.append(f"delivery {row.id}: superseded, {', '.join(sorted(newer))} was delivered from a later measurement")
        else:
            tx.set_delivery_state(row.id, "queued")
            done.again.append(row.id)
            done.said.append(f"delivery {row.id}: queued again")
        _audit_delivery(tx, actor, "retry", row.id, request.reason, "refused", "superseded" if newer else "queued")
        done.count += 1
    return done


def _released(row: Any) -> dict[str, Decided]:
    return {one.test: one for one in _standing(row)[1] if one.verdict.action == "release"}


def _overtaken(tx: Transaction, row: Any) -> set[str]:
    """The tests of a delivery that were delivered since from a later measurement."""
    reports = tx.history([row.lane])[row.lane]
    mine = next((_released(report) for report in reports if report.report_id == row.report_id), {})
    later = set()
    for report in reports:
        delivered = (d.state == "delivered" and d.destination == row.destination for d in tx.deliveries_of(report.report_id))
        if report.report_id != row.report_id and any(delivered):
            for test, one in _released(report).items():
                if test in mine and (mine[test].measured_at or one.measured_at or 0) < (one.measured_at or 0):
                    later.add(test)
    return later


def _without(
    tx: Transaction, row: Any, newer: set[str], revision: Revision, moment: Moment, request: Request, actor: str
) -> list[Queued]:
    """A new delivery of what a superseded one had beside the overtaken tests, which its report has superseded now."""
    stored = next(report for report in tx.history([row.lane])[row.lane] if report.report_id == row.report_id)
    report, before = _standing(stored)
    replaced = [one for one in before if one.verdict.action == "release" and one.test in newer]
    verdicts = [Verdict("superseded", (Reason("older-measurement", {"test": one.test}),)) for one in replaced]
    news = tuple(msgspec.structs.replace(one, verdict=verdict) for one, verdict in zip(replaced, verdicts, strict=True))
    now = tuple({one.index: one for one in (*before, *news)}.values())
    left = [one for one in now if one.verdict.action == "release"]
    leaving = pipeline.outgoing_of(report, row.lane, left, now, Context(), stored.analyzer, revision, moment)
    mine = tuple(out for out in leaving if out.destination == row.destination)
    state = pipeline.state_of(now, report)
    outcome = Outcome(row.lane, report, state, Decision(news, actor, request.reason), b"", mine)
    tx.set_report_state(stored.report_id, state)
    return write_decision(tx, outcome, stored.report_id, tx.revision(revision.digest, revision.body))


def cancel(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Withdraws deliveries that wait or were refused; the results stay in the store."""
    _need_reason(request)
    done = Done()
    for row in _chosen(tx, request, ("queued", "refused")):
        tx.set_delivery_state(row.id, "cancelled")
        _audit_delivery(tx, actor, "cancel", row.id, request.reason, row.state, "cancelled")
        done.removed.append(row.id)
        done.said.append(f"delivery {row.id}: cancelled")
        done.count += 1
    return done


def _chosen(tx: Transaction, request: Request, states: tuple[str, ...]) -> list[Any]:
    if not request.deliveries and not request.everything:
        raise CommandError("name the deliveries (see `labbridge queue list`), or --all")
    if request.everything:
        wanted = request.destination
        return [d for d in tx.waiting_deliveries() if d.state in states and wanted in ("", d.destination)]
    rows = []
    for number in request.deliveries:
        row = tx.find_delivery(number)
        if row is None or row.state not in states:
            raise CommandError(f"delivery {number} is not {' or '.join(states)}: see `labbridge queue list`")
        rows.append(row)
    return rows


def _audit_delivery(tx: Transaction, actor: str, action: str, number: int, reason: str, old: str, new: str) -> None:
    tx.audit(actor=actor, action=action, subject=f"delivery {number}", reason=reason, old=old, new=new)


COMMANDS: dict[str, Command] = {
    "release": release,
    "reject": reject,
    "release-mapped": release_mapped,
    "retry": retry,
    "cancel": cancel,
}
