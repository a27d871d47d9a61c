"""The files in a multipart form (RFC 7578) that is in memory whole, in time that grows with its bytes alone."""

import re
from collections.abc import Iterator

from python_multipart.multipart import parse_options_header

MOST_BOUNDARY = 70
"""Bytes of a boundary (RFC 2046)."""
MOST_HEAD = 4096
"""Bytes of a part's headers."""
MOST_FIELDS = 1000
"""Parts that are no files."""


class MalformedFormError(ValueError):
    """The body is no form; the message says why."""


def files_of(body: bytes, boundary: bytes) -> Iterator[bytes]:
    """The content of each part that has a filename, in order. Raises MalformedFormError, also after some files."""
    if not 1 <= len(boundary) <= MOST_BOUNDARY:
        raise MalformedFormError(
            f"the boundary in Content-Type has {len(boundary)} bytes; expected 1 to {MOST_BOUNDARY}"
        )
    delimiter = re.compile(rb"(?:\A|\r\n)--%b(?:(--)|[ \t]*+(?=\r\n))" % re.escape(boundary))
    start, fields = None, 0
    for found in delimiter.finditer(body):
        if start is not None:
            content = body.find(b"\r\n\r\n", start, found.start())
            if content < 0 or content - start > MOST_HEAD:
                raise MalformedFormError(
                    f"a part has no headers, or more than {MOST_HEAD} bytes of them; expected an empty line after them"
                )
            if _is_file(body[start:content]):
                yield body[content + 4 : found.start()]
            elif (fields := fields + 1) > MOST_FIELDS:
                raise MalformedFormError(f"it has more than {MOST_FIELDS} parts without a filename")
        if found[1]:
            return
        start = found.end()
    raise MalformedFormError("its closing boundary is missing")


def _is_file(head: bytes) -> bool:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            return b"filename" in parse_options_header(value)[1]
    return False
