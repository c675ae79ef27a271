"""Whose results they are: a corrected specimen id is proposed by one person, and done when another confirms it.

What was delivered under the wrong id is withdrawn there (OBX-11 W), what waits for the hospital under it is cancelled, the
report is rejected, and a new one under the right id is decided on, with that specimen's history.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from labbridge.commands.moving import Move, Moving, Pair
from labbridge.commands.request import CommandError, Done, Request
from labbridge.commands.work import Work
from labbridge.pipeline import Moment, Revision
from labbridge.said import Said
from labbridge.store import Transaction

LONGEST_ID = 100  # characters of a specimen's id
MOST = 500  # reports in one proposal


def correct_id(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Proposes the right specimen id for reports; nothing moves before another person confirms it."""
    return _Identity(tx, revision, moment, request, actor).propose()


def confirm_id(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Confirms what another person proposed, and moves the reports."""
    return _Identity(tx, revision, moment, request, actor).confirm()


def withdraw_id(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Drops a proposal."""
    return _Identity(tx, revision, moment, request, actor).withdraw()


def withdraw_late(tx: Transaction, revision: Revision, moment: Moment, delivery: int) -> Done:
    """Withdraws what a delivery brought that was cancelled while it flew, since its report had come to another specimen."""
    return Moving(tx, revision, moment, Request("confirm-id"), "labbridge").late(delivery)


def still_moving(tx: Transaction) -> dict[int, list[int]]:
    """The deliveries that were cancelled for corrected ids, of which it is not settled whether they left; by proposal."""
    found: dict[int, list[int]] = {}
    for row in tx.moved():
        parts = [part for pair in _pairs(row.document) for part in tx.deliveries_of(pair.report)]
        found[row.id] = [part.id for part in parts if part.state == "cancelled"]
    return found


class _Identity(Work):
    """A command on specimen ids being carried out."""

    def propose(self) -> Done:
        """Keeps the proposal, once it is sure that it could be done now."""
        self.need_reason()
        pairs = self._asked()
        moves = self._moves(pairs)
        waiting = {pair.report: one.id for one in self.tx.proposals() for pair in _pairs(one.document)}
        for pair in pairs:
            if pair.report in waiting:
                number = waiting[pair.report]
                raise CommandError("report {report} is in proposal {proposal} already", report=pair.report, proposal=number)
        if self.request.preview:
            return self._moving().show(moves)
        number = self.tx.propose(self.actor, self.request.reason, msgspec.json.encode(pairs))
        for move in moves:
            new = f"proposal {number}: specimen {move.new_report.specimen.id}"
            self.audit("correct-id", f"report {move.row.report_id}", f"specimen {move.row.specimen}", new)
            self.done.said.append(move.said)
        self.done.said.append(
            Said("proposal {proposal}: another person confirms it with `labbridge confirm-id {proposal}`", proposal=number)
        )
        self.done.answer["proposal"] = number
        return self.done

    def confirm(self) -> Done:
        """Moves the reports of a proposal."""
        row = self._open()
        if row.actor == self.actor:
            raise CommandError("proposal {proposal} is your own: another person must confirm it", proposal=row.id)
        moves = self._moves(_pairs(row.document))
        if self.request.preview:
            return self._moving().show(moves)
        self.request = msgspec.structs.replace(self.request, reason=self.request.reason.strip() or row.reason)
        self.audit("confirm-id", f"proposal {row.id}", f"open, by {row.actor}", "done")
        done = self._moving().carry_out(moves)
        cancelled = any(part.state == "cancelled" for move in moves for part in self.tx.deliveries_of(move.row.report_id))
        self.tx.set_proposal_state(row.id, "moved" if cancelled else "done")
        return done

    def withdraw(self) -> Done:
        """Drops a proposal."""
        row = self._open()
        self.tx.set_proposal_state(row.id, "withdrawn")
        self.audit("withdraw-id", f"proposal {row.id}", f"open, by {row.actor}", "withdrawn")
        for pair in _pairs(row.document):
            self.audit("withdraw-id", f"report {pair.report}", f"proposal {row.id}", "withdrawn")
        self.done.said.append(Said("proposal {proposal}: withdrawn", proposal=row.id))
        return self.done

    def _open(self) -> Any:
        row = self.tx.proposal(self.request.proposal)
        if row is None or row.state != "open":
            raise CommandError("there is no open proposal {proposal}", proposal=self.request.proposal)
        return row

    def _moving(self) -> Moving:
        return Moving(self.tx, self.revision, self.moment, self.request, self.actor, self.done)

    def _asked(self) -> list[Pair]:
        """Which reports become whose: a list in ``text``, or all that are named become those of ``to``."""
        if self.request.text:
            try:
                pairs = _pairs(self.request.text.encode())
            except msgspec.MsgspecError as error:
                raise CommandError('not a list of {{"report": 12, "to": "id"}}: {fault}', fault=str(error)) from None
        elif not self.request.specimen and not self.request.reports:
            raise CommandError("name the specimen, or reports with --report")
        else:
            pairs = [Pair(row.report_id, self.request.to) for row in self.rows("held", "released", "superseded")]
        if not pairs:
            raise CommandError("there is no report whose specimen could be corrected")
        if len(pairs) > MOST or len({pair.report for pair in pairs}) < len(pairs):
            raise CommandError("a proposal has at most {most} reports, each once", most=MOST)
        return pairs

    def _moves(self, pairs: Sequence[Pair]) -> list[Move]:
        found = {row.report_id: row for row in self.tx.reports([pair.report for pair in pairs])}
        moving, moves = self._moving(), []
        for pair in sorted(pairs, key=lambda pair: pair.report):
            if pair.report not in found:
                raise CommandError("there is no report {report}", report=pair.report)
            if len(pair.to) > LONGEST_ID or not pair.to.strip() or not pair.to.isprintable():
                raise CommandError(
                    "report {report}: a specimen id has 1 to {most} printable characters", report=pair.report, most=LONGEST_ID
                )
            moves.append(moving.plan(found[pair.report], pair.to.strip()))
        return moves


def _pairs(document: bytes) -> list[Pair]:
    return msgspec.json.decode(document, type=list[Pair])
