"""POST /classify: pictures in, labels out."""

import asyncio
from collections.abc import Callable

from starlette.responses import Response

from fsr_serve.classifier import Classifier
from fsr_serve.errors import RequestError
from fsr_serve.http.body import EncodedImages, find_parser, read_body
from fsr_serve.http.responses import AnswerResponse
from fsr_serve.http.served_request import ServedRequest
from fsr_serve.http.waiting import request_timeout, while_connected
from fsr_serve.metrics import Stages
from fsr_serve.schemas import Answer, Prediction, RefusedImage

DEFAULT_TOP_K = 5

PARAMETERS = ("evidence", "model", "top_k", "version")
BOOLEANS = {"true": True, "false": False}


async def classify(request: ServedRequest) -> Response:
    """200 when at least one image is good; else the status and error of the first."""
    return await _answer(request, find_parser(request, request.server.settings))


async def classify_file(request: ServedRequest) -> Response:
    """The body is one image file, whatever its Content-Type says: BentoML's clients call bytes text/plain."""
    return await _answer(request, None)


async def _answer(request: ServedRequest, parse: Callable[[bytes], EncodedImages] | None) -> Response:
    server = request.server
    stages = Stages(server.metrics)
    classifier, top_k, with_evidence = _parameters(request)
    timeout = request_timeout(request, server.settings)
    with stages.time("read"):
        body = await read_body(request, server.settings.max_body_bytes)
    server.check_not_closed()
    deadline = asyncio.get_running_loop().time() + timeout

    async def compute() -> list[Prediction | RequestError]:
        images: EncodedImages = [body] if parse is None else await classifier.parse(parse, body, deadline)
        return await classifier.classify(images, top_k, stages, deadline, request.requester, with_evidence)

    results = await while_connected(request, compute())
    errors = [result for result in results if isinstance(result, RequestError)]
    all_bad = len(errors) == len(results)
    for error in errors[1:] if all_bad else errors:  # the one that is raised is counted where it is answered
        server.metrics.errors.labels(error.code).inc()
    if all_bad:
        raise errors[0]
    answer: Answer = {
        "model": classifier.identity,
        "request_id": request.request_id,
        "predictions": [_entry(result) for result in results],
        "seconds": stages.seconds,
    }
    return AnswerResponse(answer)


def _entry(result: Prediction | RequestError) -> Prediction | RefusedImage:
    if isinstance(result, RequestError):
        return {"error": {"code": result.code, "message": result.message}}
    return result


def _parameters(request: ServedRequest) -> tuple[Classifier, int, bool]:
    """What answers the request, from its start to its end, how many classes it lists, and whether with evidence.

    Raises RequestError 401 or 403 for evidence without a key for it.
    """
    server = request.server
    if not request.scope["query_string"]:
        classifier = server.classifier
        return classifier, min(DEFAULT_TOP_K, len(classifier.classes)), False
    given = request.query_params
    if unknown := sorted(set(given) - set(PARAMETERS)):
        raise RequestError(
            400, "unknown_parameter", f"there is no parameter {unknown[0][:50]!r}; expected {', '.join(PARAMETERS)}"
        )
    for name in given:
        if len(values := given.getlist(name)) > 1:
            found = " and ".join(repr(value[:50]) for value in values[:2])
            raise RequestError(400, "parameter_out_of_range", f"{name} is {found}; expected it once")
    classifier = server.select(given.get("model"), given.get("version"))
    classes = len(classifier.classes)
    top_k = given.get("top_k", str(min(DEFAULT_TOP_K, classes)))
    if top_k not in map(str, range(1, classes + 1)):
        raise RequestError(
            400, "parameter_out_of_range", f"top_k is {top_k[:50]!r}; expected one whole number from 1 to {classes}"
        )
    evidence = given.get("evidence", "false")
    if evidence not in BOOLEANS:
        raise RequestError(
            400, "parameter_out_of_range", f"evidence is {evidence[:50]!r}; expected {' or '.join(BOOLEANS)}"
        )
    if BOOLEANS[evidence]:
        server.keys.check_scope(request.header(b"authorization"), "evidence")
    return classifier, int(top_k), BOOLEANS[evidence]
