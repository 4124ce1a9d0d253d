"""jaxdil.tf against TensorFlow: its numbers as kept in arrays, and live where it is installed."""

from collections import Counter

import peer
import pytest
import tf_cases

from jaxdil import tf

KEPT, VERSIONS = peer.load("tf")
NAMES = sorted({case.function for case in tf_cases.CASES})


def cases_of(name):
    return [case for case in tf_cases.CASES if case.function == name]


@pytest.mark.parametrize("name", NAMES)
def test_numbers_and_gradients(name):
    cases = cases_of(name)
    made = peer.ours(lambda case, arrays: tf_cases.call(tf, case, arrays), cases)
    for case, ours in zip(cases, made, strict=True):
        peer.assert_same(ours, KEPT[str(case)], case)


def test_kept_numbers_are_still_tensorflows():
    """What ours are held against above, live: where TensorFlow is installed, to both."""
    pytest.importorskip("tensorflow")
    for case in tf_cases.CASES:
        peer.assert_same(tf_cases.run(case), KEPT[str(case)], case)


def test_kept_numbers_are_of_the_cases():
    keys = Counter(map(str, tf_cases.CASES))
    assert max(keys.values()) == 1
    assert keys.keys() == KEPT.keys(), "run: python tests/tf_cases.py"
    assert VERSIONS["tensorflow"].startswith("2.21.")
    assert {case.function for case in tf_cases.CASES} == set(tf.__all__)
