"""What a person may change, as store functions with an actor: run in the writer's next transaction, audited.

The daemon runs them for the control socket; with no daemon running the command line takes the store's lock and runs the
same functions. Each returns a ``Done``: what to tell the person, and what the queue in memory must do.
"""

from labbridge.commands import deliveries, identity, notes, results
from labbridge.commands.request import Command, CommandError, Done, Request

__all__ = ["COMMANDS", "Command", "CommandError", "Done", "Request"]

COMMANDS: dict[str, Command] = {
    "release": results.release,
    "reject": results.reject,
    "not-reportable": results.not_reportable,
    "recollect": results.recollect,
    "edit": results.edit,
    "comment": notes.comment,
    "call-back": notes.call_back,
    "acknowledge": notes.acknowledge,
    "viewed": notes.viewed,
    "export": notes.export,
    "correct-id": identity.correct_id,
    "confirm-id": identity.confirm_id,
    "withdraw-id": identity.withdraw_id,
    "release-mapped": results.release_mapped,
    "retry": deliveries.retry,
    "cancel": deliveries.cancel,
    "send-again": deliveries.send_again,
}
