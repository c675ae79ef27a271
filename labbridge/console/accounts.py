"""Accounts: who may use the console and as what; the table of role and action."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from nicegui import ui

from labbridge import roles
from labbridge.console.acting import act, ask_reason
from labbridge.console.forms import Form
from labbridge.console.frame import LANGUAGES, page
from labbridge.console.watch import watch
from labbridge.showing import shown
from labbridge.store.rows import Account
from labbridge.views.actions import words
from labbridge.views.texts import _

Done = Callable[[], Awaitable[None]]


@page("/accounts", "Accounts", "see accounts")
async def accounts() -> None:
    """The page."""

    @ui.refreshable
    async def people() -> None:
        found = await asyncio.to_thread(watch().reader.accounts)
        titles = [_("Name"), _("Role"), _("Language"), _("State"), _("Change")]
        _table(titles, [_row(one, people.refresh) for one in found])

    with ui.row().classes("w-full items-center"):
        ui.label(_("Accounts")).classes("text-2xl").props("role=heading aria-level=1")
        ui.space()
        ui.button(_("Add an account"), icon="person_add", on_click=lambda: _add(people.refresh)).props("no-caps")
    await people()
    ui.label(_("Who may do what")).classes("text-xl pt-4").props("role=heading aria-level=2")
    _table([_("Permission"), *_roles().values()], [_permissions(action) for action in roles.ACTIONS])


def _roles() -> dict[str, str]:
    return {role: _(role) for role in roles.ROLES}


def _permissions(action: str) -> list[str]:
    return [words()[action], *(_("yes") if roles.may(role, action) else "–" for role in roles.ROLES)]


def _table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A plain table: a cell is a text, or draws itself."""
    with ui.element("div").classes("w-full overflow-x-auto"), ui.element("table").classes("lb-table"):
        with ui.element("thead"), ui.element("tr"):
            for title in titles:
                with ui.element("th").props("scope=col"):
                    ui.label(title)
        with ui.element("tbody"):
            for first, *cells in rows:
                with ui.element("tr"):
                    with ui.element("th").props("scope=row"):
                        ui.label(first)
                    for cell in cells:
                        with ui.element("td"):
                            cell() if callable(cell) else ui.label(cell)


def _row(one: Account, done: Done) -> list[Any]:
    standing, deeds = partial(_state, one.state == "active"), partial(_deeds, one, done)
    return [shown(one.name), _(one.role), LANGUAGES.get(one.language, one.language), standing, deeds]


def _deeds(one: Account, done: Done) -> None:
    state = (_("Disable"), "disabled") if one.state == "active" else (_("Enable"), "active")
    with ui.row().classes("gap-1 no-wrap"):
        for word, deed in (
            (_("Role"), lambda: _change_role(one, done)),
            (_("New password"), lambda: _change_password(one, done)),
            (state[0], lambda: _change_state(one, *state, done)),
        ):
            ui.button(word, on_click=deed).props("flat dense no-caps").props["aria-label"] = f"{word}: {shown(one.name)}"


def _state(active: bool) -> None:
    with ui.row().classes("items-center gap-1 no-wrap"):
        ui.icon("check_circle" if active else "block").props("aria-hidden=true").classes("lb-good" if active else "lb-quiet")
        ui.label(_("active") if active else _("disabled"))


def _add(done: Done) -> None:
    form = Form(_("Add an account"), _("Add"), done, command="account-add")
    form.text("account", _("Name")).props("autofocus autocomplete=off")
    form.choice("role", _("Role"), _roles(), "technician")
    form.choice("language", _("Language"), LANGUAGES, watch().settings.site.language)
    form.passwords()


def _change_role(one: Account, done: Done) -> None:
    title = _("Another role for {account}", account=shown(one.name))
    form = Form(title, _("Change"), done, command="account-change", account=one.name)
    form.choice("role", _("Role"), _roles(), one.role).props("autofocus")
    form.text("reason", _("Reason"))


def _change_password(one: Account, done: Done) -> None:
    title = _("A new password for {account}", account=shown(one.name))
    Form(title, _("Change"), done, command="account-change", account=one.name).passwords()


async def _change_state(one: Account, word: str, state: str, done: Done) -> None:
    reason = await ask_reason(f"{word}: {shown(one.name)}")
    if reason is not None and (await act("account-change", account=one.name, value=state, reason=reason)).ok:
        await done()
