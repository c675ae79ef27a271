"""Saving a table of the mappings: proven first, whole or not at all, nobody else's change lost, copies when they are needed."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge import config, mapfiles, revision
from labbridge.commands import Request
from labbridge.mapfiles import MapError, Saving, write_whole

from .small_lab import FILES
from .test_revision import CONFIG, library

__all__ = ["library"]

NEW = FILES["lab.csv"] + "CL,mmol/L,K,\n"


def asked(folder: Path, file: str, text: str, **more: Any) -> Request:
    """The request of somebody who edited the table as it is."""
    path = folder / "labbridge.toml"
    if not path.exists():
        path.write_text(CONFIG, "utf-8")
    known = mapfiles.find(config.load(path), file).known
    return Request("map", **{"file": file, "text": text, "known": known, "reason": "because", **more})


def save(folder: Path, file: str, text: str, **more: Any) -> Saving:
    saving = Saving(folder / "labbridge.toml", asked(folder, file, text, **more))
    saving.write()
    return saving


def refused(folder: Path, request: Request) -> MapError:
    with pytest.raises(MapError) as caught:
        Saving(folder / "labbridge.toml", request)
    return caught.value


def test_the_tables_are_those_that_are_in_force(library: Path) -> None:
    (library / "labbridge.toml").write_text(CONFIG.replace('mapping = "lab"\n', "").replace('"plain"', '"sysmex-xn"'), "utf-8")
    files = mapfiles.files(config.load(library / "labbridge.toml"))
    assert list(files) == ["tests.csv", "limits.csv", "panels.csv", "sysmex-xn.csv", "sysmex-xn.values.csv"]
    assert [files[name].is_own for name in files] == [True, True, True, False, False]
    assert files["sysmex-xn.csv"].data == (revision.packaged("mappings") / "sysmex-xn.csv").read_bytes()
    assert files["sysmex-xn.csv"].analyzers == ("a-1",)
    assert files["sysmex-xn.values.csv"].data == b""
    assert files["tests.csv"].known == hashlib.sha256(FILES["tests.csv"].encode()).hexdigest()


def test_what_is_saved_is_the_text_and_is_told_line_by_line(library: Path) -> None:
    (library / "mappings" / "lab.csv").chmod(0o640)
    saving = save(library, "lab.csv", NEW.replace("GLU,mmol/L,GLU,", "GLU,,GLU,hold"))
    file = library / "mappings" / "lab.csv"
    assert file.read_text("utf-8") == NEW.replace("GLU,mmol/L,GLU,", "GLU,,GLU,hold")
    assert (saving.old, saving.new) == (["3: GLU,mmol/L,GLU,"], ["3: GLU,,GLU,hold", "12: CL,mmol/L,K,"])
    assert saving.digest == revision.build(config.load(library / "labbridge.toml"))[0].digest
    assert file.stat().st_mode & 0o777 == 0o640
    assert sorted(one.name for one in file.parent.iterdir()) == sorted(FILES)
    saving.put_back()
    assert file.read_text("utf-8") == FILES["lab.csv"]


def test_every_mistake_is_told_with_line_and_column_and_nothing_is_written(library: Path) -> None:
    error = refused(library, asked(library, "lab.csv", NEW + "X,mmol/L,NOPE,\nY,mg/dL,GLU,\n"))
    assert [(one.file, one.line, one.column) for one in error.mistakes] == [("lab.csv", 13, "test"), ("lab.csv", 14, "factor")]
    assert "NOPE" in str(error)
    assert "mg/dL" in error.mistakes[1].message
    error = refused(library, asked(library, "tests.csv", FILES["tests.csv"].replace("GLU,Glucose", "GLUC,Glucose")))
    assert {one.file for one in error.mistakes} == {"panels.csv"}  # a catalogue that fails is told alone
    error = refused(library, asked(library, "lab.csv", 'code\n"x'))
    assert error.mistakes[0].line == 2
    assert (library / "mappings" / "lab.csv").read_text("utf-8") == FILES["lab.csv"]


def test_a_mistake_that_another_file_has_then_is_told_too(library: Path) -> None:
    text = CONFIG.replace('to = "his"', 'to = "his"\ntests = ["WBC"]')
    (library / "labbridge.toml").write_text(text, "utf-8")
    for name in ("lab.csv", "panels.csv"):
        file = library / "mappings" / name
        file.write_text("".join(line for line in FILES[name].splitlines(keepends=True) if "WBC" not in line), "utf-8")
    error = refused(library, asked(library, "tests.csv", FILES["tests.csv"].replace("WBC,Leuko", "LEUK,Leuko")))
    assert [(one.line, one.file) for one in error.mistakes] == [(0, "")]
    assert "no such test: WBC" in error.mistakes[0].message


def test_what_somebody_else_saved_meanwhile_is_not_lost(library: Path) -> None:
    first = asked(library, "lab.csv", NEW)
    save(library, "lab.csv", FILES["lab.csv"] + "LI,mmol/L,K,\n")
    assert "changed by somebody else meanwhile" in str(refused(library, first))
    assert "LI," in (library / "mappings" / "lab.csv").read_text("utf-8")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"reason": " "}, "a reason is needed"),
        ({"file": "other.csv"}, "no table other.csv is in use"),
        ({"file": "../labbridge.toml"}, "no table"),
        ({"text": "\ud800"}, "characters that no encoding has"),
        ({"text": NEW + "#" * mapfiles.LARGEST}, "larger than"),
    ],
)
def test_what_cannot_be_saved_says_why(library: Path, change: dict[str, str], told: str) -> None:
    request = asked(library, "lab.csv", NEW)
    for name, value in change.items():
        setattr(request, name, value)
    assert told in str(refused(library, request))


def test_without_a_folder_of_its_own_the_laboratory_is_told_which_line_to_add(library: Path) -> None:
    text = CONFIG.replace('mappings = "mappings"\n', "").replace('mapping = "lab"', 'mapping = "sysmex-xn"')
    (library / "labbridge.toml").write_text(text, "utf-8")
    packaged = (revision.packaged("mappings") / "sysmex-xn.csv").read_text("utf-8")
    error = refused(library, asked(library, "sysmex-xn.csv", packaged + "CL,mmol/L,,CL,,,,,\n"))
    assert 'add [library] mappings = "mappings" to ' in str(error)


def test_a_map_that_comes_with_labbridge_is_copied_and_its_words_come_along(library: Path) -> None:
    name = "siemens-clinitek"
    (library / "labbridge.toml").write_text(CONFIG.replace('mapping = "lab"', f'mapping = "{name}"'), "utf-8")
    for table in ("tests.csv", "limits.csv", "panels.csv"):
        (library / "mappings" / table).unlink()
    before = revision.build(config.load(library / "labbridge.toml"))[0]
    packaged = {file: (revision.packaged("mappings") / file).read_bytes() for file in (f"{name}.csv", f"{name}.values.csv")}
    saving = save(library, f"{name}.csv", packaged[f"{name}.csv"].decode() + "XYZ,,,U-GLU,,,,,\n")
    assert [path.name for path in saving.writes] == [f"{name}.values.csv", f"{name}.csv"]
    assert "a copy of what comes with labbridge" in saving.said[0]
    assert (library / "mappings" / f"{name}.values.csv").read_bytes() == packaged[f"{name}.values.csv"]
    after = revision.build(config.load(library / "labbridge.toml"))[0]
    assert after.digest == saving.digest != before.digest
    saving.put_back()
    assert list((library / "mappings").glob("*siemens*")) == []
    saving = save(library, f"{name}.values.csv", packaged[f"{name}.values.csv"].decode() + "*,Odd,Odd,coded\n")
    assert (library / "mappings" / f"{name}.csv").read_bytes() == packaged[f"{name}.csv"]
    assert revision.build(config.load(library / "labbridge.toml"))[0].digest == saving.digest


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_a_file_stays_in_its_encoding(library: Path, encoding: str) -> None:
    file = library / "mappings" / "lab.csv"
    text = FILES["lab.csv"].replace("\n", "\r\n") + "钾,mmol/L,K,\r\n"
    file.write_bytes(text.encode(encoding))
    save(library, "lab.csv", text + "钠,mmol/L,NA,\r\n")
    assert file.read_bytes() == (text + "钠,mmol/L,NA,\r\n").encode(encoding)


def test_a_folder_that_cannot_be_written_changes_nothing(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saving = Saving(library / "labbridge.toml", asked(library, "lab.csv", NEW))
    (library / "mappings" / ".lab.csv.new").mkdir()
    with pytest.raises(MapError, match=r"cannot be written .* let the daemon's user write in"):
        saving.write()
    assert (library / "mappings" / "lab.csv").read_text("utf-8") == FILES["lab.csv"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.csv").write_text("old")
    (tmp_path / "a.csv").symlink_to("real/a.csv")
    write_whole(tmp_path / "a.csv", b"new")
    assert (tmp_path / "a.csv").is_symlink()
    assert (tmp_path / "real" / "a.csv").read_text() == "new"


def test_who_reads_the_file_meanwhile_sees_it_whole(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"old")
    with (tmp_path / "a.csv").open("rb") as reading:
        write_whole(tmp_path / "a.csv", b"new")
        assert reading.read() == b"old"
    assert (tmp_path / "a.csv").read_bytes() == b"new"


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name) if name == "fsync" else Path.replace
        owner: Any = os if name == "fsync" else Path
        monkeypatch.setattr(owner, name, lambda *args, name=name, real=real: (done.append(name), real(*args))[1])
    write_whole(tmp_path / "a.csv", b"new")
    assert done == ["fsync", "replace", "fsync"]


class Crash(BaseException):
    """The power is cut."""


STEPS = ("open", "fsync", "replace", "unlink")


def crash_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Cuts the power before this system call of all that save; gives how many there were."""
    count = 0

    def before(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                raise Crash
            return real(*args, **kwargs)

        return call

    for name in STEPS:
        monkeypatch.setattr(os, name, before(getattr(os, name)))
    monkeypatch.setattr(Path, "replace", before(Path.replace))
    return lambda: count


@settings(max_examples=40)
@given(step=st.integers(1, 12), old=st.sampled_from([None, b"", b"old\n"]), new=st.binary(max_size=20))
def test_a_crash_between_the_steps_leaves_the_old_file_or_the_new(
    tmp_path_factory: pytest.TempPathFactory, step: int, old: bytes | None, new: bytes
) -> None:
    file = tmp_path_factory.mktemp("saved") / "a.csv"
    if old is not None:
        file.write_bytes(old)
    with pytest.MonkeyPatch.context() as patch:
        count = crash_at(step, patch)
        try:
            write_whole(file, new)
            assert count() < step
        except Crash:
            assert count() == step
    now = file.read_bytes() if file.exists() else None
    assert now in (old, new)
    write_whole(file, new)  # what the crash left behind is in nobody's way
    assert file.read_bytes() == new
    assert [one.name for one in file.parent.iterdir()] == ["a.csv"]


def test_a_crash_while_two_files_are_saved_leaves_a_revision_that_loads(library: Path) -> None:
    """Before the code map itself is there nothing has changed; then all has."""
    name = "siemens-clinitek"
    path = library / "labbridge.toml"
    path.write_text(CONFIG.replace('mapping = "lab"', f'mapping = "{name}"'), "utf-8")
    for table in ("tests.csv", "limits.csv", "panels.csv"):
        (library / "mappings" / table).unlink()
    old = revision.build(config.load(path))[0].digest
    text = (revision.packaged("mappings") / f"{name}.csv").read_text("utf-8") + "XYZ,,,U-GLU,,,,,\n"
    seen = set()
    for step in range(1, 20):
        for file in (library / "mappings").iterdir():
            file.unlink()
        saving = Saving(path, asked(library, f"{name}.csv", text))
        with pytest.MonkeyPatch.context() as patch:
            crash_at(step, patch)
            try:
                saving.write()
            except Crash:
                pass
            else:
                break
        now = revision.build(config.load(path))[0].digest
        assert now in (old, saving.digest), step
        seen.add(now)
    else:
        raise AssertionError("it never ended")
    assert seen == {old, saving.digest}
