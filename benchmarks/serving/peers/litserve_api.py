"""LitServe as its documentation has it: a LitAPI with batching, one server process, one worker. argv[1] is the port."""

import sys

import litserve
import numpy as np
from fastapi import Request
from PIL import Image

from benchmarks.serving.peers.classifier import Classifier, pixels


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.classifier = Classifier()

    def decode_request(self, request: Request) -> np.ndarray:  # the annotation makes LitServe take forms
        return pixels(Image.open(request["image"].file))

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> list[dict]:
        return self.classifier.predictions(x)

    def unbatch(self, output: list[dict]) -> list[dict]:
        return output

    def encode_response(self, output: dict) -> dict:
        return {"predictions": [output]}


if __name__ == "__main__":
    server = litserve.LitServer(Api(max_batch_size=64), accelerator="cpu", timeout=120)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
