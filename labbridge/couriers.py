"""The messengers of a destination's queue: one connection each, and the message that it carries."""

from typing import TYPE_CHECKING, Any

from labbridge.formats.acknowledgement import read_answer
from labbridge.lanes import Queued
from labbridge.wire.events import Answer, Event, Received

if TYPE_CHECKING:
    from labbridge.delivery import Outbox


class Courier:
    """One connection to the destination and the message it carries."""

    def __init__(self, outbox: "Outbox") -> None:
        self.outbox = outbox
        self.link: Any = None
        self.carrying: Queued | None = None
        self.deadline = 0.0  # of the answer, by the reactor's clock

    def opened(self, link: Any) -> None:
        """The connection is there."""
        self.link = link
        self.outbox.pump()

    def event(self, link: Any, event: Event) -> None:
        """An answer, or a message nobody asked for."""
        if isinstance(event, Received) and link is self.link:
            link.settle(event.token, Answer(True))
            self.outbox.answered(self, read_answer(event.payload), event.payload)

    def closed(self, link: Any, why: str) -> None:
        """The connection is gone: what it carried goes back to the head of its lane."""
        if link is self.link:
            self.link = None
            self.outbox.returned(self)
