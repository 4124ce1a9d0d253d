"""The pictures: what is marked is what is read, and a file comes out."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest

from jaxdil import plot


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def image(ax):
    return np.asarray(ax.images[0].get_array())


def test_taps_are_marked_where_the_kernel_reads():
    one, two = plot.taps(3, dilations=(1, 2))
    square = np.zeros((7, 7), int)
    square[2:5, 2:5] = 2
    assert (image(one) == square).all()
    square[1:6, 1:6] = 1
    square[1:6:2, 1:6:2] = 2
    assert (image(two) == square).all()
    assert two.get_title() == "dilation 2: spans 5 x 5"


@pytest.mark.parametrize(
    ("kernel", "dilation", "shape", "marked"),
    [(3, 4, (11, 11), 9), ((2, 5), (3, 1), (6, 7), 10), ((4,), 2, (1, 9), 4), (1, 7, (3, 3), 1)],
)
def test_the_number_of_taps_does_not_change_with_the_dilation(kernel, dilation, shape, marked):
    (ax,) = plot.taps(kernel, dilations=[dilation])
    assert image(ax).shape == shape
    assert (image(ax) == 2).sum() == marked


LARGE = [3, 5, 9, 17, 33, 65, 67, 67]  # table 1 of arXiv 1511.07122


def test_receptive_fields_are_bars_around_the_unit():
    ax = plot.receptive_fields([(3, 1, d) for d in (1, 1, 2, 4, 8, 16, 1)] + [(1,)])
    assert [bar.get_width() for bar in ax.patches] == LARGE
    assert all(bar.get_x() == -bar.get_width() / 2 for bar in ax.patches)
    assert [text.get_text().strip() for text in ax.texts] == list(map(str, LARGE))
    two = plot.receptive_fields([((3, 9), 1, (4, 1))])
    assert [bar.get_width() for bar in two.patches] == [9]


def test_a_picture_is_drawn_in_the_axes_given_and_saved(tmp_path):
    figure, axes = plt.subplots(1, 3)
    assert plot.taps(3, dilations=(1, 2), axes=axes[:2]) == list(axes[:2])
    assert plot.receptive_fields([(3,)], ax=axes[2]) is axes[2]
    figure.savefig(tmp_path / "taps.png")
    pixels = plt.imread(tmp_path / "taps.png")
    assert pixels.std() > 0.05


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: plot.taps((3, 3, 3)), ValueError, "plot.taps: kernel must have one or two axes"),
        (lambda: plot.taps(0), ValueError, "plot.taps: kernel must be >= 1, got 0"),
        (
            lambda: plot.taps(3, dilations=[1, 0]),
            ValueError,
            r"plot.taps: dilations\[1\] must be >= 1, got 0",
        ),
        (
            lambda: plot.taps(3, axes=plt.subplots(1, 2)[1]),
            ValueError,
            "plot.taps: axes must be 3, one for each dilation, got 2",
        ),
        (
            lambda: plot.receptive_fields([(3, 0)]),
            ValueError,
            r"receptive_field: layers\[0\]\.stride must be >= 1",
        ),
    ],
)
def test_errors_say_what_came_and_what_is_needed(call, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        call()


def test_matplotlib_is_asked_for_only_when_something_is_drawn():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from jaxdil import plot\n"
        "try: plot.taps(3)\n"
        "except ImportError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == (
        "plot.taps: matplotlib is needed for pictures, and is not installed\n"
        "  Run: pip install 'jaxdil[plot]'\n"
    ), done.stderr
