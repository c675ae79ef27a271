"""Commands that try things out and change nothing: check, try, identify, test, init."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from labbridge import profiles, revision, security
from labbridge.cli.common import CONFIGURATION, DEFAULT_CONFIG, AsJson, ConfigFile, as_text, console, fail, print_json, settings_of
from labbridge.formats.validity import validity
from labbridge.identify import LIMIT, Candidate, Identified, Identifier
from labbridge.model import Decided, Result, Verdict
from labbridge.pipeline import Outcome
from labbridge.trial import Found, Trial, cases, trial_settings, try_file
from labbridge.verification.reasons import Language, render_all

_SHOWN = 200  # characters at each end of an attachment
STYLES = {"release": "green", "hold": "bold yellow", "ignore": "dim", "superseded": "magenta", "rejected": "red"}


def check(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Prove the configuration: every mistake in it, in profiles and in mappings, with file and line."""
    settings = settings_of(config)
    try:
        compiled, notices = revision.build(settings, config)
    except revision.RevisionError as error:
        fail(str(error), CONFIGURATION)
    if wrong := list(security.mistakes(settings, config)):
        fail("\n".join(wrong), CONFIGURATION)
    for notice in (*notices, *security.notices(settings)):
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
    _prove_files(files)
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
            _show(file, found, trial)
    if unread:
        raise typer.Exit(1)


def _prove_files(files: Sequence[Path]) -> None:
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        fail(f"no such file: {', '.join(missing)}")


def _show(file: Path, found: Found, trial: Trial) -> None:
    """One screen about one file."""
    console.rule(as_text(str(file)))
    _say(*(as_text(f"note: {note}", "yellow") for note in found.notes))
    if found.error:
        _say(as_text(f"not read: {found.error}", "bold red"))
    _say(*(as_text(f"a query for orders: {', '.join(query.specimens) or 'all'}") for query in found.queries))
    for outcome in found.outcomes:
        payloads = []
        for out in outcome.outgoing:
            codec, sent = trial.segments(outcome, out)
            title = f"to {out.destination}: {len(out.payload)} bytes of {codec}, CR after each segment"
            payloads.append((f"{title}; hl7apy: {validity(out.payload, codec)}", sent))
        _show_sent(_show_report(outcome, trial.settings.site.language), payloads)


def _show_report(outcome: Outcome, language: Language) -> dict[int, list[Text]]:
    """Shows what can be said in a line about a report; returns a row for every other result, by its index."""
    report, patient = outcome.report, outcome.report.patient
    rest = [one for one in outcome.decision.results if one.verdict != Verdict("ignore")]  # by the map, which gives no reason
    shared = [r for one in rest[:1] for r in one.verdict.reasons if all(r in other.verdict.reasons for other in rest)]
    own = {one.index: [reason for reason in one.verdict.reasons if reason not in shared] for one in rest}
    why = f"{outcome.state}: {render_all((*report.problems, *shared), language)}".removesuffix(": ")
    who = f"  patient {patient.id} {patient.sex} {patient.birth}".rstrip() if patient.id or patient.sex else ""
    nothing = "" if outcome.outgoing else "  nothing is sent"
    _say(as_text(f"specimen {report.specimen.id or '(none)'}  role {report.role}{who}  {why}{nothing}", "bold"))
    extra = [" ".join(filter(None, (r.code, r.value[:24], r.unit, *r.flags))) for n, r in enumerate(report.results) if n not in own]
    if extra:
        _say(as_text(f"ignored: {', '.join(extra)}", "dim"))
    return {one.index: _row(report.results[one.index], one, render_all(own[one.index], language)) for one in rest}


def _row(result: Result, one: Decided, why: str) -> list[Text]:
    marks = [*result.flags, *(["edited"] if result.edited else [])]
    texts = [result.code, result.value[:24], result.unit, " ".join(marks), one.test or "-"]
    texts += [f"{one.value} {one.print_unit}" if one.value else "", one.flag.strip("N"), one.verdict.action, why]
    return [as_text(text, STYLES[one.verdict.action]) for text in texts]


def _show_sent(rows: dict[int, list[Text]], payloads: Sequence[tuple[str, Sequence[tuple[str, Decided | None]]]]) -> None:
    """The results, each beside its bytes where there is one payload and the terminal is wide enough; else one below the other."""
    if len(payloads) == 1 and console.is_terminal:
        [(title, sent)], stay = payloads, dict(rows)
        beside = [[*(stay.pop(one.index)[:-1] if one else map(Text, [""] * 8)), as_text(_cut(line))] for line, one in sent]
        lines = _table(title, [*beside, *stay.values()])
        if max(line.cell_len for line in lines) <= console.width:
            return _say(*lines)
    _say(*_table("why", list(rows.values())))
    for title, sent in payloads:
        console.print(as_text(title, "bold"), *(as_text(_cut(segment)) for segment, _ in sent), sep="\n")


def _cut(segment: str) -> str:
    """A segment as it is shown: of an attachment that is long, the beginning and the end."""
    left_out = len(segment) - 2 * _SHOWN
    is_cut = left_out > 0 and segment.split("|", 3)[2:3] == ["ED"]
    return f"{segment[:_SHOWN]} … {left_out} characters … {segment[-_SHOWN:]}" if is_cut else segment


def _table(last: str, rows: Sequence[Sequence[Text]]) -> list[Text]:
    """The lines of a table, without the columns that are empty throughout; ``last`` heads the last column."""
    heads = [as_text(name, "bold") for name in ("code", "value", "unit", "", "test", "reported", "", "verdict", last)]
    columns = [column for column in zip(heads, *rows, strict=True) if any(cell.plain for cell in column[1:])]
    for column in columns[:-1]:
        width, right = max(cell.cell_len for cell in column), column[0].plain in ("value", "reported")
        for cell in column:
            cell.align("right" if right else "left", width)
    return [Text(" ").join(cells) for cells in zip(*columns, strict=True)]


def _say(*lines: Text) -> None:
    """Prints words and tables; what is wider than a terminal goes on in its next line at a blank."""
    for line in lines:
        console.print(line, soft_wrap=not console.is_terminal)


def identify(
    files: Annotated[list[Path], typer.Argument(help="Captured messages, framed as on the wire or bare.")],
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
) -> None:
    """Say which profiles fit captured messages, and why: the best first, at most five.

    Exit status 1 when, of any file, nothing fits but the generic dialects. Works without a configuration file; with one, your
    own profiles and maps are asked too. The first 64 KiB of a file are looked at.
    """
    settings = settings_of(config) if config.exists() else None
    _prove_files(files)
    try:
        identifier = Identifier(settings)
    except (revision.RevisionError, profiles.ProfileError) as error:
        fail(str(error), CONFIGURATION)
    fitting = True
    for file in files:
        with file.open("rb") as opened:
            found = identifier.identify(opened.read(LIMIT + 1))
        fitting &= found.fits
        if json:
            print_json(found.as_json(str(file)))
        else:
            _show_identified(file, found)
    if not fitting:
        raise typer.Exit(1)


def _show_identified(file: Path, found: Identified) -> None:
    """What was seen in a file, then a line for each profile that may be meant."""
    seen = found.seen
    console.rule(as_text(str(file)))
    about = [seen.framing, " ".join(filter(None, (seen.protocol, seen.version)))]
    about += [f"delimiters {seen.delimiters}", f"sender {seen.sender or '(none)'}"] if seen.protocol else []
    about += [f"{seen.messages} messages" if seen.messages != 1 else "1 message"] if seen.protocol else []
    about += ["only its beginning was looked at"] if seen.cut else []
    _say(as_text(", ".join(filter(None, about))))
    if found.error:
        _say(as_text(f"no profile reads it: {found.error}", "bold red"))
    if not found.candidates:
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("profile", "", "codes known", "specimen", "role", "would be held", "why"):
        table.add_column(name, overflow="fold")
    for one in found.candidates:
        cells = [one.profile, "fits" if one.fits else "", f"{one.known} of {one.codes}" if one.codes else ""]
        cells += [one.specimen or "(none)", ", ".join(one.roles) or ("query" if one.queries else "")]
        cells += [f"{one.held} of {one.results}" if one.results else "", _why(one)]
        table.add_row(*(as_text(cell, "bold green" if one.fits else "") for cell in cells))
    console.print(table)


_HEADERS = {
    "named": "the header names this model",
    "like": "the header names nobody, and is otherwise as this model's",
    "other": "the header names another sender",
    "unsaid": "the header does not tell",
}


def _why(one: Candidate) -> str:
    """Why a profile may be meant, and what of the messages would wait for a person."""
    header = "reads any sender that keeps to the standard" if one.generic else _HEADERS[one.sender]
    held = f"held: {'; '.join(one.because)}" if one.because else ""
    return "; ".join(filter(None, (header, *one.notes, held)))


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
