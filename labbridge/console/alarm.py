"""The banner, and the signal that sounds while a critical value waits and nobody has acknowledged it."""

import io
import time
import wave
from array import array
from collections.abc import Sequence
from functools import cache
from math import pi, sin

from nicegui import app, ui
from starlette.responses import Response

from labbridge.console import session
from labbridge.console.acting import act
from labbridge.console.watch import watch
from labbridge.views.needs import Level, Need, critical, named, needs
from labbridge.views.texts import _

SOUND = "/signal.wav"
AT_ONCE = 50  # specimens that one click acknowledges
RATE = 8000  # of the sound, samples a second


class Banner:
    """What needs a person: all of it, or the critical values alone."""

    def __init__(self, everything: bool) -> None:
        self._everything = everything
        self._needs: list[Need] | None = None
        self._path = ui.context.client.page.path
        self._box = ui.column().classes("w-full gap-1").props(f'role="region" aria-label="{_("What needs a person")}"')
        self._audio = None
        if session.can("acknowledge"):
            self._audio = ui.audio(SOUND, controls=False, loop=True).props("preload=none").classes("hidden")
        watch().on_change("held", self.show)
        if everything:
            watch().on_change("status", self.show)
        self.show()

    def show(self) -> None:
        """Draws anew what has changed."""
        now = needs(watch(), time.time()) if self._everything else [one for one in [critical(watch())] if one]
        if now == self._needs:
            return
        self._needs = now
        if self._audio is not None:
            self._audio.play() if any(one.specimens for one in now) else self._audio.pause()
        self._box.clear()
        self._box.set_visibility(bool(now) or self._everything)
        with self._box:
            for need in now:
                if need.level != "attention":
                    self._draw(need)
            if rest := [one for one in now if one.level == "attention"]:
                with _line("attention", "info", _("Attention")), ui.row().classes("gap-x-6 gap-y-0"):
                    for need in rest:
                        ui.link(need.text, need.path).classes("lb-need-link") if self._leads(need) else ui.label(need.text)
            if not now:
                _line("attention", "check_circle", _("Nothing needs a person."))

    def _leads(self, need: Need) -> bool:
        """Whether there is another page that helps, and this user may see it."""
        return need.path != self._path and session.can(f"see {need.path[1:] or 'line'}")

    def _draw(self, need: Need) -> None:
        looks = ("notification_important", _("Critical")) if need.level == "critical" else ("error", _("Fault"))
        with _line(need.level, *looks):
            seen = need.specimens and session.can("see pending")
            ui.label(f"{need.text} ({named(need.specimens)})" if seen else need.text).classes("grow")
            if self._leads(need):
                ui.link(_("Show"), need.path).classes("lb-need-link")
            if need.specimens and session.can("acknowledge"):
                button = ui.button(_("Acknowledge"), on_click=lambda: _acknowledge(need.specimens))
                button.props("dense no-caps outline color=white")


def _line(level: Level, icon: str, word: str) -> ui.row:
    with ui.row().classes(f"w-full items-center no-wrap gap-3 px-4 py-1 lb-{level}") as row:
        ui.icon(icon).classes("text-2xl")
        ui.label(word).classes("font-bold")
    return row


async def _acknowledge(specimens: Sequence[str]) -> None:
    for specimen in specimens[:AT_ONCE]:
        answer = await act("acknowledge", quiet=True, specimen=specimen)
        if not answer.ok:
            ui.notify(answer.error[:500], type="negative")
            return


@cache
def _signal() -> bytes:
    """Three rising tones, then four seconds of silence: insistent, not frightening."""
    length, samples = RATE // 5, array("h")
    for tone in (660, 880, 1100):
        samples.extend(int(16000 * sin(pi * n / length) * sin(2 * pi * tone * n / RATE)) for n in range(length))
    samples.extend([0] * (4 * RATE))
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(samples)
    return file.getvalue()


_KEPT = {"Cache-Control": "private, max-age=86400"}
app.add_route(SOUND, lambda _request: Response(_signal(), media_type="audio/wav", headers=_KEPT), ["GET"])
