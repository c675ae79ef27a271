"""The tables of the laboratory's mappings as files: which there are, what a new text would break, saved whole or not at all.

A table that comes with labbridge is never written: the laboratory gets a copy of its own. A code map and its words go
together (the words are taken from the folder of the code map), so that the one brings the other along.
"""

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from labbridge import config, revision
from labbridge.commands import Request
from labbridge.config import Settings
from labbridge.mapping import Mistake
from labbridge.mapping.sheet import changed, encoded
from labbridge.mapping.tables import decoded
from labbridge.said import Said

CATALOGUE = ("tests.csv", "limits.csv", "panels.csv")
MOST = 200  # mistakes that are told at once
LARGEST = 400_000  # bytes of UTF-8: what surely goes through the control socket


class MapError(Exception):
    """A table cannot be shown or saved; the text says why and what to do, ``mistakes`` where."""

    def __init__(self, text: str, mistakes: Sequence[Mistake] = ()) -> None:
        super().__init__(text)
        self.mistakes = tuple(mistakes)


class MapFile:
    """One table as it is now: ``path`` is the file in force, ``own`` where the laboratory's is or would be."""

    def __init__(self, name: str, settings: Settings, analyzers: Sequence[str] = ()) -> None:
        folders = revision.folders(settings, "mappings")
        own = settings.library.mappings
        self.name, self.analyzers = name, tuple(analyzers)  # which use it; none: it is everybody's
        self.own = own / name if own is not None else None
        self.path = next((folder / name for folder in folders if (folder / name).is_file()), folders[0] / name)

    @property
    def is_own(self) -> bool:
        """Whether the laboratory has a copy of its own."""
        return self.path == self.own and self.path.is_file()

    @cached_property
    def data(self) -> bytes:
        """Its bytes; none where there is no such file yet."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise MapError(f"{self.path} cannot be read ({error.strerror}); check that it may be read") from error

    @property
    def text(self) -> str:
        """Its text."""
        try:
            return decoded(self.data)[0]
        except UnicodeDecodeError:
            raise MapError(f"{self.path} is neither UTF-8 nor GB18030; save it as CSV UTF-8") from None

    @property
    def known(self) -> str:
        """The SHA-256 of its bytes, in hexadecimal: who saves says which text was edited."""
        return hashlib.sha256(self.data).hexdigest()


def files(settings: Settings) -> dict[str, MapFile]:
    """Every table that is in force, and the words that a code map may have, by name: the catalogue first."""
    users: dict[str, list[str]] = {name: [] for name in CATALOGUE}
    for analyzer in settings.analyzers:
        for name in (f"{analyzer.code_map}.csv", f"{analyzer.code_map}.values.csv"):
            users.setdefault(name, []).append(analyzer.name)
    return {name: MapFile(name, settings, analyzers) for name, analyzers in users.items()}


def find(settings: Settings, name: str) -> MapFile:
    """One of the tables. Raises MapError where the configuration uses none of this name."""
    found = files(settings)
    if name not in found:
        raise MapError(f"no table {name} is in use; there are: {', '.join(found)}")
    return found[name]


def drafts(file: MapFile, settings: Settings, data: bytes) -> dict[Path, bytes]:
    """What would be written for this table to read so, in the order of writing."""
    target = file.own or file.path
    found = {target: data}
    is_words = file.name.endswith(".values.csv")
    if file.name not in CATALOGUE and file.own is not None:
        other = file.name.removesuffix(".values.csv") + ".csv" if is_words else file.name.removesuffix(".csv") + ".values.csv"
        partner = MapFile(other, settings)
        if not partner.is_own and partner.data and partner.own is not None:
            found[partner.own] = partner.data
    return dict(sorted(found.items(), key=lambda one: not one[0].name.endswith(".values.csv")))  # a code map makes them count


def mistakes(settings: Settings, path: Path, name: str, text: str) -> list[Mistake]:
    """Everything that is wrong with the configuration at ``path`` once this table reads so; none: it may be saved."""
    try:
        prove(settings, path, name, text)
    except MapError as error:
        return list(error.mistakes) or [Mistake(name, 0, "", str(error))]
    return []


def prove(settings: Settings, path: Path, name: str, text: str) -> tuple[dict[Path, bytes], bytes, list[str]]:
    """What would be written, the revision's digest then, and notices. Raises MapError with every mistake."""
    file = find(settings, name)
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST:
        raise MapError(f"{name}: larger than the {LARGEST // 1000} kB that can be saved here; put the file into its folder")
    try:
        data = encoded(text, decoded(file.data)[1] if file.data else "utf-8")
    except UnicodeError:
        raise MapError(f"{name}: has characters that no encoding has, or is now neither UTF-8 nor GB18030") from None
    writes = drafts(file, settings, data)
    try:
        compiled, notices = revision.build(settings, path, writes)
    except revision.RevisionError as error:
        more = len(error.problems) - MOST
        told = [*error.problems[:MOST], *([f"… and {more} more"] if more > 0 else [])]
        raise MapError("\n".join(told), [one._replace(file=Path(one.file).name) for one in error.mistakes[:MOST]]) from None
    return writes, compiled.digest, notices


class Saving:
    """One table about to be saved: proven, told for the audit trail, then written, and put back if it must be.

    Raises MapError where it cannot be: somebody else saved it meanwhile, it has mistakes, there is no folder for it.
    """

    def __init__(self, path: Path, request: Request) -> None:
        try:
            settings = config.load(path)
        except config.ConfigError as error:
            raise MapError(f"the configuration is wrong, nothing is saved:\n{error}") from None
        if not request.reason.strip():
            raise MapError(Said('a reason is needed: add --reason "…"'))
        self.file = file = find(settings, request.file)
        if request.known != file.known:
            raise MapError(
                Said(
                    "{file} was changed by somebody else meanwhile: look at it again, then make your change once more",
                    file=file.name,
                )
            )
        if file.own is None:
            what = f'add [library] mappings = "mappings" to {path}, and make that folder'
            raise MapError(f"the laboratory has no folder for tables of its own: {what}")
        self.writes, self.digest, _ = prove(settings, path, file.name, request.text)
        self.old, self.new = changed(file.text, request.text)
        self.before: dict[Path, bytes | None] = {}

    @property
    def is_needed(self) -> bool:
        """Whether anything would be another."""
        return self.writes[self.file.own or self.file.path] != self.file.data

    @property
    def said(self) -> list[str]:
        """What was done, in words."""
        rows = max(len(self.old), len(self.new))
        told = Said("{file}: {n} lines changed", file=self.file.name, n=rows)
        if self.file.is_own or not self.file.data:
            return [told]
        return [Said("{told}; a copy of what comes with labbridge, now the laboratory's own", told=told)]

    def write(self) -> None:
        """Writes every file, whole or not at all. Raises MapError; then everything is as it was."""
        for path, data in self.writes.items():
            try:
                self.before[path] = path.read_bytes() if path.is_file() else None
                write_whole(path, data)
            except OSError as error:
                self.put_back()
                what = f"{path} cannot be written ({error.strerror}), nothing is changed"
                raise MapError(f"{what}: let the daemon's user write in {path.parent}") from error

    def put_back(self) -> None:
        """Undoes ``write``, as far as it came."""
        for path, data in reversed(self.before.items()):
            if data is not None and path.read_bytes() != data:
                write_whole(path, data)
            elif data is None and path.exists():
                path.unlink()
                _sync(path.parent)
        self.before.clear()


def write_whole(path: Path, data: bytes) -> None:
    """Replaces a file: whoever reads it, even after a power cut, sees what it was or what it is, never a part.

    A link stays a link; the file keeps its mode. Raises OSError, and then nothing is changed.
    """
    path = path.resolve()
    beside = path.with_name(f".{path.name}.new")
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with open(handle, "wb") as file:
            if path.exists():
                os.fchmod(handle, mode)
            file.write(data)
            file.flush()
            os.fsync(handle)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
