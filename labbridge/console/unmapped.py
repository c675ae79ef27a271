"""Unmapped: the codes that no map knows, with examples and tests that may be meant; mapped by a click, then released."""

import asyncio
import contextlib
import time
from urllib.parse import quote

from nicegui import ui

from labbridge import mapfiles
from labbridge.console import session
from labbridge.console.acting import Question, act, ask_reason
from labbridge.console.frame import page
from labbridge.console.tryout import judge, mistake
from labbridge.console.watch import watch
from labbridge.mapfiles import MapError
from labbridge.mapping.sheet import SheetError
from labbridge.model import Reason
from labbridge.showing import brief, shown
from labbridge.unmapped import KEYS, Seen
from labbridge.views.codes import Codes
from labbridge.views.draft import Draft
from labbridge.views.texts import _, age_text, reason_text

MOST = 200  # codes that are shown at once
ACTIONS = ("report", "ignore", "hold", "attach")
FIELDS = ("factor", "reads_as", "comment")
MINUTE = 60.0  # ages grow though nothing comes

codes = Codes()


@page("/unmapped", "Unmapped", "see unmapped")
async def unmapped() -> None:
    """The list; it grows and shrinks with what is held."""
    listed = _List()
    await listed.show()
    watch().on_change("held", listed.show)
    ui.timer(MINUTE, listed.show, immediate=False)


class _List:
    """Every code that waits, the one with most reports first; what comes later stands at the end, so that no row moves."""

    def __init__(self) -> None:
        self._cards: dict[tuple[str, ...], _Card] = {}
        self._at_work = asyncio.Lock()
        with ui.row().classes("items-center gap-3 w-full"):
            self._waiting = ui.label().classes("text-xl")
            self._mapped = ui.label().classes("lb-good")
            self._leave = ui.button(_("What would leave?"), icon="visibility", on_click=preview).props("no-caps outline")
        self._box = ui.column().classes("w-full gap-2")
        self._more = ui.label().classes("lb-quiet")

    async def show(self) -> None:
        """Shows what waits now."""
        async with self._at_work:
            found = await asyncio.to_thread(_look)
            waiting = sum(not one.mapped for one in found)
            self._waiting.text = _("Codes that wait for a mapping: {n}", n=waiting) if found else _("Every code is mapped.")
            ready = _("Mapped by now, their results wait to be released: {n}", n=len(found) - waiting)
            self._mapped.text = ready if len(found) > waiting else ""
            self._leave.set_visibility(bool(found) and session.can("release-mapped"))
            now = {(one.analyzer, one.code, one.unit, one.specimen, one.why): one for one in found}
            for key in self._cards.keys() - now.keys():
                self._cards.pop(key).box.delete()
            for key, one in now.items():
                if key not in self._cards and len(self._cards) < MOST:
                    with self._box:
                        self._cards[key] = _Card(one)
                if key in self._cards:
                    self._cards[key].show(one)
            more = len(now) - len(self._cards)
            self._more.text = _("… and {n} more", n=more) if more else ""


def _look() -> list[Seen]:
    here = watch()
    found = codes.seen(here.held.rows, here.reader, here.settings, here.catalogue())
    for one in found[:MOST]:
        codes.suggest(one)  # takes a while, and is remembered
    return found


class _Card:
    """One code: what was sent, how much waits, and what may be meant."""

    def __init__(self, one: Seen) -> None:
        with ui.element("article").classes("lb-card w-full lb-code").props(f'aria-label="{_("Code")}"') as self.box:
            with ui.column().classes("gap-0 min-w-0"):
                with ui.row().classes("items-baseline gap-2"):
                    ui.label(brief(one.code, 80) or _("(no code)")).classes("lb-name font-mono").props("role=heading aria-level=2")
                    ui.label(brief(one.unit, 40) or _("without a unit"))
                self._name = ui.label().classes("lb-wrap")
                self._why = ui.label().classes("lb-quiet")
            with ui.column().classes("gap-0 min-w-0"):
                self._count = ui.label()
                self._newest = ui.label().classes("lb-quiet")
                self._examples = ui.label().classes("font-mono whitespace-pre-wrap")
            self._buttons = ui.row().classes("items-center gap-2")
        self._mapped: bool | None = None

    def show(self, one: Seen) -> None:
        """Shows how it stands now; its buttons are made anew only where there are others."""
        about = {"code": brief(one.code, 40), "unit": brief(one.unit, 40), "specimen": shown(one.specimen)}
        why = _("mapped by now") if one.mapped else reason_text([Reason(one.why, about)])
        self._name.text = brief(one.name, 120)
        self._why.text = f"{one.analyzer} · {why}"
        self._count.text = _("reports that wait: {n}", n=one.reports)
        self._newest.text = _("the newest came {age} ago", age=age_text(max(0.0, time.time() - one.last)))
        self._examples.text = "   ".join(map(shown, one.examples)) or "—"
        if one.mapped != self._mapped:
            self._mapped = one.mapped
            self._buttons.clear()
            with self._buttons:
                _buttons(one)


def _buttons(one: Seen) -> None:
    name = next((each.code_map for each in watch().settings.analyzers if each.name == one.analyzer), "")
    words = one.why == "unknown-word"
    if one.mapped:
        ui.icon("check_circle").classes("lb-good text-2xl")
    elif session.can("map") and name and not words:
        for suggested in codes.suggest(one):
            test = watch().catalogue().tests[suggested.test]
            button = ui.button(test.code, icon="link", on_click=lambda test=test: _Mapping(one, name, test.code).ask())
            button.props["aria-label"] = _("Map to {test}", test=test.code)
            button.props("no-caps").tooltip(test.name)
        ui.button(_("Map …"), on_click=lambda: _Mapping(one, name).ask()).props("no-caps outline")
    if name:
        table = quote(f"{name}{'.values' if words else ''}.csv", safe="")
        ui.link(_("Table"), f"/mappings?table={table}").classes("p-2 lb-need-link")


class _Mapping:
    """The dialog: the line that will be written, checked as one types; then what would leave."""

    def __init__(self, one: Seen, code_map: str, test: str | None = None) -> None:
        self._one = one
        self._draft: Draft | None = None
        self._file = mapfiles.find(watch().settings, f"{code_map}.csv")
        title = _("Map {code} of {analyzer}", code=brief(one.code, 60), analyzer=one.analyzer)
        self._question = Question(title, _("Save"))
        known = watch().catalogue().tests.values()
        tests = {each.code: f"{each.code} · {each.name} · {each.name_zh} · {each.unit}" for each in known}
        with self._question.body:
            with ui.row().classes("w-full gap-3"):
                self._test = ui.select(tests, label=_("Test"), value=test, with_input=True, clearable=True, on_change=self._check)
                self._test.classes("grow")
                self._action = ui.select(list(ACTIONS), value="report", label=_("Action"), on_change=self._check).classes("w-32")
            with ui.row().classes("w-full gap-3"):
                self._more = {name: ui.input(name, on_change=self._check).props("debounce=300").classes("w-40") for name in FIELDS}
            ui.label(_("This line is written into {file}:", file=self._file.name)).classes("lb-quiet")
            self._line = ui.label().classes("font-mono text-sm whitespace-pre-wrap break-all lb-line")
            self._wrong = ui.column().classes("gap-1")

    async def ask(self) -> None:
        """Asks, maps, and goes on to what would leave."""
        with ui.context.client.content:  # the button is gone once the code is mapped
            await self._check()
            reason = await self._question.reason(_("mapped on the console"))
            if reason and (draft := self._draft) is not None:
                answer = await act("map", file=draft.file, text=draft.text, known=draft.known, reason=reason)
                if answer.ok and session.can("release-mapped"):
                    await preview()

    def _drawn_up(self) -> Draft:
        """The table with the new line. Raises MapError and SheetError where the file cannot be read."""
        draft = Draft(self._file.name, self._file.text, self._file.known)
        action = str(self._action.value)
        line = {"code": self._one.code, "analyzer_unit": self._one.unit, "specimen": self._one.specimen}
        line |= {"test": self._test.value or "", "action": "" if action == "report" else action}
        draft.put(line | {name: field.value for name, field in self._more.items() if field.value}, KEYS)
        return draft

    async def _check(self) -> None:
        wrong = [_("The table cannot be read: mend the file first.")]
        with contextlib.suppress(MapError, SheetError):
            self._draft = draft = self._drawn_up()
            if await judge(draft) is None or draft is not self._draft:
                return  # the next one is being checked
            self._line.text = shown("\n".join(draft.changes[1]))[:1000] or _("nothing: it is there already")
            wrong = [what for _row, what in draft.mistakes]
        self._question.judge(wrong=bool(wrong))
        self._wrong.clear()
        with self._wrong:
            for what in wrong[:5]:
                mistake(what)


async def preview() -> None:
    """What would leave now that more is mapped; and lets it leave."""
    answer = await act("release-mapped", preview=True, quiet=True)
    if not answer.ok:
        ui.notify(brief(answer.error, 500), type="negative")
    elif not answer.said:
        ui.notify(_("Nothing waits for this mapping."), type="info")
    elif reason := await ask_reason(_("Release what is mapped"), leaves=answer.answer.get("leaves", [])):
        await act("release-mapped", reason=reason)
