"""One act for a group of rows that one has opened."""

from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui

from labbridge.console import session
from labbridge.console.acting import Answer, act, ask, nothing, previewed, reason_field, say
from labbridge.showing import brief
from labbridge.views.listing import why_text
from labbridge.views.rows import Row
from labbridge.views.texts import _, number_text
from labbridge.views.wording import deed_word

SHOWN = 3  # specimens of a group of which is shown what leaves; where so many fail at once, no more are tried
_COMMANDS = ("release", "not-reportable", "recollect", "reject")


def opened(rows: Sequence[Row], close: Callable[[], None]) -> None:
    """What stands above the rows of a group: the way back, and what may be done with all of them."""
    ui.button(_("All causes"), icon="arrow_back", on_click=close).props("flat dense no-caps")
    held = [row for row in rows if row.what == "held" and row.opens]
    if not held or any(row.critical for row in held):
        return  # a critical value is for one call and one look each
    for command in filter(session.can, _COMMANDS):
        label = _("{deed}: all {n}", deed=deed_word(command), n=number_text(len(held)))
        ui.button(label, on_click=lambda command=command: settle(held, command)).props("outline dense no-caps size=12px")


async def settle(rows: Sequence[Row], command: str) -> None:
    """One act for a group: says what it covers and what leaves, then does it specimen by specimen, and shows how far it is."""

    async def preview(entered: dict[str, Any]) -> Answer:
        leaves: list[Any] = []
        for row in rows[:SHOWN]:
            answer = await previewed(command, **_target(row), **entered)
            if not answer.ok:
                return answer
            leaves += answer.answer.get("leaves", ())
        return Answer(True, answer={"leaves": leaves})

    covers = [f"{brief(row.specimen, 60)} — {'; '.join(map(why_text, row.whys))}" for row in rows]
    told = _("{n} specimens. What leaves is shown of the first {shown}.", n=len(rows), shown=min(SHOWN, len(rows)))
    silent = command == "reject"
    told, seen = (nothing(), None) if silent else (told, preview)
    with ui.context.client.content:  # the buttons above the list are drawn anew as it changes
        if entered := await ask(deed_word(command), [reason_field()], covers=covers, told=told, preview=seen):
            await _each(rows, command, entered["reason"])


async def _each(rows: Sequence[Row], command: str, reason: str) -> None:
    deed, failed = deed_word(command), []
    with ui.dialog(value=True).props(f'persistent aria-label="{deed}"') as dialog, ui.card().classes("w-96"):
        ui.label(deed).classes("text-lg")
        bar = ui.linear_progress(0, show_value=False).props(f'aria-label="{deed}"')
        count = ui.label().props("role=status")
        stop = ui.button(_("Stop")).props("flat no-caps")
        stop.on_click(stop.disable)
    for done, row in enumerate(rows, 1):
        answer = await act(command, quiet=True, reason=reason, **_target(row))
        if not answer.ok:
            failed.append(f"{brief(row.specimen, 60)}: {brief(answer.error, 300)}")
        bar.set_value(done / len(rows))
        count.set_text(_("{done} of {n}", done=done, n=len(rows)))
        if not stop.enabled or len(failed) == done == SHOWN:
            break
    dialog.close()
    if failed:
        say("\n".join([_("{n} could not be settled:", n=len(failed)), *failed[:5]]), good=False)
    else:
        say(_("{n} specimens: {deed}", n=done, deed=deed), good=True)


def _target(row: Row) -> dict[str, Any]:
    """What a command takes to mean this row."""
    return {"specimen": row.opens, "reports": [row.id]}
