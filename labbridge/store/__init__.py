"""The store: the only room that knows SQL. Facts are appended, never changed, and committed before anyone is told.

``Store`` writes (one thread, group commit), ``Reader`` reads for the console and the command line, ``verify`` proves
with the ledger that nothing was changed or lost.
"""

from .engine import StoreError, StoreLocked, StoreUnavailable
from .ledger import Verification, verify
from .reader import Reader
from .rows import Attempt, AuditEntry, Counts, Decision, Delivery, Earlier, Message, Queued, Revision, Spooled, Trace, Waiting
from .statements import HISTORY
from .transaction import Transaction
from .writer import Store, StoreState

__all__ = [
    "HISTORY",
    "Attempt",
    "AuditEntry",
    "Counts",
    "Decision",
    "Delivery",
    "Earlier",
    "Message",
    "Queued",
    "Reader",
    "Revision",
    "Spooled",
    "Store",
    "StoreError",
    "StoreLocked",
    "StoreState",
    "StoreUnavailable",
    "Trace",
    "Transaction",
    "Verification",
    "Waiting",
    "verify",
]
