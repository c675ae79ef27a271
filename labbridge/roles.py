"""Who may do what: the table of role and action, the same for the console, the daemon and the tests.

An action is a command of the control socket, or a page (``see …``). Whoever owns the daemon's user account on the machine
(the command line) may do everything; accounts have one role each.
"""

from typing import Literal, get_args

Role = Literal["viewer", "technician", "supervisor", "lab-it", "administrator"]
ROLES: tuple[Role, ...] = get_args(Role)

_EVERYBODY = frozenset(ROLES)
_BENCH: frozenset[Role] = frozenset({"technician", "supervisor"})
_SUPERVISOR: frozenset[Role] = frozenset({"supervisor"})
_QUEUE: frozenset[Role] = frozenset({"supervisor", "lab-it"})
_LAB_IT: frozenset[Role] = frozenset({"lab-it"})
_ADMINISTRATOR: frozenset[Role] = frozenset({"administrator"})

ACTIONS: dict[str, frozenset[Role]] = {
    # pages
    "see line": _EVERYBODY,
    "see pending": _EVERYBODY - _ADMINISTRATOR,
    "see specimen": _EVERYBODY - _ADMINISTRATOR,
    "see queue": _EVERYBODY,
    "see unmapped": _EVERYBODY - _ADMINISTRATOR,
    "see mappings": _EVERYBODY,
    "see audit": frozenset({"supervisor", "lab-it", "administrator"}),
    "see accounts": _ADMINISTRATOR,
    # results
    "release": _BENCH,
    "reject": _BENCH,
    "not-reportable": _BENCH,
    "recollect": _BENCH,
    "edit": _BENCH,
    "comment": _BENCH,
    "call-back": _BENCH,
    "acknowledge": _BENCH,
    "correct-id": _BENCH,
    "confirm-id": _SUPERVISOR,
    "withdraw-id": _BENCH,
    "export": _BENCH | _LAB_IT,
    "viewed": _EVERYBODY - _ADMINISTRATOR,
    # queue
    "retry": _BENCH | _LAB_IT,
    "cancel": _QUEUE,
    "send-again": _QUEUE,
    "pause": _QUEUE,
    "resume": _QUEUE,
    # configuration
    "release-mapped": _QUEUE,
    "map": _LAB_IT,
    "reload": _LAB_IT | _ADMINISTRATOR,
    # accounts
    "account-add": _ADMINISTRATOR,
    "account-change": _ADMINISTRATOR,
    "password": _EVERYBODY,
    "language": _EVERYBODY,
    "status": _EVERYBODY,
}


def may(role: str, action: str) -> bool:
    """Tells whether a role may do this; nobody may do what is not in the table."""
    return role in ACTIONS.get(action, frozenset())
