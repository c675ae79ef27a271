"""The documents say what the code does: every table is held against the code, every example is run."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from labbridge import __version__, cli, config, dialects, pipeline, profiles
from labbridge.config.settings import Setting, Settings
from labbridge.formats.templates import PLACEHOLDERS
from labbridge.metrics import Metrics
from labbridge.store.schema import FACTS, metadata
from labbridge.verification.reasons import TEXTS
from labbridge.wire import lis01_table
from tests import analyzers_page

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {file.name: file.read_text("utf-8") for file in FILES}
Row = dict[str, str]


def tables(page: str) -> Iterator[tuple[str, list[Row]]]:
    """Every table of a page with the heading that it stands under; rows by the names of the columns."""
    heading = ""
    lines = iter(re.sub(r"^```.*?^```", "", PAGES[page], flags=re.DOTALL | re.MULTILINE).splitlines())
    for line in lines:
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|"):
            names, rows = cells(line), []
            next(lines)  # the dashes
            while (row := next(lines, "")).startswith("|"):
                rows.append(dict(zip(names, cells(row), strict=True)))
            yield heading, rows


def cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]


def rows_with(page: str, *columns: str) -> list[Row]:
    """The rows of all tables of a page that have just these columns."""
    return [row for _, rows in tables(page) for row in rows if tuple(row) == columns]


def bare(cell: str) -> str:
    return cell.strip("`")


def words(cell: str) -> list[str]:
    """What stands in code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def blocks(page: str, language: str) -> list[str]:
    """What stands fenced in a page, as this language."""
    fenced = re.findall(r"^( *)```(\w+)\n(.*?)^ *```", PAGES[page], re.DOTALL | re.MULTILINE)
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, named, text in fenced if named == language]


# -- configuration.md ----------------------------------------------------------------------------------------------

LISTS = ("analyzer", "destination", "route")
MINIMAL = {
    "site": {"name": '"Lab"', "timezone": '"Europe/Paris"'},
    "analyzer": {"name": '"xn-1"', "profile": '"generic-astm"', "listen": '"127.0.0.1:5999"'},
    "destination": {"name": '"his"', "connect": '"127.0.0.1:6661"'},
    "route": {"to": '"his"'},
}
NEEDED = {  # beside a key of these sections
    "analyzer.tls": {"certificate": '"lab.pem"', "key": '"lab.key"', "ca": '"ca.pem"'},
    "destination.tls": {"certificate": '"lab.pem"', "key": '"lab.key"', "ca": '"ca.pem"'},
    "console.tls": {"certificate": '"lab.pem"', "key": '"lab.key"'},
}
KEYS = [
    (re.sub(r"[`\[\]]", "", heading), row)
    for heading, rows in tables("configuration.md")
    for row in rows
    if tuple(row) == ("key", "type", "default", "example", "meaning")
]


def keys_of(kind: type[Setting], section: str = "") -> Iterator[tuple[str, str]]:
    """Every key that may stand in labbridge.toml, after the name of its section."""
    for field in msgspec.structs.fields(kind):
        types = [one for one in (field.type, *get_args(field.type)) if isinstance(one, type) and issubclass(one, Setting)]
        if types:
            yield from keys_of(types[0], f"{section}.{field.encode_name}".lstrip("."))
        else:
            yield section, field.encode_name


def settings_with(folder: Path, values: dict[str, Row]) -> Settings:
    """What is read from a file with these keys, besides those that there must be."""
    for name in ("analyzers", "mappings"):
        (folder / name).mkdir(exist_ok=True)
    lines: list[str] = []
    for section in (*MINIMAL, *(section for section in values if section not in MINIMAL)):
        content = {**MINIMAL.get(section, {}), **NEEDED.get(section, {}), **values.get(section, {})}
        if section == "analyzer":
            if {"connect", "folder"} & {*values.get("analyzer", {})} or "device" in values.get("analyzer.serial", {}):
                del content["listen"]
            if "name" in values.get("analyzer.tls", {}):
                content["connect"] = content.pop("listen")
        at = lines.index("[[route]]") if section.startswith("destination.") else len(lines)
        at = lines.index("[[destination]]") if section.startswith("analyzer.") else at
        lines[at:at] = [f"[[{section}]]" if section in LISTS else f"[{section}]", *(f"{k} = {v}" for k, v in content.items())]
    file = folder / "labbridge.toml"
    file.write_text("\n".join(lines), "utf-8")
    return config.load(file)


def test_every_key_of_the_configuration_is_explained_and_no_other() -> None:
    assert sorted((section, bare(row["key"])) for section, row in KEYS) == sorted(keys_of(Settings))


def test_the_defaults_that_the_page_names_are_those_of_the_code(tmp_path: Path) -> None:
    values: dict[str, Row] = {}
    for section, row in KEYS:
        if row["default"] not in ("required", "none"):
            values.setdefault(section, {})[bare(row["key"])] = bare(row["default"])
    assert settings_with(tmp_path, values) == settings_with(tmp_path, {})


@pytest.mark.parametrize(("section", "row"), KEYS, ids=[f"{section}.{bare(row['key'])}" for section, row in KEYS])
def test_the_example_of_a_key_is_accepted(section: str, row: Row, tmp_path: Path) -> None:
    key, example = bare(row["key"]), bare(row["example"])
    settings = settings_with(tmp_path, {section: {key: example}})
    usual = (bare(row["default"]), MINIMAL.get(section, {}).get(key))
    assert (settings == settings_with(tmp_path, {})) is (example in usual)


def test_every_name_that_a_template_may_use_is_listed() -> None:
    assert [bare(row["name"]).strip("{}") for row in rows_with("configuration.md", "name", "what")] == list(PLACEHOLDERS)


# -- profiles.md, analyzers.md ---------------------------------------------------------------------------------------


def test_every_word_of_a_profile_is_explained_and_no_other() -> None:
    """A section with words of the analyzer's own has no others."""
    known = {section: {*meant} - {"*"} if isinstance(meant, dict) else set() for section, meant in profiles._WORDS.items()}
    explained: dict[str, set[str]] = {name: set() for name in re.findall(r"`\[([a-z]+)\]`", headings("profiles.md"))}
    for heading, rows in tables("profiles.md"):
        for row in rows:
            if word := row.get("key", row.get("role")):
                explained[bare(heading).strip("[]")].add(bare(word))
    control = re.search(r"^### `\[control\]`\n+(.*?)There are", PAGES["profiles.md"], re.DOTALL | re.MULTILINE)
    assert control is not None
    explained["control"] |= set(words(control[1]))
    explained["qc"] = set(re.findall(r"`\[qc\.([a-z]+)\]`", headings("profiles.md")))
    assert explained == known
    assert all(f"`{timer}`" in PAGES["profiles.md"] for timer in profiles.TIMERS)


def headings(page: str) -> str:
    return "\n".join(re.findall("^#+ (.*)", PAGES[page], re.MULTILINE))


@pytest.mark.parametrize(("protocol", "column"), [("hl7v2", "HL7"), ("lis02", "LIS02")])
def test_the_protocols_own_rules_are_those_of_the_page(protocol: str, column: str) -> None:
    for heading, rows in tables("profiles.md"):
        section = bare(heading).strip("[]")
        for row in rows:
            if "key" in row and column in row and section != "query":
                rule = dialects.DEFAULTS[protocol].get(section, {}).get(bare(row["key"]), [])
                assert words(row[column]) == ([rule] if isinstance(rule, str) else rule), (section, row["key"])


@pytest.mark.parametrize(("section", "words_of"), [("link", "any"), ("value", "any"), ("times", "any"), ("alarms", "any")])
def test_the_defaults_of_a_profile_are_those_of_the_page(section: str, words_of: str) -> None:
    given = {"framing": None}
    for heading, rows in tables("profiles.md"):
        if bare(heading).strip("[]") == section:
            for row in rows:
                given[bare(row["key"])] = tomllib.loads(f"it = {bare(row['default'])}")["it"] if "`" in row["default"] else None
    assert {word: default for word, default in given.items() if default is not None} == dialects.DEFAULTS[words_of][section]


def test_the_new_analyzer_of_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its profile is short; its sample reads as the page says; the commands of the page run."""
    named = re.findall(r"`((?:analyzers|mappings)/[^`]+)`:?\s*```\w+\n(.*?)^```", PAGES["profiles.md"], re.DOTALL | re.MULTILINE)
    assert [name for name, _ in named] == [
        "analyzers/acme-5/profile.toml",
        "analyzers/acme-5/samples/patient_two_tests.astm",
        "analyzers/acme-5/samples/patient_two_tests.json",
        "mappings/acme-5.csv",
    ]
    for name, text in named:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    assert len([line for line in named[0][1].splitlines() if line.strip()]) <= 20
    text = '[site]\nname = "Lab"\ntimezone = "UTC"\n[library]\nanalyzers = "analyzers"\nmappings = "mappings"\n'
    (tmp_path / "labbridge.toml").write_text(text + _VERIFICATION, "utf-8")
    monkeypatch.chdir(tmp_path)
    sample = named[1][0]
    assert "1 samples, 0 failed" in run("test acme-5")
    (report,) = json.loads(run(f"try acme-5 {sample} --json"))["reports"]
    assert [(one["test"], one["reported"], one["verdict"]) for one in report["results"]] == [
        ("GLU", "5.43", "release"),
        ("K", "", "hold"),
    ]


# The sample's times stay as they are while the clock goes on.
_VERIFICATION = '[verification]\nauto_release = true\nhold = "result"\nstale = "36500d"\n'


def run(line: str) -> str:
    result = CliRunner().invoke(cli.app, shlex.split(line))
    assert result.exit_code == 0, result.output
    return result.output


def test_the_page_of_analyzers_is_what_the_profiles_say() -> None:
    """Where it is not: `make pages`."""
    assert PAGES["analyzers.md"] == analyzers_page.page()


def test_the_readme_and_the_changelog_count_the_profiles_that_there_are() -> None:
    listed = {row["discipline"]: words(row["profiles"]) for row in rows_with("README.md", "discipline", "profiles")}
    assert listed == analyzers_page.by_discipline()
    models = sum(map(len, listed.values()))
    assert models + 2 == len(analyzers_page.shipped())  # the generic dialects
    assert f"{models} profiles of analyzer models" in PAGES["README.md"]
    assert f"for {models} models and two dialects" in PAGES["CHANGELOG.md"]


# -- mappings.md -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "file"),
    [
        ("`tests.csv`", "tests.csv"),
        ("`limits.csv`", "limits.csv"),
        ("`panels.csv`", "panels.csv"),
        ("`<model>.csv`", "sysmex-xn.csv"),
        ("`<model>.values.csv`", "siemens-clinitek.values.csv"),
    ],
)
def test_every_column_of_a_mapping_file_is_explained(heading: str, file: str) -> None:
    columns = (ROOT / "mappings" / file).read_text("utf-8-sig").splitlines()[0].split(",")
    rows = [row for found, rows in tables("mappings.md") if found.startswith(heading) for row in rows if "column" in row]
    assert [bare(row["column"]) for row in rows] == [column for column in columns if column != "his"]  # a hospital's own


# -- operations.md ---------------------------------------------------------------------------------------------------


def commands(group: Any, path: str = "labbridge") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(commands(typer.main.get_command(cli.app)))
SHELL = [
    (page, line.strip())
    for page in PAGES
    for block in blocks(page, "sh")
    for part in block.splitlines()
    for line in re.split(r"&&|\s#.*", part)
    if line.strip()
]


def test_every_command_is_in_the_table_and_no_other() -> None:
    listed = [bare(row["command"]) for row in rows_with("operations.md", "command", "what it does")]
    assert sorted(listed) == sorted(COMMANDS)


@pytest.mark.parametrize(("page", "line"), [(page, line) for page, line in SHELL if line.split()[0].endswith("labbridge")])
def test_a_command_line_of_a_page_is_understood(page: str, line: str) -> None:
    program, *arguments = shlex.split(line.removeprefix("/opt/labbridge/bin/"))
    size = 2 if f"{program} {' '.join(arguments[:2])}" in COMMANDS else 1
    command = COMMANDS[f"{program} {' '.join(arguments[:size])}"]
    command.make_context(program, arguments[size:])


def test_the_targets_of_make_in_the_pages_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {target for text in PAGES.values() for target in re.findall(r"`?make (\w+)(?:`|\n```)", text)} <= targets


def test_every_metric_is_listed_and_no_other() -> None:
    known = {
        family.name + ("_total" if family.type == "counter" else ""): ", ".join(labels(family.name))
        for family in Metrics().registry.collect()
    }
    listed = {bare(row["metric"]): row["labels"] for row in rows_with("operations.md", "metric", "what", "labels")}
    assert listed == known
    assert set(re.findall(r"labbridge_[a-z_]+", "".join(PAGES.values()))) <= set(known)


def labels(name: str) -> tuple[str, ...]:
    return next(one._labelnames for one in vars(Metrics()).values() if getattr(one, "_name", "") == name)


def test_every_reason_is_listed_in_its_words_and_no_other() -> None:
    listed = rows_with("operations.md", "code", "in words", "what to do")
    assert {bare(row["code"]): row["in words"] for row in listed} == {code: english for code, (english, _) in TEXTS.items()}


# -- architecture.md -------------------------------------------------------------------------------------------------


def test_every_room_of_the_package_is_listed_and_no_other() -> None:
    listed = {word.rstrip("/") for row in rows_with("architecture.md", "room", "what it does") for word in words(row["room"])}
    there = {path.name for path in (ROOT / "labbridge").iterdir() if path.is_dir() or path.suffix == ".py"}
    assert listed == there - {"__init__.py", "__main__.py", "__pycache__", ".mypy_cache"}


def test_the_tables_of_the_store_are_those_of_the_page() -> None:
    listed = {bare(row["table"]): words(row["columns"]) for row in rows_with("architecture.md", "table", "one row is", "columns")}
    assert listed == {name: list(table.columns.keys()) for name, table in metadata.tables.items()}
    assert ", ".join(f"{fact.table.name} {fact.code}" for fact in FACTS) in " ".join(PAGES["architecture.md"].split())


def test_the_states_of_a_line_are_those_of_the_table() -> None:
    known = {
        state: ({target for _, target in rows.values()}, lis01_table.TIMERS.get(state, ""))
        for state, rows in lis01_table.TRANSITIONS.items()
    }
    listed = rows_with("architecture.md", "state", "meaning", "next", "timer")
    assert {row["state"]: (set(row["next"].split(", ")), bare(row["timer"])) for row in listed} == known


def test_the_states_of_a_report_are_in_the_diagram() -> None:
    (diagram,) = [block for block in re.findall("```(.*?)```", PAGES["architecture.md"], re.DOTALL) if "decided" in block]
    assert all(state in diagram for state in get_args(pipeline.State))


# -- all pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_every_test_that_is_named_exists(page: str) -> None:
    folder = next(file.parent for file in FILES if file.name == page)
    for target in re.findall(r"\]\(([^)#\s]+)?(?:#[^)]*)?\)", PAGES[page]):
        assert not target or "://" in target or (folder / target).exists(), target
    for name in re.findall(r"`((?:tests|labbridge|benchmarks|docs)/[\w/.]*)`", PAGES[page]):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES)
def test_every_anchor_is_a_heading(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([\w./-]*)#([^)]+)\)", PAGES[page]):
        headings = re.findall("^#+ (.*)", PAGES[Path(target or page).name], re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in anchors, (target, anchor, anchors)


def test_the_changelog_tells_of_this_version() -> None:
    assert f"## {__version__} (2026-11-21)" in PAGES["CHANGELOG.md"]
    tests = (ROOT / "mappings" / "tests.csv").read_text("utf-8-sig").splitlines()[1:]
    assert f"a catalogue of {len(tests)} tests" in PAGES["CHANGELOG.md"].lower()


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 150
