"""The login page and the way out: plain forms without a script, which set and take back the session's cookie."""

import asyncio
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import parse_qsl, quote, urlsplit

from nicegui import app
from starlette.background import BackgroundTask
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, RedirectResponse, Response

from labbridge.commands import Request
from labbridge.console import session
from labbridge.console.watch import watch
from labbridge.views.texts import _, language

LONGEST_FORM = 4096
_PAGE = Template(Path(__file__).with_name("login.html").read_text("utf-8"))


async def form(request: HttpRequest) -> Response:
    """The login page."""
    over = _("You were away, or logged out: please log in again.") if "over" in request.query_params else ""
    return _page(_local(request.query_params.get("next", "/")), over)


async def login(request: HttpRequest) -> Response:
    """Takes name and password to the daemon; the cookie is its session's token."""
    fields = await _fields(request)
    goal = _local(fields.get("next", "/"))
    try:
        told = await session.send(Request("login", account=fields.get("account", ""), password=fields.get("password", "")))
    except session.Silent:
        return _page(goal, _("labbridge does not answer. Please try again."), 503)
    if not told.get("ok"):
        return _page(goal, _("Name or password is wrong, or the account is locked for some minutes."), 403)
    response = RedirectResponse(goal, 303)
    secure = request.url.scheme == "https"
    response.set_cookie(session.COOKIE, told["answer"]["session"], httponly=True, samesite="strict", secure=secure, path="/")
    return response


async def logout(request: HttpRequest) -> Response:
    """Ends the session."""
    token = request.cookies.get(session.COOKIE, "")
    session.forget(token)
    try:
        await session.send(Request("logout", session=token))
    except session.Silent:
        return _page("/", _("labbridge does not answer. Please try again."), 503)
    response = RedirectResponse("/login", 303, background=BackgroundTask(_close_others))
    response.delete_cookie(session.COOKIE, path="/", httponly=True, samesite="strict")
    return response


async def _close_others() -> None:
    """The other pages of the session give way; the one that was left has a moment to go by itself."""
    await asyncio.sleep(1.0)
    await session.look(0)


def register() -> None:
    """Adds the forms to the application."""
    app.add_route("/login", form, ["GET"])
    app.add_route("/login", login, ["POST"])
    app.add_route("/logout", logout, ["POST"])


async def _fields(request: HttpRequest) -> dict[str, str]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_FORM:
            return {}
    return dict(parse_qsl(body.decode("utf-8", "replace")))


def _local(goal: str) -> str:
    """The goal where it is a page of ours, else the first page."""
    parts = urlsplit(goal.replace("\\", "/"))
    mine = not parts.scheme and not parts.netloc and goal.startswith("/") and not goal.startswith("//")
    return quote(parts.path, safe="/%:@!$&'()*+,;=~") if mine else "/"


def _page(goal: str, told: str, status: int = 200) -> HTMLResponse:
    words = {
        "lang": "zh-CN" if language() == "zh" else "en",
        "site": watch().settings.site.name,
        "title": _("Log in"),
        "account": _("Name"),
        "password": _("Password"),
        "told": told,
        "next": goal,
    }
    escaped = {name: escape(text) for name, text in words.items()}
    return HTMLResponse(_PAGE.substitute(escaped), status, {"Cache-Control": "no-store"})
