"""The floor: one Starlette route that decodes, computes and answers in the event loop. No batches, limits, metrics."""

import io

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.serving.peers.classifier import Classifier, pixels

classifier = Classifier()


async def classify(request: Request) -> JSONResponse:
    image = pixels(Image.open(io.BytesIO(await request.body())))
    return JSONResponse({"predictions": classifier.predictions(image[np.newaxis])})


app = Starlette(routes=[Route("/classify", classify, methods=["POST"])])
