"""The habits of the house: who may import whom, how large it may grow, what must not stand in code, words for every reason."""

import ast
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

import labbridge
from labbridge.cli import app
from labbridge.verification.reasons import TEXTS

ROOT = Path(labbridge.__file__).parents[1]
MODULES = sorted((ROOT / "labbridge").rglob("*.py"))
PROFILES = sorted((ROOT / "analyzers").glob("*/profile.toml"))
LARGEST_MODULE, LARGEST_PACKAGE = 400, 20000
LARGEST_PAGE, LARGEST_CONSOLE = 300, 3500
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
SKIPPED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@cache
def tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text("utf-8"))


def docstrings(module: Path) -> Iterator[tuple[Any, str]]:
    """The docstrings of a module: the node, and the text."""
    for node in ast.walk(tree(module)):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield node.body[0], text


def lines_of_code(module: Path) -> int:
    """Lines with code: no blanks, comments or docstrings."""
    lines: set[int] = set()
    with module.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type not in SKIPPED and token.type != tokenize.ENCODING:
                lines.update(range(token.start[0], token.end[0] + 1))
    for node, _ in docstrings(module):
        lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def names_and_texts(module: Path) -> Iterator[str]:
    """Everything in code that may name something: identifiers and texts, docstrings left out."""
    spoken = {id(node.value) for node, _ in docstrings(module)}
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in spoken:
            yield node.value
        for field in ("id", "name", "attr", "arg", "module"):
            if isinstance(name := getattr(node, field, None), str):
                yield name


# -- imports and size ------------------------------------------------------------------------------------------------


def test_nobody_imports_what_is_not_theirs() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as go; go()", "--no-cache"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]
    assert "0 broken" in ran.stdout


def test_no_module_outgrows_one_reading() -> None:
    sizes = {str(module.relative_to(ROOT)): len(module.read_text("utf-8").splitlines()) for module in MODULES}
    assert {name: lines for name, lines in sizes.items() if lines >= LARGEST_MODULE} == {}


def test_the_package_stays_small() -> None:
    assert sum(map(lines_of_code, MODULES)) < LARGEST_PACKAGE


def test_the_console_stays_small_and_without_a_script_of_our_own() -> None:
    folder = ROOT / "labbridge" / "console"
    sizes = {file.name: len(file.read_text("utf-8").splitlines()) for file in folder.rglob("*.py")}
    assert sum(sizes.values()) < LARGEST_CONSOLE
    assert {name: lines for name, lines in sizes.items() if lines > LARGEST_PAGE} == {}
    assert not [*folder.rglob("*.js")]


def test_lines_of_code_are_neither_blank_nor_comment_nor_docstring(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(
        '"""One.\n\nTwo.\n"""\n\n# three\nX = (\n    1,\n)  # four\n\n\ndef f():\n    """Five."""\n    return """six\nseven"""\n'
    )
    assert lines_of_code(file) == 6


# -- what must not stand in code ---------------------------------------------------------------------------------------


def vendors_and_models() -> set[str]:
    """The names of real vendors and models, as the profiles give them; not what is a number, a letter or a common word."""
    words: set[str] = set()
    for file in PROFILES:
        about = tomllib.loads(file.read_text("utf-8"))["profile"]
        if about["vendor"] != "generic":
            words |= {about["vendor"], *file.parent.name.split("-"), *re.findall(r"[A-Z][A-Za-z]{3,}", about["model"])}
    common = {"hl7", "astm", "series", "status", "connect", "xpress", "infinity", "analyzer", "echo", "data", "plus", "cp"}
    return {word.casefold() for word in words if len(word) > 1 and not word.isdigit()} - common


def test_no_vendors_and_no_models_name_stands_in_code() -> None:
    """Vendors live in analyzers/: the engine knows none of them."""
    vendors = vendors_and_models()
    assert len(vendors) >= 15
    pattern = re.compile("|".join(rf"(?<![a-z]){re.escape(word)}(?![a-z])" for word in sorted(vendors)), re.IGNORECASE)
    found = [(module.name, text[:60]) for module in MODULES for text in names_and_texts(module) if pattern.search(text)]
    assert found == []


@pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX", "NotImplementedError", "pragma: no cover"])
def test_nothing_is_left_for_later(word: str) -> None:
    assert [module.name for module in MODULES if word in module.read_text("utf-8")] == []


def test_every_public_thing_says_what_it_is() -> None:
    """A docstring whose first line is a sentence that ends on that line."""
    told = [(module.name, text.splitlines()[0]) for module in MODULES for _, text in docstrings(module)]
    assert [one for one in told if one[1][-1] not in ".:?"] == []


# -- what is shipped ---------------------------------------------------------------------------------------------------


def test_the_lock_file_pins_everything_and_names_no_host() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9][A-Za-z0-9.+]*", line)] == []
    assert len({line.split("==")[0].lower() for line in lines}) == len(lines)


def test_every_dependency_is_in_the_lock_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    asked = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
        *project["build-system"]["requires"],
    ]
    locked = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    }
    names = {re.split(r"[^A-Za-z0-9._-]", one)[0].lower().replace("_", "-") for one in asked}
    assert names - locked == set()


def test_the_package_is_typed() -> None:
    assert (ROOT / "labbridge" / "py.typed").is_file()


# -- words for people --------------------------------------------------------------------------------------------------


def reason_codes() -> set[str]:
    """Every code of a Reason that is made anywhere, also through a helper that takes it."""
    codes = set()
    for module in MODULES:
        functions = [node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef)]
        makers = {"Reason"} | {node.name for node in functions if "reason" in [arg.arg for arg in node.args.args]}
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Call) and (called := getattr(node.func, "id", getattr(node.func, "attr", ""))) in makers:
                given = [text for arg in node.args[: 1 if called == "Reason" else None] for text in texts_of(arg)]
                codes |= {text for text in given if called == "Reason" or "-" in text}
    return codes


def texts_of(node: ast.expr) -> list[str]:
    """The texts that an argument may be."""
    if isinstance(node, ast.IfExp):
        return texts_of(node.body) + texts_of(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def test_every_reason_has_words_and_every_word_a_reason() -> None:
    """In English and in Chinese."""
    assert reason_codes() == TEXTS.keys()
    assert [code for code, words in TEXTS.items() if not all(words) or words[0] == words[1]] == []


def commands(group: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """Every command of the command line: its words, and the command."""
    for name, command in group.commands.items():
        yield " ".join((*path, name)), command
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_says_what_it_does(words: str) -> None:
    """And every option of it."""
    command = COMMANDS[words]
    assert command.help
    assert [one.name for one in command.params if one.opts[0].startswith("-") and not getattr(one, "help", "")] == []
    result = CliRunner().invoke(app, [*words.split(), "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    assert " ".join(command.help.split()[:3]) in result.output


def test_the_command_line_is_that_of_the_design() -> None:
    designed = "run,check,try,test,simulate analyzer,simulate hospital,pending,release,reject,queue list,queue retry,queue cancel"
    assert COMMANDS.keys() >= {*designed.split(","), "queue release-mapped", "trace", "init", "verify", "db"}
