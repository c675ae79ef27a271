"""What a person does: dialogs that say what leaves, a command to the daemon as this user, and what came of it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from nicegui import ui

from labbridge.commands import Request
from labbridge.console import session
from labbridge.console.keys import guard
from labbridge.showing import brief, shown
from labbridge.views.leaving import lines_of
from labbridge.views.texts import _
from labbridge.views.wording import deed_word

PREVIEW_S = 0.4  # what is entered is looked at so often
LISTED = 200  # lines of what a deed covers
MOST_SHOWN = 50  # messages that would leave, and lines of one


class Answer(msgspec.Struct, frozen=True):
    """What the daemon answered."""

    ok: bool
    said: tuple[str, ...] = ()
    error: str = ""
    answer: dict[str, Any] = {}


class Field(msgspec.Struct, frozen=True):
    """Something to enter; required unless it is ``optional``."""

    name: str
    label: str
    value: Any = ""
    check: bool = False  # a box to tick
    optional: bool = False
    long: bool = False
    options: Mapping[str, str] = {}  # of which one is chosen
    offers: Sequence[str] = ()  # usual entries, one click each
    leads: bool = False  # before it is entered nothing can be told of what would leave
    read: Callable[[Any], Any] | None = None  # makes what the command takes of what was entered


Preview = Callable[[dict[str, Any]], Awaitable[Answer]]  # what would leave, by what was entered so far


async def act(command: str, *, quiet: bool = False, **fields: Any) -> Answer:
    """Sends a command as this user and says what came of it; a session that is over leads to the login."""
    request = Request(command, session=session.user().session, **fields)
    try:
        told = await session.send(request)
    except session.Silent as error:
        told = {"ok": False, "error": _("labbridge does not answer: {why}", why=error)}
    said, why = told.get("words", ()), told.get("why_words", told.get("error", ""))
    answer = Answer(bool(told.get("ok")), tuple(map(in_words, said)), in_words(why), told.get("answer", {}))
    if not answer.ok and answer.answer.get("why") in ("expired", "unknown"):
        ui.navigate.to("/login?over=1")
    elif not quiet:
        text = "\n".join(map(shown, answer.said if answer.ok else [answer.error])) or _("Done.")
        say(text[:2000], good=answer.ok)
    return answer


def in_words(told: Any) -> str:
    """What the daemon says, in the user's language: a template with its values, which may be such themselves, or text."""
    if isinstance(told, dict):
        return ", ".join(map(in_words, told["all"]))
    if isinstance(told, str):
        return told
    template, values = told
    return _(template, **{name: in_words(value) for name, value in values.items()})


def say(text: str, *, good: bool) -> None:
    """Says what came of a deed; what went wrong stays until it is closed."""
    kind: Any = "positive" if good else "negative"
    ui.notify(text, type=kind, multi_line=True, position="bottom", timeout=6000 if good else 0, close_button=_("Close"))


def reason_field(*offers: str) -> Field:
    """The reason of a deed."""
    return Field("reason", _("Reason"), offers=offers)


def nothing() -> str:
    """What is said where nothing leaves."""
    return _("The hospital receives nothing.")


async def previewed(command: str, **fields: Any) -> Answer:
    """What would leave; a reason that is not entered yet is an ellipsis."""
    return await act(command, preview=True, quiet=True, **{**fields, "reason": fields.get("reason") or "…"})


async def decide(
    command: str,
    fields: Sequence[Field],
    target: Mapping[str, Any],
    *,
    covers: Sequence[str] = (),
    told: str = "",
    leaves: bool = True,
) -> None:
    """Asks for what a command needs beside its ``target``, shows what would leave where anything may, and sends it."""

    async def preview(entered: dict[str, Any]) -> Answer:
        return await previewed(command, **target, **entered)

    told = told or ("" if leaves else nothing())
    with ui.context.client.content:  # what was clicked may be drawn anew meanwhile
        entered = await ask(deed_word(command), fields, covers=covers, told=told, preview=preview if leaves else None)
        if entered:
            await act(command, **target, **entered)


async def ask_reason(title: str, *, leaves: Sequence[dict[str, str]] | None = None) -> str:
    """Asks for a reason, and shows what the hospital will receive; empty where the person turned back."""
    question = Question(title)
    if leaves is not None:
        with question.body:
            _show_leaves(leaves)
    return await question.reason()


async def ask(
    title: str, fields: Sequence[Field], *, covers: Sequence[str] = (), told: str = "", preview: Preview | None = None
) -> dict[str, Any] | None:
    """Asks; what was entered, by the names of the fields, or None where the person turned back."""
    question = Question(title)
    asked = _Asked(question, fields, preview)
    with question.body:
        if covers:
            with ui.column().classes("w-full gap-0 max-h-48 overflow-auto").props("tabindex=0"):
                for line in [*covers[:LISTED], *_more(covers, LISTED)]:
                    ui.label(line).classes("lb-wrap")
        if told:
            ui.label(told).classes("text-sm opacity-80")
        for number, field in enumerate(fields):
            asked.draw(field, first=number == 0)
        asked.leaves()
        if preview:
            ui.timer(PREVIEW_S, asked.look)
    asked.judge()
    return asked.values() if await question.confirmed() else None


class Question:
    """A dialog with a button that goes on and one that turns back; what it asks is built in its ``body``.

    It belongs to the page: what was clicked may be drawn anew, or be gone, while it is open. Enter confirms nothing, for a
    scanner sends it: the button does, and Ctrl+Enter.
    """

    def __init__(self, title: str, word: str = "") -> None:
        guard()
        self._wrong, self._reason = False, ""
        with ui.context.client.content, ui.dialog() as self._dialog, ui.card().classes("w-[44rem] max-w-full gap-2"):
            self._dialog.props["aria-label"] = title
            ui.label(title).classes("text-lg font-medium lb-wrap")
            self.body = ui.column().classes("w-full gap-2")
            with ui.row().classes("w-full justify-end"):
                ui.button(_("Cancel"), on_click=lambda: self._dialog.submit(False)).props("flat no-caps")
                self.go = ui.button(f"{word or title} · Ctrl+Enter", on_click=self._confirm).props("no-caps unelevated")
                self.go.classes("lb-confirm")

    def _confirm(self) -> None:
        if self.go.enabled:
            self._dialog.submit(True)

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
        field.props("autofocus outlined dense").classes("w-full")
        self.judge(reason=usual)
        return self._reason if await self.confirmed() else ""

    def judge(self, *, wrong: bool | None = None, reason: str | None = None) -> None:
        """Takes whether what was entered is wrong, and the reason; with a reason and nothing wrong one may go on."""
        self._wrong = self._wrong if wrong is None else wrong
        self._reason = self._reason if reason is None else reason.strip()
        self.go.set_enabled(bool(self._reason) and not self._wrong)


class _Asked:
    """What was entered into a dialog so far, and what would come of it."""

    def __init__(self, question: Question, fields: Sequence[Field], preview: Preview | None) -> None:
        self.question, self.fields, self.preview = question, fields, preview
        self.entered: dict[str, Any] = {field.name: False if field.check else field.value for field in fields}
        self.seen: dict[str, Any] | None = None  # of it, what the answer is about
        self.answer: Answer | None = None

    @property
    def complete(self) -> bool:
        """Whether all is entered, and what would come of just that was seen."""
        seen = self.preview is None or (self.seen == self.entered and self.answer is not None and self.answer.ok)
        return seen and all(self.entered[field.name] or field.optional for field in self.fields)

    def judge(self) -> None:
        """Lets the person go on, or not yet."""
        self.question.go.set_enabled(self.complete)

    def values(self) -> dict[str, Any]:
        """What the command takes."""
        entered = self.entered
        return {field.name: field.read(entered[field.name]) if field.read else entered[field.name] for field in self.fields}

    def set(self, name: str, value: Any) -> None:
        """Takes what was entered."""
        self.entered[name] = value if isinstance(value, bool) else (value or "").strip()
        self.judge()

    async def look(self) -> None:
        """Asks anew what would leave where something else was entered."""
        if self.preview and self.entered != self.seen and all(self.entered[one.name] for one in self.fields if one.leads):
            entered = dict(self.entered)
            self.answer = await self.preview(self.values())
            self.seen = entered
            self.judge()
            self.leaves.refresh()

    @ui.refreshable_method
    def leaves(self) -> None:
        """What the hospital will receive, or why the deed cannot be done."""
        if self.answer is None or not (self.answer.ok or self.answer.error):
            return
        with ui.column().classes("w-full gap-1 p-2 rounded lb-leaves"):
            if self.answer.ok:
                ui.label(_("What the hospital will receive")).classes("text-sm font-medium")
                _show_leaves(self.answer.answer.get("leaves", ()))
            else:
                ui.label(brief(self.answer.error, 600)).classes("lb-bad lb-wrap")

    def draw(self, field: Field, *, first: bool) -> None:
        """One field."""
        changed = partial(self.set, field.name)
        if field.check:
            ui.checkbox(field.label, on_change=lambda event: changed(event.value))
            return
        made: Any
        if field.options:
            made = ui.select(dict(field.options), label=field.label, value=field.value or None, with_input=True)
        else:
            made = (ui.textarea if field.long else ui.input)(field.label, value=field.value)
        made.props("outlined dense" + " autofocus" * first).classes("w-full").on_value_change(lambda event: changed(event.value))
        with ui.row().classes("gap-1"):
            for offer in field.offers:
                ui.button(offer, on_click=lambda offer=offer: made.set_value(offer)).props("flat dense no-caps")


def _show_leaves(leaves: Sequence[dict[str, str]]) -> None:
    """What the hospital will receive, destination by destination."""
    if not leaves:
        ui.label(nothing())
    for one in leaves[:MOST_SHOWN]:
        ui.label(_("{destination} receives for {specimen}:", destination=one["destination"], specimen=brief(one["specimen"])))
        for line in lines_of(one["text"])[:MOST_SHOWN]:
            ui.label(brief(line, 500)).classes("font-medium pl-4 lb-wrap")
        with ui.expansion(_("As it is sent")).classes("w-full").props("dense"):
            for line in one["text"].splitlines()[:MOST_SHOWN]:
                ui.label(brief(line, 2000)).classes("font-mono text-xs lb-wrap")
    for line in _more(leaves, MOST_SHOWN):
        ui.label(line)


def _more(some: Sequence[Any], most: int) -> list[str]:
    return [_("… and {n} more", n=len(some) - most)] if len(some) > most else []
