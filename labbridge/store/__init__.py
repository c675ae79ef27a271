"""The store: the only room that knows SQL. Facts are appended, never changed, and committed before anyone is told.

``Store`` writes (one thread, group commit), ``Reader`` reads for the console and the command line, ``verify`` proves
with the ledger that nothing was changed or lost.
"""

from .engine import StoreError, StoreLocked, StoreUnavailable
from .ledger import Link
from .proving import Verification, verify
from .reader import Reader
from .transaction import Transaction
from .writer import Store, StoreState

__all__ = [
    "Link",
    "Reader",
    "Store",
    "StoreError",
    "StoreLocked",
    "StoreState",
    "StoreUnavailable",
    "Transaction",
    "Verification",
    "verify",
]
