"""One row of Pending in words."""

import time
from collections.abc import Collection, Sequence
from typing import Any

from labbridge.model import Reason
from labbridge.showing import brief
from labbridge.views.rows import Row, Why, without_words
from labbridge.views.texts import _, age_text, reason_text, time_text

ROW = r"""
<q-tr :props="props" :tabindex="props.row.here ? 0 : -1" :aria-selected="props.row.here"
  class="cursor-pointer" :class="{'lb-here-row': props.row.here, 'lb-gone': props.row.gone}"
  @click="() => $parent.$emit('choose', props.row.key)"
  @keydown.enter="() => $parent.$emit('choose', props.row.key)">
  <q-td v-for="col in props.cols" :key="col.name" :props="props" class="align-top lb-wrap">
    <template v-if="col.name === 'specimen'">
      <div class="font-medium text-base">{{ props.row.specimen }}</div>
      <div v-if="props.row.critical" class="font-bold lb-bad"><q-icon name="report" /> {{ props.row.critical }}</div>
      <div v-if="props.row.gone" class="text-xs font-bold">{{ props.row.gone }}</div>
      <div v-if="props.row.others" class="text-xs"><q-icon name="visibility" /> {{ props.row.others }}</div>
    </template>
    <template v-else>
      <div v-for="line in props.row[col.name]" :class="col.name === 'why' ? 'text-sm' : 'text-xs'">{{ line }}</div>
    </template>
  </q-td>
</q-tr>"""


def COLUMNS() -> list[dict[str, Any]]:  # noqa: N802
    """The columns of the list, named in the user's language."""
    names = (
        ("specimen", _("Specimen")),
        ("patient", _("Patient")),
        ("analyzer", _("Analyzer")),
        ("received", _("Received")),
        ("why", _("Why")),
    )
    return [{"name": name, "label": label, "field": "key", "align": "left"} for name, label in names]


def cells(row: Row, others: Collection[str], *, gone: bool, here: bool) -> dict[str, Any]:
    """A row as the table takes it: texts only."""
    age = age_text(max(0.0, time.time() - row.at / 1e6))
    place = " / ".join(filter(None, (row.rack, row.position)))
    return {
        "key": "-".join(map(str, row.key)),
        "specimen": brief(row.specimen or row.opens, 60) or _("no specimen id"),
        "patient": [text for text in (who_text(row.age, row.sex), brief(row.ward, 40)) if text],
        "analyzer": [text for text in (brief(row.analyzer, 40), place and _("rack {place}", place=brief(place, 40))) if text],
        "received": [time_text(row.at), age],
        "why": [*map(why_text, row.whys), *_beside(row)],
        "critical": (_("critical, called back") if row.told else _("critical")) if row.critical else "",
        "gone": _("settled") if gone else "",
        "others": _("{names} has this open", names=", ".join(sorted(others))) if others else "",
        "here": here,
    }


def why_text(why: Why) -> str:
    """One reason, with the tests that it holds."""
    text = brief({"refused": _("refused by the hospital"), "waiting": _("waits for the hospital")}.get(why.reason.code, ""), 300)
    text = text or brief(reason_text([why.reason]), 300)
    return f"{brief(', '.join(why.tests), 80)}: {text}" if why.tests else text


def _beside(row: Row) -> list[str]:
    """What is said beside the reasons."""
    found = []
    if row.more:
        found.append(_("{n} further reasons", n=row.more))
    if row.kept_back:
        found.append(_("{n} kept back with it", n=row.kept_back))
    if row.missing:
        found.append(_("missing: {tests}", tests=brief(", ".join(row.missing), 120)))
    if row.said:
        found.append(_("its answer: {answer}", answer=brief(row.said)))
    return found


def what_choices() -> dict[str, str]:
    """The kinds of rows."""
    return {"held": _("held"), "message": _("unreadable message"), "refused": _("refused"), "waiting": _("waiting")}


def reason_choices(reasons: Sequence[Reason]) -> dict[str, str]:
    """The reasons that rows have, by their codes."""
    return dict(sorted(((one.code, brief(why_text(Why(without_words(one))), 80)) for one in reasons), key=lambda pair: pair[1]))


def who_text(days: int | None, sex: str) -> str:
    """Age and sex."""
    sexes = {"M": _("male"), "F": _("female")}
    age = "" if days is None else _("{n} years", n=days * 100 // 36525) if days >= 730 else _("{n} days", n=days)
    if days is not None and 90 <= days < 730:
        age = _("{n} months", n=days * 100 // 3044)
    return " ".join(filter(None, (sexes.get(sex, ""), age)))
