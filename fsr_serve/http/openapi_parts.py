"""The parts of an OpenAPI document: operations, answers, errors, parameters."""

from collections.abc import Mapping
from typing import Any

from fsr_serve.keys import OPEN_WITHOUT_KEYS, Scope
from fsr_serve.schemas import ErrorAnswer, PlainErrorAnswer

Json = dict[str, Any]
Operation = Json

Errors = Mapping[int, tuple[str, ...]]
"""The codes that a status may come with."""

INTERNAL: Errors = {500: ("internal",)}

OF_KEYS: Errors = {401: ("unknown_key",), 403: ("missing_scope", "no_keys"), 429: ("rate_limited",)}

TITLES = {
    400: "The body, a header or the query is not as it must be",
    401: "A key is needed and none that is known was given",
    403: "The key is not for this, or this always needs a key",
    404: "It is not loaded, or there is none",
    408: "The body was not complete in time",
    409: "It cannot be done now; nothing changed",
    413: "A limit of the server is exceeded",
    415: "The body is of another type",
    429: "Too much at once; Retry-After says when to come back",
    500: "A fault of the server",
    503: "Not now",
    504: "It was not done in time",
}

SECONDS: Json = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}


def operation(
    name: str,
    summary: str,
    answer: type | Json,
    *,
    scope: Scope | None = None,
    parameters: list[Json] | None = None,
    content: Json | None = None,
    is_content_needed: bool = True,
    errors: Errors | None = None,
    is_plain: bool = False,
) -> Operation:
    """One method of a path. `answer` is a type or, where it is no JSON, its content; `content` that of the body."""
    found: Operation = {"operationId": name, "summary": summary}
    if parameters:
        found["parameters"] = parameters
    if content is not None:
        found["requestBody"] = {"required": is_content_needed, "content": content}
    if scope is not None:
        found["security"] = [{"key": [scope]}, *([{}] if scope in OPEN_WITHOUT_KEYS else [])]
    all_errors = _together(errors or {}, OF_KEYS if scope is not None else {})
    responses = {str(status): _error(status, codes, is_plain) for status, codes in sorted(all_errors.items())}
    content_of_answer = answer if isinstance(answer, dict) else json_content(reference(answer))
    found["responses"] = {"200": {"description": summary, "content": content_of_answer}, **responses}
    return found


def json_content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def reference(kind: type) -> Json:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def header(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "header", "schema": schema, "description": description}


def query(name: str, schema: Json, description: str) -> Json:
    return {**header(name, schema, description), "in": "query"}


def path_parameter(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _together(some: Errors, others: Errors) -> Errors:
    return {status: (*some.get(status, ()), *others.get(status, ())) for status in {*some, *others}}


def _error(status: int, codes: tuple[str, ...], is_plain: bool) -> Json:
    schema = reference(PlainErrorAnswer if is_plain else ErrorAnswer)
    if not is_plain:
        code: Json = {"properties": {"code": {"enum": list(codes)}}}
        schema = {"allOf": [schema, {"properties": {"error": code}}]}
    found: Json = {"description": TITLES[status], "content": json_content(schema)}
    if status == 429:
        found["headers"] = SECONDS
    return found
