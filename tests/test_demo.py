"""The demo, small: the picture is drawn, the numbers agree."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import STRICT, USER, configure

from benchmarks import demo


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the demo finds, run once as a user does."""
    picture = tmp_path_factory.mktemp("demo") / "demo.png"
    configure(USER)
    try:
        yield demo.main(["--quick", "--out", str(picture)]) | {"picture": picture}
    finally:
        configure(STRICT)


def test_the_picture_is_drawn(found):
    pixels = plt.imread(found["picture"])
    height, width, _ = pixels.shape
    assert min(height, width) > 800
    # None of the twelve panels is blank.
    for band in np.array_split(pixels[..., :3], 3):
        assert all(panel.std() > 0.05 for panel in np.array_split(band, 4, axis=1))


def test_the_context_module_passes_the_photograph_and_sees_what_it_should(found):
    assert found["identity"] == 0
    assert found["fields"] == found["measured"] == [3, 5, 9, 17, 33, 65, 67, 67]


def test_the_network_learns_the_same_under_both(found):
    losses = found["losses"]
    np.testing.assert_allclose(losses["jaxdil"], losses["lax"], rtol=1e-4)
    assert losses["lax"][-1] < losses["lax"][0]
    assert max(found["apart"]) < 1e-4


def test_explain_saw_every_convolution(found):
    # Stem, bottlenecks of 2, 3, 3 and 3, head: 13, thrice, but no gradient by the image.
    assert found["served"].startswith("38 convolutions")


def test_the_photograph_shows_more_of_less_at_larger_rates():
    spread = [np.abs(y).mean() for y in demo.details(demo.photograph())]
    assert spread == sorted(spread)
