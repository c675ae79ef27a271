"""Trying a table out before it is saved: a message that came, or a captured one, read, mapped and verified with the draft."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui

from labbridge import mapfiles
from labbridge.console import session
from labbridge.console.watch import watch
from labbridge.profiles import ProfileError
from labbridge.revision import RevisionError
from labbridge.showing import shown
from labbridge.trial import Found, Trial, trial_settings, try_file, try_messages
from labbridge.views.draft import Draft
from labbridge.views.story import state_text, verdict_text
from labbridge.views.texts import _, reason_text, time_text

NEWEST = 50  # messages to choose from
PAGE = 50  # results on the screen at once
LONGEST = 120  # characters of a cell


def tried(analyzer: str, file: str, text: str, message_id: int, pasted: str) -> Found:
    """What becomes of a stored message, or of a pasted one, with this text in place of the table. Raises RevisionError."""
    settings = watch().settings
    found = mapfiles.find(settings, file)
    drafts = mapfiles.drafts(found, settings, text.encode("utf-8"))
    trial = Trial(*trial_settings(settings, analyzer, ""), drafts=drafts)
    if not message_id:
        data = pasted.encode("utf-8", "replace")
        framed = b"\x0b" in data or b"\x02" in data
        return try_file(trial, data if framed else data.replace(b"\r\n", b"\r").replace(b"\n", b"\r"), time.time())
    message = watch().reader.message(message_id)
    return try_messages(trial, [message.body] if message else [], [], time.time())


class TryOut:
    """The panel: which analyzer, which message, and what becomes of it."""

    def __init__(self, draft: Callable[[], Draft | None]) -> None:
        self._draft = draft
        self._may_see = session.can("see specimen")
        with ui.expansion(_("Try it out"), icon="science", on_value_change=self._opened).classes("w-full lb-card"):
            with ui.row().classes("items-end gap-3 w-full"):
                self.analyzer = ui.select([], label=_("Analyzer"), on_change=self._fill).classes("w-48")
                if self._may_see:
                    self.message = ui.select({}, label=_("Message"), clearable=True, with_input=True).classes("w-80")
                ui.button(_("Try"), icon="play_arrow", on_click=self.go).props("no-caps")
            self.pasted = ui.textarea(_("or paste a captured message")).props("autogrow input-class=font-mono").classes("w-full")
            self._result = ui.column().classes("w-full gap-2")

    def choose(self, analyzers: Sequence[str]) -> None:
        """Offers the analyzers that use the table."""
        names = list(analyzers) or [one.name for one in watch().settings.analyzers]
        self.analyzer.set_options(names, value=names[0] if names else None)

    async def _opened(self, event: Any) -> None:
        if event.value:
            await self._fill()

    async def _fill(self) -> None:
        """Offers the analyzer's newest messages."""
        if self._may_see and self.analyzer.value:
            newest = await asyncio.to_thread(watch().reader.latest, self.analyzer.value, NEWEST)
            self.message.set_options({number: f"{time_text(at)} · {shown(specimen)[:40]}" for number, at, specimen in newest})

    async def go(self) -> None:
        """Tries it."""
        draft = self._draft()
        chosen = self.message.value if self._may_see else None
        self._result.clear()
        if draft is None or not self.analyzer.value or not (chosen or self.pasted.value):
            with self._result:
                ui.label(_("Choose a message, or paste one.")).classes("lb-warn")
            return
        text = "" if chosen else str(self.pasted.value)
        try:
            found = await asyncio.to_thread(tried, self.analyzer.value, draft.file, draft.text, int(chosen or 0), text)
        except (RevisionError, ProfileError, LookupError) as error:
            found = Found(error=_("The table has mistakes: {what}", what=str(error).splitlines()[0]))
        with self._result:
            self._show(found)

    def _show(self, found: Found) -> None:
        if found.error:
            ui.label(shown(found.error)[:500]).classes("lb-bad")
        for note in found.notes[:10]:
            ui.label(shown(note)[:500]).classes("lb-warn")
        for outcome in found.outcomes:
            report = outcome.report
            about = (shown(report.specimen.id)[:60] or "—", state_text(outcome.state), reason_text(report.problems))
            ui.label(" · ".join(filter(None, about))).classes("font-medium")
            rows = []
            for one in outcome.decision.results:
                sent = report.results[one.index]
                values = (sent.code, sent.value, sent.unit, one.test, f"{one.value} {one.print_unit}".strip(), one.flag.strip("N"))
                told = (*values, verdict_text(one.verdict.action), reason_text(one.verdict.reasons))
                rows.append({f"c{at}": shown(text)[:LONGEST] for at, text in enumerate(told)} | {"id": one.index})
            words = (_("code"), _("value"), _("unit"), _("test"), _("reported"), _("flag"), _("what became of it"), _("why"))
            heads = [{"name": f"c{at}", "label": word, "field": f"c{at}", "align": "left"} for at, word in enumerate(words)]
            pages = PAGE if len(rows) > PAGE else None
            ui.table(rows=rows, columns=heads, row_key="id", pagination=pages).props("dense flat").classes("w-full lb-tried")
        for query in found.queries:
            ui.label(_("A query for orders: {specimens}", specimens=shown(", ".join(query.specimens))[:200]))
