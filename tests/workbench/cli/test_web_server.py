"""`workbench serve`: who has no token sees nothing; who has it sees the screen."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

import psutil
import pytest

pytest.importorskip("textual_serve")

from aiohttp import WSMsgType, WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer

from workbench.cli import web_server

PORT = 8000
COMMAND = shlex.join([sys.executable, "-m", "workbench"])


async def open_client(command: str = "false") -> TestClient:
    app = await web_server.make_app(command, "secret", PORT)
    client = TestClient(TestServer(app))
    await client.start_server()
    return client


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?token=%C3%A9"])
async def test_without_the_token_nothing_is_served(query: str) -> None:
    client = await open_client()
    try:
        for path in ("/", "/static/js/textual.js", "/download/x"):
            assert (await client.get(path + query)).status == 403, path
        with pytest.raises(WSServerHandshakeError) as refused:
            await client.ws_connect("/ws" + query)
        assert refused.value.status == 403
    finally:
        await client.close()


async def test_the_token_becomes_a_cookie_and_the_page_asks_no_other_host() -> None:
    client = await open_client()
    try:
        first = await client.get("/?token=secret", allow_redirects=False)
        cookie = first.headers["Set-Cookie"]
        assert (first.status, first.headers["Location"]) == (302, "/")
        assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
        page = await client.get("/", headers={"Cookie": cookie.partition(";")[0]})
        assert page.status == 200
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        host = f"{client.host}:{client.port}"
        assert f"ws://{host}/ws" in await page.text()
    finally:
        await client.close()


async def test_a_page_is_a_screen_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CONFIG", "CACHE", "LOCKS", "LOG_ROOT"):
        monkeypatch.setenv(f"WORKBENCH_{name}", str(tmp_path / name.lower()))
    client = await open_client(COMMAND)
    painted = b""
    try:
        cookie = {"Cookie": f"workbench-{PORT}=secret"}
        socket = await client.ws_connect("/ws?width=100&height=30", headers=cookie)
        while b"3 Results" not in painted:
            message = await socket.receive(90)
            assert message.type in (WSMsgType.BINARY, WSMsgType.TEXT), message
            painted += message.data if message.type is WSMsgType.BINARY else b""
        await socket.send_json(["stdin", "q"])
        while (message := await socket.receive(90)).type not in (
            WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED,
        ):  # fmt: skip
            pass
        while psutil.Process().children():  # its transport is closed in this loop
            await asyncio.sleep(0.05)
    finally:
        await client.close()
