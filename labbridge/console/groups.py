"""Rows by their cause, and one act for a group that one has opened."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui

from labbridge.console import deeds, session
from labbridge.console.acting import Answer, act
from labbridge.console.asking import Field, ask
from labbridge.console.listing import why_text
from labbridge.console.rows import Group, Row, groups_of
from labbridge.console.texts import _, age_text, number_text
from labbridge.showing import brief

__all__ = ["cells", "groups_of", "opened"]

SHOWN = 3  # specimens of a group of which is shown what leaves
_COMMANDS = ("release", "not-reportable", "recollect", "reject")


def cells(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Groups as rows of the table."""
    return [
        {
            "key": group.cause.key,
            "specimen": number_text(len(group.rows)),
            "patient": [],
            "analyzer": [brief(group.cause.analyzer, 40)],
            "received": [_("oldest: {age}", age=age_text(max(0.0, time.time() - min(row.at for row in group.rows) / 1e6)))],
            "why": [why_text(why) for why in group.cause.whys],
            "critical": _("critical") if group.cause.critical else "",
            "gone": "",
            "others": "",
            "here": False,
        }
        for group in groups
    ]


def opened(rows: Sequence[Row], close: Callable[[], None]) -> None:
    """What stands above the rows of a group: what they have in common, and what may be done with all of them."""
    ui.button(_("All causes"), icon="arrow_back", on_click=close).props("flat dense no-caps")
    held = [row for row in rows if row.what == "held" and row.opens]
    if not held or any(row.critical for row in held):
        return  # a critical value is for one call and one look each
    for command in _COMMANDS:
        if session.can(command):
            label = _("{deed}: all {n}", deed=deeds.word(command), n=number_text(len(held)))
            ui.button(label, on_click=lambda command=command: settle(held, command)).props("outline dense no-caps size=12px")


async def settle(rows: Sequence[Row], command: str) -> None:
    """One act for a group: says what it covers and what leaves, then does it specimen by specimen, and shows how far it is."""

    async def preview(entered: dict[str, Any]) -> Answer:
        reason, leaves = entered["reason"] or "…", []
        for row in rows[:SHOWN]:
            asked = {"specimen": row.opens, "reports": [row.id], "reason": reason}
            answer = await act(command, preview=True, quiet=True, **asked)
            if not answer.ok:
                return answer
            leaves += answer.answer.get("leaves", ())
        return Answer(True, answer={"leaves": leaves})

    covers = [f"{brief(row.specimen, 60)} — {'; '.join(map(why_text, row.whys))}" for row in rows]
    told = _("{n} specimens. What leaves is shown of the first {shown}.", n=len(rows), shown=min(SHOWN, len(rows)))
    nothing = command == "reject"
    asked = await ask(
        deeds.word(command),
        [Field("reason", _("Reason"))],
        covers=covers,
        told=_("The hospital receives nothing.") if nothing else told,
        preview=None if nothing else preview,
    )
    if asked is not None:
        await _each(rows, command, asked["reason"])


async def _each(rows: Sequence[Row], command: str, reason: str) -> None:
    failed: list[str] = []
    with ui.dialog().props(f'persistent aria-label="{deeds.word(command)}"') as dialog, ui.card().classes("w-96"):
        ui.label(deeds.word(command)).classes("text-lg")
        bar = ui.linear_progress(0, show_value=False).props(f'aria-label="{deeds.word(command)}"')
        count = ui.label().props("role=status")
        stop = ui.button(_("Stop")).props("flat no-caps")
    stopped: list[bool] = []
    stop.on_click(lambda: stopped.append(True))
    dialog.open()
    for done, row in enumerate(rows, 1):
        answer = await act(command, quiet=True, specimen=row.opens, reports=[row.id], reason=reason)
        if not answer.ok:
            failed.append(f"{brief(row.specimen, 60)}: {brief(answer.error, 300)}")
        bar.set_value(done / len(rows))
        count.set_text(_("{done} of {n}", done=done, n=len(rows)))
        if stopped or (failed and len(failed) == done == SHOWN):
            break
    dialog.close()
    if failed:
        told = "\n".join([_("{n} could not be settled:", n=len(failed)), *failed[:5]])
        ui.notify(told, type="negative", multi_line=True, timeout=0, close_button="✕")
    else:
        ui.notify(_("{n} specimens: {deed}", n=done, deed=deeds.word(command)), type="positive")
