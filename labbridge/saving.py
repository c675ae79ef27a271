"""Saving a table of the mappings while the daemon runs: proven, in the audit trail, written, read again, then answered.

One after the other. What reads and writes files runs in a thread: the reactor only does what a reload does.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog
from twisted.internet import defer, threads
from twisted.python.failure import Failure

from labbridge.commands import Request
from labbridge.mapfiles import MapError, Saving
from labbridge.said import Said, not_carried_out
from labbridge.store import Store, StoreError, Transaction

log = structlog.get_logger()

NOT_IN_FORCE = "map-undone"  # in the audit trail: the file is as it was before


class MapSaver:
    """Carries out the command ``map``; ``reload`` gives a Deferred of problems, ``digest`` that of the revision in force."""

    def __init__(self, path: Path, store: Store, reload: Callable[[], Any], digest: Callable[[], bytes]) -> None:
        self._path, self._store, self._reload, self._digest = path, store, reload, digest
        self._one = defer.DeferredLock()

    def save(self, request: Request, actor: str, reply: Callable[[dict[str, Any]], None]) -> None:
        """Saves a table, and answers once it is in force."""

        def failed(failure: Failure) -> None:
            error = failure.value
            known = isinstance(error, MapError)
            if not known:
                log.error("a table was not saved", file=request.file, why=f"{failure.type.__name__}: {error}")
            found = [one._asdict() for one in error.mistakes] if isinstance(error, MapError) else []
            text = error.args[0] if isinstance(error, MapError) else not_carried_out(error)
            reply({"ok": False, "error": text, "answer": {"mistakes": found}})

        self._one.run(lambda: defer.ensureDeferred(self._save(request, actor))).addCallbacks(reply, failed)

    async def _save(self, request: Request, actor: str) -> dict[str, Any]:
        saving = await threads.deferToThread(Saving, self._path, request)
        if not saving.is_needed:
            return {"ok": True, "said": [unchanged(saving)], "answer": answer_of(saving)}
        await self._in_store(lambda tx: audit(tx, saving, request, actor))
        problems: list[str] = []
        try:
            await threads.deferToThread(saving.write)
            problems = await self._reload()
            if problems and self._digest() != saving.digest:
                await threads.deferToThread(saving.put_back)
                raise MapError("\n".join(["it could not be put in force, the file is as it was:", *problems]))
        except (MapError, OSError) as error:
            why = str(error)
            await self._in_store(lambda tx: audit(tx, saving, msgspec.structs.replace(request, reason=why), actor, NOT_IN_FORCE))
            raise
        return {"ok": True, "said": [*saving.said, *problems], "answer": answer_of(saving)}

    def _in_store(self, job: Callable[[Transaction], None]) -> Any:
        waiting: Any = defer.Deferred()
        self._store.submit(job, waiting.callback, waiting.errback)
        return waiting


def unchanged(saving: Saving) -> Said:
    """What is told where the table is as it was."""
    return Said("{file}: nothing is changed", file=saving.file.name)


def alone(path: Path, request: Request, actor: str, store: Store) -> dict[str, Any]:
    """Saves a table where no daemon runs."""
    try:
        saving = Saving(path, request)
        if saving.is_needed:
            store.call(lambda tx: audit(tx, saving, request, actor))
            saving.write()
    except (MapError, StoreError) as error:
        return {"ok": False, "error": str(error)}
    said = saving.said if saving.is_needed else [unchanged(saving)]
    return {"ok": True, "said": said, "answer": answer_of(saving)}


def audit(tx: Transaction, saving: Saving, request: Request, actor: str, action: str = "map") -> None:
    """Tells which lines of which table became what: written before the file, so that no change is without it."""
    old, new = "\n".join(saving.old), "\n".join(saving.new)
    tx.audit(actor=actor, action=action, subject=f"mapping {saving.file.name}", reason=request.reason, old=old, new=new)


def answer_of(saving: Saving) -> dict[str, Any]:
    """What a program is told: the lines that changed, and the revision."""
    return {"file": saving.file.name, "old": saving.old, "new": saving.new, "revision": saving.digest.hex()}
