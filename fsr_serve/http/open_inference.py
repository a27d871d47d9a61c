"""Open Inference Protocol V2 over REST: what Triton's and KServe's clients speak."""

import asyncio
from functools import partial

import numpy as np
from pydantic_core import to_json
from starlette.responses import JSONResponse, Response

from fsr_serve import __version__
from fsr_serve.artifact import IMAGES, LOGITS
from fsr_serve.classifier import Classifier
from fsr_serve.errors import RequestError
from fsr_serve.http.body import read_body
from fsr_serve.http.open_inference_tensors import InferCall, encode, parse
from fsr_serve.http.responses import AnswerResponse
from fsr_serve.http.served_request import ServedRequest
from fsr_serve.http.waiting import request_timeout, while_connected
from fsr_serve.metrics import Stages
from fsr_serve.preprocessing import Images
from fsr_serve.schemas import InferAnswer, Liveness, ModelMetadata, ModelReadiness, ServerMetadata
from fsr_serve.session import Floats

JSON_BYTES_HEADER = "Inference-Header-Content-Length"
EXTENSIONS = ["binary_tensor_data", "classification"]


async def server_metadata(request: ServedRequest) -> Response:
    answer: ServerMetadata = {"name": "fsr-serve", "version": __version__, "extensions": EXTENSIONS}
    return JSONResponse(answer)


async def server_live(request: ServedRequest) -> Response:
    answer: Liveness = {"live": True}
    return JSONResponse(answer)


async def model_metadata(request: ServedRequest) -> Response:
    classifier = _classifier(request)
    size = classifier.version.manifest.preprocessing
    answer: ModelMetadata = {
        "name": classifier.version.name,
        "versions": [str(classifier.version.version)],
        "platform": f"{classifier.engine['runtime']}_onnx",
        "inputs": [{"name": IMAGES, "datatype": "FP32", "shape": [-1, 3, size.height, size.width]}],
        "outputs": [{"name": LOGITS, "datatype": "FP32", "shape": [-1, len(classifier.classes)]}],
        "parameters": {"sha256": classifier.version.sha256, **classifier.engine},
    }
    return JSONResponse(answer)


async def model_ready(request: ServedRequest) -> Response:
    classifier = _classifier(request)
    await request.server.check_ready()
    answer: ModelReadiness = {"name": classifier.version.name, "ready": True}
    return JSONResponse(answer)


async def infer(request: ServedRequest) -> Response:
    """Logits, or the likeliest classes, of the images in one tensor; one bad image refuses the request."""
    server = request.server
    classifier = _classifier(request)
    stages = Stages(server.metrics)
    timeout = request_timeout(request, server.settings)
    if request.header(b"content-encoding", "identity") != "identity":
        raise RequestError(415, "unsupported_encoding", "the body is compressed; expected it as it is")
    with stages.time("read"):
        body = await read_body(request, server.settings.max_body_bytes)
    server.check_not_closed()
    read_at = asyncio.get_running_loop().time()
    json_bytes = _json_bytes(request, len(body))
    size = classifier.version.manifest.preprocessing

    async def compute() -> tuple[InferCall, Floats]:
        deadline = read_at + timeout
        parse_whole = partial(parse, json_bytes=json_bytes, size=size, max_images=server.settings.max_images)
        call = await classifier.parse(parse_whole, body, deadline)
        server.select(call.request.model_name, None)
        if (asked := call.request.parameters.timeout) is not None:
            deadline = min(deadline, read_at + asked / 1e6)
        return call, await _logits(request, classifier, call.images, stages, deadline)

    call, logits = await while_connected(request, compute())
    tensor, binary = encode(call, logits, classifier.classes)
    answer: InferAnswer = {
        "model_name": classifier.version.name,
        "model_version": str(classifier.version.version),
        "outputs": [tensor],
    }
    if call.request.id is not None:
        answer["id"] = call.request.id
    if not call.is_binary_output:
        return AnswerResponse(answer)
    header = to_json(answer)
    return Response(
        header + binary, media_type="application/octet-stream", headers={JSON_BYTES_HEADER: str(len(header))}
    )


async def _logits(
    request: ServedRequest, classifier: Classifier, images: Images | list[bytes], stages: Stages, deadline: float
) -> Floats:
    if isinstance(images, list):
        pixels = []
        for index, image in enumerate(await classifier.decode(images, stages, deadline)):
            if isinstance(image, RequestError):
                raise RequestError(image.status, image.code, f"image {index}: {image.message}")
            pixels.append(image)
        images = np.stack(pixels)
    else:
        classifier.batcher.admit(len(images), deadline)
    return await classifier.logits(images, stages, deadline, request.requester)


def _classifier(request: ServedRequest) -> Classifier:
    server = request.server
    return server.select(request.path_params["name"], request.path_params.get("version"))


def _json_bytes(request: ServedRequest, body_bytes: int) -> int:
    """How much of the body is JSON: all of it where no header says otherwise."""
    given = request.header(JSON_BYTES_HEADER.lower().encode(), str(body_bytes))
    if not (given.isascii() and given.isdecimal() and len(given) <= 12 and int(given) <= body_bytes):
        raise RequestError(
            400,
            "malformed_request",
            f"{JSON_BYTES_HEADER} is {given[:50]!r}; expected a whole number of at most {body_bytes}, the body's bytes",
        )
    return int(given)
