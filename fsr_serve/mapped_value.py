"""Numbers that prometheus_client's metrics count in, in files that other processes read."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from prometheus_client.mmap_dict import MmapedDict, mmap_key


def mapped_values(folder: Path, worker: int) -> type:
    """A `prometheus_client.values.ValueClass` whose numbers are in the files of worker number `worker`.

    The files are as prometheus_client's own class writes them, which at each step asks whether the process was forked
    and looks up the number's place: a request counts thirteen times.
    """
    files: dict[str, MmapedDict] = {}
    lock = Lock()  # batches count in threads

    class MappedValue:
        def __init__(
            self,
            typ: str,
            metric_name: str,
            name: str,
            labelnames: Sequence[str],
            labelvalues: Sequence[str],
            help_text: str,
            multiprocess_mode: str = "",
            **_: Any,
        ) -> None:
            kind = f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ
            key = mmap_key(metric_name, name, list(labelnames), list(labelvalues), help_text)
            with lock:
                if kind not in files:
                    files[kind] = MmapedDict(str(folder / f"{kind}_{worker}.db"))  # type: ignore[no-untyped-call]
                file = files[kind]
                file.read_value(key)  # type: ignore[no-untyped-call]  # makes it where it is not there
                place = file._positions[key]
                self._number = memoryview(file._m)[place : place + 8].cast("d")

        def inc(self, amount: float) -> None:
            with lock:
                self._number[0] += amount

        def set(self, value: float, timestamp: float | None = None) -> None:
            self._number[0] = value

        def get(self) -> float:
            return self._number[0]

        def get_exemplar(self) -> None:
            """Files hold none."""

    return MappedValue
