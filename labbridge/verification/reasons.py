"""Reasons in words: a code and its parameters rendered in English or Chinese.

The parameters ``en`` and ``zh`` are words of a profile: what an alarm of the analyzer means. They follow in brackets.
"""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from labbridge.model import Reason

Language = Literal["en", "zh"]

_FILE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
TEXTS: dict[str, tuple[str, str]] = {code: (texts[0], texts[1]) for code, texts in _FILE.items() if isinstance(texts, list)}
# Of each parameter that is words of ours: what they are in Chinese.
IN_CHINESE: dict[str, dict[str, str]] = {name: words for name, words in _FILE.items() if isinstance(words, dict)}


def render(reason: Reason, language: Language = "en") -> str:
    """One reason in words; a code without a text is shown as it is."""
    texts = TEXTS.get(reason.code)
    if texts is None:
        return " ".join([reason.code, *(f"{name}={value}" for name, value in reason.params.items())])
    words = reason.params.get(language) or reason.params.get("en") or reason.params.get("zh")
    also = (f"（{words}）" if language == "zh" else f" ({words})") if words else ""
    params = _Given(reason.params)
    if language == "zh":
        params.update({name: words.get(params[name], params[name]) for name, words in IN_CHINESE.items() if name in params})
    return " ".join(f"{texts[language == 'zh'].format_map(params)}{also}".split())  # a unit may be empty


def render_all(reasons: Iterable[Reason], language: Language = "en") -> str:
    """Several reasons in one line."""
    return ("；" if language == "zh" else "; ").join(dict.fromkeys(render(reason, language) for reason in reasons))


class _Given(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"
