"""Clients of a real server that keep count of what they lost."""

import http.client
import json
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Seen:
    """`statuses` of the answers, `lost` requests that were sent and never answered, `versions` that answered."""

    statuses: Counter = field(default_factory=Counter)
    versions: Counter = field(default_factory=Counter)
    wrong: list = field(default_factory=list)
    lost: int = 0


class Client:
    """One client with one connection at a time, which asks again and again."""

    def __init__(self, address, body, headers, is_right):
        self._host = urlsplit(address).netloc
        self._body = body
        self._headers = {"Content-Type": "image/png", **headers}
        self._is_right = is_right
        self.seen = Seen()

    def ask_until(self, stop):
        connection = http.client.HTTPConnection(self._host, timeout=60)
        while not stop.is_set():
            try:
                connection.request("POST", "/classify", self._body, self._headers)
                response = connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException):
                self.seen.lost += 1
                connection.close()
                continue
            self.seen.statuses[response.status] += 1
            if response.status == 200:
                answer = json.loads(text)
                self.seen.versions[answer["model"]["version"]] += 1
                if not self._is_right(answer):
                    self.seen.wrong.append(answer)
        connection.close()


@contextmanager
def load_of(address, body, clients, headers, is_right=lambda answer: True):
    """While the block runs, `clients` ask; the list of what each has seen is whole after it. `stop` ends them early."""
    stop = threading.Event()
    crowd = [Client(address, body, headers, is_right) for _ in range(clients)]
    threads = [threading.Thread(target=client.ask_until, args=[stop]) for client in crowd]
    for thread in threads:
        thread.start()
    try:
        yield [client.seen for client in crowd], stop
    finally:
        stop.set()
        for thread in threads:
            thread.join()
