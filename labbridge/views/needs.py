"""What needs a person, most urgent first; no screen here."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import msgspec

from labbridge.showing import shown
from labbridge.views.texts import _, age_text, number_text

Level = Literal["critical", "fault", "attention"]
SILENT_SECONDS = 300.0  # nobody is told of a shorter silence
SILENT_TIMES = 2.0  # of what is usual at this hour
SKEW_SECONDS = 60
NAMED = 4  # specimens


class Picture(Protocol):
    """The laboratory as it stands, as whoever watches it keeps it."""

    status: dict[str, Any]  # the daemon's
    usual: Any
    hours: Any
    held: Any

    @property
    def daemon_silent_s(self) -> float:
        """How long the daemon has not answered."""


class Need(msgspec.Struct, frozen=True):
    """One line of the banner, and the page that helps."""

    level: Level
    text: str
    path: str
    specimens: tuple[str, ...] = ()  # of whom a critical value waits for a call


class Counted(msgspec.Struct):
    """What is held, counted by analyzer."""

    held: Counter[str] = msgspec.field(default_factory=Counter)
    unmapped: Counter[str] = msgspec.field(default_factory=Counter)
    messages: Counter[str] = msgspec.field(default_factory=Counter)
    critical: list[str] = []  # specimens of which nobody was told yet, the oldest first


_counted: tuple[object, Counted] = (None, Counted())


def counted(watch: Picture) -> Counted:
    """The counts of what is held; counted once for all pages."""
    global _counted
    rows = watch.held.rows
    if _counted[0] is not rows:
        _counted = rows, _count(rows)
    return _counted[1]


def _count(rows: dict[int, Any]) -> Counted:
    found = Counted()
    critical: dict[str, int] = {}
    for key, row in list(rows.items()):
        if key < 0:
            found.messages[row.analyzer] += 1
            continue
        found.held[row.analyzer] += 1
        if any(why.reason.code == "unmapped" for why in row.whys):
            found.unmapped[row.analyzer] += 1
        if row.critical and not row.told:
            critical[row.specimen] = min(row.at, critical.get(row.specimen, row.at))
    found.critical = sorted(critical, key=lambda specimen: critical[specimen])
    return found


def silent(watch: Picture, analyzer: dict[str, Any], now: float) -> tuple[float | None, bool]:
    """Seconds since an analyzer's last message, None where none is known; and whether that is unusual at this hour."""
    last = max(analyzer["last"], watch.hours.last.get(analyzer["name"], 0) / 1e6)
    if not last:
        return None, False
    usual = watch.usual.get(analyzer["name"])
    seconds = max(0.0, now - last)
    return seconds, usual is not None and seconds > max(SILENT_SECONDS, SILENT_TIMES * usual)


def critical(watch: Picture) -> Need | None:
    """The critical values of which nobody was told."""
    waiting = counted(watch).critical
    if not waiting:
        return None
    text = _("Critical values wait for a call: {count}", count=number_text(len(waiting)))
    return Need("critical", text, "/pending", tuple(waiting))


def named(specimens: Sequence[str]) -> str:
    """The first of the specimens, for those who may see them."""
    first = ", ".join(shown(specimen)[:40] for specimen in specimens[:NAMED])
    return first + (" …" if len(specimens) > NAMED else "")


def needs(watch: Picture, now: float) -> list[Need]:
    """Everything that needs a person at ``now`` (seconds since 1970), most urgent first."""
    found = [*_of_labbridge(watch), *([first] if (first := critical(watch)) else [])]
    found += _of_destinations(watch)
    found += _of_analyzers(watch, now)
    found += _of_held(watch)
    order = ("critical", "fault", "attention")
    return sorted(found, key=lambda need: order.index(need.level))


def _of_labbridge(watch: Picture) -> Iterator[Need]:
    if watch.daemon_silent_s:
        text = _("labbridge has not answered for {age}: the figures below are old", age=age_text(watch.daemon_silent_s))
        yield Need("fault", text, "/")
    elif watch.status["store"] != "ready":
        yield Need("fault", _("The store cannot be written: analyzers are asked to send again until it can"), "/")


def _of_destinations(watch: Picture) -> Iterator[Need]:
    for one in watch.status.get("destinations", ()):
        name, queue = one["name"], number_text(one["queue"])
        if one["paused"]:
            yield Need("fault", _("{name} is paused; {queue} wait", name=name, queue=queue), "/queue")
        elif one["down"]:
            age = age_text(one["down"])
            yield Need("fault", _("{name} cannot be reached since {age}; {queue} wait", name=name, age=age, queue=queue), "/queue")
        if one["refused"]:
            yield Need("fault", _("{name} refused {count}", name=name, count=number_text(one["refused"])), "/queue")


def _of_analyzers(watch: Picture, now: float) -> Iterator[Need]:
    for one in watch.status.get("analyzers", ()):
        name = one["name"]
        seconds, unusual = silent(watch, one, now)
        if one["down"] and not one["listens"]:
            yield Need("fault", _("{name} cannot be reached since {age}", name=name, age=age_text(one["down"])), "/")
        elif unusual and seconds is not None:
            usual = age_text(watch.usual[name])
            text = _("{name} is silent for {age}; at this hour {usual} is usual", name=name, age=age_text(seconds), usual=usual)
            yield Need("fault", text, "/")
        if abs(one["skew"]) >= SKEW_SECONDS:
            text = _("The clock of {name} is wrong by {age}", name=name, age=age_text(one["skew"]))
            yield Need("attention", text, "/")


def _of_held(watch: Picture) -> Iterator[Need]:
    found = counted(watch)
    for name, number in found.messages.items():
        text = _("Messages that could not be read, {name}: {count}", name=name, count=number_text(number))
        yield Need("attention", text, "/pending")
    for name, number in found.unmapped.items():
        text = _("Specimens with an unmapped code, {name}: {count}", name=name, count=number_text(number))
        yield Need("attention", text, "/unmapped")
    if total := found.held.total():
        yield Need("attention", _("Specimens that wait for a decision: {count}", count=number_text(total)), "/pending")
