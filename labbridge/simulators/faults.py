"""The faults that a simulator can be told to make, by name: what each does, and on which side it makes sense.

A fault befalls a share of the messages, one at a time; but for it a simulator remains a correct peer. ``faulty`` makes
those that happen on the line, the simulators those that concern whole messages.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Literal, NamedTuple

Side = Literal["astm", "hl7", "hospital"]

SIDES: dict[Side, str] = {"astm": "an analyzer over ASTM", "hl7": "an analyzer over HL7", "hospital": "the hospital"}
DEFAULT_RATE = 0.1

_ANALYZERS: tuple[Side, ...] = ("astm", "hl7")
_ALL: tuple[Side, ...] = ("astm", "hl7", "hospital")


class Fault(NamedTuple):
    """One fault: where it makes sense, and a sentence that says what happens."""

    sides: tuple[Side, ...]
    what: str


FAULTS: dict[str, Fault] = {
    "lost-ack": Fault(_ANALYZERS, "An acknowledgement is not heard, so the same frame or message is sent again."),
    "bad-checksum": Fault(("astm",), "A frame leaves with a wrong checksum, and again rightly when it is refused."),
    "split": Fault(_ALL, "What is sent arrives in pieces of a few bytes."),
    "glue": Fault(_ANALYZERS, "Several messages leave together: over HL7 in one piece, over ASTM the next ENQ with the EOT."),
    "enq-restart": Fault(("astm",), "The analyzer begins its session again with ENQ in the middle of a message."),
    "contention": Fault(("astm",), "The analyzer asks for orders, and bids for the line just when the host does."),
    "stall": Fault(_ALL, "The sender falls silent in the middle, for up to 40 seconds, and goes on."),
    "reset": Fault(_ALL, "The connection is reset in the middle of a message, or instead of the hospital's answer."),
    "duplicate": Fault(_ALL, "A message, or the hospital's answer, is sent twice."),
    "late-ack": Fault(("hospital",), "The answer comes up to 45 seconds late, on another connection if that one is gone."),
    "wrong-ack": Fault(("hospital",), "The message is not taken, and the answer names another one."),
    "no-ack": Fault(("hospital",), "The message is taken and never answered."),
    "reject": Fault(("hospital",), "The message is not taken, and answered AR."),
    "refuse": Fault(("hospital",), "The message is not taken, and answered AE."),
    "garbage": Fault(_ALL, "Line noise comes before what is sent."),
    "oversize": Fault(_ALL, "Something beyond every limit is sent: before the message, or as the hospital's answer."),
    "slow": Fault(_ALL, "What is sent trickles in over five seconds."),
    "wrong-charset": Fault(_ALL, "A text is not in the character set that the message declares."),
    "truncate": Fault(_ALL, "A message breaks off and begins anew, or the hospital's answer lacks its end."),
}


def of(side: Side) -> Iterator[str]:
    """The names of the faults that make sense for this side."""
    return (name for name, fault in FAULTS.items() if side in fault.sides)


def parse(texts: Sequence[str], side: Side) -> dict[str, float]:
    """Shares by name, of texts "NAME" or "NAME:RATE"; raises ValueError that says which do make sense for this side."""
    rates: dict[str, float] = {}
    for text in texts:
        name, colon, share = text.partition(":")
        if name not in of(side):
            why = f'"{name}" makes no sense for {SIDES[side]}' if name in FAULTS else f'there is no fault "{name}"'
            raise ValueError(f"{why} - these do: {', '.join(of(side))}")
        try:
            rates[name] = float(share) if colon else DEFAULT_RATE
        except ValueError:
            rates[name] = -1.0
        if not 0 <= rates[name] <= 1:
            raise ValueError(f'"{text}": the rate is a share of the messages, 0 to 1, such as {name}:0.1')
    return rates


class Faults:
    """Draws what befalls the next message. ``rates`` may be changed at any time; ``drawn`` counts.

    Shares that add up to more than 1 are taken in proportion. ``pace`` is by what the times of the faults are
    multiplied, so that tests need not last; ``excess`` is the size in bytes of what is beyond every limit.
    """

    def __init__(
        self, rates: Mapping[str, float] = {}, dice: Random | None = None, *, pace: float = 1.0, excess: int = 17 << 20
    ) -> None:
        self.rates = dict(rates)
        self.dice = dice or Random()  # noqa: S311 (a game, no secret)
        self.pace = pace
        self.excess = excess
        self.drawn: Counter[str] = Counter()

    def draw(self) -> str:
        """The name of a fault, or nothing."""
        if not self.rates:
            return ""
        shares = (*self.rates.values(), max(0.0, 1 - sum(self.rates.values())))
        fault = self.dice.choices((*self.rates, ""), shares)[0]
        if fault:
            self.drawn[fault] += 1
        return fault

    def seconds(self, most: float) -> float:
        """A time for a fault, up to so many seconds."""
        return self.dice.uniform(most / 20, most) * self.pace
