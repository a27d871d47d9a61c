"""When requests come: independently of each other and of the answers."""

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]


def poisson_arrivals(per_second: float, seconds: float, seed: int) -> Times:
    """Times in [0, seconds), in order: a Poisson process of that rate."""
    random = np.random.default_rng(seed)
    count = random.poisson(per_second * seconds)
    return np.sort(random.uniform(0, seconds, count))


def even_arrivals(per_second: float, seconds: float) -> Times:
    """Times in [0, seconds), at equal distances."""
    return np.arange(0, seconds, 1 / per_second)


def dealt(times: Times, hands: int) -> list[Times]:
    """The arrivals split among so many generators, at random: each gets a Poisson process again."""
    owners = np.random.default_rng(0).integers(0, hands, len(times))
    return [times[owners == hand] for hand in range(hands)]
