"""What a person does: a command to the daemon as this user, what came of it, and the dialogs that ask before."""

from collections.abc import Sequence
from typing import Any

import msgspec
from nicegui import ui

from labbridge.commands import Request
from labbridge.console import session
from labbridge.console.leaving import lines_of
from labbridge.console.texts import _
from labbridge.showing import brief, shown

MOST_SHOWN = 50  # messages that would leave, and lines of one


class Answer(msgspec.Struct, frozen=True):
    """What the daemon answered."""

    ok: bool
    said: tuple[str, ...] = ()
    error: str = ""
    answer: dict[str, Any] = {}


async def act(command: str, *, quiet: bool = False, **fields: Any) -> Answer:
    """Sends a command as this user and says what came of it; a session that is over leads to the login."""
    request = Request(command, session=session.user().session, **fields)
    try:
        told = await session.send(request)
    except session.Silent as error:
        told = {"ok": False, "error": _("labbridge does not answer: {why}", why=error)}
    answer = Answer(bool(told.get("ok")), tuple(told.get("said", ())), str(told.get("error", "")), told.get("answer", {}))
    if not answer.ok and answer.answer.get("why") in ("expired", "unknown"):
        ui.navigate.to("/login?over=1")
    elif not quiet:
        _say(answer)
    return answer


def _say(answer: Answer) -> None:
    text = "\n".join(shown(line) for line in (answer.said if answer.ok else [answer.error])) or _("Done.")
    kind: Any = "positive" if answer.ok else "negative"
    ui.notify(text[:2000], type=kind, multi_line=True, position="bottom", timeout=6000 if answer.ok else 0, close_button=_("Close"))


async def ask_reason(title: str, *, leaves: Sequence[dict[str, str]] | None = None) -> str | None:
    """Asks for a reason, and shows what the hospital will receive; None where the person turned back."""
    with ui.dialog().props(f'aria-label="{title}"') as dialog, ui.card().classes("w-[36rem] max-w-full"):
        ui.label(title).classes("text-lg font-medium")
        if leaves is not None:
            show_leaves(leaves)
        reason = ui.input(_("Reason")).props("autofocus outlined").classes("w-full")
        with ui.row().classes("w-full justify-end"):
            ui.button(_("Cancel"), on_click=lambda: dialog.submit(None)).props("flat no-caps")
            go = ui.button(title, on_click=lambda: dialog.submit(reason.value.strip())).props("no-caps")
            go.bind_enabled_from(reason, "value", lambda text: bool((text or "").strip()))
        reason.on("keydown.enter", lambda: dialog.submit(reason.value.strip()) if reason.value.strip() else None)
    answer = await dialog
    dialog.delete()
    return answer or None


def show_leaves(leaves: Sequence[dict[str, str]]) -> None:
    """What the hospital will receive, destination by destination."""
    if not leaves:
        ui.label(_("The hospital receives nothing."))
    for one in leaves[:MOST_SHOWN]:
        ui.label(_("{destination} receives for {specimen}:", destination=one["destination"], specimen=brief(one["specimen"])))
        for line in lines_of(one["text"])[:MOST_SHOWN]:
            ui.label(brief(line, 500)).classes("font-medium pl-4 lb-wrap")
        with ui.expansion(_("As it is sent")).classes("w-full").props("dense"):
            for line in one["text"].splitlines()[:MOST_SHOWN]:
                ui.label(brief(line, 2000)).classes("font-mono text-xs lb-wrap")
    if len(leaves) > MOST_SHOWN:
        ui.label(_("… and {n} more", n=len(leaves) - MOST_SHOWN))
