"""Sentences for a person: a template with named values, so that whoever shows them can put the values into a translated one."""

from collections.abc import Iterable
from functools import reduce
from typing import Any


class Said(str):
    """A sentence, as a string the English one; a value is text, a sentence itself, or a list of such.

    What comes from outside (ids, codes, texts) is always a value: nothing in it is interpreted.
    """

    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, /, **values: Any) -> "Said":
        """Puts the values into the template."""
        english = {name: ", ".join(value) if isinstance(value, list) else value for name, value in values.items()}
        made = super().__new__(cls, template.format(**english) if values else template)
        made.template, made.values = template, values
        return made


class Refusal(Exception):
    """What was asked for cannot be done; ``said`` tells why and what to do, and so does the text, in English."""

    def __init__(self, template: str, /, **values: Any) -> None:
        self.said = Said(template, **values)
        super().__init__(str(self.said))


def either(words: Iterable[str]) -> str:
    """One of some words that have a translation each."""
    return reduce(lambda one, other: Said("{one} or {other}", one=one, other=other), map(Said, words))


def not_carried_out(error: BaseException) -> Said:
    """What is told of a fault that nobody foresaw: its kind alone, for its text may name a patient."""
    return Said("not carried out: {fault}", fault=type(error).__name__)


def worded(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer as it leaves the daemon: ``said`` and ``error`` in English, ``words`` and ``why_words`` to be translated."""
    told = dict(answer)
    if "said" in answer:
        told |= {"said": [str(line) for line in answer["said"]], "words": [_words(line) for line in answer["said"]]}
    if "error" in answer:
        told |= {"error": str(answer["error"]), "why_words": _words(answer["error"])}
    return told


def _words(said: Any) -> Any:
    """A sentence as ``[template, values]``, a list as ``{"all": [...]}``, anything else as text."""
    if isinstance(said, Said):
        return [said.template, {name: _words(value) for name, value in said.values.items()}]
    if isinstance(said, list):
        return {"all": [_words(one) for one in said]}
    return str(said)
