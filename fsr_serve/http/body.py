"""The images in a request body: raw, multipart or JSON, read within bounds."""

import base64
import binascii
from collections.abc import AsyncGenerator

from pydantic_core import from_json
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from fsr_serve.errors import RequestError
from fsr_serve.settings import Settings

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp")
ACCEPTED = f"{', '.join(IMAGE_TYPES)}, multipart/form-data or application/json"


async def read_images(request: Request, settings: Settings) -> list[bytes | RequestError]:
    """The encoded images of a request, in order; base64 that cannot be decoded becomes an error in its place.

    Raises RequestError when the body as a whole is refused.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type in IMAGE_TYPES:
        return [await read_body(request, settings.max_body_bytes)]
    if content_type == "multipart/form-data":
        body = await read_body(request, settings.max_body_bytes)
        images: list[bytes | RequestError] = list(await _multipart(request.headers, body, settings))
    elif content_type == "application/json":
        images = _json(await read_body(request, settings.max_body_bytes))
    else:
        found = f"is {content_type!r}" if content_type else "is missing"
        raise RequestError(415, "unsupported_content_type", f"Content-Type {found}; expected {ACCEPTED}")
    if not images:
        raise RequestError(400, "no_images", "the request holds no image; expected at least one")
    if len(images) > settings.max_images:
        raise _too_many_images(len(images), settings)
    return images


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. Raises RequestError as soon as more than `max_bytes` are announced or received.

    `request.state.body_ended` says afterwards whether the end of the body was seen.
    """
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(announced, max_bytes)
    body = bytearray()
    while not request.state.body_ended:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "incomplete_body", f"the client left after {len(body)} bytes of the body")
        request.state.body_ended = not message.get("more_body", False)
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise _too_large("more", max_bytes)
    return bytes(body)


async def _multipart(headers: Headers, body: bytes, settings: Settings) -> list[bytes]:
    """The parts that have a filename."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    _, options = parse_options_header(headers["content-type"])
    if b"--" + options.get(b"boundary", b"") + b"--" not in body:
        raise RequestError(400, "malformed_multipart", "the multipart body cannot be read: no closing boundary")
    parser = MultiPartParser(
        headers, stream(), max_files=settings.max_images, max_fields=settings.max_images, max_part_size=2**20
    )
    parser.spool_max_size = len(body)  # the body is in memory already; nothing is gained by a file
    try:
        form = await parser.parse()
        return [await part.read() for _, part in form.multi_items() if isinstance(part, UploadFile)]
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise _too_many_images("more", settings) from error
        raise RequestError(400, "malformed_multipart", f"the multipart body cannot be read: {error.message}") from error
    except (KeyError, ValueError) as error:
        raise RequestError(400, "malformed_multipart", f"the multipart body cannot be read: {error}") from error


def _json(body: bytes) -> list[bytes | RequestError]:
    try:
        content = from_json(body)
    except ValueError as error:
        raise RequestError(400, "malformed_json", f"the body is not JSON: {error}") from error
    match content:
        case {"image": str(image), **others} if not others:
            return [_base64(image)]
        case {"images": list(images), **others} if not others and all(isinstance(image, str) for image in images):
            return [_base64(image) for image in images]
    found = f"an object with {', '.join(map(repr, content))}" if isinstance(content, dict) else type(content).__name__
    raise RequestError(
        400,
        "malformed_json",
        f'the JSON body is {found[:200]}; expected {{"image": base64}} or {{"images": [base64, ...]}}',
    )


def _base64(text: str) -> bytes | RequestError:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        return RequestError(400, "invalid_base64", f"the image {text[:20]!r}... is not base64: {error}")


def _too_large(found: str, max_bytes: int) -> RequestError:
    return RequestError(413, "body_too_large", f"the body has {found} bytes; at most {max_bytes} are accepted")


def _too_many_images(found: int | str, settings: Settings) -> RequestError:
    return RequestError(
        413, "too_many_images", f"the request holds {found} images; at most {settings.max_images} are accepted"
    )
