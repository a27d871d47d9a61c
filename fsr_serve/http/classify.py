"""POST /classify: pictures in, labels out."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fsr_serve.errors import RequestError
from fsr_serve.http.body import read_body, read_images
from fsr_serve.http.waiting import request_timeout, while_connected
from fsr_serve.metrics import Stages
from fsr_serve.schemas import Answer, Prediction, RefusedImage
from fsr_serve.server import Server

DEFAULT_TOP_K = 5


async def classify(request: Request) -> Response:
    """200 when at least one image is good; else the status and error of the first."""
    server: Server = request.state.server
    stages = Stages(server.metrics)
    top_k = _top_k(request, len(server.classifier.classes))
    timeout = request_timeout(request, server.settings)
    with stages.time("read"):
        images = await read_images(request, server.settings)
    return await _answer(request, images, top_k, stages, timeout)


async def classify_file(request: Request) -> Response:
    """The body is one image file, whatever its Content-Type says: BentoML's clients call bytes text/plain."""
    server: Server = request.state.server
    stages = Stages(server.metrics)
    top_k = _top_k(request, len(server.classifier.classes))
    timeout = request_timeout(request, server.settings)
    with stages.time("read"):
        image = await read_body(request, server.settings.max_body_bytes)
    return await _answer(request, [image], top_k, stages, timeout)


async def _answer(
    request: Request, images: list[bytes | RequestError], top_k: int, stages: Stages, timeout: float
) -> Response:
    server: Server = request.state.server
    results = await while_connected(request, server.classifier.classify(images, top_k, stages, timeout))
    errors = [result for result in results if isinstance(result, RequestError)]
    all_bad = len(errors) == len(results)
    for error in errors[1:] if all_bad else errors:  # the one that is raised is counted where it is answered
        server.metrics.errors.labels(error.code).inc()
    if all_bad:
        raise errors[0]
    answer: Answer = {
        "model": server.classifier.identity,
        "request_id": request.state.request_id,
        "predictions": [_entry(result) for result in results],
        "seconds": stages.seconds,
    }
    return JSONResponse(answer)


def _entry(result: Prediction | RequestError) -> Prediction | RefusedImage:
    if isinstance(result, RequestError):
        return {"error": {"code": result.code, "message": result.message}}
    return result


def _top_k(request: Request, classes: int) -> int:
    unknown = sorted(set(request.query_params) - {"top_k"})
    if unknown:
        raise RequestError(400, "unknown_parameter", f"there is no parameter {unknown[0][:50]!r}; expected top_k")
    given = request.query_params.getlist("top_k") or [str(min(DEFAULT_TOP_K, classes))]
    if len(given) > 1 or given[0] not in map(str, range(1, classes + 1)):
        found = " and ".join(repr(text[:50]) for text in given[:2])
        raise RequestError(
            400, "parameter_out_of_range", f"top_k is {found}; expected one whole number from 1 to {classes}"
        )
    return int(given[0])
