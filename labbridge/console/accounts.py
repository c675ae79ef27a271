"""Accounts: who may use the console and as what; the table of role and action."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui

from labbridge import roles
from labbridge.console import actions
from labbridge.console.acting import act, ask_reason
from labbridge.console.forms import Form
from labbridge.console.frame import LANGUAGES, page
from labbridge.console.watch import watch
from labbridge.showing import shown
from labbridge.store.rows import Account
from labbridge.views.texts import _


@page("/accounts", "Accounts", "see accounts")
async def accounts() -> None:
    """The page."""
    with ui.row().classes("w-full items-center"):
        ui.label(_("Accounts")).classes("text-2xl").props("role=heading aria-level=1")
        ui.space()
        add = ui.button(_("Add an account"), icon="person_add").props("no-caps")
    people = _People()
    add.on_click(lambda: _add(people.show))
    await people.show()
    ui.label(_("Who may do what")).classes("text-xl pt-4").props("role=heading aria-level=2")
    _table([_("Page"), *map(_role, roles.ROLES)], [_permissions(*one) for one in actions.pages().items()])
    _table([_("Command"), *map(_role, roles.ROLES)], [_permissions(*one) for one in actions.commands().items()])


def _role(role: str) -> str:
    return _(role)


def _permissions(action: str, words: str) -> list[str]:
    return [words, *(_("yes") if roles.may(role, action) else "–" for role in roles.ROLES)]


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


class _People:
    """The accounts, drawn anew after each change."""

    def __init__(self) -> None:
        self._place = ui.column().classes("w-full lb-card")

    async def show(self) -> None:
        """Reads and draws."""
        found = await asyncio.to_thread(watch().reader.accounts)
        self._place.clear()
        with self._place:
            titles = [_("Name"), _("Role"), _("Language"), _("State"), _("Change")]
            _table(titles, [self._row(one) for one in found])

    def _row(self, one: Account) -> list[Any]:
        return [
            shown(one.name),
            _role(one.role),
            LANGUAGES.get(one.language, one.language),
            lambda: _state(one),
            lambda: self._deeds(one),
        ]

    def _deeds(self, one: Account) -> None:
        state = (_("Enable"), "active") if one.state != "active" else (_("Disable"), "disabled")
        with ui.row().classes("gap-1 no-wrap"):
            for word, deed in (
                (_("Role"), lambda: _change_role(one, self.show)),
                (_("New password"), lambda: _change_password(one, self.show)),
                (state[0], lambda: _change_state(one, *state, self.show)),
            ):
                ui.button(word, on_click=deed).props("flat dense no-caps").props["aria-label"] = f"{word}: {shown(one.name)}"


def _state(one: Account) -> None:
    active = one.state == "active"
    with ui.row().classes("items-center gap-1 no-wrap"):
        ui.icon("check_circle" if active else "block").props("aria-hidden=true").classes("lb-good" if active else "lb-quiet")
        ui.label(_("active") if active else _("disabled"))


# -- dialogs ---------------------------------------------------------------------------------------------------------


def _roles() -> dict[str, str]:
    return {role: _role(role) for role in roles.ROLES}


def _add(done: Callable[[], Any]) -> None:
    form = Form(_("Add an account"), _("Add"), done)
    with form.fields:
        name = form.text(_("Name")).props("autofocus autocomplete=off")
        role = ui.select(_roles(), label=_("Role"), value="technician").props("outlined dense").classes("w-full")
        language = ui.select(LANGUAGES, label=_("Language"), value=watch().settings.site.language).props("outlined dense")
        language.classes("w-full")
        both = form.passwords()

    def command() -> dict[str, Any] | None:
        password = both()
        about = {"command": "account-add", "account": name.value, "role": role.value, "language": language.value}
        return None if password is None else {**about, "password": password}

    form.command = command
    form.dialog.open()


def _change_role(one: Account, done: Callable[[], Any]) -> None:
    form = Form(_("Another role for {account}", account=shown(one.name)), _("Change"), done)
    with form.fields:
        role = ui.select(_roles(), label=_("Role"), value=one.role).props("outlined dense autofocus").classes("w-full")
        reason = form.text(_("Reason"))
    form.command = lambda: {"command": "account-change", "account": one.name, "role": role.value, "reason": reason.value}
    form.dialog.open()


def _change_password(one: Account, done: Callable[[], Any]) -> None:
    form = Form(_("A new password for {account}", account=shown(one.name)), _("Change"), done)
    with form.fields:
        both = form.passwords()

    def command() -> dict[str, Any] | None:
        password = both()
        return {"command": "account-change", "account": one.name, "password": password} if password else None

    form.command = command
    form.dialog.open()


async def _change_state(one: Account, word: str, state: str, done: Callable[[], Any]) -> None:
    reason = await ask_reason(f"{word}: {shown(one.name)}")
    if reason is not None and (await act("account-change", account=one.name, value=state, reason=reason)).ok:
        await done()
