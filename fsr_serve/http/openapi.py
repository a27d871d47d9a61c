"""GET /openapi.json: what every route takes and answers, made of the types that the handlers use."""

from functools import cache
from typing import Any

from pydantic import TypeAdapter

from fsr_serve import __version__, schemas
from fsr_serve.http.admin import LoadRequest
from fsr_serve.http.body import IMAGE_TYPES
from fsr_serve.http.open_inference import JSON_BYTES_HEADER
from fsr_serve.http.open_inference_tensors import InferRequest
from fsr_serve.http.openapi_parts import (
    INTERNAL,
    Errors,
    Json,
    Operation,
    header,
    json_content,
    operation,
    path_parameter,
    query,
    reference,
)
from fsr_serve.http.waiting import TIMEOUT_HEADER

SCHEMAS = (
    schemas.OneImage,
    schemas.SeveralImages,
    schemas.Answer,
    schemas.ErrorAnswer,
    schemas.PlainErrorAnswer,
    schemas.Liveness,
    schemas.Readiness,
    schemas.ServerMetadata,
    schemas.ModelMetadata,
    schemas.ModelReadiness,
    InferRequest,
    schemas.InferAnswer,
    schemas.Models,
    LoadRequest,
    schemas.LoadedModel,
)

FILE: Json = {"type": "string", "format": "binary"}

TIMEOUT = header(TIMEOUT_HEADER, {"type": "integer", "minimum": 1}, "Deadline, from the end of the body.")
REQUEST_ID = header("X-Request-ID", {"type": "string"}, "Kept and sent back where it is a plain one.")
QUERY = [
    query("top_k", {"type": "integer", "minimum": 1}, "How many classes are listed; at most all, by default 5."),
    query("model", {"type": "string"}, "Refused with 404 where another one serves."),
    query("version", {"type": "string"}, "Refused with 404 where another one serves."),
    query("evidence", {"type": "boolean"}, "Check each image for attacks; needs a key of the scope evidence."),
]

WAITED: Errors = {
    429: ("bodies_full", "queue_full", "deadline_unreachable", "checks_busy"),
    503: ("draining",),
    504: ("deadline_exceeded",),
}
FILE_FAULTS = ("empty_image", "unreadable_image", "damaged_image")
BODY_FAULTS = ("malformed_multipart", "malformed_json", "invalid_base64", "no_images")
UNKNOWN = ("unknown_model", "unknown_version")
QUERY_FAULTS = ("parameter_out_of_range", "unknown_parameter", "no_checks")


@cache
def document() -> Json:
    """OpenAPI 3.1."""
    _, definitions = TypeAdapter.json_schemas(
        [(kind, "validation", TypeAdapter(kind)) for kind in SCHEMAS], ref_template="#/components/schemas/{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "fsr-serve", "version": __version__, "license": {"name": "MIT"}},
        "paths": {**_classify(), **_open_inference(), **_admin(), **_health()},
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _classify() -> Json:
    def classify(name: str, summary: str, content: Json, faults: Errors) -> Operation:
        return operation(
            name,
            summary,
            schemas.Answer,
            scope="infer",
            parameters=[*QUERY, TIMEOUT, REQUEST_ID],
            content=content,
            errors={404: UNKNOWN, 408: ("body_too_slow",), **faults, **WAITED, **INTERNAL},
        )

    image: Json = {"schema": FILE}
    form = {"type": "object", "properties": {"image": {"type": "array", "items": FILE, "minItems": 1}}}
    several = {
        **dict.fromkeys(IMAGE_TYPES, image),
        "multipart/form-data": {"schema": form},
        **json_content({"anyOf": [reference(schemas.OneImage), reference(schemas.SeveralImages)]}),
    }
    too_large = ("body_too_large", "image_too_large", "too_many_pixels")
    return {
        "/classify": {
            "post": classify(
                "classify",
                "Classify one or several images; every part of a form that has a filename is one",
                several,
                {
                    400: (*FILE_FAULTS, *BODY_FAULTS, *QUERY_FAULTS, "incomplete_body"),
                    413: (*too_large, "too_many_images", "too_many_values"),
                    415: ("unsupported_content_type",),
                },
            )
        },
        "/bentoml/classify": {
            "post": classify(
                "classify_file",
                "Classify one image file, whatever its Content-Type: for BentoML's own clients",
                dict.fromkeys(("application/octet-stream", *IMAGE_TYPES), image),
                {400: (*FILE_FAULTS, *QUERY_FAULTS, "incomplete_body"), 413: too_large},
            )
        },
    }


def _open_inference() -> Json:
    def get(name: str, summary: str, answer: type, parameters: list[Json], *statuses: int) -> Json:
        return {
            "get": operation(
                name,
                summary,
                answer,
                scope="infer",
                parameters=[*parameters, REQUEST_ID],
                errors=dict.fromkeys((*statuses, 500), ()),
                is_plain=True,
            )
        }

    paths = {"/v2": get("server_metadata", "What the server is", schemas.ServerMetadata, [])}
    for route, suffix, names in (
        ("/v2/models/{name}", "", ("name",)),
        ("/v2/models/{name}/versions/{version}", "_version", ("name", "version")),
    ):
        parameters = [path_parameter(name) for name in names]
        paths[route] = get(f"model{suffix}_metadata", "Inputs and outputs", schemas.ModelMetadata, parameters, 404)
        paths[f"{route}/ready"] = get(
            f"model{suffix}_ready", "200 when it serves, as /readyz", schemas.ModelReadiness, parameters, 404, 503
        )
        paths[f"{route}/infer"] = {"post": _infer(f"infer{suffix}", parameters)}
    return paths


def _infer(name: str, parameters: list[Json]) -> Operation:
    json_bytes = header(
        JSON_BYTES_HEADER, {"type": "integer", "minimum": 0}, "Bytes of JSON before the binary tensor; all by default."
    )
    statuses = (400, 404, 408, 413, 415, 429, 500, 503, 504)
    found = operation(
        name,
        "Logits, or the likeliest classes, of the images in one tensor",
        schemas.InferAnswer,
        scope="infer",
        parameters=[*parameters, json_bytes, TIMEOUT, REQUEST_ID],
        content={**json_content(reference(InferRequest)), "application/octet-stream": {"schema": FILE}},
        errors=dict.fromkeys(statuses, ()),
        is_plain=True,
    )
    found["responses"]["200"]["content"]["application/octet-stream"] = {"schema": FILE}
    return found


def _admin() -> Json:
    def change(name: str, summary: str, faults: Errors, content: Json | None = None) -> Json:
        errors: Errors = {
            400: ("malformed_request", "incomplete_body"),
            408: ("body_too_slow",),
            413: ("body_too_large",),
            429: ("bodies_full",),
            **faults,
            **INTERNAL,
            503: ("draining", "state_unwritable"),
            504: ("workers_did_not_follow",),
        }
        return {
            "post": operation(
                name,
                summary,
                schemas.LoadedModel,
                scope="admin",
                parameters=[path_parameter("name"), REQUEST_ID],
                content=content,
                is_content_needed=False,
                errors=errors,
            )
        }

    return {
        "/admin/models": {
            "get": operation(
                "admin_models",
                "Which versions there are, and which one every worker serves",
                schemas.Models,
                scope="admin",
                parameters=[REQUEST_ID],
                errors=INTERNAL,
            )
        },
        "/admin/models/{name}/load": change(
            "load",
            "Serve a version, by default the greatest; a bad one is refused and nothing changes",
            {404: UNKNOWN, 409: ("busy", "bad_version")},
            json_content(reference(LoadRequest)),
        ),
        "/admin/models/{name}/rollback": change(
            "rollback",
            "Serve the version before; the body is empty",
            {404: UNKNOWN, 409: ("busy", "bad_version", "no_previous")},
        ),
    }


def _health() -> Json:
    unready = {503: ("draining", "not_ready")}
    text: Any = {"text/plain": {"schema": {"type": "string"}}}
    html: Any = {"text/html": {"schema": {"type": "string"}}}
    any_object: Any = {"application/json": {"schema": {"type": "object"}}}
    ready = operation("ready", "200 when requests should come here", schemas.Readiness, errors=unready)
    return {
        "/livez": {"get": operation("live", "200 when the process lives", schemas.Liveness)},
        "/readyz": {"get": ready},
        "/v2/health/live": {
            "get": operation(
                "server_live",
                "As /livez",
                schemas.Liveness,
                parameters=[REQUEST_ID],
                errors={500: ()},
                is_plain=True,
            )
        },
        "/v2/health/ready": {
            "get": operation(
                "server_ready",
                "As /readyz",
                schemas.Readiness,
                parameters=[REQUEST_ID],
                errors={500: (), 503: ()},
                is_plain=True,
            )
        },
        "/metrics": {"get": operation("metrics", "Prometheus text, all workers together", text, scope="metrics")},
        "/": {"get": operation("page", "A page to try the server with", html)},
        "/openapi.json": {"get": operation("openapi", "This document", any_object)},
    }
