"""python -m benchmarks.training: what a step of adversarial training costs, against the paper's way written out.

Each row times two calls alternately in one run, on random images: pairs, of which the median ratio and its quartiles
are reported. Absolute times are of this machine, ratios travel better.
"""

import dataclasses
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from training.augmentation import augment
from training.batches import Data, shuffled_batches
from training.checkpoint import ModelConfig, RunConfig
from training.data import ImageData
from training.device import Device, pick_device
from training.environment import environment
from training.models import FSRNet, create_model
from training.processes import ALONE
from training.recipes import RECIPES
from training.state import State
from training.train import train_epoch

PAPER = RECIPES["paper"]
SIDE = 32
CLASSES = tuple("0123456789")
EPOCH_IMAGES = 47_500
"""Of CIFAR-10 without the held-out ones."""
INSTRUCTIONS = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16")
MATRIX_SIDE = 8192


@dataclass(frozen=True)
class Arguments:
    """Time a step of ResNet-18 with FSR under the recipe `paper` (PGD-10) against other ways to take it."""

    pairs: int = 20
    """Alternated pairs per row."""
    batch: int = 128
    width: int = 64
    """Of ResNet-18; 64 is the paper's."""
    threads: int | None = None
    """All cores by default."""


class FSRAsWritten(nn.Module):
    """FSR as section 3 has it: Eq. 2 with two noises and a softmax over both scores, f+, f- and f~- each made.

    At test time both u are 1/2. `heads` holds the auxiliary logits of the latest pass.
    """

    def __init__(self, fsr: nn.Module) -> None:
        super().__init__()
        self.fsr = fsr
        self.heads: tuple[Tensor, Tensor, Tensor]

    def forward(self, features: Tensor) -> Tensor:
        robust_score = torch.sigmoid(self.fsr.separation.score(features))
        uniform = [torch.rand_like(features) if self.training else torch.full_like(features, 0.5) for _ in range(2)]
        noisy = [
            torch.log(score + 1e-8) - torch.log(-torch.log(u + 1e-8) + 1e-8)
            for score, u in zip((robust_score, 1 - robust_score), uniform, strict=True)
        ]
        mask = torch.softmax(torch.stack(noisy) / self.fsr.separation.tau, dim=0)[0]
        robust, nonrobust = features * mask, features * (1 - mask)
        recalibrated = nonrobust + (1 - mask) * self.fsr.recalibration(nonrobust)
        robust_logits, nonrobust_logits, recalibrated_logits = (
            self.fsr.auxiliary(part.mean(dim=(2, 3))) for part in (robust, nonrobust, recalibrated)
        )
        self.heads = (robust_logits, nonrobust_logits, recalibrated_logits)
        return robust + recalibrated


class AsWritten:
    """A step of the paper's way: float32, NCHW, weights that require gradients throughout, every head in every pass."""

    def __init__(self, width: int, batch: int, device: torch.device) -> None:
        torch.manual_seed(0)
        network = create_model("resnet18", width=width).network
        self.fsr = FSRAsWritten(network.layer4[1])
        network.layer4[1] = self.fsr
        self.network = network.to(device)
        self.optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        self.images = torch.rand(batch, 3, SIDE, SIDE, device=device)
        self.labels = torch.randint(len(CLASSES), (batch,), device=device)

    def step(self) -> None:
        attacked = self._attacked()
        self.network.train()
        logits = self.network(attacked)
        mistake = logits.detach().scatter(1, self.labels[:, None], -torch.inf).argmax(dim=1)
        robust, nonrobust, recalibrated = self.fsr.heads
        separation = F.cross_entropy(robust, self.labels) + F.cross_entropy(nonrobust, mistake)  # Eq. 3
        recalibration = F.cross_entropy(recalibrated, self.labels)  # Eq. 4
        loss = F.cross_entropy(logits, self.labels) + separation + recalibration  # Eq. 5
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _attacked(self) -> Tensor:
        epsilon, step_size = PAPER.epsilon, PAPER.step_size
        self.network.eval()
        attacked = (self.images + torch.empty_like(self.images).uniform_(-epsilon, epsilon)).clamp(0, 1)
        for _ in range(PAPER.pgd_steps):
            attacked = attacked.detach().requires_grad_()
            loss = F.cross_entropy(self.network(attacked), self.labels)
            (gradient,) = torch.autograd.grad(loss, attacked)
            moved = attacked.detach() + step_size * gradient.sign()
            attacked = moved.clamp(self.images - epsilon, self.images + epsilon).clamp(0, 1)
        return attacked.detach()


class Ours:
    """A step of `train_epoch`: an epoch of a single batch, its reading and augmentation included."""

    def __init__(self, width: int, batch: int, device: Device, *, fsr: bool = True) -> None:
        torch.manual_seed(0)
        pixels = torch.randint(256, (batch, 3, SIDE, SIDE), dtype=torch.uint8)
        images = ImageData(pixels, torch.randint(len(CLASSES), (batch,)), CLASSES)
        self.recipe = dataclasses.replace(PAPER, batch_size=batch)
        self.device = device
        self.data = Data(images, images).scaled(1.0, device)
        config = RunConfig(
            model=ModelConfig("resnet18", len(CLASSES), fsr, width, tau=0.1),
            recipe_name="paper",
            recipe=self.recipe,
            start=None,
            data="random",
            data_name="random",
            data_sha256="",
            classes=CLASSES,
            image_shape=(SIDE, SIDE),
            seed=0,
        )
        self.state = State.create(config, device, ALONE)
        self.order = torch.Generator().manual_seed(0)

    def step(self) -> None:
        with self.device.training():
            train_epoch(
                self.state,
                self.data,
                self.recipe,
                1,
                self.recipe.pgd_steps,
                self.order,
                self.device,
                ALONE,
                lambda epoch, images, means: None,
            )

    def read(self) -> None:
        """The input pipeline of a step alone."""
        for pixels, labels in shuffled_batches(self.data, self.recipe, self.order, ALONE):
            place = self.device.torch_device
            augmented, _ = augment(pixels.to(place), labels.to(place), len(CLASSES), self.recipe, 1.0)
            self.device.place_images(augmented, self.state.model)


class Row(NamedTuple):
    """Two calls to compare: the ratio is time of `candidate` over time of `reference`."""

    name: str
    wanted: str
    candidate: Callable[[], object]
    reference: Callable[[], object]


class Measured(NamedTuple):
    """Seconds of each call, pair by pair."""

    candidate: list[float]
    reference: list[float]

    @property
    def ratio(self) -> tuple[float, float, float]:
        """The quartiles of the pairs' ratios."""
        return quartiles([one / other for one, other in zip(self.candidate, self.reference, strict=True)])


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m benchmarks.training")
    if arguments.pairs < 1:
        sys.exit(f"error: pairs is {arguments.pairs}; expected 1 or more")
    warnings.filterwarnings("ignore")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    for line in report(arguments):
        print(line, flush=True)


def report(arguments: Arguments) -> Iterator[str]:
    """Lines of Markdown, each as soon as it is measured."""
    device = pick_device()
    noted = environment(device, ALONE)
    yield f"{noted['gpu'] or noted['processor']} ({', '.join(instructions())}), {torch.get_num_threads()} threads,"
    yield f"torch {torch.__version__}, Python {platform.python_version()}, ours in {noted['format']};"
    yield f"ResNet-18 of width {arguments.width}, PGD-10, batch {arguments.batch}, {arguments.pairs} alternated pairs"
    yield "per row. Times are of whole training steps, but for those of the input pipeline."
    yield ""
    yield "| candidate / reference | ratio of times: median (quartiles) | wanted | images/s | of the reference |"
    yield "|---|---|---|---|---|"
    ours = Ours(arguments.width, arguments.batch, device)
    for row in rows(arguments, ours, device):
        yield line(row, measured(row, arguments.pairs, device), arguments.batch)
    yield ""
    yield from cuda_rows(arguments, ours, device)


def rows(arguments: Arguments, ours: Ours, device: Device) -> list[Row]:
    width, batch = arguments.width, arguments.batch
    written = AsWritten(width, batch, device.torch_device)
    plain = Ours(width, batch, device, fsr=False)
    return [
        Row("the paper's way, float32 NCHW / ours", speedup_wanted(device), written.step, ours.step),
        Row("AT+FSR / AT", "<= 1.10 on a CPU", ours.step, plain.step),
        Row("input pipeline / step", "<= 0.03", ours.read, ours.step),
    ]


def speedup_wanted(device: Device) -> str:
    if device.is_cuda or device.dtype is torch.bfloat16:
        return ">= 3.3"
    return f"none: no AMX or AVX-512-BF16, only {', '.join(instructions())}"


def instructions() -> list[str]:
    """Of `INSTRUCTIONS` those that this processor has."""
    capabilities = torch.cpu.get_capabilities()
    return [name for name in INSTRUCTIONS if capabilities.get(name)]


def cuda_rows(arguments: Arguments, ours: Ours, device: Device) -> Iterator[str]:
    """Speed on a GPU, and its share of the bfloat16 matrix peak measured there and then."""
    yield "| on a GPU | |"
    yield "|---|---|"
    if not device.is_cuda:
        yield "| images/s, epoch seconds, share of the bf16 matrix peak | not run: no CUDA device |"
        return
    low, seconds, high = quartiles([timed(ours.step, device) for _ in range(arguments.pairs)])
    images_per_second = arguments.batch / seconds
    peak, forward = matrix_peak(device), forward_flop(ours.state.model)
    passes = 3 * (PAPER.pgd_steps + 1)  # forward, gradient of the features, gradient of the weights
    needed = 2 * PAPER.pgd_steps + 3  # an attack needs no gradient of the weights
    share, share_needed = (n * forward * images_per_second / peak for n in (passes, needed))
    slowest, fastest = arguments.batch / high, arguments.batch / low
    yield f"| images/s (quartiles) | {images_per_second:.0f} ({slowest:.0f} - {fastest:.0f}) |"
    yield f"| seconds of an epoch of {EPOCH_IMAGES} images | {EPOCH_IMAGES / images_per_second:.1f} |"
    yield f"| bf16 matrix peak, side {MATRIX_SIDE}, TFLOP/s | {peak / 1e12:.0f} |"
    yield f"| share of it: {passes} x {forward / 1e9:.2f} GFLOP per image | {share:.1%} |"
    yield f"| the same, {needed} passes without the attack's gradients of weights | {share_needed:.1%} |"


def matrix_peak(device: Device) -> float:
    """FLOP/s of a bfloat16 product of two square matrices, the median of 20."""
    left, right = torch.randn(2, MATRIX_SIDE, MATRIX_SIDE, device=device.torch_device, dtype=torch.bfloat16)
    timed(lambda: left @ right, device)
    return 2 * MATRIX_SIDE**3 / statistics.median(timed(lambda: left @ right, device) for _ in range(20))


def forward_flop(model: FSRNet) -> int:
    """Of one image, convolutions and matrix products, two per multiply-add."""
    image = torch.zeros(1, 3, SIDE, SIDE, device=next(model.parameters()).device)
    was_training = model.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(image)
    model.train(was_training)
    return counter.get_total_flops()


def measured(row: Row, pairs: int, device: Device) -> Measured:
    """Each pair is timed in the opposite order of the one before; one call of each comes first."""
    times: dict[Callable[[], object], list[float]] = {row.candidate: [], row.reference: []}
    for call in times:
        timed(call, device)
    for pair in tqdm(range(pairs), desc=row.name, leave=False, file=sys.stderr):
        for call in list(times) if pair % 2 else list(times)[::-1]:
            times[call].append(timed(call, device))
    return Measured(times[row.candidate], times[row.reference])


def timed(call: Callable[[], object], device: Device) -> float:
    """Seconds until the device has done it."""
    _wait(device)
    started = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - started


def line(row: Row, found: Measured, batch: int) -> str:
    low, median, high = found.ratio
    speeds = " | ".join(f"{batch / statistics.median(seconds):.1f}" for seconds in found)
    return f"| {row.name} | {median:.3f} ({low:.3f} - {high:.3f}) | {row.wanted} | {speeds} |"


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4)
    return low, median, high


def _wait(device: Device) -> None:
    if device.is_cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
