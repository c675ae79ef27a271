"""Reasons in words: a code and its parameters rendered in English or Chinese.

The parameters ``en`` and ``zh`` are words of a profile: what an alarm of the analyzer means. They follow in brackets.
"""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from labbridge.model import Reason

Language = Literal["en", "zh"]

TEXTS: dict[str, tuple[str, str]] = {
    code: (english, chinese)
    for code, (english, chinese) in tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8")).items()
}


def render(reason: Reason, language: Language = "en") -> str:
    """One reason in words; a code without a text is shown as it is."""
    texts = TEXTS.get(reason.code)
    if texts is None:
        return " ".join([reason.code, *(f"{name}={value}" for name, value in reason.params.items())])
    words = reason.params.get(language) or reason.params.get("en") or reason.params.get("zh")
    also = (f"（{words}）" if language == "zh" else f" ({words})") if words else ""
    return " ".join(f"{texts[language == 'zh'].format_map(_Given(reason.params))}{also}".split())  # a unit may be empty


def render_all(reasons: Iterable[Reason], language: Language = "en") -> str:
    """Several reasons in one line."""
    return ("；" if language == "zh" else "; ").join(dict.fromkeys(render(reason, language) for reason in reasons))


class _Given(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"
