"""What may be done with results: each deed asks, shows what the hospital will receive, and sends one command."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import msgspec
from nicegui import ui

from labbridge.console import session
from labbridge.console.acting import Answer, act
from labbridge.console.asking import Field, Preview, ask
from labbridge.console.watch import watch
from labbridge.showing import brief
from labbridge.verification.ages import age_in_days
from labbridge.views.texts import _

if TYPE_CHECKING:
    from labbridge.console.results import Panel
    from labbridge.views.sheet import Line, Sheet


_HELD_ONLY = ("release", "reject", "acknowledge")


class Deed(msgspec.Struct, frozen=True):
    """One deed: the command that it sends, its key, its icon, and the function that asks and acts."""

    command: str
    key: str
    icon: str
    run: Callable[["Panel"], Awaitable[None]]


def word(command: str) -> str:
    """What a command is called."""
    words = {
        "release": _("Release"),
        "reject": _("Reject"),
        "not-reportable": _("Not reportable"),
        "recollect": _("Recollect"),
        "edit": _("Edit or enter"),
        "comment": _("Comment"),
        "call-back": _("Call back"),
        "acknowledge": _("Acknowledge"),
        "correct-id": _("Correct the id"),
        "confirm-id": _("Confirm the id"),
        "withdraw-id": _("Withdraw"),
        "release-mapped": _("Release what is mapped now"),
        "retry": _("Retry"),
    }
    return words.get(command, command)


def buttons(panel: "Panel") -> None:
    """The deeds that this user's role may do, as buttons that name their keys."""
    with ui.row().classes("w-full gap-1"):
        for deed in DEEDS:
            if session.can(deed.command):
                label = f"{word(deed.command)} {deed.key}".strip()
                button = ui.button(label, icon=deed.icon, on_click=lambda deed=deed: do(panel, deed))
                button.props("no-caps dense outline size=12px").classes("font-bold" if deed.command == "release" else "")
                button.set_enabled(
                    bool(panel.sheet and panel.sheet.held) or deed.command not in ("release", "reject", "acknowledge")
                )


async def press(panel: "Panel | None", key: str) -> None:
    """Does what a function key stands for, with the specimen that is open."""
    deed = next((one for one in DEEDS if one.key == key and key), None)
    if deed is None or panel is None or not panel.ready:
        return
    if not session.can(deed.command):
        ui.notify(_("Your role may not do this: {deed}.", deed=word(deed.command)), type="warning")
        return
    await do(panel, deed)


async def do(panel: "Panel", deed: Deed) -> None:
    """One deed at a time."""
    if panel.acting:
        return
    panel.acting = True
    try:
        await deed.run(panel)
        await panel.load()
    finally:
        panel.acting = False


def _covers(lines: Sequence["Line"]) -> list[str]:
    found = []
    for line in lines:
        mark = f" — {_('critical')}" if line.now.critical else ""
        value = f"{brief(line.now.value, 60)} {brief(line.now.decided.print_unit or line.now.result.unit, 20)}"
        found.append(f"{brief(line.test, 60)}  {value.strip()}{mark}")
    return found


def leaving(panel: "Panel", command: str, **fields: Any) -> Preview:
    """Asks the daemon what would leave, by what was entered so far."""

    async def preview(entered: dict[str, Any]) -> Answer:
        given = {**panel.target, **fields, **_called(entered)}
        return await act(command, preview=True, quiet=True, **{**given, "reason": given.get("reason") or "…"})

    return preview


async def _release(panel: "Panel") -> None:
    lines = [line for line in panel.chosen if line.about is not None and line.now.held]
    if not lines:
        ui.notify(_("Nothing of it can be released: choose what is held and mapped."), type="warning")
        return
    tests = [line.test for line in lines]
    fields = [Field("reason", _("Reason"), offers=(_("checked"), _("repeated, confirmed"), _("agrees with earlier values")))]
    untold = [line for line in lines if line.now.critical and not line.now.told]
    if untold:
        fields = [*_call_fields(), *fields]
    entered = await ask(word("release"), fields, covers=_covers(lines), preview=leaving(panel, "release", tests=tests))
    if entered is not None:
        await act("release", **panel.target, tests=tests, **_called(entered))


async def _reject(panel: "Panel") -> None:
    lines = panel.chosen
    told = _("The hospital receives nothing.")
    entered = await ask(word("reject"), [Field("reason", _("Reason"))], covers=_covers(lines), told=told)
    if entered is not None:
        await act("reject", **panel.target, tests=[line.test for line in lines], **entered)


async def _without(panel: "Panel", command: str) -> None:
    lines = panel.chosen
    tests = [line.test for line in lines]
    offers = (_("haemolysed"), _("clotted"), _("not enough material"), _("wrong tube"))
    fields = [Field("reason", _("Reason, for the hospital"), offers=offers)]
    entered = await ask(word(command), fields, covers=_covers(lines), preview=leaving(panel, command, tests=tests))
    if entered is not None:
        await act(command, **panel.target, tests=tests, **entered)


async def _edit(panel: "Panel") -> None:
    assert panel.sheet is not None
    known = watch().catalogue().tests
    first = next((line.test for line in panel.chosen if line.test in known), "")
    names = {code: f"{code} · {test.name}" for code, test in known.items()}
    fields = [
        Field("test", _("Test"), value=first, options=names),
        Field("value", _("Value")),
        Field("reason", _("Reason"), offers=(_("counted by hand"), _("diluted by hand"), _("corrected after a check"))),
    ]

    async def preview(entered: dict[str, Any]) -> Answer:
        if not entered["value"] or not entered["test"]:
            return Answer(False)
        given = {"value": entered["value"], "reason": entered["reason"]}
        return await leaving(panel, "edit", **_of_test(panel, entered["test"]), tests=[entered["test"]])(given)

    told = _("Tick one test to change it; a value for a test that the report has not is entered. It leaves as a correction.")
    entered = await ask(word("edit"), fields, told=told, preview=preview)
    if entered is None:
        return
    test = entered.pop("test")
    if _is_critical(panel.sheet, test, entered["value"]):
        call = await ask(word("call-back"), _call_fields(), told=_("This value is critical: tell the ward first."))
        if call is None:
            return
        entered |= _called(call)
    await act("edit", **_of_test(panel, test), tests=[test], **entered)


def _is_critical(sheet: "Sheet", test: str, value: str) -> bool:
    """Whether the laboratory's limits call it critical for this patient."""
    days = age_in_days(sheet.patient, datetime.now().timestamp(), ZoneInfo(watch().settings.site.timezone))
    limits = watch().catalogue().limits(test, sheet.patient.sex, days, sheet.heads[0].specimen.type)
    return limits is not None and limits.judge(value).critical


def _of_test(panel: "Panel", test: str) -> dict[str, Any]:
    """What a command takes to mean this test: the report whose value is shown."""
    line = next((line for line in panel.sheet.lines if line.test == test), None) if panel.sheet else None
    return {**panel.target, **({"reports": [line.now.report]} if line else {})}


async def _comment(panel: "Panel") -> None:
    told = _("The hospital receives nothing.")
    entered = await ask(word("comment"), [Field("note", _("Comment"), long=True)], told=told)
    if entered is not None:
        await act("comment", **panel.target, **entered)


async def _call_back(panel: "Panel") -> None:
    assert panel.sheet is not None
    lines = [line for line in panel.chosen if line.now.critical] or panel.chosen
    fields = _call_fields(must=False)
    entered = await ask(word("call-back"), fields, covers=_covers(lines), told=_("The hospital receives nothing."))
    if entered is not None:
        await act("call-back", **panel.target, tests=[line.test for line in lines], **_called(entered))


async def _acknowledge(panel: "Panel") -> None:
    await act("acknowledge", **panel.target)


async def _correct_id(panel: "Panel") -> None:
    fields = [Field("to", _("The right specimen id")), Field("reason", _("Reason"))]
    told = _("Another person must confirm it; then what was delivered under the wrong id is withdrawn.")

    async def preview(entered: dict[str, Any]) -> Answer:
        return await leaving(panel, "correct-id")(entered) if entered["to"] else Answer(False)

    entered = await ask(word("correct-id"), fields, told=told, preview=preview)
    if entered is not None:
        await act("correct-id", **panel.target, **entered)


def _call_fields(*, must: bool = True) -> list[Field]:
    now = datetime.now(ZoneInfo(watch().settings.site.timezone))
    return [
        Field("told", _("Who was told (name, ward)")),
        Field("told_at", _("When (hh:mm)"), value=f"{now:%H:%M}"),
        Field("read_back", _("The value was read back to me"), check=True, optional=not must),
    ]


def _called(entered: dict[str, Any]) -> dict[str, Any]:
    """What was entered, with the time as the command takes it: the last time that the clock showed this."""
    if "told_at" not in entered:
        return entered
    now = datetime.now(ZoneInfo(watch().settings.site.timezone))
    try:
        hour, minute = map(int, entered["told_at"].replace("：", ":").split(":"))
        at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    except ValueError:
        return {**entered, "told_at": entered["told_at"]}  # the daemon says what is wrong with it
    at -= timedelta(days=1) if at > now else timedelta()
    return {**entered, "told_at": at.isoformat()}


DEEDS = (
    Deed("release", "F2", "check", _release),
    Deed("not-reportable", "F4", "block", lambda panel: _without(panel, "not-reportable")),
    Deed("recollect", "F6", "bloodtype", lambda panel: _without(panel, "recollect")),
    Deed("edit", "F7", "edit", _edit),
    Deed("comment", "F8", "comment", _comment),
    Deed("call-back", "F9", "phone_in_talk", _call_back),
    Deed("acknowledge", "", "notifications_off", _acknowledge),
    Deed("reject", "", "delete_outline", _reject),
    Deed("correct-id", "", "badge", _correct_id),
)
