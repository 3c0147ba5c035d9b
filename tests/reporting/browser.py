"""A real browser for tests: a page that is driven through the browser's DevTools protocol, over a pipe."""

import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium")
LIMIT = 60  # seconds to wait for the browser


class Page:
    """A page in a browser of its own."""

    def __init__(self, path: Path, downloads: Path):
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The browser reads commands from file descriptor 3 and answers on 4.
        os.set_inheritable(to_browser, True)
        os.set_inheritable(from_browser, True)
        options = "--headless --no-sandbox --disable-gpu --remote-debugging-pipe"
        command = f'exec 3<&{to_browser} 4>&{from_browser}; exec {CHROMIUM} {options} --user-data-dir="$0"'
        self._process = subprocess.Popen(
            ["bash", "-c", command, str(downloads / "profile")],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.events: list[dict[str, Any]] = []
        self.downloads = downloads
        self._session: str | None = None
        self._count = 0
        self._buffer = b""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        self.send("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        self.send("Page.navigate", url=path.as_uri())
        while not self.events_of("Page.loadEventFired"):
            self._receive()

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The browser's answer to a command of the protocol."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                assert "result" in answer, answer
                return answer["result"]

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page, awaited if it is a promise."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def events_of(self, method: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["method"] == method]

    def press(self, key: str) -> None:
        """Press and release a key, such as "ArrowRight"."""
        code = {"Tab": 9, " ": 32, "End": 35, "ArrowLeft": 37, "ArrowRight": 39}[key]
        text = {"text": " "} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], LIMIT)
            chunk = os.read(self._read, 1 << 16) if ready else b""
            assert chunk, "The browser does not answer."
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message
