"""What may be done with results: each deed asks, shows what the hospital will receive, and sends one command."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import msgspec
from nicegui import ui

from labbridge.console import session
from labbridge.console.acting import Answer, Field, act, ask, decide, previewed, reason_field
from labbridge.console.watch import watch
from labbridge.verification.ages import age_in_days
from labbridge.views.texts import _
from labbridge.views.wording import deed_word, value_text

if TYPE_CHECKING:
    from labbridge.console.results import Panel
    from labbridge.views.sheet import Line


class Deed(msgspec.Struct, frozen=True):
    """One deed: the command that it sends, its key, its icon, and the function that asks and acts."""

    command: str
    key: str
    icon: str
    run: Callable[["Panel"], Awaitable[Any]]
    held: bool = False  # only of what is held


def buttons(panel: "Panel") -> None:
    """The deeds that this user's role may do, as buttons that name their keys."""
    with ui.row().classes("w-full gap-1"):
        for deed in DEEDS:
            if session.can(deed.command):
                label = f"{deed_word(deed.command)} {deed.key}".strip()
                button = ui.button(label, icon=deed.icon, on_click=lambda deed=deed: _do(panel, deed))
                button.props("no-caps dense outline size=12px").classes("font-bold" if deed.command == "release" else "")
                button.set_enabled(bool(panel.held) or not deed.held)


async def press(panel: "Panel | None", key: str) -> None:
    """Does what a function key stands for, with the specimen that is open."""
    deed = next((one for one in DEEDS if one.key == key and key), None)
    if deed is None or panel is None or not panel.ready:
        return
    if session.can(deed.command):
        await _do(panel, deed)
    else:
        ui.notify(_("Your role may not do this: {deed}.", deed=deed_word(deed.command)), type="warning")


async def _do(panel: "Panel", deed: Deed) -> None:
    """One deed at a time."""
    if panel.acting:
        return
    panel.acting = True
    try:
        await deed.run(panel)
        await panel.load()
    finally:
        panel.acting = False


async def _about(panel: "Panel", command: str, fields: Sequence[Field], lines: Sequence["Line"], *, leaves: bool = True) -> None:
    """A deed about these tests."""
    target = {**panel.target, "tests": [line.test for line in lines]}
    await decide(command, fields, target, covers=list(map(value_text, lines)), leaves=leaves)


async def _release(panel: "Panel") -> None:
    lines = [line for line in panel.chosen if line.about is not None and line.now.held]
    if not lines:
        ui.notify(_("Nothing of it can be released: choose what is held and mapped."), type="warning")
        return
    untold = any(line.now.critical and not line.now.told for line in lines)
    reason = reason_field(_("checked"), _("repeated, confirmed"), _("agrees with earlier values"))
    await _about(panel, "release", [*(_call_fields() if untold else ()), reason], lines)


async def _reject(panel: "Panel") -> None:
    await _about(panel, "reject", [reason_field()], panel.chosen, leaves=False)


async def _without(panel: "Panel", command: str) -> None:
    offers = (_("haemolysed"), _("clotted"), _("not enough material"), _("wrong tube"))
    await _about(panel, command, [Field("reason", _("Reason, for the hospital"), offers=offers)], panel.chosen)


async def _comment(panel: "Panel") -> None:
    await decide("comment", [Field("note", _("Comment"), long=True)], panel.target, leaves=False)


async def _call_back(panel: "Panel") -> None:
    lines = [line for line in panel.chosen if line.now.critical] or panel.chosen
    await _about(panel, "call-back", _call_fields(must=False), lines, leaves=False)


async def _correct_id(panel: "Panel") -> None:
    fields = [Field("to", _("The right specimen id"), leads=True), reason_field()]
    told = _("Another person must confirm it; then what was delivered under the wrong id is withdrawn.")
    await decide("correct-id", fields, panel.target, told=told)


async def _edit(panel: "Panel") -> None:
    known = watch().catalogue().tests
    first = next((line.test for line in panel.chosen if line.test in known), "")
    offers = (_("counted by hand"), _("diluted by hand"), _("corrected after a check"))
    fields = [
        Field("test", _("Test"), value=first, options={code: f"{code} · {test.name}" for code, test in known.items()}, leads=True),
        Field("value", _("Value"), leads=True),
        reason_field(*offers),
    ]

    def given(test: str, **entered: str) -> dict[str, Any]:
        """What the command takes: the test of the report whose value is shown."""
        reports = [line.now.report for line in panel.lines if line.test == test]
        return {**panel.target, **({"reports": reports} if reports else {}), "tests": [test], **entered}

    async def preview(entered: dict[str, Any]) -> Answer:
        return await previewed("edit", **given(**entered))

    told = _("Tick one test to change it; a value for a test that the report has not is entered. It leaves as a correction.")
    entered = await ask(deed_word("edit"), fields, told=told, preview=preview)
    if not entered:
        return
    call: dict[str, Any] | None = {}
    assert panel.sheet is not None
    days = age_in_days(panel.sheet.patient, datetime.now().timestamp(), _zone())
    if panel.sheet.judges(entered["test"], entered["value"], watch().catalogue(), days):
        call = await ask(deed_word("call-back"), _call_fields(), told=_("This value is critical: tell the ward first."))
    if call is not None:
        await act("edit", **given(**entered), **call)


def _call_fields(*, must: bool = True) -> list[Field]:
    return [
        Field("told", _("Who was told (name, ward)")),
        Field("told_at", _("When (hh:mm)"), value=f"{datetime.now(_zone()):%H:%M}", read=_last_time),
        Field("read_back", _("The value was read back to me"), check=True, optional=not must),
    ]


def _last_time(clock: str) -> str:
    """The last time that the clock showed this; what is no time of day goes to the daemon, which says so."""
    now = datetime.now(_zone())
    try:
        hour, minute = map(int, clock.replace("：", ":").split(":"))
        at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    except ValueError:
        return clock
    return (at - timedelta(days=at > now)).isoformat()


def _zone() -> ZoneInfo:
    return ZoneInfo(watch().settings.site.timezone)


DEEDS = (
    Deed("release", "F2", "check", _release, held=True),
    Deed("not-reportable", "F4", "block", lambda panel: _without(panel, "not-reportable")),
    Deed("recollect", "F6", "bloodtype", lambda panel: _without(panel, "recollect")),
    Deed("edit", "F7", "edit", _edit),
    Deed("comment", "F8", "comment", _comment),
    Deed("call-back", "F9", "phone_in_talk", _call_back),
    Deed("acknowledge", "", "notifications_off", lambda panel: act("acknowledge", **panel.target), held=True),
    Deed("reject", "", "delete_outline", _reject, held=True),
    Deed("correct-id", "", "badge", _correct_id),
)
