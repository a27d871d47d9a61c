"""POST /classify: pictures in, labels out."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fsr_serve.errors import RequestError
from fsr_serve.http.body import read_body, read_images
from fsr_serve.metrics import Stages
from fsr_serve.schemas import Answer, Prediction, RefusedImage
from fsr_serve.server import Server

DEFAULT_TOP_K = 5


async def classify(request: Request) -> Response:
    """200 when at least one image is good; else the status and error of the first."""
    server: Server = request.state.server
    stages = Stages(server.metrics)
    top_k = _top_k(request, len(server.classifier.classes))
    with stages.time("read"):
        images = await read_images(request, server.settings)
    return await _answer(request, images, top_k, stages)


async def classify_file(request: Request) -> Response:
    """The body is one image file, whatever its Content-Type says: BentoML's clients call bytes text/plain."""
    server: Server = request.state.server
    stages = Stages(server.metrics)
    top_k = _top_k(request, len(server.classifier.classes))
    with stages.time("read"):
        image = await read_body(request, server.settings.max_body_bytes)
    return await _answer(request, [image], top_k, stages)


async def _answer(request: Request, images: list[bytes | RequestError], top_k: int, stages: Stages) -> Response:
    server: Server = request.state.server
    results = await run_in_threadpool(server.classifier.classify, images, top_k, stages)
    errors = [result for result in results if isinstance(result, RequestError)]
    if len(errors) == len(results):
        raise errors[0]
    for error in errors:
        server.metrics.errors.labels(error.code).inc()
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
    text = request.query_params.get("top_k", str(min(DEFAULT_TOP_K, classes)))
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= classes):
        raise RequestError(
            400, "parameter_out_of_range", f"top_k is {text[:50]!r}; expected a whole number from 1 to {classes}"
        )
    return int(text[:9])
