"""What a person does: a command to the daemon as this user, what came of it, and the dialogs that ask before."""

from collections.abc import Sequence
from typing import Any

import msgspec
from nicegui import ui

from labbridge.commands import Request
from labbridge.console import session
from labbridge.console.leaving import lines_of
from labbridge.showing import brief, shown
from labbridge.views.texts import _

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


class Question:
    """A dialog with a button that goes on and one that turns back; what it asks is built in its ``body``.

    It belongs to the page: what was clicked may be drawn anew, or be gone, while it is open.
    """

    def __init__(self, title: str, word: str = "") -> None:
        self._wrong, self._reason = False, ""
        with ui.context.client.content, ui.dialog() as self._dialog, ui.card().classes("w-[44rem] max-w-full"):
            self._dialog.props["aria-label"] = title
            ui.label(title).classes("text-lg font-medium lb-wrap")
            self.body = ui.column().classes("w-full gap-2")
            with ui.row().classes("w-full justify-end"):
                ui.button(_("Cancel"), on_click=lambda: self._dialog.submit(False)).props("flat no-caps")
                self._go = ui.button(word or title, on_click=lambda: self._dialog.submit(True)).props("no-caps")

    async def confirmed(self) -> bool:
        """Waits for the answer."""
        answer = await self._dialog
        if not self._dialog.is_deleted:  # it is when the page is gone
            self._dialog.delete()
        return bool(answer)

    async def reason(self, usual: str = "") -> str:
        """Asks for a reason too, without which nobody goes on; empty where the person turned back."""
        with self.body:
            field = ui.input(_("Reason"), value=usual, on_change=lambda event: self.judge(reason=event.value))
        field.props("autofocus outlined").classes("w-full")
        field.on("keydown.enter", lambda: self._dialog.submit(True) if self._go.enabled else None)
        self.judge(reason=usual)
        return self._reason if await self.confirmed() else ""

    def judge(self, *, wrong: bool | None = None, reason: str | None = None) -> None:
        """Takes whether what was entered is wrong, and the reason; with a reason and nothing wrong one may go on."""
        self._wrong = self._wrong if wrong is None else wrong
        self._reason = self._reason if reason is None else reason.strip()
        self._go.set_enabled(bool(self._reason) and not self._wrong)


async def ask_reason(title: str, *, leaves: Sequence[dict[str, str]] | None = None) -> str:
    """Asks for a reason, and shows what the hospital will receive; empty where the person turned back."""
    question = Question(title)
    if leaves is not None:
        with question.body:
            show_leaves(leaves)
    return await question.reason()


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
