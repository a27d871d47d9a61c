"""A way round preparations of the image that no gradient passes, such as rounding or JPEG."""

from collections.abc import Callable

from torch import Tensor

from training.attacks.pgd import Model


def straight_through(prepare: Callable[[Tensor], Tensor], model: Model) -> Model:
    """`model` after `prepare`, with the identity as the gradient of `prepare` (BPDA, Athalye et al., ICML 2018).

    Attack this, and measure on the model itself: both answer alike. `prepare` keeps the shape of images (n, 3, h, w).
    """

    def prepared_model(images: Tensor) -> Tensor:
        return model(prepare(images).detach() + (images - images.detach()))  # the difference is exactly zero

    return prepared_model
