"""Corrected specimen ids: proposed for one specimen or a shifted batch, confirmed by another person."""

import asyncio
from typing import Any

from nicegui import ui

from labbridge.console import session
from labbridge.console.acting import Answer, Field, act, ask, decide, previewed, reason_field
from labbridge.console.watch import watch
from labbridge.showing import brief
from labbridge.views.held import Proposed, pairs_of
from labbridge.views.listing import joined
from labbridge.views.texts import _, time_text
from labbridge.views.wording import deed_word

SHOWN = 5  # pairs of ids of one proposal


class Proposals:
    """The open proposals, above the list."""

    def __init__(self) -> None:
        self._shown = watch().held.proposals
        with ui.column().classes("w-full gap-1"):
            self._draw()
        watch().on_change("held", self._changed)

    def _changed(self) -> None:
        if self._shown != watch().held.proposals:
            self._shown = watch().held.proposals
            self._draw.refresh()

    @ui.refreshable_method
    def _draw(self) -> None:
        for one in self._shown:
            pairs = ", ".join(f"{brief(wrong, 40) or '?'} → {brief(right, 40)}" for wrong, right in one.pairs[:SHOWN])
            more = _("… and {n} more", n=len(one.pairs) - SHOWN) if len(one.pairs) > SHOWN else ""
            by = _("{actor} proposed at {time}", actor=one.actor, time=time_text(one.at))
            with ui.row().classes("w-full items-center gap-2 px-4 py-1 lb-attention"):
                ui.icon("badge").props("aria-hidden=true")
                ui.label(joined(_("Correct the id"), f"{pairs} {more}", by, brief(one.reason))).classes("lb-wrap")
                if session.can("confirm-id") and one.actor != session.user().account:
                    confirm = ui.button(deed_word("confirm-id"), on_click=lambda one=one: _confirm(one))
                    confirm.props("dense no-caps unelevated")
                if session.can("withdraw-id"):
                    withdraw = ui.button(deed_word("withdraw-id"), on_click=lambda one=one: _withdraw(one))
                    withdraw.props("dense no-caps outline")


async def _confirm(one: Proposed) -> None:
    covers = [f"{brief(wrong, 60)} → {brief(right, 60)}" for wrong, right in one.pairs]
    told = _("What was delivered under the wrong id is withdrawn. This cannot be undone.")
    await decide("confirm-id", [reason_field()], {"proposal": one.id}, covers=covers, told=told)


async def _withdraw(one: Proposed) -> None:
    await decide("withdraw-id", [reason_field()], {"proposal": one.id}, leaves=False)


async def shifted() -> None:
    """Proposes the right ids of a shifted batch: the wrong id and the right one by turns, typed or scanned."""
    told = _("The wrong id, then the right one, of each specimen; another person must confirm them.")
    fields = [Field("ids", _("Wrong and right ids by turns"), long=True, leads=True), reason_field()]

    async def preview(entered: dict[str, Any]) -> Answer:
        text, wrong = await asyncio.to_thread(pairs_of, watch().reader, entered["ids"])
        if wrong:
            return Answer(False, error=_("Not known, or without its right id: {ids}", ids=", ".join(wrong)))
        return await previewed("correct-id", text=text, reason=entered["reason"])

    entered = await ask(_("Shifted batch"), fields, told=told, preview=preview)
    if entered:
        text, _wrong = await asyncio.to_thread(pairs_of, watch().reader, entered["ids"])
        await act("correct-id", text=text, reason=entered["reason"])
