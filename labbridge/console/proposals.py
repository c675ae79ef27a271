"""Corrected specimen ids: proposed for one specimen or a shifted batch, confirmed by another person."""

import asyncio
import re
from typing import Any

import msgspec
from nicegui import ui

from labbridge.console import deeds, session
from labbridge.console.acting import Answer, act
from labbridge.console.asking import Field, ask
from labbridge.console.watch import watch
from labbridge.showing import brief
from labbridge.views.held import Proposed
from labbridge.views.texts import _, time_text

SHOWN = 5  # pairs of ids of one proposal
_STATES = ("held", "released", "superseded")


class Proposals:
    """The open proposals, above the list."""

    def __init__(self) -> None:
        self._shown: tuple[Proposed, ...] | None = None
        self._box = ui.column().classes("w-full gap-1")
        watch().on_change("held", self.show)
        self.show()

    def show(self) -> None:
        """Draws anew what has changed."""
        if watch().held.proposals == self._shown:
            return
        self._shown = watch().held.proposals
        self._box.clear()
        with self._box:
            for one in self._shown:
                self._draw(one)

    def _draw(self, one: Proposed) -> None:
        pairs = ", ".join(f"{brief(wrong, 40) or '?'} → {brief(right, 40)}" for wrong, right in one.pairs[:SHOWN])
        more = _("… and {n} more", n=len(one.pairs) - SHOWN) if len(one.pairs) > SHOWN else ""
        by = _("{actor} proposed at {time}", actor=one.actor, time=time_text(one.at))
        with ui.row().classes("w-full items-center gap-2 px-4 py-1 lb-attention"):
            ui.icon("badge").props("aria-hidden=true")
            ui.label(" ".join(filter(None, (_("Correct the id"), f"{pairs} {more}", "·", by, brief(one.reason))))).classes(
                "lb-wrap"
            )
            if session.can("confirm-id") and one.actor != session.user().account:
                ui.button(deeds.word("confirm-id"), on_click=lambda: _confirm(one)).props("dense no-caps unelevated")
            if session.can("withdraw-id"):
                ui.button(deeds.word("withdraw-id"), on_click=lambda: _withdraw(one)).props("dense no-caps outline")


async def _confirm(one: Proposed) -> None:
    async def preview(entered: dict[str, Any]) -> Answer:
        return await act("confirm-id", preview=True, quiet=True, proposal=one.id)

    covers = [f"{brief(wrong, 60)} → {brief(right, 60)}" for wrong, right in one.pairs]
    told = _("What was delivered under the wrong id is withdrawn. This cannot be undone.")
    entered = await ask(deeds.word("confirm-id"), [Field("reason", _("Reason"))], covers=covers, told=told, preview=preview)
    if entered is not None:
        await act("confirm-id", proposal=one.id, **entered)


async def _withdraw(one: Proposed) -> None:
    entered = await ask(deeds.word("withdraw-id"), [Field("reason", _("Reason"))])
    if entered is not None:
        await act("withdraw-id", proposal=one.id, **entered)


async def shifted() -> None:
    """Proposes the right ids of a shifted batch: the wrong id and the right one by turns, typed or scanned."""
    told = _("The wrong id, then the right one, of each specimen; another person must confirm them.")
    fields = [Field("ids", _("Wrong and right ids by turns"), long=True), Field("reason", _("Reason"))]

    async def preview(entered: dict[str, Any]) -> Answer:
        if not entered["ids"]:
            return Answer(False)
        text, wrong = await asyncio.to_thread(_pairs, entered["ids"])
        if wrong:
            return Answer(False, error=_("Not known, or without its right id: {ids}", ids=", ".join(wrong)))
        return await act("correct-id", preview=True, quiet=True, text=text, reason=entered["reason"] or "…")

    entered = await ask(_("Shifted batch"), fields, told=told, preview=preview)
    if entered is not None:
        text, _wrong = await asyncio.to_thread(_pairs, entered["ids"])
        await act("correct-id", text=text, reason=entered["reason"])


def _pairs(ids: str) -> tuple[str, list[str]]:
    """The reports of the wrong ids with the right ones, as the command takes them; and which ids are not known."""
    words = re.findall(r"[^\s,;→]+", ids)
    wrong, right = words[::2], words[1::2]
    known = {name: [row for row in watch().reader.reports_of(name) if row.state in _STATES] for name in wrong}
    pairs = [{"report": row.report_id, "to": to} for name, to in zip(wrong, right, strict=False) for row in known[name]]
    missing = [name for name, rows in known.items() if not rows] + (words[-1:] if len(words) % 2 else [])
    return msgspec.json.encode(pairs).decode(), missing
