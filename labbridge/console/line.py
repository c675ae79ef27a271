"""Line, the first page: every analyzer and destination at a glance, and what needs a person."""

import time
from collections.abc import Sequence

from nicegui import ui

from labbridge.console.alarm import Banner
from labbridge.console.frame import page
from labbridge.console.watch import watch
from labbridge.showing import shown
from labbridge.views.cards import Card, cards
from labbridge.views.texts import _, number_text

TICK = 20.0  # seconds: ages grow though nothing happens


@page("/", "Line", "see line")
def line() -> None:
    """The whole line."""
    Banner(everything=True)
    with ui.element("section").classes("w-full").props(f'aria-label="{_("Analyzers")}"'):
        analyzers = _Group()
    ui.label(_("Destinations")).classes("text-lg lb-quiet").props("role=heading aria-level=2")
    destinations = _Group()
    with ui.row().classes("items-center gap-2 lb-quiet"):
        ui.icon("info")
        ui.label(_("labbridge has no quality control yet: check the controls at the analyzers."))

    def show() -> None:
        for group, wanted in zip((analyzers, destinations), cards(watch(), time.time()), strict=True):
            group.show(wanted)

    show()
    watch().on_change("status", show)
    watch().on_change("held", show)
    ui.timer(TICK, show, immediate=False)


class _Group:
    """Cards side by side."""

    def __init__(self) -> None:
        self._box = ui.element("div").classes("lb-cards")
        self._drawn: dict[str, _Drawn] = {}

    def show(self, wanted: list[Card]) -> None:
        """Shows these cards."""
        if [card.name for card in wanted] != list(self._drawn):
            self._box.clear()
            with self._box:
                self._drawn = {card.name: _Drawn(card) for card in wanted}
        for card in wanted:
            self._drawn[card.name].show(card)


class _Drawn:
    """A card on the page: of a changed one, only what is different is sent to the browser."""

    def __init__(self, card: Card) -> None:
        self._facts: object = None
        with ui.element("article").classes("lb-card") as box:
            box.props["aria-label"] = shown(card.name)
            with ui.row().classes("w-full items-baseline justify-between gap-x-3 gap-y-0"):
                ui.label(shown(card.name)[:60]).classes("lb-name").props("role=heading aria-level=2")
                ui.label(shown(card.kind)[:40]).classes("lb-quiet")
            with ui.row().classes("items-center gap-1") as self._state:
                self._icon = ui.icon("link").classes("text-xl")
                self._word = ui.label()
            with ui.row().classes("w-full items-baseline gap-x-3 gap-y-0 no-wrap"):
                self._big = ui.label().classes("lb-big whitespace-nowrap")
                self._caption = ui.label().classes("lb-quiet text-sm leading-tight")
            self._box = ui.row().classes("gap-x-4 gap-y-0")
            self._chart = ui.element("div").classes("w-full h-12 mt-1").props("role=img")
            self._sum = ui.label().classes("lb-quiet text-sm")

    def show(self, card: Card) -> None:
        """Shows how it stands now."""
        self._big.text, self._caption.text, self._word.text = card.big, card.caption, card.state.word
        self._icon.set_name(card.state.icon)
        for element, tone in ((self._state, card.state.tone), (self._big, card.tone)):
            element.classes(remove="lb-good lb-warn lb-bad lb-quiet", add=f"lb-{tone}" if tone else "")
        if card.facts != self._facts:
            self._facts = card.facts
            self._box.clear()
            with self._box:
                for word, value, tone in card.facts:
                    with ui.column().classes("gap-0"):
                        ui.label(word).classes("lb-quiet text-sm")
                        ui.label(value).classes("text-lg " + (f"lb-{tone} font-bold" if tone else ""))
        hours = card.hours or (0,)
        texts = {"unit": card.unit, "now": number_text(hours[-1]), "most": number_text(max(hours))}
        self._sum.text = self._chart.props["aria-label"] = _("{unit}: {now} now, {most} at most", **texts)
        self._chart.style(replace=f"background: {_bars(card.hours)}")


def _bars(hours: Sequence[int]) -> str:
    """Bars side by side, each a layer of a background: a chart that is one element and costs the browser nothing."""
    most, last = max((1, *hours)), max(1, len(hours) - 1)
    layer = "linear-gradient(#3d8bbd 0 0) {:.1%} 100% / 3.2% {:.1%} no-repeat"
    return ", ".join(layer.format(at / last, number / most) for at, number in enumerate(hours)) or "none"
