"""What the batches of a run are made of."""

import dataclasses

import pytest
import torch

from training.batches import Data, shuffled_batches
from training.data import ImageData
from training.device import Device
from training.processes import ALONE
from training.recipes import RECIPES


def test_extra_images_fill_their_fraction_of_every_batch():
    own = ImageData(torch.zeros(64, 3, 2, 2, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64), ("a", "b"))
    extra = ImageData(torch.ones(9, 3, 2, 2, dtype=torch.uint8), torch.ones(9, dtype=torch.int64), ("a", "b"))
    recipe = dataclasses.replace(RECIPES["paper"], batch_size=10, extra_fraction=0.7)
    order = torch.Generator().manual_seed(0)
    batches = list(shuffled_batches(Data(own, own, extra), recipe, order, ALONE))
    assert [(len(labels), int(labels.sum())) for _, labels in batches] == [(10, 7)] * 6
    assert all(torch.equal(pixels[:, 0, 0, 0].long(), labels) for pixels, labels in batches)


@pytest.mark.parametrize(("room", "place"), [(100, "meta"), (60, "cpu")])
def test_what_is_drawn_together_lies_in_one_place(room, place):
    """Where not all of them fit, none are put onto the device."""

    class Small(Device):
        def has_room_for(self, size):
            return size <= room

    images = ImageData(torch.zeros(16, 3, 1, 1, dtype=torch.uint8), torch.zeros(16, dtype=torch.int64), ("a", "b"))
    data = Data(images, images, extra=images).scaled(1.0, Small(torch.device("meta"), torch.float32))
    assert {found.pixels.device.type for found in (data.training, data.extra)} == {place}
