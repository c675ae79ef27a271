"""What a person does with deliveries: sends refused ones again, withdraws them, sends what was delivered once more."""

from typing import Any

import msgspec

from labbridge import pipeline
from labbridge.batch import past_of, write_decision
from labbridge.commands.request import CommandError, Done, Request
from labbridge.commands.work import Work, observations
from labbridge.context import Context
from labbridge.lanes import Queued
from labbridge.model import Decided, Decision, Reason, Verdict
from labbridge.pipeline import Moment, Outcome, Outgoing, Revision
from labbridge.said import Said, either
from labbridge.store import Transaction
from labbridge.store.erasure import erased


def retry(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Sends refused deliveries again: the same bytes, unless a later measurement has been delivered since."""
    return _Deliveries(tx, revision, moment, request, actor).retry()


def cancel(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Withdraws deliveries that wait or were refused; the results stay in the store."""
    return _Deliveries(tx, revision, moment, request, actor).cancel()


def send_again(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Sends deliveries once more as new ones, each with an MSH-10 of its own."""
    return _Deliveries(tx, revision, moment, request, actor).send_again()


class _Deliveries(Work):
    """A command on deliveries being carried out."""

    def retry(self) -> Done:
        """Sends refused deliveries again, or what no later measurement has replaced of them."""
        for row in self._chosen("refused"):
            newer = set() if self.request.correction else self._overtaken(row)
            if newer:
                self.done.removed.append(row.id)
                self.done.queued += self._without(row, newer)
                told = Said("superseded, {tests} was delivered from a later measurement", tests=sorted(newer))
                self.turn(row, "retry", "superseded", told)
            else:
                self.done.again.append(row.id)
                self.turn(row, "retry", "queued", Said("queued again"))
        return self.done

    def cancel(self) -> Done:
        """Withdraws deliveries."""
        self.need_reason()
        for row in self._chosen("queued", "refused"):
            self.done.removed.append(row.id)
            self.turn(row, "cancel", "cancelled", Said("cancelled"))
        return self.done

    def send_again(self) -> Done:
        """Sends deliveries once more."""
        self.need_reason()
        if not self.request.deliveries:
            raise CommandError("name the deliveries (see `labbridge trace`)")
        for number in self.request.deliveries:
            row = self.tx.find_delivery(number)
            if row is None or row.state not in ("delivered", "cancelled"):
                raise CommandError(
                    "delivery {delivery} was not delivered: see `labbridge trace` and `labbridge queue retry`", delivery=number
                )
            if erased(row.payload):
                raise CommandError("delivery {delivery} cannot be sent again: its bytes were deleted by retention", delivery=number)
            self._still_true(row)
            control_id = self.moment.control_id()
            payload = row.payload.replace(row.control_id.encode(), control_id.encode())
            self.queue(Outgoing(row.destination, row.lane, control_id, payload), row.report_id, row.decision_id)
            new = self.done.queued[-1].id
            self.audit("send-again", f"delivery {new}", f"delivery {row.id}", "queued")
            self.done.said.append(Said("delivery {delivery}: queued again as delivery {new}", delivery=row.id, new=new))
        return self.done

    def _still_true(self, row: Any) -> None:
        """What is sent once more must be what the hospital should have of these tests now."""
        reports = self.tx.history([row.lane])[row.lane]
        mine = next((report for report in reports if report.report_id == row.report_id), None)
        if mine is None or mine.state == "rejected":
            raise CommandError(
                "delivery {delivery} cannot be sent again: its report was rejected, or is another specimen's", delivery=row.id
            )
        tests = observations(row.payload).keys()
        for report in reports:
            for later in self.tx.deliveries_of(report.report_id):
                same = later.id > row.id and later.destination == row.destination
                if same and later.state != "cancelled" and (again := tests & observations(later.payload).keys()):
                    raise CommandError(
                        "delivery {delivery} cannot be sent again: {tests} left again as delivery {later}",
                        delivery=row.id,
                        tests=sorted(code.decode("utf-8", "backslashreplace") for code in again),
                        later=later.id,
                    )

    def _chosen(self, *states: str) -> list[Any]:
        request = self.request
        if not request.deliveries and not request.everything:
            raise CommandError("name the deliveries (see `labbridge queue list`), or --all")
        if request.everything:
            wanted = request.destination
            return [d for d in self.tx.waiting_deliveries() if d.state in states and wanted in ("", d.destination)]
        rows = []
        for number in request.deliveries:
            row = self.tx.find_delivery(number)
            if row is None or row.state not in states:
                raise CommandError(
                    "delivery {delivery} is not {states}: see `labbridge queue list`", delivery=number, states=either(states)
                )
            rows.append(row)
        return rows

    def _overtaken(self, row: Any) -> set[str]:
        """The tests of a delivery that were delivered since from a later measurement."""
        reports = self.tx.history([row.lane])[row.lane]
        mine = next((_released(report) for report in reports if report.report_id == row.report_id), {})
        later = set()
        for report in reports:
            parts = self.tx.deliveries_of(report.report_id)
            delivered = any(part.state == "delivered" and part.destination == row.destination for part in parts)
            if delivered and report.report_id != row.report_id:
                for test, one in _released(report).items():
                    if test in mine and (mine[test].measured_at or one.measured_at or 0) < (one.measured_at or 0):
                        later.add(test)
        return later

    def _without(self, row: Any, newer: set[str]) -> list[Queued]:
        """A new delivery of what a superseded one had beside the overtaken tests, which its report has superseded now."""
        report = next(one for one in self.tx.history([row.lane])[row.lane] if one.report_id == row.report_id)
        past, rules = past_of(report), self.revision.analyzers.get(report.analyzer)
        attached = self.attached(report, rules) if rules else None
        news = tuple(
            msgspec.structs.replace(one, verdict=Verdict("superseded", (Reason("older-measurement", {"test": one.test}),)))
            for one in past.decided
            if one.verdict.action == "release" and one.test in newer
        )
        now = pipeline.standing((Decision(past.decided), Decision(news)))
        left = [one for one in now if one.verdict.action == "release"]
        leaving = pipeline.outgoing_of(
            past.report, row.lane, left, now, Context(), past.analyzer, self.revision, self.moment, attachments=attached
        )
        self.say_left_out(report, attached)
        mine = tuple(out for out in leaving if out.destination == row.destination)
        state = pipeline.state_of(now, past.report)
        outcome = Outcome(row.lane, past.report, state, msgspec.structs.replace(self.decision("retry"), results=news), b"", mine)
        self.tx.set_report_state(row.report_id, state)
        return write_decision(self.tx, outcome, row.report_id, self.revision_id())


def _released(row: Any) -> dict[str, Decided]:
    return {one.test: one for one in past_of(row).decided if one.verdict.action == "release"}
