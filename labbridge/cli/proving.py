"""The commands that prove: verify, and a specimen's passport."""

import sys
from typing import Annotated

import typer
from rich.progress import Progress

from labbridge.cli.common import DEFAULT_CONFIG, USAGE, AsJson, ConfigFile, as_text, console, fail, print_json, reading, settings_of
from labbridge.config import Settings
from labbridge.passport import PassportError, passport
from labbridge.states import States
from labbridge.store import Link
from labbridge.store import verify as prove

Head = Annotated[str, typer.Option("--head", help="SEQUENCE:HASH as it was logged: the chain must still contain it.")]

REMEDY = (
    "What was stored is not what is there now: a hand in the database, a broken disk, or a restored copy. "
    "Stop labbridge, copy the database as it is, compare with a backup, and find out before going on: see docs/operations.md"
)


Tell = Annotated[bool, typer.Option("--progress", help="Write how far it is to standard error, JSON lines, for programs.")]


def verify(head: Head = "", json: AsJson = False, tell: Tell = False, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Check the store: every fact as it was written, none missing, the chain unbroken, every state what the facts say."""
    settings = settings_of(config)
    noted = link_of(head) if head else None
    with reading(settings) as reader, Progress(console=console, transient=True, disable=json) as progress:
        task = progress.add_task("checking", total=None)

        def show(done: int, total: int) -> None:
            if done % 256 == 0 or done == total:
                progress.update(task, completed=done, total=total)
                if tell:
                    print_json({"done": done, "total": total}, sys.stderr)

        result = prove(reader, show, noted, States())
    if json:
        told = {"facts": result.facts, "transactions": result.transactions, "erased": result.erased}
        print_json(told | {"head": str(result.head), "problems": result.problems})
    else:
        verdict = "CHANGED" if result.problems else "as written"
        gone = f", the bodies of {result.erased} deleted by retention" if result.erased else ""
        console.print(f"{result.facts} facts in {result.transactions} transactions: {verdict}{gone}")
        console.print(f"head {result.head}")
        for problem in result.problems:
            console.print(as_text(problem, "red"))
        if result.problems:
            console.print(REMEDY, markup=False)
    if result.problems:
        raise typer.Exit(1)


def export_passport(settings: Settings, specimen: str, head: str) -> None:
    """Print a specimen's passport."""
    noted = link_of(head) if head else None
    with reading(settings) as reader:
        try:
            print_json(passport(reader, specimen, noted))
        except PassportError as error:
            fail(str(error))


def link_of(text: str) -> Link:
    """The end of a chain as it is written: SEQUENCE:HASH; exit status 2 where it is malformed."""
    sequence, _, digest = text.strip().partition(":")
    try:
        link = Link(int(sequence), bytes.fromhex(digest))
    except ValueError:
        link = Link(0, b"")
    if link.sequence < 1 or len(link.hash) != 32:
        fail("--head is SEQUENCE:HASH, a number and 64 hexadecimal digits, as the log says it", USAGE)
    return link
