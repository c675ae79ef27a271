"""Critical values and who was told of them: such a value leaves only after somebody heard it and read it back. Pure."""

from collections.abc import Iterable

from labbridge.model import Decided, Decision


def is_critical(one: Decided) -> bool:
    """Tells whether a value is critical by the laboratory's limits."""
    return one.flag in ("LL", "HH") or any(reason.code == "critical" for reason in one.verdict.reasons)


def called_back(decisions: Iterable[Decision]) -> frozenset[int]:
    """The results of a report of whose present value somebody was told and read it back, after all decisions on it.

    A value that was changed since must be told anew.
    """
    values: dict[int, Decided] = {}
    told: dict[int, str] = {}
    for decision in decisions:
        values |= {one.index: one for one in decision.results}
        if decision.told and decision.read_back:
            for one in decision.results or values.values():
                if not decision.tests or one.test in decision.tests or one.code in decision.tests:
                    told[one.index] = one.value
    return frozenset(index for index, value in told.items() if values[index].value == value)
