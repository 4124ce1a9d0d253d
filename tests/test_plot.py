"""The pictures: what is marked is what is read, and a file comes out."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxdil
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


def reached(ax):
    (dots,) = (c.get_offsets() for c in ax.collections if c.get_label() == "reached")
    return np.asarray(dots)


def test_paths_lead_to_the_samples_that_are_seen():
    layers = [(3, 2, 2), (2, 1, 1), (3, 1, 2)]
    dots = reached(plot.paths(layers))
    seen = np.flatnonzero(jaxdil.receptive_inputs(layers))
    assert sorted(dots[dots[:, 1] == 0, 0]) == seen.tolist()
    top = jaxdil.receptive_field(layers)[-1]
    assert dots[dots[:, 1] == 3].tolist() == [[top.start, 3]]
    two = reached(plot.paths(layers, units=2))
    assert two[two[:, 1] == 3, 0].tolist() == [top.start, top.start + top.jump]


def test_paths_say_what_a_unit_of_each_layer_sees():
    ax = plot.paths([(3, 1, 1), (3, 1, 2), (3, 1, 4)])
    assert [text.get_text() for text in ax.texts] == ["sees 3", "sees 7", "sees 15"]
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "input", "layer 1", "layer 2", "layer 3",
    ]  # fmt: skip


def test_holes_are_crossed():
    rates = [(3, 1, 2)] * 3
    ax = plot.coverage(rates)
    line = jaxdil.coverage(rates)
    assert (np.ma.getdata(image(ax)) == np.outer(line, line)).all()
    holes = np.asarray(ax.collections[0].get_offsets())[:, ::-1].astype(int)
    assert holes.tolist() == np.argwhere(np.outer(line, line) == 0).tolist()
    assert ax.get_title() == "49 of 169 samples, 120 holes"
    assert plot.coverage([((3, 2), 1, (1, 2))]).get_title() == "6 of 9 samples, 3 holes"
    assert plot.coverage([(3,)]).get_title() == "9 of 9 samples, no holes"


def test_an_effect_is_framed_by_its_field():
    values = np.arange(35.0).reshape(5, 7)
    ax = plot.effect(values, size=(3, 5))
    assert (image(ax) == values).all()
    (frame,) = ax.patches
    assert frame.get_bbox().extents.tolist() == [0.5, 0.5, 5.5, 3.5]
    assert ax.get_title() == "frame: receptive field, 3 x 5"
    assert not plot.effect(values).patches


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
            lambda: plot.coverage([((3, 3, 3),)]),
            ValueError,
            "plot.coverage: layers must have one or two axes, got 3",
        ),
        (
            lambda: plot.effect(np.ones(3)),
            ValueError,
            r"plot.effect: values must be a plane \(H, W\), got shape \(3,\)",
        ),
        (lambda: plot.paths([(3,)], units=0), ValueError, "plot.paths: units must be >= 1, got 0"),
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
