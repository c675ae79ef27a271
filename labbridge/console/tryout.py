"""A table before it is saved: proven, and tried on a message that came, or a captured one."""

import asyncio
import time
from collections.abc import Sequence

from nicegui import ui

from labbridge import mapfiles
from labbridge.console import session
from labbridge.console.watch import watch
from labbridge.pipeline import Outcome
from labbridge.profiles import ProfileError
from labbridge.revision import RevisionError
from labbridge.showing import brief, shown
from labbridge.trial import Found, Trial, trial_settings, try_file, try_messages
from labbridge.views.draft import Draft, Line
from labbridge.views.story import state_text, verdict_text
from labbridge.views.texts import _, reason_text, time_text

NEWEST = 50  # messages to choose from


async def judge(draft: Draft) -> list[Line] | None:
    """Proves a table as at the start of the daemon; rows to be shown otherwise, None where it is another meanwhile."""
    here, text = watch(), draft.text
    found = await asyncio.to_thread(mapfiles.mistakes, here.settings, here.path, draft.file, text)
    return draft.judge(found) if draft.text == text else None


def mistake(what: str) -> ui.row:
    """A line that says what is wrong."""
    with ui.row().classes("items-center gap-1 no-wrap lb-bad") as row:
        ui.icon("error").classes("text-xl")
        ui.label(brief(what, 500)).classes("lb-wrap")
    return row


def tried(analyzer: str, draft: Draft, message_id: int, pasted: str) -> Found:
    """What becomes of a stored message, or of a pasted one, with the draft in place of the table."""
    settings = watch().settings
    try:
        drafts = mapfiles.drafts(mapfiles.find(settings, draft.file), settings, draft.text.encode("utf-8"))
        trial = Trial(*trial_settings(settings, analyzer, ""), drafts=drafts)
    except (RevisionError, ProfileError, LookupError) as error:
        return Found(error=_("The table has mistakes: {what}", what=str(error).splitlines()[0]))
    if message_id:
        message = watch().reader.message(message_id)
        return try_messages(trial, [message.body] if message else [], [], time.time())
    data = pasted.encode("utf-8", "replace")
    framed = b"\x0b" in data or b"\x02" in data
    return try_file(trial, data if framed else data.replace(b"\r\n", b"\r").replace(b"\n", b"\r"), time.time())


class TryOut:
    """The panel: which analyzer, which message, and what becomes of it."""

    def __init__(self) -> None:
        self._draft: Draft | None = None
        self._may_see = session.can("see specimen")
        with ui.expansion(_("Try it out"), icon="science", on_value_change=self._fill).classes("w-full lb-card"):
            with ui.row().classes("items-end gap-3 w-full"):
                self._analyzer = ui.select([], label=_("Analyzer"), on_change=self._fill).classes("w-48")
                self._message = ui.select({}, label=_("Message"), clearable=True, with_input=True).classes("w-80")
                self._message.set_visibility(self._may_see)
                ui.button(_("Try"), icon="play_arrow", on_click=self._go).props("no-caps")
            self._pasted = ui.textarea(_("or paste a captured message")).props("autogrow input-class=font-mono").classes("w-full")
            self._result = ui.column().classes("w-full gap-2")

    def use(self, draft: Draft | None, analyzers: Sequence[str]) -> None:
        """Takes another table, and offers the analyzers that use it."""
        self._draft = draft
        names = list(analyzers) or [one.name for one in watch().settings.analyzers]
        self._analyzer.set_options(names, value=names[0])

    async def _fill(self) -> None:
        """Offers the analyzer's newest messages."""
        if self._may_see:
            newest = await asyncio.to_thread(watch().reader.latest, self._analyzer.value, NEWEST)
            self._message.set_options({number: f"{time_text(at)} · {brief(specimen, 40)}" for number, at, specimen in newest})

    async def _go(self) -> None:
        chosen, pasted = self._message.value or 0, self._pasted.value or ""
        self._result.clear()
        with self._result:
            if self._draft is None or not (chosen or pasted):
                ui.label(_("Choose a message, or paste one.")).classes("lb-warn")
            else:
                _show(await asyncio.to_thread(tried, self._analyzer.value, self._draft, chosen, pasted))


def _show(found: Found) -> None:
    if found.error:
        ui.label(brief(found.error, 500)).classes("lb-bad")
    for note in found.notes[:10]:
        ui.label(brief(note, 500)).classes("lb-warn")
    words = (_("code"), _("value"), _("unit"), _("test"), _("reported"), _("flag"), _("what became of it"), _("why"))
    heads = [{"name": f"c{at}", "label": word, "field": f"c{at}", "align": "left"} for at, word in enumerate(words)]
    for outcome in found.outcomes:
        report = outcome.report
        about = (brief(report.specimen.id, 60) or "—", state_text(outcome.state), reason_text(report.problems))
        ui.label(" · ".join(filter(None, about))).classes("font-medium")
        ui.table(rows=_rows(outcome), columns=heads, row_key="id").props("dense flat").classes("w-full lb-tried")
    for query in found.queries:
        ui.label(_("A query for orders: {specimens}", specimens=shown(", ".join(query.specimens))[:200]))


def _rows(outcome: Outcome) -> list[dict[str, str | int]]:
    rows = []
    for one in outcome.decision.results:
        sent = outcome.report.results[one.index]
        values = (sent.code, sent.value, sent.unit, one.test, f"{one.value} {one.print_unit}".strip(), one.flag.strip("N"))
        told = (*values, verdict_text(one.verdict.action), reason_text(one.verdict.reasons))
        rows.append({f"c{at}": brief(text, 120) for at, text in enumerate(told)} | {"id": one.index})
    return rows
