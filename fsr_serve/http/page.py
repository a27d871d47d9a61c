"""GET /: a page to try the server with, whole in one file and without anything from elsewhere."""

from functools import cache
from importlib.resources import files

PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: the page talks to its own server alone."""


@cache
def page() -> str:
    return (files(__package__) / "page.html").read_text(encoding="utf-8")
