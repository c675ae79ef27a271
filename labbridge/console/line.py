"""Line, the first page: every analyzer and destination at a glance, and what needs a person."""

import time
from typing import Any

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
    shown_cards: dict[tuple[str, str], _Drawn] = {}
    with ui.element("section").classes("w-full").props(f'aria-label="{_("Analyzers")}"'):
        analyzers = ui.element("div").classes("lb-cards")
    ui.label(_("Destinations")).classes("text-lg lb-quiet").props("role=heading aria-level=2")
    destinations = ui.element("div").classes("lb-cards")
    with ui.row().classes("items-center gap-2 lb-quiet"):
        ui.icon("info").props("aria-hidden=true")
        ui.label(_("labbridge has no quality control yet: check the controls at the analyzers."))

    def show() -> None:
        for where, wanted in zip((analyzers, destinations), cards(watch(), time.time()), strict=True):
            kind = "analyzer" if where is analyzers else "destination"
            for gone in [key for key in shown_cards if key[0] == kind and key[1] not in {card.name for card in wanted}]:
                shown_cards.pop(gone).delete()
            for card in wanted:
                drawn = shown_cards.get((kind, card.name))
                if drawn is None:
                    with where:
                        shown_cards[kind, card.name] = _Drawn(card)
                else:
                    drawn.change(card)

    show()
    watch().on_change("status", show)
    watch().on_change("held", show)
    ui.timer(TICK, show)


class _Drawn:
    """A card on the page: of a changed one, only what is different is sent to the browser."""

    def __init__(self, card: Card) -> None:
        self._card = card
        with ui.element("article").classes("lb-card") as self._box:
            self._box.props["aria-label"] = shown(card.name)
            with ui.row().classes("w-full items-baseline justify-between gap-x-3 gap-y-0"):
                ui.label(shown(card.name)[:60]).classes("lb-name").props("role=heading aria-level=2")
                ui.label(shown(card.kind)[:40]).classes("lb-quiet")
            with ui.row().classes("items-center gap-1"):
                self._icon = ui.icon("link").classes("text-xl").props("aria-hidden=true")
                self._state = ui.label()
            with ui.row().classes("w-full items-baseline gap-x-3 gap-y-0 no-wrap"):
                self._big = ui.label().classes("lb-big whitespace-nowrap")
                self._caption = ui.label().classes("lb-quiet text-sm leading-tight")
            self._facts = ui.row().classes("gap-x-4 gap-y-0")
            self._chart = ui.echart(_bars(card.hours)).classes("w-full h-12 mt-1").props("role=img")
            self._sum = ui.label().classes("lb-quiet text-sm")
        self._draw(card)

    def change(self, card: Card) -> None:
        """Shows this card now."""
        if card != self._card:
            before, self._card = self._card, card
            self._draw(card, before)

    def delete(self) -> None:
        """Takes the card off the page."""
        self._box.delete()

    def _draw(self, card: Card, before: Card | None = None) -> None:
        self._big.set_text(card.big)
        self._caption.set_text(card.caption)
        if before is None or before.state != card.state or before.tone != card.tone:
            self._icon.set_name(card.state.icon)
            self._state.set_text(card.state.word)
            for element, tone in ((self._icon, card.state.tone), (self._state, card.state.tone), (self._big, card.tone)):
                element.classes(remove="lb-good lb-warn lb-bad lb-quiet", add=f"lb-{tone}" if tone else "")
        if before is None or before.facts != card.facts:
            self._facts.clear()
            with self._facts:
                for word, value, tone in card.facts:
                    with ui.column().classes("gap-0"):
                        ui.label(word).classes("lb-quiet text-sm")
                        ui.label(value).classes("text-lg " + (f"lb-{tone} font-bold" if tone else ""))
        if before is None or before.hours != card.hours:
            hours = card.hours or (0,)
            texts = {"unit": card.unit, "now": number_text(hours[-1]), "most": number_text(max(hours))}
            words = _("{unit}: {now} now, {most} at most", **texts)
            self._sum.set_text(words)
            self._chart.props["aria-label"] = words
            self._chart.update()
            if before is not None:
                self._chart.options["series"][0]["data"] = list(card.hours)
                self._chart.update()


def _bars(hours: tuple[int, ...]) -> dict[str, Any]:
    return {
        "animation": False,
        "grid": {"left": 0, "right": 0, "top": 4, "bottom": 2},
        "xAxis": {"type": "category", "show": False, "data": list(range(len(hours)))},
        "yAxis": {"type": "value", "show": False},
        "series": [
            {"type": "bar", "data": list(hours), "itemStyle": {"color": "#3d8bbd"}, "barCategoryGap": "20%", "silent": True}
        ],
    }
