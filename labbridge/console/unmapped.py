"""Unmapped: the codes that no map knows, with examples and tests that may be meant; mapped by a click, then released."""

import asyncio
import time
from typing import Any
from urllib.parse import quote

from nicegui import ui

from labbridge import mapfiles
from labbridge.console import session
from labbridge.console.acting import act, ask_reason
from labbridge.console.codes import Codes
from labbridge.console.draft import Draft
from labbridge.console.frame import page
from labbridge.console.rows import Row
from labbridge.console.texts import _, age_text, reason_text
from labbridge.console.watch import watch
from labbridge.mapfiles import MapError, MapFile
from labbridge.mapping.sheet import SheetError
from labbridge.model import Reason
from labbridge.showing import shown
from labbridge.unmapped import KEYS, Seen

MOST = 200  # codes that are shown at once
ACTIONS = ("report", "ignore", "hold", "attach")
FIELDS = ("factor", "reads_as", "comment")
TYPING_SECONDS = 0.3
PAUSE_SECONDS = 2.0  # between two looks
OLD_SECONDS = 60.0  # ages grow though nothing comes

codes = Codes()


@page("/unmapped", "Unmapped", "see unmapped")
async def unmapped() -> None:
    """The list; it grows and shrinks with what is held."""
    await watch().ready.wait()
    listed = _List()
    await listed.show()
    ui.timer(PAUSE_SECONDS, listed.follow)


class _List:
    """Every code that waits, the one with most reports first; what comes later stands at the end, so that no row moves."""

    def __init__(self) -> None:
        self._looked, self._revision = 0.0, ""
        self._rows: dict[int, Row] = {}
        self._cards: dict[tuple[str, ...], _Card] = {}
        self._counts: tuple[int, int] | None = None
        self._about = ui.row().classes("items-center gap-3 w-full")
        self._box = ui.column().classes("w-full gap-2")
        self._more = ui.label().classes("lb-quiet")

    async def follow(self) -> None:
        """Shows what changed since the last look, and after a while how old it all is."""
        here = watch()
        if here.held.rows is not self._rows or here.revision != self._revision or time.monotonic() - self._looked > OLD_SECONDS:
            await self.show()

    async def show(self) -> None:
        """Shows what waits now."""
        here, self._looked = watch(), time.monotonic()
        rows, self._revision = here.held.rows, here.revision
        self._rows = rows

        def look() -> list[Seen]:
            found = codes.seen(rows, here.reader, here.settings, here.catalogue())
            for one in found[:MOST]:
                codes.suggest(one)  # takes a while, and is remembered
            return found

        found = await asyncio.to_thread(look)
        counts = len(found), sum(not one.mapped for one in found)
        if counts != self._counts:
            self._counts = counts
            self._about.clear()
            with self._about:
                self._tell(*counts)
        now = {(one.analyzer, one.code, one.unit, one.specimen, one.why): one for one in found}
        for key in [key for key in self._cards if key not in now]:
            self._cards.pop(key).box.delete()
        for key, one in now.items():
            if key not in self._cards and len(self._cards) < MOST:
                with self._box:
                    self._cards[key] = _Card(one)
            elif key in self._cards:
                self._cards[key].show(one)
        more = len(now) - len(self._cards)
        self._more.text = _("… and {n} more", n=more) if more else ""

    def _tell(self, found: int, waiting: int) -> None:
        if not found:
            ui.icon("check_circle").classes("lb-good text-2xl").props("aria-hidden=true")
            ui.label(_("Every code is mapped.")).classes("text-xl")
            return
        ui.label(_("Codes that wait for a mapping: {n}", n=waiting)).classes("text-xl")
        if found > waiting:
            ui.label(_("Mapped by now, their results wait to be released: {n}", n=found - waiting)).classes("lb-good")
        if session.can("release-mapped"):
            ui.button(_("What would leave?"), icon="visibility", on_click=preview).props("no-caps outline")


class _Card:
    """One code: what was sent, how much waits, and what may be meant."""

    def __init__(self, one: Seen) -> None:
        with ui.element("article").classes("lb-card w-full lb-code").props(f'aria-label="{_("Code")}"') as self.box:
            with ui.column().classes("gap-0 min-w-0"):
                with ui.row().classes("items-baseline gap-2"):
                    ui.label(shown(one.code)[:80] or _("(no code)")).classes("lb-name font-mono").props("role=heading aria-level=2")
                    ui.label(shown(one.unit)[:40] or _("without a unit"))
                self._name = ui.label()
                self._why = ui.label().classes("lb-quiet")
            with ui.column().classes("gap-0 min-w-0"):
                self._count = ui.label()
                self._newest = ui.label().classes("lb-quiet")
                self._examples = ui.label().classes("font-mono whitespace-pre-wrap")
            self._buttons = ui.row().classes("items-center gap-2")
        self._mapped: bool | None = None
        self.show(one)

    def show(self, one: Seen) -> None:
        """Shows how it stands now; its buttons are made anew only where there are others."""
        self._name.text = shown(one.name)[:120]
        self._why.text = f"{one.analyzer} · {_why(one)}"
        self._count.text = _("reports that wait: {n}", n=one.reports)
        self._newest.text = _("the newest came {age} ago", age=age_text(max(0.0, time.time() - one.last)))
        self._examples.text = "   ".join(map(shown, one.examples)) or "—"
        if one.mapped != self._mapped:
            self._mapped = one.mapped
            self._buttons.clear()
            with self._buttons:
                _buttons(one)


def _why(one: Seen) -> str:
    if one.mapped:
        return _("mapped by now")
    return reason_text(
        [Reason(one.why, {"code": shown(one.code)[:40], "unit": shown(one.unit)[:40], "specimen": shown(one.specimen)})]
    )


def _buttons(one: Seen) -> None:
    name = next((each.code_map for each in watch().settings.analyzers if each.name == one.analyzer), "")
    words = ".values.csv" if one.why == "unknown-word" else ".csv"
    link = f"/mappings?table={quote(name + words, safe='')}"
    if one.mapped:
        ui.icon("check_circle").classes("lb-good text-2xl").props("aria-hidden=true")
    elif session.can("map") and name and one.why != "unknown-word":
        for test in codes.suggest(one):
            about = watch().catalogue().tests.get(test.test)
            button = ui.button(test.test, icon="link", on_click=lambda test=test: _Mapping(one, name, test.test).ask())
            button.props["aria-label"] = _("Map to {test}", test=test.test)
            button.props("no-caps").tooltip(about.name if about else test.test)
        ui.button(_("Map …"), on_click=lambda: _Mapping(one, name, "").ask()).props("no-caps outline")
    if name:
        ui.link(_("Table"), link).classes("p-2 lb-need-link")


class _Mapping:
    """The dialog: the line that will be written, checked as one types; then what would leave."""

    def __init__(self, one: Seen, code_map: str, test: str) -> None:
        self._one, self._test, self._turn = one, test, 0
        self._file: MapFile = mapfiles.find(watch().settings, f"{code_map}.csv")

    async def ask(self) -> None:
        """Asks, maps, and goes on to what would leave."""
        with ui.dialog() as dialog, ui.card().classes("w-[44rem] max-w-full"):
            title = _("Map {code} of {analyzer}", code=shown(self._one.code)[:60], analyzer=self._one.analyzer)
            dialog.props["aria-label"] = title
            ui.label(title).classes("text-lg")
            self._inputs()
            ui.label(_("This line is written into {file}:", file=self._file.name)).classes("lb-quiet")
            self._line = ui.label().classes("font-mono text-sm whitespace-pre-wrap break-all lb-line")
            self._wrong = ui.column().classes("gap-1")
            reason = ui.input(_("Reason"), value=_("mapped on the console")).props("outlined").classes("w-full")
            with ui.row().classes("w-full justify-end"):
                ui.button(_("Cancel"), on_click=lambda: dialog.submit(None)).props("flat no-caps")
                self._go = ui.button(_("Save"), on_click=lambda: dialog.submit(reason.value)).props("no-caps")
        await self._check()
        told = await dialog
        dialog.delete()
        if told is not None and (draft := self._draft()) is not None:
            answer = await act("map", file=draft.file, text=draft.text, known=draft.known, reason=told)
            if answer.ok and session.can("release-mapped"):
                await preview()

    def _inputs(self) -> None:
        tests = {
            test.code: f"{test.code} · {test.name} · {test.name_zh} · {test.unit}" for test in watch().catalogue().tests.values()
        }
        with ui.row().classes("w-full gap-3"):
            self._chosen = ui.select(tests, label=_("Test"), value=self._test or None, with_input=True, on_change=self._typed)
            self._chosen.props("clearable").classes("grow")
            self._action = ui.select(list(ACTIONS), value="report", label=_("Action"), on_change=self._typed)
        with ui.row().classes("w-full gap-3"):
            self._more = {name: ui.input(name, on_change=self._typed).classes("w-40") for name in FIELDS}

    def _draft(self) -> Draft | None:
        """The table with the new line; None where it cannot be read."""
        try:
            draft = Draft(self._file.name, self._file.text, self._file.known)
        except (MapError, SheetError):
            return None
        action = str(self._action.value)
        line = {"code": self._one.code, "analyzer_unit": self._one.unit, "specimen": self._one.specimen}
        line |= {"test": self._chosen.value or "", "action": "" if action == "report" else action}
        draft.put(line | {name: field.value for name, field in self._more.items() if field.value}, KEYS)
        return draft

    async def _typed(self) -> None:
        self._turn += 1
        turn = self._turn
        await asyncio.sleep(TYPING_SECONDS)
        if turn == self._turn:
            await self._check()

    async def _check(self) -> None:
        draft, here = self._draft(), watch()
        wrong = [_("The table cannot be read: mend the file first.")]
        if draft is not None:
            found = await asyncio.to_thread(mapfiles.mistakes, here.settings, here.path, draft.file, draft.text)
            draft.judge(found)
            self._line.text = shown("\n".join(draft.changes[1]))[:1000] or _("nothing: it is there already")
            wrong = [what for _row, what in draft.mistakes]
        self._wrong.clear()
        with self._wrong:
            for what in wrong[:5]:
                _mistake(what)
        self._go.set_enabled(not wrong)


def _mistake(what: str) -> None:
    with ui.row().classes("items-start gap-1 no-wrap lb-bad"):
        ui.icon("error").props("aria-hidden=true")
        ui.label(shown(what)[:500])


async def preview() -> None:
    """What would leave now that more is mapped; and lets it leave."""
    answer = await act("release-mapped", preview=True, quiet=True)
    if not answer.ok:
        ui.notify(shown(answer.error)[:500], type="negative")
        return
    leaves: list[dict[str, Any]] = answer.answer.get("leaves", [])
    if not answer.said:
        ui.notify(_("Nothing waits for this mapping."), type="info")
        return
    reason = await ask_reason(_("Release what is mapped"), leaves=leaves)
    if reason is not None:
        await act("release-mapped", reason=reason)
