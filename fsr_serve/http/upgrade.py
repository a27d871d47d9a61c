"""Offers to go on in another protocol are passed over, as RFC 9110 allows (7.8).

httptools ends a request that makes one at its head, and leaves what follows, its body included, to that protocol.
"""

from httptools import HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def pass_over(connection: HttpToolsProtocol) -> None:
    """Give the connection a parser that has read the same head without the offer, and expects the body.

    Raises HttpParserUpgrade where that ends there too: after CONNECT, which is no offer.
    """
    head = _without_offer(connection)
    connection.parser = HttpRequestParser(connection)
    connection.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
    connection.parser.feed_data(head)


def _without_offer(connection: HttpToolsProtocol) -> bytes:
    parser = connection.parser
    start = b"%b %b HTTP/%b" % (parser.get_method(), connection.url, parser.get_http_version().encode())
    lines = [b"%b: %b" % header for header in connection.headers if header[0] != b"upgrade"]
    return b"\r\n".join([start, *lines, b"", b""])
