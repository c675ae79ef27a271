"""Commands that look and change nothing: pending, queue list, trace, verify. They read the store beside the daemon."""

import json as jsonlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from labbridge import model, pipeline
from labbridge.cli.common import DEFAULT_CONFIG, AsJson, ConfigFile, console, fail, local, print_json, settings_of
from labbridge.config import Settings
from labbridge.model import Decided, Reason, Report
from labbridge.store import Reader, StoreError
from labbridge.store import verify as verify_ledger
from labbridge.verification.reasons import Language, render_all

Limit = Annotated[int, typer.Option("--limit", "-n", help="How many at most.")]


@contextmanager
def _reading(settings: Settings) -> Iterator[Reader]:
    """The store, for reading; exit status 1 where it cannot be read."""
    try:
        with closing(Reader(settings.store.url)) as reader:
            yield reader
    except StoreError as error:
        fail(str(error))


def _standing(row: Any) -> tuple[Report, tuple[Decided, ...]]:
    report = model.decode(row.document, Report)
    return report, pipeline.standing(model.decode(document, model.Decision) for document in row.decisions)


def _note(text: str) -> list[Reason]:
    return [Reason(one["code"], one.get("params", {})) for one in jsonlib.loads(text)] if text else []


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def pending(
    limit: Limit = 100,
    chinese: Annotated[bool, typer.Option("--zh", help="Reasons in Chinese.")] = False,
    json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """What waits for a person: held specimens and why, and messages that could not be read (#NUMBER)."""
    settings = settings_of(config)
    language: Language = "zh" if chinese else settings.site.language
    with _reading(settings) as reader:
        reports, messages = reader.pending(limit), reader.unsettled(limit)
    table = _table("specimen", "analyzer", "received", "test", "value", "why")
    for row in reports:
        report, standing = _standing(row)
        held = [one for one in standing if one.verdict.action == "hold"]
        if json:
            results = [
                {
                    "code": d.code,
                    "test": d.test,
                    "value": d.value or report.results[d.index].value,
                    "unit": d.print_unit,
                    "reasons": d.verdict.reasons,
                }
                for d in held
            ]
            print_json(
                {
                    "specimen": row.specimen,
                    "report": row.report_id,
                    "analyzer": row.analyzer,
                    "at": row.at,
                    "reasons": report.problems,
                    "results": results,
                }
            )
            continue
        first = (Text(row.specimen or "(none)", style="bold"), row.analyzer, local(row.at, settings))
        kept_back = [one for one in held if all(reason.code == "held-with" for reason in one.verdict.reasons)]
        if not held:
            table.add_row(*first, "", "", Text(render_all(report.problems, language)))
        for one in held:
            if one not in kept_back:
                value = f"{one.value or report.results[one.index].value} {one.print_unit}".strip()
                table.add_row(*first, Text(one.test or one.code), Text(value), Text(render_all(one.verdict.reasons, language)))
                first = (Text(""), "", "")
        if kept_back:
            table.add_row(
                "",
                "",
                "",
                "",
                "",
                Text(f"{len(kept_back)} more kept back with it" if language == "en" else f"另有 {len(kept_back)} 项一同保留"),
            )
    for message in messages:
        note = _note(message.note)
        if json:
            print_json(
                {"message": message.id, "kind": message.kind, "analyzer": message.analyzer, "at": message.at, "reasons": note}
            )
        else:
            why = Text(f"{message.kind}: {render_all(note, language)}")
            table.add_row(Text(f"#{message.id}", style="bold"), message.analyzer, local(message.at, settings), "", "", why)
    if not json:
        console.print(table if reports or messages else "nothing waits for a person")


def queue_list(
    destination: Annotated[str, typer.Option("--destination", "-d", help="Only this one.")] = "",
    limit: Limit = 100,
    json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """What waits for the hospital: queued and refused deliveries, how many wait behind each, what was answered."""
    settings = settings_of(config)
    with _reading(settings) as reader:
        waiting = reader.queued(destination or None)
        behind: dict[tuple[str, str], int] = {}
        for row in waiting:
            behind[row.destination, row.lane] = behind.get((row.destination, row.lane), -1) + 1
        table = _table("delivery", "destination", "specimen", "state", "since", "behind", "last answer")
        seen: set[tuple[str, str]] = set()
        for row in waiting[:limit]:
            lane = (row.destination, row.lane)
            attempts = reader.attempts(row.id)
            answer = attempts[-1].outcome if attempts else ""
            after = 0 if lane in seen else behind[lane]
            seen.add(lane)
            if json:
                print_json(
                    {
                        "delivery": row.id,
                        "destination": row.destination,
                        "specimen": row.specimen,
                        "state": row.state,
                        "at": row.at,
                        "behind": after,
                        "attempts": len(attempts),
                        "answer": answer,
                    }
                )
            else:
                style = "bold red" if row.state == "refused" else ""
                table.add_row(
                    str(row.id),
                    row.destination,
                    Text(row.specimen),
                    Text(row.state, style=style),
                    local(row.at, settings),
                    f"{after} behind" if after else "",
                    Text(answer),
                )
    if not json:
        console.print(table if waiting else "nothing waits for the hospital")
        if len(waiting) > limit:
            console.print(f"… and {len(waiting) - limit} more (--limit)")


def trace(
    specimen: Annotated[str, typer.Argument(help="The specimen's id.")], json: AsJson = False, config: ConfigFile = DEFAULT_CONFIG
) -> None:
    """Everything about one specimen: messages, readings, verdicts, who decided, deliveries, the hospital's answers."""
    settings = settings_of(config)
    with _reading(settings) as reader:
        found = reader.trace(specimen)
    if not found.reports:
        fail(f"nothing is known of specimen {specimen}")
    events: list[tuple[int, int, dict[str, Any]]] = []
    for message in found.messages:
        events.append(
            (
                message.at,
                0,
                {
                    "what": "message",
                    "id": message.id,
                    "kind": message.kind,
                    "analyzer": message.analyzer,
                    "bytes": message.size,
                    "control_id": message.control_id,
                },
            )
        )
    reports = {}
    for row in found.reports:
        report = reports[row.report_id] = model.decode(row.document, Report)
        events.append(
            (
                row.at,
                1,
                {
                    "what": "report",
                    "id": row.report_id,
                    "analyzer": row.analyzer,
                    "role": row.role,
                    "state": row.state,
                    "results": len(report.results),
                    "reasons": report.problems,
                },
            )
        )
    for decision in found.decisions:
        decided = model.decode(decision.document, model.Decision)
        results = [
            {
                "test": d.test or d.code,
                "value": d.value,
                "unit": d.unit,
                "flag": d.flag,
                "status": d.status,
                "verdict": d.verdict.action,
                "reasons": d.verdict.reasons,
            }
            for d in decided.results
        ]
        events.append(
            (
                decision.at,
                2,
                {
                    "what": "decision",
                    "id": decision.id,
                    "report": decision.report_id,
                    "actor": decision.actor,
                    "comment": decided.comment,
                    "revision": decision.revision,
                    "results": results,
                },
            )
        )
    for delivery in found.deliveries:
        events.append(
            (
                delivery.at,
                3,
                {
                    "what": "delivery",
                    "id": delivery.id,
                    "destination": delivery.destination,
                    "state": delivery.state,
                    "control_id": delivery.control_id,
                },
            )
        )
    for attempt in found.attempts:
        events.append((attempt.at, 4, {"what": "answer", "delivery": attempt.delivery_id, "outcome": attempt.outcome}))
    for at, _, event in sorted(events, key=lambda one: one[:2]):
        if json:
            print_json({"at": at, **event})
        else:
            _tell(local(at, settings), event, settings.site.language)


def _tell(at: str, event: dict[str, Any], language: Language) -> None:
    """One event of a specimen's story in words."""
    words = {name: value for name, value in event.items() if name not in ("what", "results", "reasons") and value != ""}
    results = event.get("results")
    if isinstance(results, int):
        words["results"] = results
    line = f"{at}  {event['what']:<9} " + "  ".join(f"{name} {value}" for name, value in words.items())
    why = render_all(event.get("reasons", ()), language)
    console.print(Text(line), Text(why, style="yellow"))
    for one in results if isinstance(results, list) else ():
        reasons = render_all(one["reasons"], language)
        text = f"{'':21}{one['test']} {one['value']} {one['unit']} {one['flag']}: {one['verdict']}"
        console.print(Text(text), Text(reasons, style="yellow"))


def verify(json: AsJson = False, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Check the ledger: every fact as it was written, none missing, the chain unbroken."""
    settings = settings_of(config)
    with _reading(settings) as reader, Progress(console=console, transient=True, disable=json) as progress:
        task = progress.add_task("checking", total=None)
        result = verify_ledger(reader, lambda done, total: progress.update(task, completed=done, total=total))
    if json:
        print_json({"facts": result.facts, "transactions": result.transactions, "problems": result.problems})
    else:
        verdict = "CHANGED" if result.problems else "as written"
        console.print(f"{result.facts} facts in {result.transactions} transactions: {verdict}")
        for problem in result.problems:
            console.print(problem, style="red", markup=False)
    if result.problems:
        raise typer.Exit(1)
