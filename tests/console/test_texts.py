"""The words of the console: every message has its Chinese, none is left over, and times are the laboratory's own."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from babel.messages.pofile import read_po

import labbridge.console
import labbridge.views
from labbridge.console import session
from labbridge.console.session import User
from labbridge.model import Reason
from labbridge.roles import ROLES
from labbridge.views import texts

ROOMS = [Path(room.__file__ or "").parent for room in (labbridge.console, labbridge.views)]
MODULES = [module for room in ROOMS for module in room.glob("*.py")]
NOON = 1_795_320_000_000_000  # 2026-11-22 04:00 UTC


def chinese() -> dict[str, str]:
    with resources.files("labbridge.views").joinpath("locale/zh.po").open("rb") as file:
        return {str(one.id): str(one.string) for one in read_po(file, locale="zh") if one.id}


def calls() -> Iterator[tuple[str, ast.Call]]:
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield node.func.id, node


def messages() -> set[str]:
    """What is translated where it stands, the titles of pages, and the roles."""
    found = set(ROLES)
    for name, call in calls():
        place = {"_": 0, "page": 1}.get(name)
        if place is not None and len(call.args) > place and isinstance(call.args[place], ast.Constant):
            found.add(str(ast.literal_eval(call.args[place])))
    return found


def strings() -> set[str]:
    """Every text in the code: some are translated only where they are shown."""
    trees = [ast.walk(ast.parse(module.read_text("utf-8"))) for module in MODULES]
    return {node.value for tree in trees for node in tree if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.fixture
def speak(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user who reads Chinese, in Shanghai."""
    monkeypatch.setattr(texts, "_site", {"zone": "Asia/Shanghai", "language": "en"})
    monkeypatch.setattr(texts, "_speaks", [session.language])
    token = session.asked.set({session.KEY: User("lin", "viewer", "zh", "token")})
    yield
    session.asked.reset(token)


def test_every_message_has_its_chinese() -> None:
    words = chinese()
    assert sorted(message for message in messages() if not words.get(message)) == []


def test_no_translation_is_left_over() -> None:
    assert sorted(chinese().keys() - strings() - set(ROLES)) == []


def test_no_message_is_translated_twice() -> None:
    file = resources.files("labbridge.views").joinpath("locale/zh.po").read_text("utf-8")
    ids = Counter(re.findall(r"^msgid (.*)$", file, re.MULTILINE))
    assert [message for message, times in ids.items() if times > 1] == []
    assert len(ids) == len(chinese()) + 1  # the head of the file


def test_a_translation_has_the_names_of_its_message() -> None:
    named = re.compile(r"\{(\w+)\}")
    assert [one for one, words in chinese().items() if set(named.findall(one)) != set(named.findall(words))] == []


@pytest.mark.usefixtures("speak")
def test_times_numbers_and_reasons_are_chinese_for_who_reads_it() -> None:
    assert texts.language() == "zh"
    assert texts.clock_text(NOON) == "12:00:00"
    assert texts.day_text(NOON) == "2026年11月22日"
    assert texts.age_text(3 * 3600 + 5) == "3 小时"
    assert texts.reason_text([Reason("no-specimen")]) == "无样本号"
    assert texts._("{n} min", n=4) == "4 分钟"
    assert texts._("a message that nobody translated") == "a message that nobody translated"


def test_english_where_nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_site", {"zone": "UTC", "language": "en"})
    assert texts.day_text(NOON) == "22 Nov 2026"
    assert texts.time_text(NOON).endswith("04:00")
    assert texts.age_text(0.2) == "0 s"
    assert texts.number_text(12345) == "12,345"
