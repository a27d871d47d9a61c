"""The floor: one Starlette route that decodes, computes and answers in the event loop. No batches, limits, metrics.

It decodes as this server does, by libjpeg without Pillow; the other peers do as their users would.
"""

import numpy as np
import simplejpeg
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.serving.peers.classifier import Classifier

classifier = Classifier()


async def classify(request: Request) -> JSONResponse:
    image = simplejpeg.decode_jpeg(await request.body()).transpose(2, 0, 1) / np.float32(255)
    return JSONResponse({"predictions": classifier.predictions(image[np.newaxis])})


app = Starlette(routes=[Route("/classify", classify, methods=["POST"])])
