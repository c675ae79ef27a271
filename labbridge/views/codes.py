"""What is held for want of a mapping, kept in memory: only new reports are read. No screen here."""

import threading
from collections.abc import Mapping
from typing import Any

from labbridge import mapping, model, revision, unmapped
from labbridge.config import Settings
from labbridge.context import Past
from labbridge.mapping import Catalogue, CodeMap, MappingError
from labbridge.pipeline import standing
from labbridge.store import Reader
from labbridge.store.erasure import erased
from labbridge.store.rows import Earlier
from labbridge.unmapped import Seen

AT_ONCE = 500  # reports that are read in one statement


class Codes:
    """One for the process; safe in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[int, tuple[Any, Past]] = {}  # by report: its row, and what is held of it
        self._maps: tuple[Catalogue | None, dict[str, CodeMap]] = (None, {})
        self._last: tuple[Any, Any, list[Seen]] = (None, None, [])  # rows and catalogue, and what was found for them
        self._suggester: unmapped.Suggester | None = None

    def seen(self, rows: Mapping[int, Any], reader: Reader, settings: Settings, catalogue: Catalogue) -> list[Seen]:
        """The codes that the held ``rows`` wait for. Raises StoreError."""
        with self._lock:
            if self._last[0] is rows and self._last[1] is catalogue:
                return self._last[2]
            wanted = {number: row for number, row in rows.items() if number > 0 and _waits(row)}
            self._known = {number: known for number, known in self._known.items() if wanted.get(number) == known[0]}
            fresh = [number for number in wanted if number not in self._known]
            for start in range(0, len(fresh), AT_ONCE):
                for report in reader.reports(fresh[start : start + AT_ONCE]):
                    if not erased(report.document):
                        self._known[report.report_id] = wanted[report.report_id], _past(report)
            found = unmapped.seen((past for _, past in self._known.values()), self._maps_of(settings, catalogue))
            self._last = rows, catalogue, found
            return found

    def suggest(self, one: Seen) -> tuple[unmapped.Suggestion, ...]:
        """The tests that may be meant."""
        return self._suggester.suggest(one.code, one.name, one.unit) if self._suggester else ()

    def _maps_of(self, settings: Settings, catalogue: Catalogue) -> dict[str, CodeMap]:
        """The code maps in force, by analyzer; read anew with the catalogue."""
        if self._maps[0] is not catalogue:
            maps, folders = {}, revision.folders(settings, "mappings")
            for analyzer in settings.analyzers:
                try:
                    maps[analyzer.name] = mapping.load_code_map(analyzer.code_map, folders, catalogue)
                except MappingError:  # the one in force is no longer what the file says: a person is changing it
                    continue
            self._maps, self._suggester = (catalogue, maps), unmapped.Suggester(catalogue)
        return self._maps[1]


def _waits(row: Any) -> bool:
    return any(why.reason.code in unmapped.REASONS for why in row.cause.whys)


def _past(report: Earlier) -> Past:
    decided = standing(model.decode(document, model.Decision) for document in report.decisions if not erased(document))
    said = model.decode(report.document, model.Report)
    return unmapped.waiting(Past(report.analyzer, report.at / 1e6, report.digest, report.content, said, decided))
