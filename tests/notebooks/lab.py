"""A real JupyterLab in a real browser: a server, a page, cells that are run by it, and what it then shows."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Request

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
OUTPUT = ".jp-OutputArea-output"
_START_SECONDS = 60.0
_CELL_MS = 60_000
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# What a test drives is the notebook: no news, no completion server, no look for newer versions.
_SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}


def browser_program() -> str:
    """The path of an installed browser; without one the tests are skipped, but never where they must run."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        reason = f"no browser is installed (one of {', '.join(BROWSERS)}; Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@dataclass(frozen=True, slots=True)
class Server:
    """A running JupyterLab with a folder of notebooks."""

    url: str
    token: str
    folder: Path

    def api(self, path: str) -> Any:
        """What the server's own interface answers."""
        request = urllib.request.Request(f"{self.url}/api/{path}", headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def write(self, name: str, cells: Sequence[str]) -> Path:
        """A notebook of code cells that has not run."""
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = self.folder / f"{name}.ipynb"
        nbformat.write(book, path)
        return path


@contextmanager
def running_server(folder: Path) -> Iterator[Server]:
    """JupyterLab on a free port of this machine, with settings and kernels of its own."""
    home = folder / "home"
    settings = home / "config" / "lab" / "user-settings"
    for plugin, values in _SETTINGS.items():
        package, name = plugin.split(":")
        path = settings / package / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    notebooks = folder / "notebooks"
    notebooks.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = "for-tests-only"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += [f"--ServerApp.root_dir={notebooks}", f"--IdentityProvider.token={token}"]
    command += ["--ServerApp.port_retries=0", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None"]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
    }
    log = folder / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=notebooks, env=environment, stdout=out, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", token, notebooks)
    try:
        _wait_for(server, process, log)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _wait_for(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"JupyterLab does not start:\n{log.read_text()[-2000:]}")
        try:
            server.api("status")
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Chromium without a window."""
    program = browser_program()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Lab:
    """One page of JupyterLab with a notebook in it."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page = page
        self.server = server
        self.foreign: list[str] = []
        page.on("request", self._note)
        page.set_default_timeout(_CELL_MS)

    def _note(self, request: Request) -> None:
        if not request.url.startswith((self.server.url, self.server.url.replace("http", "ws"), "data:", "blob:")):
            self.foreign.append(request.url)

    def open(self, path: Path) -> None:
        """Show a notebook; its kernel is ready, or there is none."""
        name = path.name
        self.page.goto(f"{self.server.url}/lab/tree/{name}?reset&token={self.server.token}")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.page.wait_for_function(
            "() => { const w = window.jupyterapp?.shell?.currentWidget;"
            " return w?.context?.isReady && w.sessionContext?.isReady &&"
            " w.sessionContext.session?.kernel?.status === 'idle' }"
        )

    def command(self, name: str) -> None:
        """Run a command of JupyterLab; returns when it is done."""
        self.page.evaluate("name => window.jupyterapp.commands.execute(name)", name)

    def start(self, name: str) -> None:
        """Start a command of JupyterLab."""
        self.page.evaluate("name => { window.jupyterapp.commands.execute(name); }", name)

    def run_all(self) -> None:
        """Run all cells and wait for the last one; an error in one does not stop the others only where it is caught."""
        self.command("notebook:run-all-cells")

    def cell(self, index: int) -> Locator:
        """A cell by its place."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    def output(self, index: int) -> Locator:
        """The outputs of a cell."""
        return self.cell(index).locator(OUTPUT)

    def theme(self, *, dark: bool) -> None:
        """Switch JupyterLab's theme, and what the page is told that the user prefers."""
        self.page.emulate_media(color_scheme="dark" if dark else "light")
        name = "JupyterLab Dark" if dark else "JupyterLab Light"
        self.page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})",
            name,
        )
        self.page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=name)

    def save(self) -> None:
        """Save the notebook."""
        self.command("docmanager:save")
