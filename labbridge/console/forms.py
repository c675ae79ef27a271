"""Small forms: a dialog that stays open until what it asks for was done."""

from collections.abc import Callable
from typing import Any

from nicegui import ui

from labbridge.console.acting import act
from labbridge.views.texts import _


class Form:
    """A dialog of fields that is open until what it asks for was done, or the person turned back."""

    def __init__(self, title: str, word: str, done: Callable[[], Any]) -> None:
        self._done = done
        with ui.dialog() as self.dialog, ui.card().classes("w-[28rem] max-w-full"):
            ui.label(title).classes("text-lg font-medium").props("role=heading aria-level=2")
            self.fields = ui.column().classes("w-full gap-2")
            with ui.row().classes("w-full justify-end"):
                ui.button(_("Cancel"), on_click=self.dialog.close).props("flat no-caps")
                ui.button(word, on_click=self.send).props("no-caps")
        self.dialog.on("hide", self.dialog.delete).props["aria-label"] = title
        self.command: Callable[[], dict[str, Any] | None] = lambda: None

    def text(self, label: str) -> ui.input:
        """A field."""
        return ui.input(label).props("outlined dense").classes("w-full").on("keydown.enter", self.send)

    def password(self, label: str, purpose: str) -> ui.input:
        """A field for a password; ``purpose`` is what HTML calls its autocomplete."""
        field = ui.input(label, password=True, password_toggle_button=True).props(f"outlined dense autocomplete={purpose}")
        return field.classes("w-full").on("keydown.enter", self.send)

    def passwords(self) -> Callable[[], str | None]:
        """A new password, twice; gives None where they differ."""
        first, again = (self.password(label, "new-password") for label in (_("New password"), _("The same again")))
        ui.label(_("8 to 256 characters")).classes("lb-quiet text-sm")

        def both() -> str | None:
            if first.value == again.value:
                return str(first.value)
            ui.notify(_("The two passwords differ."), type="negative")
            return None

        return both

    async def send(self) -> None:
        """Sends the command; the dialog stays where it was refused."""
        fields = self.command()
        if fields is not None and (await act(**fields)).ok:
            self.dialog.close()
            await self._done()


async def _nothing() -> None:
    """Nothing has to be drawn anew."""


def own_password() -> None:
    """Asks for one's own new password, and the old one."""
    form = Form(_("Your own password"), _("Change"), _nothing)
    with form.fields:
        known = form.password(_("The old password"), "current-password").props("autofocus")
        both = form.passwords()

    def command() -> dict[str, Any] | None:
        password = both()
        return {"command": "password", "password": password, "known": known.value} if password else None

    form.command = command
    form.dialog.open()
