"""What a card of the line says of an analyzer or a destination; no screen here."""

from typing import Any

import msgspec

from labbridge.views import needs
from labbridge.views.needs import Picture
from labbridge.views.texts import _, age_text, number_text, time_text


class State(msgspec.Struct, frozen=True):
    """How something stands: a word, an icon and a colour, which say the same."""

    word: str
    icon: str
    tone: str  # good, warn, bad, quiet


class Card(msgspec.Struct, frozen=True):
    """Everything that stands on a card."""

    name: str
    kind: str
    state: State
    big: str
    caption: str
    tone: str
    facts: tuple[tuple[str, str, str], ...]  # word, value, tone
    hours: tuple[int, ...] = ()
    unit: str = ""


def analyzer(watch: Picture, one: dict[str, Any], now: float) -> Card:
    """The card of an analyzer."""
    name = one["name"]
    seconds, unusual = needs.silent(watch, one, now)
    usual = watch.usual.get(name)
    counted = needs.counted(watch)
    if seconds is None:
        big, caption = "–", _("no message yet")
    else:
        big, caption = (_("now"), _("the last message came")) if seconds < 60 else (age_text(seconds), _("since the last message"))
        if usual is not None:
            caption += " · " + _("usually at most {age} at this hour", age=age_text(usual))
    facts = [
        (_("Last message"), time_text(int((now - seconds) * 1e6)) if seconds is not None else "–", ""),
        (_("Held"), number_text(counted.held[name]), "warn" if counted.held[name] else ""),
        (_("Unmapped"), number_text(counted.unmapped[name]), "warn" if counted.unmapped[name] else ""),
    ]
    if abs(one["skew"]) >= needs.SKEW_SECONDS:
        words = _("{age} behind") if one["skew"] < 0 else _("{age} ahead")
        facts.append((_("Clock"), words.format(age=age_text(one["skew"])), "warn"))
    hours = tuple(watch.hours.results.get(name, ()))
    tone = "bad" if unusual else ""
    return Card(name, one["profile"], _state(one, now), big, caption, tone, tuple(facts), hours, _("results per hour"))


def _state(one: dict[str, Any], now: float) -> State:
    since = time_text(int((now - one["down"]) * 1e6)) if one["down"] else ""
    if one["links"]:
        return State(_("Connected"), "link", "good")
    if one["listens"]:
        if not one["down"]:
            return State(_("Listening, not connected yet"), "hearing", "quiet")
        return State(_("Listening, not connected since {time}", time=since), "hearing", "warn")
    if one["down"]:
        return State(_("Down since {time}", time=since), "link_off", "bad")
    return State(_("Waiting"), "hourglass_empty", "quiet")


def destination(watch: Picture, one: dict[str, Any], now: float) -> Card:
    """The card of a destination."""
    waiting = one["queue"]
    since = time_text(int((now - one["down"]) * 1e6)) if one["down"] else ""
    if one["paused"]:
        state = State(_("Paused"), "pause_circle", "bad")
    elif one["connections"]:
        state = State(_("Connected"), "link", "good")
    else:
        state = State(_("Down since {time}", time=since) if since else _("Not connected"), "link_off", "bad")
    facts = (
        (_("Oldest"), age_text(one["oldest"]) if waiting else "–", "bad" if one["oldest"] > 60 else ""),
        (_("Refused"), number_text(one["refused"]), "bad" if one["refused"] else ""),
        (_("Delivered in 24 hours"), number_text(sum(watch.hours.delivered.get(one["name"], ()))), ""),
    )
    hours = tuple(watch.hours.delivered.get(one["name"], ()))
    caption = _("waiting to be delivered")
    return Card(one["name"], "", state, number_text(waiting), caption, "", facts, hours, _("deliveries per hour"))


def cards(watch: Picture, now: float) -> tuple[list[Card], list[Card]]:
    """All cards: of analyzers, and of destinations."""
    analyzers = [analyzer(watch, one, now) for one in watch.status.get("analyzers", ())]
    return analyzers, [destination(watch, one, now) for one in watch.status.get("destinations", ())]
