"""What the log tells of an outage: one line when it begins, a reminder while it lasts, one when it is over."""

from typing import Any, Literal

import structlog

from labbridge.links.retry import State

log = structlog.get_logger()

REMIND_SECONDS = 900.0
STEADY_SECONDS = 5.0  # who only connects and is lost again has to stay so long to be back


class Outage:
    """Hears how the links to one analyzer or destination stand."""

    def __init__(self, what: Literal["analyzer", "destination"], name: str, reactor: Any) -> None:
        self._what, self._name, self._reactor = what, name, reactor
        self._down = self._wavering = False
        self._since = self._told = 0.0
        self._changes = 0
        self.why = ""  # it went down, or could not be reached the last time

    @property
    def seconds(self) -> int:
        """How long it has been down; 0 while it is not."""
        return max(1, round(self._reactor.seconds() - self._since)) if self._down else 0

    def changed(self, state: State) -> None:
        """Takes one change of one link."""
        now = self._reactor.seconds()
        self._changes += 1
        if state.connected:
            if self._wavering:
                self._reactor.callLater(STEADY_SECONDS, self._over, self._changes)
            else:
                self._over(self._changes)
            return
        self.why = state.why
        if not self._down and state.failures > 1:  # nothing was heard from it between two failures
            self._down = self._wavering = True
        elif not self._down:
            self._down, self._wavering = True, False
            self._since, self._told = now, now - REMIND_SECONDS
        if now - self._told >= REMIND_SECONDS:
            self._told = now
            about = {self._what: self._name, "why": state.why, "seconds": round(now - self._since)}
            log.warning(f"{self._what} is down, trying again and again", **about)

    def _over(self, changes: int) -> None:
        if self._down and changes == self._changes:
            self._down = self._wavering = False
            log.info(f"{self._what} is back", **{self._what: self._name}, seconds=round(self._reactor.seconds() - self._since))
