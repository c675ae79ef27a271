"""Moves reports from one specimen to another: what leaves for the old id, and what for the new one."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from labbridge import amending, pipeline
from labbridge.amending import Case
from labbridge.batch import past_of, write_decision
from labbridge.commands.request import CommandError, Done, Request
from labbridge.commands.work import Work, observations, unwritable
from labbridge.context import Context, Past
from labbridge.formats.oru import UnwritableError
from labbridge.model import Decided, Decision, Reason, Report, Verdict, decode, encode
from labbridge.pipeline import AnalyzerRules, Outcome, Outgoing, standing
from labbridge.said import Said
from labbridge.store.erasure import erased
from labbridge.store.rows import Attempt
from labbridge.store.rows import Decision as DecisionRow

_BY_RULES = ("retry", "release-mapped")  # kinds of decisions in which a person does not judge the result
_UNKNOWN = b"\0"  # a value that no message has
UNANSWERED = "unanswered"  # in place of an answer: it was sent, cancelled, and may have arrived


class Pair(msgspec.Struct, forbid_unknown_fields=True):
    """A report, and whose it is."""

    report: int
    to: str


class Move(msgspec.Struct):
    """A report that is another specimen's."""

    row: Any
    past: Past
    rules: AnalyzerRules | None
    new_report: Report
    new_key: str
    told: dict[str, list[Decided]] = {}  # by destination: what is withdrawn there
    outcome: Outcome | None = None  # what is decided of it under the new id

    @property
    def said(self) -> Said:
        """Whose it was, and whose it is."""
        new = self.new_report.specimen.id
        return Said("report {report}: {old} -> {new}", report=self.row.report_id, old=self.row.specimen, new=new)


class Restored(msgspec.Struct):
    """Results that the wrong ones had replaced at the hospital, and which hold again: of one report, for one destination."""

    row: Any
    past: Past
    destination: str
    results: list[Decided]


class Moving(Work):
    """Reports being moved."""

    def plan(self, row: Any, to: str) -> Move:
        """What is moved whither; raises CommandError where it cannot be."""
        report_id = row.report_id
        if row.state == "rejected" or row.role not in ("patient", "unknown") or erased(row.document):
            raise CommandError(
                "report {report} was rejected, deleted, or is no patient's: its specimen cannot be corrected", report=report_id
            )
        rules, past = self.rules_of(row), past_of(row)
        if rules.identity == "patient":
            raise CommandError(
                "report {report}: results of {analyzer} go by patients, not by specimens", report=report_id, analyzer=row.analyzer
            )
        if any(pattern.search(to) for pattern in rules.qc_ids):
            raise CommandError("{specimen} is the id of a control", specimen=to)
        if rules.specimen_pattern is not None and not rules.specimen_pattern.search(to):
            raise CommandError("{specimen} does not look like a barcode of this laboratory", specimen=to)
        report = amending.under(past.report, to)
        key = pipeline.key_of(report, rules, replace(self.moment, at=past.at))
        if key == row.key:
            raise CommandError("report {report} is specimen {specimen} already", report=report_id, specimen=to)
        return Move(row, past, rules, report, key)

    def show(self, moves: Sequence[Move]) -> Done:
        """Tells what would leave."""
        restored = self._decide(moves)
        for move in moves:
            self.preview(move.row.specimen, self._withdrawals(move))
            self.done.said.append(move.said)
        for one in restored:
            self.preview(one.row.specimen, [self._again(one)])
        for move in moves:
            if move.outcome is not None:
                self.preview(move.new_report.specimen.id, move.outcome.outgoing)
        return self.done

    def carry_out(self, moves: Sequence[Move]) -> Done:
        """Writes all of it: what is taken back first, so that in no lane it follows what is right."""
        restored = self._decide(moves)
        numbers = [self._take_back(move) for move in moves]
        self._remake(moves)
        by_report: defaultdict[int, list[Restored]] = defaultdict(list)
        for one in restored:
            by_report[one.row.report_id].append(one)
        for some in by_report.values():
            self._restore(some)
        for move, number in zip(moves, numbers, strict=True):
            self._put(move, number)
        return self.done

    def late(self, number: int) -> Done:
        """Withdraws what a cancelled delivery brought all the same, after its report was moved; until then it is remembered.

        Where the hospital's character set lacks something of the person's reason, it is withdrawn without one.
        """
        part = self.tx.find_delivery(number)
        [row] = self.tx.reports([part.report_id]) if part is not None else [None]
        if part is None or row is None or erased(row.document):
            return self.done
        past = past_of(row)
        decisions = [decode(document, Decision) for document in row.decisions]
        moved = next((decision for decision in reversed(decisions) if decision.kind == "confirm-id"), None)
        if row.state != "rejected" or moved is None:
            if part.state == "cancelled" and not self._unanswered(part):
                self.tx.attempt(delivery_id=number, outcome=UNANSWERED)
            return self.done
        decision_id = max(one.id for one in self.tx.found(DecisionRow, "report_id", [row.report_id]))
        before = standing(decision for decision in decisions if decision is not moved)
        leaving: list[Outgoing] = []
        for reason in dict.fromkeys((moved.comment, "")):
            self.request = Request("confirm-id", reason=reason)
            move = Move(row, replace(past, decided=before), None, past.report, row.key)
            restored = self._undo(row.key, part.destination, [move], frozenset(), number)
            try:
                leaving = self._withdrawals(move)
                break
            except CommandError:
                if not reason:
                    raise
        for out in leaving:
            self.queue(out, row.report_id, decision_id)
            self.audit("confirm-id", f"report {row.report_id}", f"delivery {number}", "arrived, or may have: withdrawn")
        for one in restored:
            self._restore([one])
        return self.done

    # -- deciding ------------------------------------------------------------------------------------------------

    def _decide(self, moves: Sequence[Move]) -> list[Restored]:
        moved = frozenset(move.row.report_id for move in moves)
        by_key: defaultdict[str, list[Move]] = defaultdict(list)
        for move in moves:
            by_key[move.row.key].append(move)
        restored: list[Restored] = []
        for key, some in by_key.items():
            for name in dict.fromkeys(part.destination for move in some for part in self.tx.deliveries_of(move.row.report_id)):
                restored += self._undo(key, name, some, moved)
        contexts: dict[str, Context] = {}
        for move in moves:
            if move.new_key not in contexts:
                known = [past_of(row) for row in self.others(move.new_key, moved)]
                contexts[move.new_key] = Context({move.new_key: known})
            self._anew(move, contexts[move.new_key])
        return restored

    def _undo(self, key: str, destination: str, moves: Sequence[Move], leaving: frozenset[int], arrived: int = 0) -> list[Restored]:
        """What a destination must be told of a specimen, of which these reports are not.

        What it has of their tests, by the messages that it took, is withdrawn, or replaced by what another report says. What
        waits of the reports in ``leaving`` will not leave; ``arrived`` is a delivery that may have arrived though it is cancelled.
        """
        rows = self.others(key, ())
        lane = sorted(
            ((part, row) for row in rows for part in self.tx.deliveries_of(row.report_id) if part.destination == destination),
            key=lambda each: int(each[0].id),
        )
        gone = {move.row.report_id for move in moves}
        others = [(row, past_of(row)) for row in rows if row.report_id not in gone | leaving]
        restored: dict[int, Restored] = {}
        wrong = {one.test: (move, one) for move in moves for one in move.past.decided if one.verdict.action == "release"}
        for test, (move, one) in sorted(wrong.items()):
            there = self._at_hospital(test, destination, lane, leaving, arrived)
            if there is None:
                continue
            having = [
                ((other.measured_at or 0, row.report_id), row, past, other)
                for row, past in others
                for other in past.decided
                if other.test == test and other.verdict.action == "release"
            ]
            if having:
                _, row, past, other = max(having, key=lambda each: each[0])
                again = other if other.status == "X" else replace(other, status="C")
                out = self._outgoing(row, past, [again], destination)
                if observations(out.payload).get(self._code(test, destination), (_UNKNOWN,))[0] != there:
                    restored.setdefault(row.report_id, Restored(row, past, destination, [])).results.append(again)
            else:
                why = Reason("withdrawn", {"why": self.request.reason})
                empty = replace(one, value="", flag="", reference="", status="W", verdict=Verdict("release", (why,)))
                move.told.setdefault(destination, []).append(empty)
        return list(restored.values())

    def _at_hospital(
        self, test: str, destination: str, lane: Sequence[tuple[Any, Any]], leaving: frozenset[int], arrived: int
    ) -> bytes | None:
        """OBX-5 of a test as a destination has it; None where it has none, or where what waits will tell it anyhow."""
        code, repeats, there = self._code(test, destination), self._repeats(destination), None

        def remade(row: Any) -> bool:
            return repeats and row.state != "rejected"

        for part, row in lane:
            has = part.state == "delivered" or part.id == arrived or (part.state == "cancelled" and self._unanswered(part))
            told = {} if erased(part.payload) else observations(part.payload)
            if code in told:
                value, status = told[code]
            elif has and test in self.carried(row, part):
                value, status = _UNKNOWN, b""  # the hospital's codes have changed since, or retention has deleted it
            else:
                continue
            if has:
                there = None if status == b"W" else value
            elif part.state in ("queued", "refused") and row.report_id not in leaving and (arrived or not remade(row)):
                there = None
        return there

    def _unanswered(self, part: Any) -> bool:
        """Whether a delivery was sent and cancelled before it was answered."""
        return any(one.outcome == UNANSWERED for one in self.tx.found(Attempt, "delivery_id", [part.id]))

    def _code(self, test: str, destination: str) -> bytes:
        outlet = self.revision.outlets.get(destination)
        return outlet.writer.code_of(test) if outlet is not None else b""

    def _repeats(self, destination: str) -> bool:
        outlet = self.revision.outlets.get(destination)
        return outlet is not None and outlet.resend == "cumulative"

    def _anew(self, move: Move, context: Context) -> None:
        """Decides on a report under its right id, and adds it to what is known of that specimen."""
        row, past = move.row, move.past
        decisions = [decode(document, Decision) for document in row.decisions]
        last = {one.index: decision.actor for decision in decisions for one in decision.results if decision.kind not in _BY_RULES}
        by_person = frozenset(
            one.index for one in past.decided if one.verdict.action in ("release", "superseded") and last[one.index] != "rules"
        )
        assert move.rules is not None
        attached = self.attached(row, move.rules)
        case = Case(
            *(move.new_report, past.decided, move.new_key, context, move.rules, self.revision, self.moment), attachments=attached
        )
        came_as = Reason("id-corrected", {"report": str(row.report_id)})
        try:
            move.outcome = amending.moved(case, by_person, past.at, self.decision("confirm-id"), came_as)
        except UnwritableError as error:
            unwritable(row, error.reason.code)
        self.say_left_out(row, attached)
        decided = move.outcome.decision.results
        context.add(move.new_key, Past(past.analyzer, past.at, past.digest, past.content, move.new_report, decided))

    # -- what leaves ---------------------------------------------------------------------------------------------

    def _withdrawals(self, move: Move) -> list[Outgoing]:
        return [self._outgoing(move.row, move.past, results, name) for name, results in move.told.items()]

    def _again(self, one: Restored) -> Outgoing:
        return self._outgoing(one.row, one.past, one.results, one.destination)

    def _outgoing(self, row: Any, past: Past, results: list[Decided], destination: str) -> Outgoing:
        if destination not in self.revision.outlets:
            raise CommandError(
                "destination {destination} had results under the wrong id and is no longer configured: add it again",
                destination=destination,
            )
        results = sorted(results, key=lambda one: one.index)
        try:
            return pipeline.one_outgoing(past.report, row.key, results, destination, past.analyzer, self.revision, self.moment)
        except UnwritableError as error:
            unwritable(row, error.reason.code)

    # -- writing -------------------------------------------------------------------------------------------------

    def _take_back(self, move: Move) -> int:
        """Rejects the report under the wrong id, with all that follows for the hospital; gives the new report's number."""
        row, outcome = move.row, move.outcome
        assert outcome is not None
        for part in self.tx.deliveries_of(row.report_id):
            if part.state in ("queued", "refused"):
                self.done.removed.append(part.id)
                self.turn(part, "confirm-id", "cancelled", Said("cancelled, it was for the wrong specimen"))
        number = self.tx.report(
            message_id=row.message_id,
            analyzer=row.analyzer,
            key=move.new_key,
            specimen=move.new_report.specimen.id,
            patient=row.patient,
            role=row.role,
            state=outcome.state,
            digest=row.digest,
            content=row.content,
            document=encode(move.new_report),
        )
        reason, withdrawn = Reason("moved", {"report": str(number)}), {one.index for told in move.told.values() for one in told}
        results = tuple(
            replace(one, verdict=Verdict("rejected", (reason,)), status="W" if one.index in withdrawn else one.status)
            for one in move.past.decided
            if one.verdict.action != "ignore"
        )
        decision = replace(self.decision("confirm-id"), results=results)
        decision_id = self._decision(row.report_id, decision)
        self.tx.set_report_state(row.report_id, "rejected")
        for out in self._withdrawals(move):
            self.queue(out, row.report_id, decision_id)
        return number

    def _remake(self, moves: Sequence[Move]) -> None:
        """What still waits of the old specimens and repeats the wrong results is written anew without them."""
        moved = {move.row.report_id for move in moves}
        for row in [row for key in dict.fromkeys(move.row.key for move in moves) for row in self.others(key, moved)]:
            for part in self.tx.deliveries_of(row.report_id):
                waits = part.state in ("queued", "refused") and row.state != "rejected"  # of which only withdrawals wait
                if not waits or not self._repeats(part.destination):
                    continue
                past, tests = past_of(row), self.carried(row, part)
                news = [one for one in past.decided if one.test in tests and one.verdict.action == "release"]
                known = Context({row.key: [past_of(one) for one in self.others(row.key, {row.report_id})]})
                leaving = pipeline.outgoing_of(
                    past.report, row.key, news, past.decided, known, row.analyzer, self.revision, self.moment
                )
                self.done.removed.append(part.id)
                told = Said("superseded, it repeated what was for another specimen")
                self.turn(part, "confirm-id", "superseded", told)
                for out in leaving:
                    if out.destination == part.destination:
                        self.queue(out, row.report_id, part.decision_id)

    def _restore(self, some: Sequence[Restored]) -> None:
        """Sends again what the wrong results had replaced."""
        row = some[0].row
        results = {one.index: one for restored in some for one in restored.results}
        decision = replace(self.decision("confirm-id"), results=tuple(results[index] for index in sorted(results)))
        decision_id = self._decision(row.report_id, decision)
        tests = [one.test for one in decision.results]
        self.audit("confirm-id", f"report {row.report_id}", "", f"{', '.join(tests)} sent again as a correction")
        self.done.said.append(
            Said("report {report}: {tests} sent again, the wrong results had replaced it", report=row.report_id, tests=tests)
        )
        for one in some:
            self.queue(self._again(one), row.report_id, decision_id)

    def _put(self, move: Move, number: int) -> None:
        """Writes the decision on the report under its right id, and queues what leaves."""
        row, outcome = move.row, move.outcome
        assert outcome is not None
        self.done.queued += write_decision(self.tx, outcome, number, self.revision_id())
        old, new = row.specimen, move.new_report.specimen.id
        tests = sorted({one.test for told in move.told.values() for one in told})
        withdrawn = Said("; withdrawn at the hospital: {tests}", tests=tests) if tests else ""
        self.audit(
            "confirm-id", f"report {row.report_id}", f"specimen {old}", f"rejected; specimen {new}, report {number}{withdrawn}"
        )
        self.audit("confirm-id", f"report {number}", f"specimen {old}, report {row.report_id}", f"specimen {new}: {outcome.state}")
        self.done.said.append(
            Said(
                "report {report}: is report {number} of specimen {specimen} now, {state}{withdrawn}",
                report=row.report_id,
                number=number,
                specimen=new,
                state=Said(outcome.state),
                withdrawn=withdrawn,
            )
        )

    def _decision(self, report_id: int, decision: Decision) -> int:
        document = encode(decision)
        return self.tx.decision(report_id=report_id, actor=self.actor, revision=self.revision_id(), document=document)
