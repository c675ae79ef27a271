"""Commands that try things out and change nothing: check, try, test, init."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from labbridge import profiles, revision
from labbridge.cli.common import CONFIGURATION, DEFAULT_CONFIG, AsJson, ConfigFile, console, fail, print_json, settings_of
from labbridge.formats.validity import validity
from labbridge.model import Decided, Report
from labbridge.pipeline import Revision
from labbridge.trial import Trial, cases, trial_settings, try_file
from labbridge.verification.reasons import Language, render_all

STYLES = {"release": "green", "hold": "bold yellow", "ignore": "dim", "superseded": "magenta", "rejected": "red"}


def check(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Prove the configuration: every mistake in it, in profiles and in mappings, with file and line."""
    settings = settings_of(config)
    try:
        compiled, notices = revision.build(settings, config)
    except revision.RevisionError as error:
        fail(str(error), CONFIGURATION)
    for notice in notices:
        console.print(f"note: {notice}", markup=False)
    limits = "on" if settings.verification.auto_release else "OFF: every result waits for a person"
    console.print(
        f"{config}: well. {len(compiled.analyzers)} analyzers, {len(compiled.outlets)} destinations, "
        f"{len(compiled.catalogue.tests)} tests; automatic release {limits}; revision {compiled.digest.hex()[:12]}",
        markup=False,
    )


def try_(
    profile: Annotated[str, typer.Argument(help="A profile's name (see `labbridge test`), or an analyzer's in the configuration.")],
    files: Annotated[list[Path], typer.Argument(help="Captured messages, framed as on the wire or bare.")],
    config: ConfigFile = DEFAULT_CONFIG,
    mapping: Annotated[str, typer.Option("--mapping", "-m", help="A code map other than the profile's own.")] = "",
    json: AsJson = False,
) -> None:
    """Read captured messages: show the report, each result's mapping and verdict, and the exact bytes to be sent.

    Without a configuration file the packaged example's site and destination are used, with automatic release on.
    """
    settings = settings_of(config) if config.exists() else None
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        fail(f"no such file: {', '.join(missing)}")
    try:
        trial = Trial(*trial_settings(settings, profile, mapping))
    except (revision.RevisionError, profiles.ProfileError, LookupError) as error:
        fail(str(error), CONFIGURATION)
    unread = 0
    for file in files:
        found = try_file(trial, file.read_bytes(), time.time())
        unread += bool(found.error)
        if json:
            print_json(found.as_json(str(file)))
        else:
            _show(file, found, trial.revision, trial.settings.site.language)
    if unread:
        raise typer.Exit(1)


def _show(file: Path, found: Any, compiled: Revision, language: Language) -> None:
    """One screen about one file."""
    console.rule(str(file))
    for note in found.notes:
        console.print(f"note: {note}", markup=False, style="yellow")
    if found.error:
        console.print(f"not read: {found.error}", markup=False, style="bold red")
    for query in found.queries:
        console.print(f"a query for orders: {', '.join(query.specimens) or 'all'}", markup=False)
    for outcome in found.outcomes:
        _show_report(outcome.report, outcome.decision.results, outcome.state, language)
        for out in outcome.outgoing:
            console.print(f"\nto [bold]{out.destination}[/] ({len(out.payload)} bytes):")
            console.print(_printable(out.payload), markup=False)
            console.print(f"hl7apy: {validity(out.payload)}", style="dim", markup=False)
        if not outcome.outgoing:
            console.print("nothing is sent", style="dim")


def _show_report(report: Report, decided: Sequence[Decided], state: str, language: Language) -> None:
    patient = report.patient
    who = f"  patient {patient.id} {patient.sex} {patient.birth}".rstrip() if patient.id or patient.sex else ""
    console.print(f"specimen [bold]{report.specimen.id or '(none)'}[/]  role {report.role}  [bold]{state}[/]{who}")
    if report.problems:
        console.print(render_all(report.problems, language), style="bold yellow", markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in (("code", "left"), ("sent", "right"), ("unit", "left"), ("flags", "left"), ("test", "left")):
        table.add_column(name, justify="right" if side == "right" else "left")
    for name in ("reported", "", "verdict", "why"):
        table.add_column(name, justify="right" if name == "reported" else "left")
    for one in decided:
        result = report.results[one.index]
        table.add_row(
            Text(result.code),
            Text(result.value[:24]),
            Text(result.unit),
            Text(" ".join(result.flags)),
            Text(one.test or "-"),
            Text(f"{one.value} {one.print_unit}".strip()),
            Text(one.flag if one.flag != "N" else "", style="bold"),
            Text(one.verdict.action, style=STYLES[one.verdict.action]),
            Text(render_all(one.verdict.reasons, language)),
        )
    console.print(table)


def _printable(payload: bytes) -> str:
    return payload.decode("utf-8", "backslashreplace").replace("\r", "\n").rstrip("\n")


def test(
    names: Annotated[list[str] | None, typer.Argument(help="Profiles; all when none is named.")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Run the cases kept beside the profiles: each sample must read as the file beside it says."""
    settings = settings_of(config) if config.exists() else None
    folders = revision.folders(settings, "analyzers") if settings else [revision.packaged("analyzers")]
    failed = count = 0
    for name in names or profiles.names(folders):
        try:
            ran = cases(name, folders)
        except profiles.ProfileError as error:
            fail(str(error), CONFIGURATION)
        for sample, differences in ran:
            count += 1
            failed += bool(differences)
            if differences:
                console.print(f"{name}/{sample}: {'; '.join(differences)}", markup=False, style="red")
        console.print(f"{name}: {len(ran)} samples", markup=False)
    console.print(f"{count} samples, {failed} failed")
    if failed or not count:
        raise typer.Exit(1)


def init(folder: Annotated[Path, typer.Argument(help="A new folder.")]) -> None:
    """Make a new configuration folder: labbridge.toml with automatic release off, and places for your own files."""
    if folder.exists() and any(folder.iterdir()):
        fail(f"{folder} exists and is not empty: name a new folder")
    (folder / "analyzers").mkdir(parents=True)
    (folder / "mappings").mkdir()
    text = revision.packaged("config.example.toml").read_text("utf-8")
    text = text.replace("auto_release = true", "auto_release = false")
    for line in ("[library]", 'analyzers = "analyzers"', 'mappings = "mappings"'):
        text = text.replace(f"\n# {line}", f"\n{line}", 1)
    (folder / "labbridge.toml").write_text(text, "utf-8")
    for name in ("tests.csv", "limits.csv", "panels.csv"):
        shutil.copyfile(revision.packaged("mappings") / name, folder / "mappings" / name)
    console.print(f"{folder}/labbridge.toml is ready; next: cd {folder}, edit it, `labbridge check`, `labbridge run`", markup=False)
