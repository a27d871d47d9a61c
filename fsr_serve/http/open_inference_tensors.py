"""Open Inference Protocol V2: bodies -> images, logits -> bodies; JSON and the binary tensor extension.

Sizes are compared with what the model takes before anything of that size is made.
"""

import base64
import binascii
import struct
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fsr_serve.artifact import LOGITS, Preprocessing
from fsr_serve.errors import RequestError
from fsr_serve.http.json_bounds import bound_json
from fsr_serve.preprocessing import Images
from fsr_serve.ranking import likeliest
from fsr_serve.schemas import OutputTensor
from fsr_serve.session import Floats

Datatype = Literal["FP32", "UINT8", "BYTES"]

ITEM_BYTES = {"FP32": 4, "UINT8": 1}

DIMENSIONS = 4

LONGEST_TIMEOUT = 2**63 - 1
"""What Triton's clients can send; far beyond every deadline, and still a number of seconds."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class InputParameters(_Strict):
    binary_data_size: int | None = Field(default=None, ge=0)


class InferInput(_Strict):
    name: Literal["images"]
    shape: list[int] = Field(max_length=DIMENSIONS)
    datatype: Datatype
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = None


class OutputParameters(_Strict):
    binary_data: bool | None = None
    classification: int | None = Field(default=None, ge=1)


class InferOutput(_Strict):
    name: Literal["logits"]
    parameters: OutputParameters = OutputParameters()


class RequestParameters(_Strict):
    binary_data_output: bool = False
    timeout: int | None = Field(default=None, ge=1, le=LONGEST_TIMEOUT)
    """Microseconds, as in Triton."""


class InferRequest(_Strict):
    id: str | None = Field(default=None, max_length=256)
    model_name: str | None = None
    """KServe's client repeats it beside the path."""
    parameters: RequestParameters = RequestParameters()
    inputs: list[InferInput] = Field(min_length=1, max_length=1)
    outputs: list[InferOutput] = Field(default=[], max_length=1)


@dataclass(frozen=True)
class InferCall:
    """What a request asks for: `images` as pixels (n, 3, h, w), or as n encoded files."""

    request: InferRequest
    images: Images | list[bytes]

    @property
    def output(self) -> OutputParameters:
        return self.request.outputs[0].parameters if self.request.outputs else OutputParameters()

    @property
    def is_binary_output(self) -> bool:
        asked = self.output.binary_data
        return self.request.parameters.binary_data_output if asked is None else asked


def parse(body: bytes, json_bytes: int, size: Preprocessing, max_images: int) -> InferCall:
    """Read a body whose first `json_bytes` are JSON and whose rest is the binary tensor, if any."""
    bound_json(
        body,
        images=max_images,
        values=max_images * 3 * size.height * size.width,
        lists=max_images * (3 * size.height + 4),
        keys=0,
        json_bytes=json_bytes,
    )
    try:
        request = InferRequest.model_validate_json(body[:json_bytes])
    except ValidationError as error:
        raise _malformed(
            "; ".join(f"{'.'.join(map(str, part['loc']))[:100]}: {part['msg']}" for part in error.errors()[:3])
        ) from error
    (tensor,) = request.inputs
    _check_shape(tensor, size, max_images)
    binary = memoryview(body)[json_bytes:]
    announced = tensor.parameters.binary_data_size
    if (announced is None) == (tensor.data is None):
        raise _malformed("the input has both data and binary_data_size, or neither; expected one of them")
    if len(binary) != (announced or 0):
        raise _malformed(f"{len(binary)} bytes follow the JSON; expected binary_data_size, which is {announced or 0}")
    if tensor.datatype == "BYTES":
        count = tensor.shape[0]
        files = _base64_files(tensor.data) if tensor.data is not None else _prefixed_files(binary, count)
        if len(files) != count:
            raise _malformed(f"the input holds {len(files)} elements; expected {count}, as its shape says")
        return InferCall(request, files)
    pixels = _from_binary(binary, tensor) if tensor.data is None else _from_numbers(tensor.data, tensor)
    return InferCall(request, pixels)


def encode(call: InferCall, logits: Floats, classes: tuple[str, ...]) -> tuple[OutputTensor, bytes]:
    """The output tensor's JSON and its binary data, which is empty where the JSON holds the data."""
    count = call.output.classification
    values: list[float] | list[str]
    if count is None:
        tensor: OutputTensor = {"name": LOGITS, "datatype": "FP32", "shape": list(logits.shape)}
        values = logits.ravel().tolist() if not call.is_binary_output else []
        binary = logits.astype("<f4").tobytes()
    else:
        tensor = {"name": LOGITS, "datatype": "BYTES", "shape": [len(logits), min(count, len(classes))]}
        values = texts = [
            f"{row[index]:f}:{index}:{classes[index]}" for row in logits for index, _ in likeliest(row, count)
        ]
        binary = b"".join(struct.pack("<I", len(text)) + text for text in map(str.encode, texts))
    if call.is_binary_output:
        return {**tensor, "parameters": {"binary_data_size": len(binary)}}, binary
    return {**tensor, "data": values}, b""


def _check_shape(tensor: InferInput, size: Preprocessing, max_images: int) -> None:
    expected = [size.height, size.width]
    is_right = len(tensor.shape) == 1 if tensor.datatype == "BYTES" else tensor.shape[1:] == [3, *expected]
    if not is_right or not tensor.shape or tensor.shape[0] < 1:
        raise RequestError(
            400,
            "wrong_shape",
            f"{tensor.datatype} images have shape {tensor.shape[:8]}; expected [n, 3, {size.height}, {size.width}] "
            "for FP32 and UINT8, [n] for BYTES",
        )
    if tensor.shape[0] > max_images:
        raise RequestError(
            413, "too_many_images", f"the request holds {tensor.shape[0]} images; at most {max_images} are accepted"
        )


def _from_binary(binary: memoryview, tensor: InferInput) -> Images:
    expected = int(np.prod(tensor.shape)) * ITEM_BYTES[tensor.datatype]
    if len(binary) != expected:
        raise _malformed(f"the binary tensor has {len(binary)} bytes; {tensor.datatype} of its shape has {expected}")
    if tensor.datatype == "UINT8":
        return np.frombuffer(binary, np.uint8).reshape(tensor.shape)
    pixels = np.frombuffer(binary, "<f4").reshape(tensor.shape)
    _check_range(pixels, "FP32")
    return pixels.astype(np.float32, copy=False)


def _check_range(values: npt.NDArray[np.floating], datatype: Datatype) -> None:
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= (1 if datatype == "FP32" else 255)):  # written so that NaN is refused too
        raise _out_of_range(f"from {low:.9g} to {high:.9g}", datatype)


def _from_numbers(data: list[Any], tensor: InferInput) -> Images:
    """Numbers in a flat list or in nested ones."""
    while data and all(type(part) is list for part in data):
        data = list(chain.from_iterable(data))
    expected = int(np.prod(tensor.shape))
    if len(data) != expected:
        raise _malformed(f"the input holds {len(data)} values; its shape has {expected}")
    allowed = {int, float} if tensor.datatype == "FP32" else {int}
    if wrong := set(map(type, data)) - allowed:
        names = ", ".join(sorted(kind.__name__ for kind in wrong))
        raise _malformed(f"the data of a {tensor.datatype} input holds {names}; expected only numbers of that type")
    try:
        numbers = np.array(data, np.float64).reshape(tensor.shape)
    except OverflowError as error:
        raise _out_of_range("beyond float64", tensor.datatype) from error
    _check_range(numbers, tensor.datatype)
    return numbers.astype(np.float32) if tensor.datatype == "FP32" else numbers.astype(np.uint8)


def _base64_files(data: list[Any]) -> list[bytes]:
    try:
        return [base64.b64decode(text, validate=True) for text in data if _is_text(text)]
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, "invalid_base64", f"the data of a BYTES input is not base64: {error}") from error


def _is_text(value: object) -> bool:
    if not isinstance(value, str):
        raise _malformed(f"the data of a BYTES input holds {type(value).__name__}; expected base64 text")
    return True


def _prefixed_files(binary: memoryview, count: int) -> list[bytes]:
    """Each element is four bytes of length, little-endian, and the file."""
    files: list[bytes] = []
    start = 0
    while start < len(binary) and len(files) <= count:
        if len(binary) - start < 4:
            raise _malformed("the binary BYTES tensor ends within a length")
        (length,) = struct.unpack_from("<I", binary, start)
        start += 4
        if length > len(binary) - start:
            raise _malformed(f"an element says it has {length} bytes; {len(binary) - start} are left")
        files.append(bytes(binary[start : start + length]))
        start += length
    return files


def _out_of_range(found: str, datatype: Datatype) -> RequestError:
    expected = "[0, 1]" if datatype == "FP32" else "0..255"
    return RequestError(400, "value_out_of_range", f"the images hold values {found}; expected {expected}")


def _malformed(message: str) -> RequestError:
    return RequestError(400, "malformed_request", f"the inference request cannot be read: {message}")
