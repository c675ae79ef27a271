"""The rows of Pending in words, and what they have in common."""

import time
from collections.abc import Collection, Sequence
from typing import Any

from labbridge.model import Reason
from labbridge.showing import brief
from labbridge.views.rows import Group, Row, Why, without_words
from labbridge.views.texts import _, age_text, number_text, reason_text, time_text


def columns(names: dict[str, str]) -> list[dict[str, Any]]:
    """Columns as a table takes them, of their names and headings."""
    return [{"name": name, "label": label, "field": "id", "align": "left"} for name, label in names.items()]


def heading() -> list[dict[str, Any]]:
    """The columns of the list."""
    names = {"specimen": _("Specimen"), "patient": _("Patient"), "analyzer": _("Analyzer"), "received": _("Received")}
    return columns({**names, "why": _("Why")})


def joined(*parts: str) -> str:
    """What there is, in one line."""
    return " · ".join(filter(None, parts))


def key_text(row: Row) -> str:
    """What tells rows apart, on the screen."""
    return f"{row.what}-{row.id}"


def cells(row: Row, others: Collection[str], *, gone: bool, here: bool) -> dict[str, Any]:
    """A row as the table takes it: texts only."""
    return {
        "key": key_text(row),
        "specimen": brief(row.specimen or row.opens, 60) or _("no specimen id"),
        "patient": [text for text in (who_text(row.age, row.sex), brief(row.ward, 40)) if text],
        "analyzer": [text for text in (brief(row.analyzer, 40), place_text(row.rack, row.position)) if text],
        "received": [time_text(row.at), _age(row)],
        "why": [*map(why_text, row.whys), *_beside(row)],
        "critical": (_("critical, called back") if row.told else _("critical")) if row.critical else "",
        "gone": _("settled") if gone else "",
        "others": _("{names} has this open", names=", ".join(sorted(others))) if others else "",
        "here": here,
    }


def group_cells(group: Group, *, here: bool) -> dict[str, Any]:
    """A group as a row of the same table."""
    return {
        "key": group.cause.key,
        "specimen": number_text(len(group.rows)),
        "analyzer": [brief(group.cause.analyzer, 40)],
        "received": [_("oldest: {age}", age=_age(min(group.rows, key=lambda row: row.at)))],
        "why": [*map(why_text, group.cause.whys)],
        "critical": _("critical") if group.cause.critical else "",
        "here": here,
    }


def _age(row: Row) -> str:
    return age_text(max(0.0, time.time() - row.at / 1e6))


def why_text(why: Why) -> str:
    """One reason, with the tests that it holds."""
    text = {"refused": _("refused by the hospital"), "waiting": _("waits for the hospital")}.get(why.reason.code)
    text = text or brief(reason_text([why.reason]), 300)
    return f"{brief(', '.join(why.tests), 80)}: {text}" if why.tests else text


def _beside(row: Row) -> list[str]:
    """What is said beside the reasons."""
    found = {
        _("{n} further reasons", n=row.more): row.more,
        _("{n} kept back with it", n=row.kept_back): row.kept_back,
        _("missing: {tests}", tests=brief(", ".join(row.missing), 120)): row.missing,
        _("its answer: {answer}", answer=brief(row.said)): row.said,
    }
    return [text for text, there in found.items() if there]


def what_choices() -> dict[str, str]:
    """The kinds of rows."""
    return {"held": _("held"), "message": _("unreadable message"), "refused": _("refused"), "waiting": _("waiting")}


def reason_choices(reasons: Sequence[Reason]) -> dict[str, str]:
    """The reasons that rows have, by their codes."""
    return dict(sorted(((one.code, brief(why_text(Why(without_words(one))), 80)) for one in reasons), key=lambda pair: pair[1]))


def place_text(rack: str, position: str) -> str:
    """Where the tube stands."""
    words = (
        _("rack {rack}", rack=brief(rack, 20)) if rack else "",
        _("place {place}", place=brief(position, 20)) if position else "",
    )
    return " ".join(filter(None, words))


def who_text(days: int | None, sex: str) -> str:
    """Age and sex."""
    said = {"M": _("male"), "F": _("female")}.get(sex, "")
    if days is None:
        return said
    if days < 90:
        age = _("{n} days", n=days)
    else:
        age = _("{n} months", n=days * 100 // 3044) if days < 730 else _("{n} years", n=days * 100 // 36525)
    return f"{said} {age}".strip()
