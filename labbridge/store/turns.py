"""Whose turn it is to compute: the caller's, or the writer's.

Two threads that compute at once only wrest the interpreter's lock from each other, which costs both a third. So the
caller's thread stands aside while the writer runs its jobs, and goes on while the disk does its part:

    idle ──ask──▶ asked ──give──▶ given ──over──▶ taken ──done──▶ idle
"""

import threading
from collections.abc import Callable
from typing import Literal

TURN_SECONDS = 0.05  # a job may ask a server on the network: the caller waits for no longer


class Turns:
    """Between a caller's thread and a writer's; ``changed`` guards it, and is held by who asks ``may_run`` or calls ``ask``.

    ``wake`` carries calls to the caller's thread. Where it is None nobody waits for anybody, and the writer may always run.
    """

    def __init__(self, changed: threading.Condition, wake: Callable[[Callable[[], None]], None] | None) -> None:
        self._changed = changed
        self._wake = wake
        self._state: Literal["idle", "asked", "given", "taken"] = "idle"

    @property
    def may_run(self) -> bool:
        """Whether the writer may run its jobs."""
        return self._wake is None or self._state == "given"

    def ask(self) -> None:
        """Jobs wait."""
        if self._wake and self._state == "idle":
            self._state = "asked"
            self._wake(self._give)
        else:
            self._changed.notify_all()

    def _give(self) -> None:
        """The caller stands aside until the jobs have run."""
        with self._changed:
            self._state = "given"
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._state != "given", TURN_SECONDS)

    def over(self) -> None:
        """The jobs have run; they are to be committed and answered."""
        with self._changed:
            self._state = "taken"
            self._changed.notify_all()

    def done(self, more: Callable[[], object]) -> None:
        """They have been answered; ``more`` tells whether others wait."""
        with self._changed:
            self._state = "idle"
            if more():
                self.ask()
