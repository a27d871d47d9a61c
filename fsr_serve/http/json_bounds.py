"""JSON is bounded before it becomes objects, which take far more memory and time than its text."""

from fsr_serve.errors import RequestError

SPARE = 100
"""Beyond what the images need: for the other keys of a request, and so that one image too many is told as such."""


def bound_json(body: bytes, *, images: int, values: int, lists: int, keys: int, json_bytes: int | None = None) -> None:
    """Raises RequestError when the JSON holds more values, lists or keys than the most `images` need.

    Each that is wrong becomes a message of the validation. `json_bytes`: how much of the body is JSON; all by default.
    """
    for character, needed in ((b",", values), (b"[", lists), (b"{", 0), (b":", keys)):
        found = body.count(character, 0, json_bytes)
        if found > needed + SPARE:
            raise RequestError(
                413,
                "too_many_values",
                f"the JSON has {found} times {character.decode()!r}; {images} images have at most {needed + SPARE}",
            )
