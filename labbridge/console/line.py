"""Line, the first page: every analyzer and destination at a glance, and what needs a person."""

from nicegui import ui

from labbridge.console.frame import page
from labbridge.console.texts import _
from labbridge.console.watch import watch


@page("/", "Line", "see line")
def line() -> None:
    """The whole line."""
    for one in watch().status.get("analyzers", ()):
        ui.label(one["name"]).classes("text-2xl")
    ui.label(_("There is no quality control here yet: check it at the analyzers."))
