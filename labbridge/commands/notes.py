"""What a person writes down about a specimen: comments, call-backs, that a signal was heard, that it was seen. Nothing leaves."""

from typing import Any

import msgspec

from labbridge.amending import LONGEST
from labbridge.batch import past_of
from labbridge.commands.request import CommandError, Done, Request
from labbridge.commands.work import Work
from labbridge.model import Decided, Decision, encode
from labbridge.pipeline import Moment, Revision
from labbridge.said import Said
from labbridge.store import Transaction
from labbridge.verification.callback import is_critical

LONGEST_NOTE = 4000  # characters
_STANDING = ("held", "released", "superseded", "rejected")


def comment(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Keeps a comment with a specimen; the hospital does not get it."""
    return _Notes(tx, revision, moment, request, actor).comment()


def call_back(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Keeps who was told of a specimen's results, when, and whether it was read back."""
    return _Notes(tx, revision, moment, request, actor).call_back()


def acknowledge(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Keeps that somebody has heard the signal of a held critical value."""
    return _Notes(tx, revision, moment, request, actor).acknowledge()


def viewed(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Writes into the audit trail that somebody has looked at a specimen."""
    return _Notes(tx, revision, moment, request, actor).seen("viewed")


def export(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Writes into the audit trail that somebody took a copy of all that is known of a specimen."""
    return _Notes(tx, revision, moment, request, actor).seen("export")


class _Notes(Work):
    """A note being written down."""

    def comment(self) -> Done:
        """A comment on all of a specimen's reports that still stand."""
        note = self.request.note.strip()
        if not note or len(note) > LONGEST_NOTE:
            raise CommandError("a comment has 1 to {most} characters", most=LONGEST_NOTE)
        [row] = self.rows(*_STANDING)[-1:] or [None]
        if row is None:
            raise CommandError("nothing of specimen {specimen} is left to comment on", specimen=self.request.specimen)
        self._keep(row, Decision((), self.actor, note, "comment"), note)
        return self.done

    def call_back(self) -> Done:
        """Who was told of the named tests; of all that are critical when none is named."""
        if not self.request.told.strip() or len(self.request.told) > LONGEST:
            raise CommandError('who was told? add --told "Dr. …"')
        wanted = set(self.request.tests)
        for row in self.rows("held", "released"):
            decided = [one for one in past_of(row).decided if one.verdict.action in ("hold", "release") and one.value]
            about = [one for one in decided if one.test in wanted or one.code in wanted or (not wanted and is_critical(one))]
            if about:
                tests = tuple(dict.fromkeys(one.test or one.code for one in about))
                decision = self.called(Decision((), self.actor, self.request.reason, "call-back", tests=tests))
                self._keep(row, decision, _values(about) | self.callback(decision))
        if not self.done.said:
            if wanted:
                raise CommandError("there is no such result to call back")
            raise CommandError("nothing of it is critical: name the tests")
        return self.done

    def acknowledge(self) -> Done:
        """The signal of a specimen's held critical values."""
        for row in self.rows("held"):
            critical = [one for one in past_of(row).decided if one.verdict.action == "hold" and is_critical(one)]
            if critical:
                tests = tuple(dict.fromkeys(one.test for one in critical))
                self._keep(row, Decision((), self.actor, self.request.reason, "acknowledge", tests=tests), _values(critical))
        if not self.done.said:
            raise CommandError("nothing critical is held for specimen {specimen}", specimen=self.request.specimen)
        return self.done

    def seen(self, action: str) -> Done:
        """Who has seen what."""
        self.rows()
        self.audit(action, f"specimen {self.request.specimen}", "", "")
        self.done.said.append(Said("noted"))
        return self.done

    def _keep(self, row: Any, decision: Decision, what: Any) -> None:
        """Writes down a decision that has no results of its own."""
        self.tx.decision(report_id=row.report_id, actor=self.actor, revision=self.revision_id(), document=encode(decision))
        new = what if isinstance(what, str) else msgspec.json.encode(what).decode()
        self.audit(decision.kind, f"report {row.report_id}", "", new)
        kind = Said(decision.kind)
        told = Said("{deed} {tests}", deed=kind, tests=list(decision.tests)) if decision.tests else kind
        self.done.said.append(Said("report {report}: {told}", report=row.report_id, told=told))


def _values(decided: list[Decided]) -> dict[str, str]:
    return {one.test or one.code: f"{one.value} {one.print_unit}".strip() for one in decided}
