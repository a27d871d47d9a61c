"""How long a batch takes, from what earlier ones took."""

import pytest

from fsr_serve.batch_time import BatchTime


def test_batch_time_finds_fixed_and_growing_cost():
    batch_time = BatchTime()
    assert batch_time.predict(100, batch_images=8) == 0
    for count in (1, 2, 4, 8):
        batch_time.observe(count, 0.5 + 0.1 * count)
    assert batch_time.predict(4, batch_images=8) == pytest.approx(0.9)
    assert batch_time.predict(20, batch_images=8) == pytest.approx(3 * 0.5 + 20 * 0.1)


def test_batch_time_of_one_size_only_grows_in_proportion():
    batch_time = BatchTime()
    for _ in range(1000):
        batch_time.observe(4, 0.2)
    assert batch_time.predict(8, batch_images=4) == pytest.approx(0.4)


@pytest.mark.parametrize("seconds", [(0.1, 0.9), (0.9, 0.1)], ids=["steep", "falling"])
def test_batch_time_is_never_negative(seconds):
    batch_time = BatchTime()
    for count, taken in zip((2, 4), seconds, strict=True):
        batch_time.observe(count, taken)
    assert all(batch_time.predict(count, batch_images=4) > 0 for count in (1, 2, 3, 4, 100))
