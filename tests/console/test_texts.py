"""The words of the console: every message has its Chinese, none is left over, and times are the laboratory's own."""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import get_args

import pytest
from babel.messages.pofile import read_po

import labbridge.commands
import labbridge.console
import labbridge.views
from labbridge.commands.work import NEVER_RELEASED
from labbridge.console import acting, session
from labbridge.console.session import User
from labbridge.model import Action, Reason
from labbridge.pipeline import State
from labbridge.roles import ROLES
from labbridge.said import Refusal, Said, worded
from labbridge.views import texts

ROOMS = [Path(room.__file__ or "").parent for room in (labbridge.console, labbridge.views)]
MODULES = [module for room in ROOMS for module in room.glob("*.py")]
SPEAKING = [*Path(labbridge.__file__).parent.glob("*.py"), *Path(labbridge.commands.__file__).parent.glob("*.py")]  # the daemon
SENTENCES = ("Said", "CommandError", "AmendError")
WORDS = {  # sentences that are put together of words: roles, states, deeds, reasons
    *(*ROLES, *get_args(Action), *get_args(State), *NEVER_RELEASED),
    *("queued", "refused", "delivered", "cancelled", "paused", "running", "active", "disabled", "role", "language", "state"),
    *("comment", "call-back", "acknowledge", "that of nobody"),
}
NOON = 1_795_320_000_000_000  # 2026-11-22 04:00 UTC


def chinese() -> dict[str, str]:
    with resources.files("labbridge.views").joinpath("locale/zh.po").open("rb") as file:
        return {str(one.id): str(one.string) for one in read_po(file, locale="zh") if one.id}


def calls(modules: Iterable[Path] = MODULES) -> Iterator[tuple[str, ast.Call]]:
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield node.func.id, node


def sentences() -> set[str]:
    """The templates of what the daemon says of a command."""
    found = {node for name, call in calls(SPEAKING) if name in SENTENCES for node in call.args[:1]}
    return {str(node.value) for node in found if isinstance(node, ast.Constant)}


def messages() -> set[str]:
    """What is translated where it stands, the titles of pages, and what the daemon says."""
    found = WORDS | sentences()
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


def test_every_refusal_is_a_template_that_stands_in_the_code() -> None:
    made = [call for name, call in calls(SPEAKING) if name in SENTENCES[1:]]
    assert len(made) > 40
    assert [ast.unparse(call) for call in made if not isinstance(call.args[0], ast.Constant)] == []
    joined = [call for name, call in calls(SPEAKING) if name == "Said" and isinstance(call.args[0], ast.JoinedStr | ast.BinOp)]
    assert [ast.unparse(call) for call in joined] == []


def test_no_translation_is_left_over() -> None:
    assert sorted(chinese().keys() - strings() - WORDS - sentences()) == []


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


@pytest.mark.usefixtures("speak")
def test_what_the_daemon_says_is_told_in_chinese() -> None:
    told = [Said("{test} {became}", test="WBC", became=Said("release")), Said("{test} {became}", test="RBC", became=Said("hold"))]
    answer = worded({"ok": True, "said": [Said("report {report}: {told}", report=7, told=told), "as it is"]})
    assert answer["said"] == ["report 7: WBC release, RBC hold", "as it is"]
    assert [acting.in_words(one) for one in answer["words"]] == ["报告 7：WBC 发布, RBC 须审核", "as it is"]


@pytest.mark.usefixtures("speak")
@pytest.mark.parametrize("hostile", ["{}", "{specimen.__class__}", "{0}", "{{", "%s"])
def test_braces_in_a_value_are_never_interpreted(hostile: str) -> None:
    refused = Refusal("nothing is known of specimen {specimen}", specimen=hostile)
    answer = worded({"ok": False, "error": refused.said})
    assert answer["error"] == str(refused) == f"nothing is known of specimen {hostile}"
    assert type(answer["error"]) is str
    assert acting.in_words(answer["why_words"]) == f"没有标本 {hostile} 的任何记录"
    assert acting.in_words(worded({"error": Said("{name}: {state}", name=hostile, state=Said(hostile))})["why_words"]) == (
        f"{hostile}：{hostile}"
    )
