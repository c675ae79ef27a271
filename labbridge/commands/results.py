"""What a person does with results: releases or rejects what is held, tells that none can be had, gives another value."""

from typing import Any, Literal

from labbridge import amending, settling
from labbridge.amending import AmendError
from labbridge.batch import past_of
from labbridge.commands.request import CommandError, Done, Request
from labbridge.commands.work import Work, unwritable
from labbridge.context import Past
from labbridge.formats.oru import UnwritableError
from labbridge.model import Decision, Reason, decode
from labbridge.pipeline import Moment, Outcome, Revision
from labbridge.said import Said
from labbridge.store import Transaction
from labbridge.verification.callback import called_back, is_critical


def release(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Releases what is held of a specimen: all of it, or the named tests. A critical value needs a call-back."""
    return _Results(tx, revision, moment, request, actor).settle_specimen("release")


def reject(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Rejects what is held of a specimen: kept, never delivered; or settles a message shown as ``#number``."""
    work = _Results(tx, revision, moment, request, actor)
    return work.settle_message() if request.specimen.startswith("#") else work.settle_specimen("reject")


def release_mapped(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Verifies anew what was held for want of a mapping; with ``preview`` only tells what would leave."""
    return _Results(tx, revision, moment, request, actor).release_mapped()


def not_reportable(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Tells the hospital that no result can be had of what is held, or of the named tests, and why."""
    return _Results(tx, revision, moment, request, actor).without_value(Reason("not-reportable", {"why": request.reason}))


def recollect(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Tells the hospital that no result can be had of this specimen, and asks for a new one."""
    return _Results(tx, revision, moment, request, actor).without_value(Reason("recollect", {"why": request.reason}))


def edit(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Gives a test another value, or one where the report has none, and releases it."""
    return _Results(tx, revision, moment, request, actor).edit()


class _Results(Work):
    """A command on results being carried out."""

    def settle_message(self) -> Done:
        """Settles a message that a person has looked at."""
        self.need_reason()
        try:
            number = int(self.request.specimen[1:])
        except ValueError:
            raise CommandError("{number} is no message number: write #123", number=self.request.specimen) from None
        if self.tx.message_state(number) != "open":
            raise CommandError("message {number} does not wait for a person", number=number)
        self.tx.set_message_state(number, "settled")
        self.audit("settle", f"message {number}", "open", "settled")
        return Done([Said("message {number} settled", number=number)])

    def settle_specimen(self, action: Literal["release", "reject"]) -> Done:
        """Releases or rejects what is held of a specimen."""
        self.need_reason()
        rows = self.rows("held")
        if not rows:
            raise CommandError("nothing is held for specimen {specimen}: see `labbridge pending`", specimen=self.request.specimen)
        for row in rows:
            past = past_of(row)
            if action == "release":
                self.certain(row, past)
            try:
                outcome = self._settled(row, past, action)
            except UnwritableError as error:
                unwritable(row, error.reason.code)
            if outcome is not None:
                if action == "release":
                    outcome = self._heard(row, outcome)
                self.write(row, past, outcome, action)
        if not self.done.said:
            raise CommandError("nothing held was settled: the tests named are not held, or have no mapping or value yet")
        return self.done

    def release_mapped(self) -> Done:
        """Verifies anew what was held for want of a mapping, and releases what may leave now."""
        for row in self.tx.held_reports():
            past = past_of(row)
            if all(one.test or one.verdict.action != "hold" for one in past.decided):
                continue
            outcome = self._settled(row, past, "remap")
            if outcome is None:
                continue
            for one in outcome.decision.results:
                became, told = Said(one.verdict.action), f"{row.specimen}: {one.code} -> {one.test or '-'} {one.value} {one.unit}"
                self.done.said.append(Said("{told}: {became}", told=told, became=became))
            self.write(row, past, outcome, "release-mapped")
        return self.done

    def without_value(self, why: Reason) -> Done:
        """Tells the hospital that a test has no result; of a test in several reports the last one tells it."""
        self.need_reason()
        wanted, told = frozenset(self.request.tests), set[str]()
        for row in reversed(self.rows("held", "released")):
            past = past_of(row)
            case = self.case_of(row, past)
            news = amending.without_value(case, wanted, self.request.everything, why, told)
            if news:
                self.certain(row, past)
                self._amend(row, past, case, news, self.decision(why.code))
        if not self.done.said:
            raise CommandError("nothing to tell: the tests named are not held or released, or have no mapping yet")
        return self.done

    def edit(self) -> Done:
        """Changes or enters a value."""
        self.need_reason()
        if len(self.request.tests) != 1:
            raise CommandError("name one test")
        test = self.revision.catalogue.tests.get(self.request.tests[0])
        if test is None:
            raise CommandError("{test} is no test of the catalogue (tests.csv)", test=self.request.tests[0])
        row, past = self._meant(test.code)
        self.certain(row, past)
        case = self.case_of(row, past)
        try:
            one = amending.with_value(case, test, self.request.value, correction=self.request.correction)
        except AmendError as error:
            raise CommandError("report {report}: {told}", report=row.report_id, told=error.said) from None
        decision = self.called(self.decision("edit"))
        if is_critical(one) and not (decision.told and decision.read_back) and not self.request.preview:
            _need_call([one.test])
        self._amend(row, past, case, [one], decision)
        return self.done

    def _meant(self, test: str) -> tuple[Any, Past]:
        """The report in which a test is to be changed: the one that has it, else the newest."""
        rows = [(row, past_of(row)) for row in self.rows("held", "released", "superseded")]
        having = [
            (row, past)
            for row, past in rows
            if any(one.test == test and one.verdict.action in ("hold", "release") for one in past.decided)
        ]
        if len(having) > 1:
            numbers = [str(row.report_id) for row, _ in having]
            raise CommandError("{test} stands in the reports {numbers}: name one with --report", test=test, numbers=numbers)
        if not rows:
            raise CommandError("specimen {specimen} has no report to put {test} into", specimen=self.request.specimen, test=test)
        return (having or rows)[-1]

    def _amend(self, row: Any, past: Past, case: amending.Case, news: list[Any], decision: Decision) -> None:
        try:
            outcome = case.outcome(news, decision)
        except UnwritableError as error:
            unwritable(row, error.reason.code)
        self.write(row, past, outcome, decision.kind)

    def _settled(self, row: Any, past: Past, action: Literal["release", "reject", "remap"]) -> Outcome | None:
        case = self.case_of(row, past)
        outcome = settling.settle(
            case.report,
            case.before,
            action,
            frozenset(self.request.tests),
            self.decision("release-mapped" if action == "remap" else action),
            case.key,
            case.context,
            case.rules,
            case.revision,
            case.moment,
            correction=self.request.correction,
            together=case.together,
            attachments=case.attachments,
        )
        self.say_left_out(row, case.attachments)
        return outcome

    def _heard(self, row: Any, outcome: Outcome) -> Outcome:
        """The outcome with its call-back, without which no critical value is released."""
        decision = self.called(outcome.decision)
        if not (decision.told and decision.read_back) and not self.request.preview:
            called = called_back(decode(document, Decision) for document in row.decisions)
            if missing := [
                one.test
                for one in decision.results
                if one.verdict.action == "release" and is_critical(one) and one.index not in called
            ]:
                _need_call(missing)
        return Outcome(outcome.key, outcome.report, outcome.state, decision, outcome.content, outcome.outgoing)


def _need_call(tests: list[str]) -> None:
    critical = Said("{tests} is critical", tests=tests) if len(tests) == 1 else Said("{tests} are critical", tests=tests)
    raise CommandError(
        '{critical}: tell the ward, have it read back, and add --told "Dr. …" --read-back '
        "(or record it with `labbridge call-back`)",
        critical=critical,
    )
