"""What is around every page: header, navigation, language, light and dark, who is logged in, what needs a person."""

import asyncio
from collections.abc import Callable
from functools import wraps
from inspect import isawaitable
from typing import Any

import msgspec
from nicegui import background_tasks, ui
from starlette.requests import HTTPConnection

from labbridge import roles
from labbridge.console import session
from labbridge.console.acting import act
from labbridge.console.alarm import Banner
from labbridge.console.forms import own_password
from labbridge.console.watch import watch
from labbridge.views.texts import _, language

DARK = "labbridge_dark"  # a cookie: "1" or "0"; the system's choice where there is none
ALIVE = "labbridge-alive"  # somebody touches the page
_CHOSEN = {"1": True, "0": False}
_TURN = f"""() => {{
  setDark(!Quasar.Dark.isActive);
  document.cookie = "{DARK}=" + Number(Quasar.Dark.isActive) + "; path=/; max-age=31536000; SameSite=Strict";
}}"""
LANGUAGES = {"en": "English", "zh": "中文"}


class Page(msgspec.Struct, frozen=True):
    """A page of the console; ``title`` is a message to translate."""

    path: str
    title: str
    action: str


_building = asyncio.Semaphore(4)  # when everybody comes at once, the loop still turns between their pages

PAGES: dict[str, Page] = {}  # by path, in the order of the navigation


class _Route(ui.page):
    """NiceGUI's page in the language and the light of who asked."""

    def resolve_language(self) -> Any:
        return "zh-CN" if language() == "zh" else "en-US"

    def resolve_dark(self) -> bool | None:
        return _CHOSEN.get(HTTPConnection(session.scope()).cookies.get(DARK, ""))


def page(path: str, title: str, action: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a function the content of a page: for who is logged in and may do ``action``, with the frame around it."""
    PAGES[path] = this = Page(path, title, action)

    def decorated(content: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(content)
        async def whole(*args: Any, **kwargs: Any) -> None:
            await watch().ready.wait()
            async with _building:
                ui.page_title(f"{_(title)} · {watch().settings.site.name}")
                background_tasks.create(session.alive(), name="alive")
                ui.on(ALIVE, lambda: session.alive())
                _header(this)
                if path != "/":
                    Banner(everything=False)
                if not session.can(action):
                    ui.label(_("Your role may not see this page.")).classes("text-xl p-8")
                    return
                made = content(*args, **kwargs)
                if isawaitable(made):
                    await made

        _Route(path, response_timeout=20)(whole)
        return content

    return decorated


def head(idle: float) -> str:
    """What stands in the head of every page: whoever types, points or scrolls is there."""
    pause = int(min(30.0, idle / 5) * 1000)
    return f"""<script>
let labbridgeTold = 0;
for (const what of ["keydown", "pointerdown", "wheel"]) addEventListener(what, () => {{
  if (Date.now() - labbridgeTold > {pause}) {{ labbridgeTold = Date.now(); emitEvent("{ALIVE}"); }}
}}, {{ capture: true, passive: true }});
</script>"""


def _header(here: Page) -> None:
    user = session.user()
    with ui.header().classes("items-center gap-2 px-4 py-1"), ui.row().classes("w-full items-center gap-1"):
        ui.label(watch().settings.site.name).classes("text-lg font-medium mr-4")
        with ui.element("nav").classes("flex flex-wrap gap-1").props(f'aria-label="{_("Pages")}"'):
            for one in PAGES.values():
                if "{" not in one.path and roles.may(user.role, one.action):
                    link = ui.link(_(one.title), one.path).classes("lb-nav")
                    if one is here:
                        link.classes("lb-here").props('aria-current="page"')
        ui.space()
        _person(user)


def _person(user: session.User) -> None:
    """Language, light, and the way out."""
    for code, name in LANGUAGES.items():
        if code != language():
            ui.button(name, on_click=lambda code=code: _speak(code)).props("flat dense no-caps color=white")
    light = ui.button(icon="contrast").props(f'flat dense round color=white aria-label="{_("Light or dark")}"')
    light.on("click", js_handler=_TURN)
    me = ui.button(f"{user.account} · {_(user.role)}", on_click=own_password).props("flat dense no-caps color=white")
    me.tooltip(_("Change your password"))
    with ui.element("form").props('method="post" action="/logout"'):
        ui.button(_("Log out")).props("flat dense no-caps color=white type=submit")


async def _speak(code: str) -> None:
    answer = await act("language", language=code, quiet=True)
    if answer.ok:
        session.forget(session.user().session)
        ui.navigate.reload()
