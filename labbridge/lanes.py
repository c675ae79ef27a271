"""What waits for a destination, in memory: deliveries in their lanes, and what an answer makes of one."""

import random
from collections import deque
from typing import Any, Literal

import msgspec

from labbridge.formats.acknowledgement import HisAnswer

UNSUPPORTED = frozenset({"200", "201", "202", "203"})  # HL7 table 0357: this type, event, processing id, version


class Queued(msgspec.Struct):
    """One delivery in memory; ``payload`` is None until it is wanted."""

    id: int
    destination: str
    lane: str
    control_id: str
    at: int  # microseconds, when it was queued
    payload: bytes | None = None
    due: int = 0  # not before (microseconds); 0 at once
    refused: bool = False
    tries: int = 0  # refusals that count
    mark: int = -1  # how many the destination had accepted at the last refusal
    waits: float = 0.0  # the present back-off, seconds
    flying: bool = False  # sent, and its outcome not yet durable
    sent: bool = False  # once at least, so that the other side may have it though no answer came
    lost: bool = False  # once no answer came
    withdrawn: bool = False  # cancelled or superseded while it flew


class Lane:
    """The deliveries for one specimen at one destination, in order."""

    __slots__ = ("busy", "name", "timer", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: deque[Queued] = deque()
        self.busy = False  # in flight, settling, backing off, or in the ready line
        self.timer: Any = None  # while its head backs off or is not due


class Policy(msgspec.Struct, frozen=True):
    """``[destination.answers]`` and the time-outs of one destination; times in seconds."""

    ae: Literal["refuse", "retry"] = "refuse"
    ar: Literal["refuse", "retry"] = "retry"
    tries: int = 3
    pause_after: int = 20
    timeout: float = 30.0
    first_wait: float = 1.0
    longest_wait: float = 60.0


def judge(queued: Queued, answer: HisAnswer, policy: Policy, accepted: int) -> Literal["accepted", "again", "refused"]:
    """What an answer means here; ``accepted`` is how many messages the destination has accepted so far."""
    if answer.code in ("AA", "CA"):
        return "accepted"
    final = False
    if answer.code in ("AR", "CR"):
        final = policy.ar == "refuse" or not UNSUPPORTED.isdisjoint(answer.errors)
    elif policy.ae == "refuse":
        if queued.mark < accepted:
            queued.tries += 1
        queued.mark = accepted
        final = queued.tries >= policy.tries
    if final:
        return "refused"
    wait = max(policy.first_wait, queued.waits * 2)
    queued.waits = min(wait, policy.longest_wait) * random.uniform(0.8, 1.0)  # noqa: S311 (jitter)
    return "again"
