"""Accounts of the console, from the command line: the first administrator, and help for who cannot log in."""

import sys
from typing import Annotated

import typer
from rich.table import Table

from labbridge.cli.acting import Because, perform
from labbridge.cli.common import DEFAULT_CONFIG, USAGE, AsJson, ConfigFile, as_text, console, fail, print_json, reading, settings_of
from labbridge.roles import ROLES

Name = Annotated[str, typer.Argument(help="The account's name.")]
Role = Annotated[str, typer.Option("--role", help=f"What it may do: {', '.join(ROLES)}.")]
Language = Annotated[str, typer.Option("--language", help="Of its screens: en or zh; the laboratory's when left out.")]
FromInput = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input, one line.")]


def add(
    name: Name,
    role: Role,
    language: Language = "",
    password_stdin: FromInput = False,
    reason: Because = "",
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Add an account; its password is asked for twice, or read from standard input."""
    language = language or settings_of(config).site.language
    password = _password(password_stdin)
    perform(config, "account-add", account=name, role=role, language=language, password=password, reason=reason)


def change(
    name: Name,
    role: Role = "",
    language: Language = "",
    password: Annotated[bool, typer.Option("--password", help="Ask for a new password, twice.")] = False,
    password_stdin: FromInput = False,
    disable: Annotated[bool, typer.Option("--disable", help="It may not log in any more; nothing it did is lost.")] = False,
    enable: Annotated[bool, typer.Option("--enable", help="It may log in again.")] = False,
    reason: Because = "",
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Give an account another role, language or password, or disable or enable it. A new password ends a lock."""
    if disable and enable:
        fail("--disable and --enable together: choose one", USAGE)
    state = "disabled" if disable else "active" if enable else ""
    new = _password(password_stdin) if password or password_stdin else ""
    perform(config, "account-change", account=name, role=role, language=language, password=new, value=state, reason=reason)


def list_(json: AsJson = False, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """List the accounts, with their roles."""
    with reading(settings_of(config)) as reader:
        accounts = reader.accounts()
    if json:
        for one in accounts:
            print_json({"account": one.name, "role": one.role, "language": one.language, "state": one.state})
        return
    table = Table("account", "role", "language", "state", box=None, header_style="bold", pad_edge=False)
    for one in accounts:
        table.add_row(*map(as_text, (one.name, one.role, one.language, one.state)))
    console.print(table if accounts else "there are no accounts: labbridge user add NAME --role administrator")


def _password(from_input: bool) -> str:
    """A new password; exit status 2 where nobody can be asked."""
    if from_input:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        fail("there is no terminal to ask for a password: --password-stdin reads it from standard input", USAGE)
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
