"""Commands that look and change nothing: pending, queue list, trace. They read the store beside the daemon."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from msgspec.structs import asdict
from rich.table import Table

from labbridge import model
from labbridge.batch import past_of
from labbridge.cli.common import DEFAULT_CONFIG, AsJson, ConfigFile, as_text, console, fail, local, print_json, reading, settings_of
from labbridge.cli.proving import Head, export_passport
from labbridge.config import Settings
from labbridge.model import Decided, Reason, Report
from labbridge.showing import readable
from labbridge.store.erasure import erased
from labbridge.store.rows import Message, Trace
from labbridge.verification.reasons import Language, render_all
from labbridge.views.story import Event, known, message_event, story
from labbridge.views.texts import configure

Limit = Annotated[int, typer.Option("--limit", "-n", help="How many at most.")]
InChinese = Annotated[bool, typer.Option("--zh", help="Reasons in Chinese, whatever the site's language.")]
OneDestination = Annotated[str, typer.Option("--destination", "-d", help="Only this one.")]


def _plain(row: Any) -> dict[str, Any]:
    """What a person or a program can read of a row."""
    return {name: value for name, value in asdict(row).items() if isinstance(value, str | int) and value != ""}


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def pending(limit: Limit = 100, chinese: InChinese = False, json: AsJson = False, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """What waits for a person: held specimens and why, and messages that could not be read (#NUMBER).

    `labbridge trace '#NUMBER'` shows such a message, `labbridge reject '#NUMBER'` settles it.
    """
    settings = settings_of(config)
    language: Language = "zh" if chinese else settings.site.language
    with reading(settings) as reader:
        reports, messages = reader.pending(limit), reader.unsettled(limit)
    table = _table("specimen", "analyzer", "received", "test", "value", "why")
    for row in reports:
        past = past_of(row)
        report, held = past.report, [one for one in past.decided if one.verdict.action == "hold"]
        if json:
            print_json(_plain(row) | {"reasons": report.problems, "results": held})
        else:
            _show_held(table, (row.specimen or "(none)", row.analyzer, local(row.at, settings)), report, held, language)
    for message in messages:
        note = model.decode(message.note.encode() or b"[]", list[Reason])
        if json:
            print_json(_plain(message) | {"note": note})
        else:
            why = f"{message.kind}: {render_all(note, language)}"
            table.add_row(as_text(f"#{message.id}", "bold"), message.analyzer, local(message.at, settings), "", "", as_text(why))
    if not json:
        console.print(table if reports or messages else "nothing waits for a person")


def _show_held(table: Table, first: tuple[str, str, str], report: Report, held: list[Decided], language: Language) -> None:
    """The rows of one specimen: what is held for a reason of its own, then how many are kept back with it."""
    own = [one for one in held if any(reason.code != "held-with" for reason in one.verdict.reasons)]
    rows = [(o.test or o.code, f"{o.value or report.results[o.index].value} {o.print_unit}", o.verdict.reasons) for o in own]
    for test, value, reasons in rows or [("", "", report.problems)]:
        table.add_row(as_text(first[0], "bold"), *first[1:], as_text(test), as_text(value), as_text(render_all(reasons, language)))
        first = ("", "", "")
    if len(own) < len(held):
        count = len(held) - len(own)
        table.add_row("", "", "", "", "", f"另有 {count} 项一同保留" if language == "zh" else f"{count} more kept back with it")


def queue_list(
    destination: OneDestination = "", limit: Limit = 100, json: AsJson = False, config: ConfigFile = DEFAULT_CONFIG
) -> None:
    """What waits for the hospital: queued and refused deliveries, how many wait behind each, what was answered."""
    settings = settings_of(config)
    with reading(settings) as reader:
        waiting = reader.queued(destination or None)
        behind = Counter((row.destination, row.lane) for row in waiting)
        table = _table("delivery", "destination", "specimen", "state", "since", "behind", "last answer")
        for row in waiting[:limit]:
            after = max(0, behind.pop((row.destination, row.lane), 0) - 1)
            attempts = reader.attempts(row.id)
            answer = attempts[-1].outcome if attempts else ""
            if json:
                print_json(_plain(row) | {"behind": after, "attempts": len(attempts), "answer": answer})
                continue
            state = as_text(row.state, "bold red" if row.state == "refused" else "")
            cells = (str(row.id), row.destination, as_text(row.specimen), state, local(row.at, settings))
            table.add_row(*cells, f"{after} behind" if after else "", as_text(answer))
    if not json:
        console.print(table if waiting else "nothing waits for the hospital")
        if len(waiting) > limit:
            console.print(f"… and {len(waiting) - limit} more (--limit)")


def trace(
    specimen: Annotated[str, typer.Argument(help="The specimen's id, or #NUMBER of a message.")],
    export: Annotated[bool, typer.Option("--export", help="One JSON document that another program can verify.")] = False,
    head: Head = "",
    chinese: InChinese = False,
    json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Everything about one specimen: messages, readings, verdicts, who decided, deliveries, the hospital's answers.

    With '#NUMBER' one message, byte for byte: what is no printable character is written as an escape.
    """
    settings = settings_of(config)
    if export or head:
        export_passport(settings, specimen, head)
        return
    language: Language = "zh" if chinese else settings.site.language
    number = re.fullmatch("#([0-9]{1,18})", specimen)
    configure(settings.site.timezone, language)
    with reading(settings) as reader:
        found = known(reader, specimen)
        message = reader.message(int(number[1])) if number and not found.trace.reports else None
    if message is not None:
        _show_message(message, settings, json)
    elif not found.trace.reports:
        fail(f"there is no message {specimen}" if number else f"nothing is known of specimen {specimen}")
    elif json:
        for one in sorted(_rows(found.trace, settings), key=lambda row: row["at"]):
            print_json(one)
    else:
        replies = {row.id: row.reply for row in found.trace.attempts}
        for event in story(found):
            _tell(event, settings)
            if event.what == "answer" and event.opens:
                _print(readable(replies[event.opens[1]]), 31)


def _rows(found: Trace, settings: Settings) -> Iterator[dict[str, Any]]:
    """Everything about a specimen as a program wants it."""
    yield from ({"what": "message", **_plain(message)} for message in found.messages)
    for row in found.reports:
        if gone := erased(row.document):
            deleted = f"by retention on {local(found.erased.get(gone.audit_id, 0), settings)}"
            yield {"what": "report", **_plain(row), "deleted": deleted}
            continue
        report = model.decode(row.document, Report)
        edited = [result.code for result in report.results if result.edited]
        yield {"what": "report", **_plain(row), "results": len(report.results), "edited": edited, "reasons": report.problems}
    for decision in found.decisions:
        more: dict[str, Any] = {}
        if not erased(decision.document):
            decided = model.decode(decision.document, model.Decision)
            more = {**_person(decided, settings), "decided": decided.results}
        yield {"what": "decision", **_plain(decision), **more}
    yield from ({"what": "delivery", **_plain(delivery)} for delivery in found.deliveries)
    yield from ({"what": "answer", **_plain(attempt), "reply": readable(attempt.reply)} for attempt in found.attempts)


def _person(decided: model.Decision, settings: Settings) -> dict[str, Any]:
    """What a person said with a decision."""
    said = {"kind": decided.kind, "comment": decided.comment, "told": decided.told, "tests": ", ".join(decided.tests)}
    if decided.told:
        said |= {"told_at": local((decided.told_at or 0) * 10**6, settings), "read_back": "yes" if decided.read_back else "no"}
    return {name: text for name, text in said.items() if text or name == "comment"}


ON_SCREEN = 65536  # characters of a message


def _show_message(message: Message, settings: Settings, json: bool) -> None:
    """One message of the journal and its bytes, a line for each record or segment."""
    gone = erased(message.body)
    if json:
        note = model.decode(message.note.encode() or b"[]", list[Reason])
        kept = {} if gone else {"body": message.body, "text": readable(message.body)}
        print_json({"what": "message", **_plain(message), "note": note, **kept})
        return
    _tell(message_event(message), settings)
    if gone:
        console.print("its bytes were deleted by retention")
        return
    text = readable(message.body)
    _print(text[:ON_SCREEN])
    if len(text) > ON_SCREEN:
        console.print(f"… and {len(text) - ON_SCREEN} characters more (--json)")
    if message.size > len(message.body):
        console.print(f"only the first {len(message.body)} of its {message.size} bytes were kept")


def _print(text: str, indent: int = 0) -> None:
    """A text as it came, its line ends as escapes."""
    for line in text.splitlines(keepends=True):
        console.print(as_text(" " * indent + line, "dim" if indent else ""))


_COLOURS = {"good": "green", "bad": "red", "wait": "yellow", "": ""}


def _tell(event: Event, settings: Settings) -> None:
    """One event of a specimen's story in words."""
    console.print(as_text(f"{local(event.at, settings)}  {event.what:<9} {event.title}", _COLOURS[event.tone]))
    for line in event.lines:
        console.print(as_text(f"{'':31}{line}"))
    for row in event.table[1:]:
        console.print(as_text(f"{'':31}{'  '.join(filter(None, row))}", "dim"))
