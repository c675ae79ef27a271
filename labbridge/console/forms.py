"""Small forms: a dialog that stays open until the command that it sends was done, or the person turned back."""

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from labbridge.accounts import LONGEST, SHORTEST
from labbridge.console.acting import act
from labbridge.views.texts import _


class Form:
    """A dialog of the fields of a command, to which ``fixed`` ones belong; then calls ``done``."""

    def __init__(self, title: str, word: str, done: Callable[[], Awaitable[None]] | None, **fixed: Any) -> None:
        self._done, self._fixed = done, fixed
        self._fields: dict[str, ui.input | ui.select] = {}
        with ui.dialog(value=True) as self._dialog, ui.card().classes("w-[28rem] max-w-full"):
            ui.label(title).classes("text-lg font-medium").props("role=heading aria-level=2")
            self._place = ui.column().classes("w-full gap-2")
            with ui.row().classes("w-full justify-end"):
                ui.button(_("Cancel"), on_click=self._dialog.close).props("flat no-caps")
                ui.button(word, on_click=self._send).props("no-caps")
        self._dialog.on("hide", self._dialog.delete).props["aria-label"] = title

    def text(self, name: str, label: str, **options: Any) -> ui.input:
        """A field for a line of text."""
        with self._place:
            self._fields[name] = field = ui.input(label, **options).props("outlined dense").classes("w-full")
        return field.on("keydown.enter", self._send).without_auto_validation()

    def choice(self, name: str, label: str, options: dict[str, str], value: str) -> ui.select:
        """A field for one of several."""
        with self._place:
            self._fields[name] = field = ui.select(options, label=label, value=value).props("outlined dense").classes("w-full")
        return field

    def password(self, name: str, label: str, purpose: str = "new-password", **options: Any) -> ui.input:
        """A field for a password; ``purpose`` is what HTML calls its autocomplete."""
        field = self.text(name, label, password=True, password_toggle_button=True, **options)
        return field.props(f"autocomplete={purpose}")

    def passwords(self) -> None:
        """A new password, twice."""
        size, same = _("{least} to {most} characters", least=SHORTEST, most=LONGEST), _("The two passwords differ.")
        first = self.password("password", _("New password"), validation={size: lambda text: SHORTEST <= len(text) <= LONGEST})
        first.props["hint"] = size
        self.password("again", _("The same again"), validation={same: lambda text: text == first.value})

    async def _send(self) -> None:
        """Sends the command; the dialog stays where it was refused."""
        wrong = [field for field in self._fields.values() if not field.validate()]
        entered = {name: field.value for name, field in self._fields.items() if name != "again"}
        if not wrong and (await act(**self._fixed, **entered)).ok:
            self._dialog.close()
            if self._done is not None:
                await self._done()


def own_password() -> None:
    """Asks for one's own new password, and the old one."""
    form = Form(_("Your own password"), _("Change"), None, command="password")
    form.password("known", _("The old password"), "current-password").props("autofocus")
    form.passwords()
