"""Web server of `workbench serve`: textual-serve's pages behind a token.

Each page that is opened starts a screen of its own, as another terminal would.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from http.cookies import SimpleCookie
from typing import Final

import psutil
from aiohttp import web
from textual_serve.server import Server

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CONTENT_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; frame-ancestors 'none'"
)
"""The page names a font of another host, which the browser must not ask for."""
END_SECONDS: Final = 5.0
COOKIE_ATTRIBUTES: Final = {"httponly": True, "samesite": "Strict", "path": "/"}


async def make_app(command: str, token: str, port: int) -> web.Application:
    """The application; whoever has no token is refused, on the WebSocket too.

    `command`: starts a screen, as a shell line. The address with `?token=` sets a cookie, so that
    the token leaves the address bar.
    """
    server = Server(command, title="workbench")
    name = f"workbench-{port}"  # cookies are shared by all ports of a host

    async def check_token(request: web.Request, handler: Handler) -> web.StreamResponse:
        shown_token = request.query.get("token", request.cookies.get(name, ""))
        if not hmac.compare_digest(shown_token.encode(), token.encode()):
            raise web.HTTPForbidden(text="Open the address that `workbench serve` printed.\n")
        if "token" in request.query:
            redirect = web.HTTPFound("/")
            redirect.headers["Set-Cookie"] = _format_cookie(name, token)
            raise redirect
        # As the browser calls this host: through a tunnel it has another name and port.
        server.public_url = f"{request.scheme}://{request.host}"
        response = await handler(request)
        if not response.prepared:
            response.headers["Content-Security-Policy"] = CONTENT_POLICY
            response.headers["Referrer-Policy"] = "no-referrer"
        return response

    app = await server._make_app()
    app.on_startup.clear()  # it prints a banner and an address without the token
    app.on_cleanup.append(_wait_for_screens)
    app.middlewares.append(web.middleware(check_token))
    return app


async def _wait_for_screens(_: web.Application) -> None:
    """Let the screens of open pages end before the loop does."""
    this, deadline = psutil.Process(), time.monotonic() + END_SECONDS
    while this.children() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)


def _format_cookie(name: str, value: str) -> str:
    cookie = SimpleCookie({name: value})
    for attribute, setting in COOKIE_ATTRIBUTES.items():
        cookie[name][attribute] = setting
    return cookie.output(header="").strip()


def run_server(
    command: str, token: str, host: str, port: int, on_ready: Callable[[], None]
) -> None:
    """Serve until SIGINT or SIGTERM; `on_ready` is called when connections are accepted.

    Raises:
        OSError: the address cannot be used.
    """

    async def start() -> web.Application:
        app = await make_app(command, token, port)

        async def announce(_: web.Application) -> None:
            on_ready()

        app.on_startup.append(announce)
        return app

    web.run_app(start(), host=host, port=port, print=None)
