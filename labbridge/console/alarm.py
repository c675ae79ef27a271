"""The banner, and the signal that sounds while a critical value waits and nobody has acknowledged it."""

import io
import math
import struct
import time
import wave
from collections.abc import Sequence

from nicegui import app, ui
from starlette.requests import Request
from starlette.responses import Response

from labbridge.console import session
from labbridge.console.acting import act
from labbridge.console.watch import watch
from labbridge.views.needs import Need, critical, needs
from labbridge.views.texts import _

SOUND = "/signal.wav"
AT_ONCE = 50  # specimens that one click acknowledges
RATE = 8000  # of the sound, samples a second
_ICONS = {"critical": "notification_important", "fault": "error", "attention": "info"}


class Banner:
    """What needs a person: all of it, or the critical values alone."""

    def __init__(self, everything: bool) -> None:
        self._everything = everything
        self._needs: list[Need] | None = None
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
        self._sound(any(one.specimens for one in now))
        self._needs = now
        self._box.clear()
        self._box.set_visibility(bool(now) or self._everything)
        with self._box:
            for need in (one for one in now if one.level != "attention"):
                self._draw(need)
            if rest := [one for one in now if one.level == "attention"]:
                self._rest(rest)
            if not now:
                self._line("attention", "check_circle", _("Nothing needs a person."))

    def _sound(self, on: bool) -> None:
        if self._audio is not None and on != any(one.specimens for one in self._needs or ()):
            self._audio.play() if on else self._audio.pause()

    def _draw(self, need: Need) -> None:
        with self._line(need.level, _ICONS[need.level], need.text):
            if need.path != ui.context.client.page.path:
                ui.link(_("Show"), need.path).classes("lb-need-link")
            if need.specimens and session.can("acknowledge"):
                button = ui.button(_("Acknowledge"), on_click=lambda: _acknowledge(need.specimens))
                button.props("dense no-caps outline color=white")

    def _rest(self, needs: Sequence[Need]) -> None:
        """What can wait a little: all of it in one line."""
        with self._line("attention", _ICONS["attention"]).classes(add="flex-wrap gap-x-6", remove="no-wrap gap-3"):
            for need in needs:
                if need.path != ui.context.client.page.path:
                    ui.link(need.text, need.path).classes("lb-need-link")
                else:
                    ui.label(need.text)

    def _line(self, level: str, icon: str, text: str = "") -> ui.row:
        row = ui.row().classes(f"w-full items-center no-wrap gap-3 px-4 py-1 lb-{level}")
        with row:
            ui.icon(icon).classes("text-2xl").props("aria-hidden=true")
            words = {"critical": _("Critical"), "fault": _("Fault"), "attention": _("Attention")}
            if icon != "check_circle":
                ui.label(words[level]).classes("font-bold")
            if text:
                ui.label(text).classes("grow")
        return row


async def _acknowledge(specimens: Sequence[str]) -> None:
    for specimen in specimens[:AT_ONCE]:
        answer = await act("acknowledge", quiet=True, specimen=specimen)
        if not answer.ok:
            ui.notify(answer.error[:500], type="negative")
            return


def register() -> None:
    """Adds the sound to the application."""
    sound = _signal()

    async def answer(_request: Request) -> Response:
        return Response(sound, media_type="audio/wav", headers={"Cache-Control": "private, max-age=86400"})

    app.add_route(SOUND, answer, ["GET"])


def _signal() -> bytes:
    """Three rising tones, then four seconds of silence: insistent, not frightening."""
    samples: list[float] = []
    for tone in (660, 880, 1100):
        length = RATE // 5
        samples += [math.sin(math.pi * n / length) * math.sin(2 * math.pi * tone * n / RATE) for n in range(length)]
    samples += [0.0] * (4 * RATE)
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(b"".join(struct.pack("<h", int(16000 * sample)) for sample in samples))
    return file.getvalue()
