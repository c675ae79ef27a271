"""What a person settles: held results of a stored report are released, rejected, or verified anew.

The same step as ``pipeline.decide``, and as pure: time, entropy and history come in as arguments.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from labbridge import pipeline
from labbridge.attachments import Attachments
from labbridge.context import Context
from labbridge.formats.oru import UnwritableError
from labbridge.model import Decided, Decision, Reason, Report, Verdict
from labbridge.pipeline import AnalyzerRules, Moment, Outcome, Outgoing, Revision
from labbridge.verification import Known

_TAKEN_BACK = frozenset("DWX")  # HL7 table 0085: deleted, wrong, cannot be obtained


def settle(
    report: Report,
    before: Sequence[Decided],
    action: Literal["release", "reject", "remap"],
    wanted: frozenset[str],
    decision: Decision,
    key: str,
    context: Context,
    rules: AnalyzerRules,
    revision: Revision,
    moment: Moment,
    *,
    correction: bool = False,
    together: frozenset[str] = frozenset(),
    attachments: Attachments | None = None,
) -> Outcome | None:
    """Settles what is held of a report: ``release``, ``reject``, or ``remap`` (verify anew what had no mapping).

    ``wanted`` names the tests or codes meant, all when empty; ``decision`` is who and why. A released result whose
    test was meanwhile released from a later measurement becomes superseded, unless it is sent as a ``correction``.
    ``context`` holds the specimen's reports, this one (the same object) included; ``together`` names the destinations for
    which an earlier part of the report still waits. A report that only its own problems hold is settled by any release or
    reject. None when nothing held was meant, or when a report without an identity was to be released. Raises
    UnwritableError; a remap holds what cannot be written.
    """
    if action == "release" and not key:
        return None
    held = {d.index: d for d in before if d.verdict.action == "hold"}
    meant = {i: d for i, d in held.items() if not wanted or d.test in wanted or d.code in wanted}
    anew: dict[int, Decided] = {}
    if action != "reject" and any(map(_has_no_mapping, meant.values())):
        anew = _anew(report, key, context, rules, moment)
    if action == "reject":
        news = [msgspec.structs.replace(d, verdict=Verdict("rejected", d.verdict.reasons)) for d in meant.values()]
    elif action == "release":
        news = _released([anew[i] if _has_no_mapping(d) else d for i, d in meant.items()], context.released(key), correction)
    else:
        news = _remapped(before, anew, rules)
    news = [one for one in news if (one.verdict, one.test) != (held[one.index].verdict, held[one.index].test)]
    if not news and (action == "remap" or held or pipeline.state_of(before, report) != "held"):
        return None
    now = pipeline.standing((Decision(tuple(before)), Decision(tuple(news))))
    outgoing: tuple[Outgoing, ...] = ()
    try:
        outgoing = pipeline.outgoing_of(report, key, news, now, context, rules.name, revision, moment, together, attachments)
    except UnwritableError as error:
        if action != "remap":
            raise
        news = [pipeline.hold(one, error.reason) for one in news]
        now = pipeline.standing((Decision(now), Decision(tuple(news))))
    state = pipeline.state_of(now, report)
    if action != "remap" and all(one.verdict.action == "ignore" for one in now):  # a person has seen what is wrong with it
        state = "rejected" if action == "reject" else "released"
    return Outcome(key, report, state, msgspec.structs.replace(decision, results=tuple(news)), b"", outgoing)


def _has_no_mapping(one: Decided) -> bool:
    """Tells whether the code map says nothing of it but, perhaps, which test is held."""
    return not one.test or any(reason.code == "held-by-map" for reason in one.verdict.reasons)


def _anew(report: Report, key: str, context: Context, rules: AnalyzerRules, moment: Moment) -> dict[int, Decided]:
    """The verdicts on a stored report by the rules of today, as at its arrival: its own results are no earlier ones."""
    past = context.past(key)
    own = next((one for one in past if one.report is report), None)
    others = Context({key: [one for one in past if one is not own]})
    return {one.index: one for one in pipeline.verdicts(report, key, others, rules, own.at if own else moment.at)}


def _remapped(before: Sequence[Decided], anew: Mapping[int, Decided], rules: AnalyzerRules) -> list[Decided]:
    """What has a mapping now, with what was kept back only by results that had none."""
    fresh = {}
    for one in before:
        new, reasons = anew.get(one.index, one), one.verdict.reasons
        kept_back = bool(reasons) and all(reason.code == "held-with" for reason in reasons)
        if one.verdict.action == "hold" and (kept_back or (_has_no_mapping(one) and (new.test or new.verdict.action == "ignore"))):
            fresh[one.index] = new
    kept = rules.verifier.keep_back(tuple(fresh.get(one.index, one) for one in before))
    return [one for one in kept if one.index in fresh]


def _released(chosen: Sequence[Decided], known: Mapping[str, Known], correction: bool) -> list[Decided]:
    """Held results, released by a person; of one test, what was measured before another becomes superseded.

    What has no test or value stays held, and what the analyzer has taken back. A ``correction`` may be older than what
    is ``known`` to be released.
    """
    newest = {} if correction else {test: one.measured_at or 0 for test, one in known.items()}
    ready = [one for one in chosen if one.test and one.value and one.status not in _TAKEN_BACK]
    for one in ready:
        newest[one.test] = max(newest.get(one.test, 0), one.measured_at or 0)
    news = [one for one in chosen if one.verdict.action == "ignore"]  # the map has learned it meanwhile
    for one in ready:
        verdict, status = Verdict("release", one.verdict.reasons), one.status
        if one.measured_at is not None and one.measured_at < newest[one.test]:
            verdict = Verdict("superseded", (*verdict.reasons, Reason("older-measurement", {"test": one.test})))
        if one.test in known and known[one.test].final:
            status = "C"
        news.append(msgspec.structs.replace(one, verdict=verdict, status=status if status in ("C", "P") else "F"))
    return news
