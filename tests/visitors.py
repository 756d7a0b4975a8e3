"""People with a browser, for the tests of the dashboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, Request, Route

# What a page is not allowed to do is told on the console, too; this one says which rule it was.
_TELL_VIOLATIONS = """document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`not allowed: ${event.effectiveDirective} ${event.blockedURI}`))"""


@dataclass
class Visitor:
    """Somebody with a browser, and what they should not have come to see."""

    context: BrowserContext
    address: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> Page:
        page = self.context.new_page()
        page.on("console", lambda said: self._hear(said.type, said.text))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        page.goto(self.address + path)
        return page

    def mind(self, request: Request) -> None:
        if not request.url.startswith((self.address, "data:")):
            self.complaints.append(f"asked for {request.url}")

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")


Visit = Callable[..., Visitor]


@contextmanager
def visiting(browser: Browser, address: str, **options: Any) -> Iterator[Visitor]:
    """Have somebody visit what is served there. Whatever their browser complains of fails the test."""
    context = browser.new_context(**options)
    context.set_default_timeout(10_000)
    context.add_init_script(_TELL_VIOLATIONS)
    visitor = Visitor(context, address)
    context.on("request", visitor.mind)
    yield visitor
    context.close()
    assert visitor.complaints == []


def refuse(route: Route) -> None:
    """Answer as a service does that is away."""
    route.abort("connectionrefused")
