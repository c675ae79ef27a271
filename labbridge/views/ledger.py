"""How the ledger stands: what its last verification found, in words."""

import msgspec

from labbridge.showing import brief
from labbridge.views.texts import _, number_text, time_text


class Result(msgspec.Struct):
    """What `labbridge verify --json` says."""

    facts: int
    problems: list[str]


class Proof(msgspec.Struct):
    """The last verification, and the one at work."""

    share: float | None = None  # how much is done of the one at work, 0 to 1; None: there is none
    result: Result | None = None
    at: int = 0  # when the last one ended, microseconds since 1970
    error: str = ""  # why the last one told nothing


def verdict(proof: Proof) -> tuple[str, str, str]:
    """Icon, colour and words."""
    if proof.share is not None:
        return "hourglass_empty", "lb-quiet", _("being verified: {n} %", n=int(proof.share * 100))
    if proof.error:
        return "error", "lb-bad", _("It could not be verified: {why}", why=brief(proof.error))
    if proof.result is None:
        return "help", "lb-quiet", _("not verified since the console started")
    when, facts = time_text(proof.at), number_text(proof.result.facts)
    if proof.result.problems:
        told = _("{time}: CHANGED. Stop labbridge, copy the database as it is, and see the operations guide.", time=when)
        return "error", "lb-bad", told
    return "verified", "lb-good", _("{time}: {n} facts are as they were written", time=when, n=facts)
