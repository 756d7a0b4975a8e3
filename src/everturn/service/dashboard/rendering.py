"""How pages are made: the templates, and what they all know.

Everything goes through the templates, which escape it and take control characters out. What the service
puts on pages, a policy, forbids what should not be there anyway: scripts and styles in the page, anything from
elsewhere, and frames.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from everturn.clock import Clock
from everturn.conversations import page, wording
from everturn.service.dashboard import charts, words
from everturn.service.dashboard.assets import assets

_HEADERS = {"X-Robots-Tag": "noindex"}  # all others are those of every response; see `everturn.service.web.guards`
NAVIGATION = (("/", "Fleet"), ("/sessions", "Sessions"), ("/search", "Search"), ("/disk", "Disk"), ("/log", "Log"))


class Renderer:
    """Makes pages.

    Args:
        clock: Tells the time that ages are reckoned from.
        version: Returns which news pages hold; the script in them asks for news after these.
    """

    def __init__(self, clock: Clock, version: Callable[[], int]) -> None:
        self._clock = clock
        self._version = version
        environment()  # compiling the templates takes a third of a second, which no first visitor is to wait for

    @property
    def version(self) -> int:
        """Which news there are. Ask for it before what a page shows: then nothing is missed, only shown twice."""
        return self._version()

    def page(
        self,
        request: Request,
        template: str,
        *,
        version: int | None = None,
        news: str = "/live",
        status: int = 200,
        **values: Any,
    ) -> HTMLResponse:
        """Return a page.

        Args:
            request: What it answers.
            template: Its template; extends `base.html`.
            version: Which news it holds, as `version` told before they were looked up; `None`: it is never updated.
            news: Where the script in it hears that there are news; see `everturn.service.dashboard.stream`.
            status: The status code.
            values: What the template shows.
        """
        told = {"now": self._clock.now(), "here": request.url.path, "version": version, "news": news, **values}
        return HTMLResponse(environment().get_template(template).render(told), status, _HEADERS)

    def error(self, request: Request, status: int, message: str, hint: str) -> HTMLResponse:
        """Return a page that says why there is none.

        Args:
            request: What it answers.
            status: The status code, not below 400.
            message: What is wrong: one sentence without a full stop.
            hint: What to do about it; the same.
        """
        return self.page(request, "error.html", status=status, code=status, message=message, hint=hint)


@cache
def environment() -> Environment:
    """Return what all templates of the dashboard share, those of conversations among them. Made once."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader("everturn.service.dashboard"), PackageLoader("everturn.conversations")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        finalize=lambda value: wording.clean(value) if type(value) is str else value,
    )
    made.filters.update(markdown=page.markdown, image=page.image)
    made.tests.update(failed=wording.failed)
    made.globals.update(words=wording, say=words, navigation=NAVIGATION, assets=assets(), charts=charts)
    for name in made.list_templates(extensions=["html"]):
        made.get_template(name)
    return made
