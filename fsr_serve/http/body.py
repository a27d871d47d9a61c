"""The images in a request body: raw, multipart or JSON, read within bounds."""

import asyncio
import base64
import binascii
from collections.abc import Callable
from itertools import islice

from pydantic_core import from_json
from python_multipart.multipart import parse_options_header

from fsr_serve.errors import RequestError
from fsr_serve.http.form import MalformedFormError, files_of
from fsr_serve.http.json_bounds import bound_json
from fsr_serve.http.served_request import ServedRequest
from fsr_serve.settings import Settings

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp")
READ_SECONDS = 30.0
"""How long a body may take to arrive."""

ACCEPTED = f"{', '.join(IMAGE_TYPES)}, multipart/form-data or application/json"

EncodedImages = list[bytes | RequestError]
"""In order; what is no image for a reason that is known already is the error that says why."""


def find_parser(request: ServedRequest, settings: Settings) -> Callable[[bytes], EncodedImages] | None:
    """What finds the images in the body of a request, and takes a while; None where the body is one image.

    It raises RequestError when the body as a whole is refused. Raises RequestError for a Content-Type that is none.
    """
    content_type, options = parse_options_header(request.header(b"content-type"))
    kind = content_type.decode("latin-1")
    if kind in IMAGE_TYPES:
        return None
    if kind == "multipart/form-data":
        boundary = options.get(b"boundary", b"")
        return lambda body: _at_least_one(_form_images(body, boundary, settings.max_images))
    if kind == "application/json":
        return lambda body: _at_least_one(_json_images(body, settings))
    found = f"is {kind[:100]!r}" if kind else "is missing"
    raise RequestError(415, "unsupported_content_type", f"Content-Type {found}; expected {ACCEPTED}")


async def read_body(request: ServedRequest, max_bytes: int) -> bytes:
    """The whole body. Raises RequestError as soon as more than `max_bytes` are announced or received, or it is late.

    Raises RejectedError where the worker has no room for what comes. `request.body_ended` says afterwards whether the
    end of the body was seen.
    """
    announced = request.header(b"content-length", "0")
    if announced.isdecimal() and int(announced[:18]) > max_bytes:
        raise _too_large(announced[:18], max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            while not request.body_ended:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise RequestError(400, "incomplete_body", f"the client left after {len(body)} bytes of the body")
                request.body_ended = not message.get("more_body", False)
                chunk = message.get("body", b"")
                if len(body) + len(chunk) > max_bytes:
                    raise _too_large(f"more than {max_bytes}", max_bytes)
                request.hold(len(chunk))
                body += chunk
    except TimeoutError as error:
        raise RequestError(
            408, "body_too_slow", f"after {READ_SECONDS:g} seconds {len(body)} bytes of the body had come; expected all"
        ) from error
    return bytes(body)


def _at_least_one(images: EncodedImages) -> EncodedImages:
    if not images:
        raise RequestError(400, "no_images", "the request holds no image; expected at least one")
    return images


def _form_images(body: bytes, boundary: bytes, max_images: int) -> EncodedImages:
    try:
        images: EncodedImages = list(islice(files_of(body, boundary), max_images + 1))
    except MalformedFormError as error:
        raise RequestError(400, "malformed_multipart", f"the multipart body cannot be read: {error}") from error
    if len(images) > max_images:
        raise _too_many_images(f"more than {max_images}", max_images)
    return images


def _json_images(body: bytes, settings: Settings) -> EncodedImages:
    bound_json(body, images=settings.max_images, values=settings.max_images, lists=1, keys=0)
    try:
        content = from_json(body)
    except ValueError as error:
        raise RequestError(400, "malformed_json", f"the body is not JSON: {error}") from error
    match content:
        case {"image": str(image), **others} if not others:
            return [_base64(image)]
        case {"images": list(images), **others} if not others and all(isinstance(image, str) for image in images):
            if len(images) > settings.max_images:
                raise _too_many_images(str(len(images)), settings.max_images)
            return [_base64(image) for image in images]
    keys = ", ".join(repr(key[:50]) for key in list(content)[:5]) if isinstance(content, dict) else ""
    found = f"an object with {keys}" if keys else type(content).__name__
    raise RequestError(
        400, "malformed_json", f'the JSON body is {found}; expected {{"image": base64}} or {{"images": [base64, ...]}}'
    )


def _base64(text: str) -> bytes | RequestError:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        return RequestError(400, "invalid_base64", f"the image {text[:20]!r}... is not base64: {error}")


def _too_large(found: str, max_bytes: int) -> RequestError:
    return RequestError(413, "body_too_large", f"the body has {found} bytes; at most {max_bytes} are accepted")


def _too_many_images(found: str, max_images: int) -> RequestError:
    return RequestError(413, "too_many_images", f"the request holds {found} images; at most {max_images} are accepted")
