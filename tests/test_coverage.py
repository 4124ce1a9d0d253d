"""Coverage, holes, rates without holes, effective fields, and the fields of published networks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxdil
from jaxdil import (
    coverage,
    covers,
    effective_receptive_field,
    hdc_distance,
    plan_dilations,
    receptive_field,
    receptive_inputs,
)

pytestmark = pytest.mark.core


def stack(rates, kernel=3):
    return [(kernel, 1, rate) for rate in rates]


# --- counts of a list of layers -------------------------------------------------------------------


def test_coverage_counts_the_choices_of_a_tap_in_every_layer():
    layers = [(3, 2, 2), (2, 1, 3), (4, 3, 1), (3,)]
    ways = np.zeros(receptive_field(layers)[-1].size)
    for taps in itertools.product(*(range(k[0]) for k in layers)):
        ways[taps[0] * 2 + taps[1] * 3 * 2 + taps[2] * 2 + taps[3] * 6] += 1
    np.testing.assert_array_equal(coverage(layers), ways)
    np.testing.assert_array_equal(receptive_inputs(layers), ways > 0)
    assert covers(layers) == ways.all()


def test_axes_of_layers_are_an_outer_product():
    layers = [((3, 2), 1, (2, 1)), (3, (1, 2))]
    rows, columns = coverage([(3, 1, 2), (3, 1)]), coverage([(2, 1, 1), (3, 2)])
    np.testing.assert_array_equal(coverage(layers), np.outer(rows, columns))
    assert coverage([]).tolist() == [1]


def test_layers_and_their_function_agree():
    layers = [(3, 2, 1, 1), (3, 1, 2, 0), (2, 1, 3, -1)]

    def fn(x):
        for k, s, d, lo in layers:
            x = jaxdil.conv(x, jnp.ones((k, 1, 1)), stride=s, dilation=d, padding=[(lo, 9)])
        return x

    x = jnp.ones((1, 64, 1))
    expected, field = receptive_field(layers)[-1], receptive_field(fn, axes=1)(x)
    assert field[:3] == expected
    unit = jax.eval_shape(fn, x).shape[1] // 2
    seen = coverage(fn)(x)[0, :, 0]
    first = int(expected.start + unit * expected.jump - (expected.size - 1) / 2)
    np.testing.assert_array_equal(seen[first : first + expected.size], coverage(layers))
    assert seen.sum() == coverage(layers).sum()


def test_padding_share_is_what_lies_outside():
    layers = [(3, 2, 1, 1), (5, 1, 3, 6)]
    n, units = 21, 11
    (size, jump, start) = field = receptive_field(layers)[-1]
    shares = []
    for unit in range(units):
        samples = start + unit * jump + np.arange(size) - (size - 1) / 2
        shares.append(np.mean((samples < 0) | (samples >= n)))
        assert field.padding_share(unit, n) == pytest.approx(shares[-1], rel=1e-15)

    def fn(x):
        for k, s, d, lo in layers:
            x = jaxdil.conv(x, jnp.ones((k, 1, 1)), stride=s, dilation=d, padding=[(lo, lo)])
        return x

    traced = receptive_field(fn, axes=1)(jnp.ones((1, n, 1)))
    assert traced.padding == pytest.approx(np.mean(shares), rel=1e-15)
    plane = receptive_field([((3, 3), 1, (1, 2), (1, 2))])[-1]
    assert plane.padding_share(0, (10, 2)) == (1 / 3, 3 / 5)


# --- holes ----------------------------------------------------------------------------------------


def test_the_rule_of_hybrid_dilated_convolution():
    # The examples of Wang et al., section 3.2.
    assert hdc_distance([1, 2, 5]) == 2
    assert hdc_distance([1, 2, 9]) == 5
    assert hdc_distance([7]) == 7
    assert hdc_distance(np.array([1, 4])) == 4
    # Two layers by equation 2: M_3 = 5, M_2 = max(5 - 4, 5 - 2 (5 - 2), 2).
    assert covers(stack([1, 2, 5]))
    assert not covers(stack([1, 2, 9]))


def test_the_rule_is_exact_from_rate_one_up_and_only_there():
    for a, b in itertools.combinations_with_replacement(range(1, 10), 2):
        assert (hdc_distance([1, a, b]) <= 3) == covers(stack([1, a, b])), (a, b)
    # It takes ascending rates for granted: what is seen has no order, M_2 has.
    assert hdc_distance([1, 5, 2]) == 8
    assert covers(stack([1, 5, 2]))
    # And the first rate for 1: gridding passes.
    assert hdc_distance([2, 2, 2]) <= 3
    assert not covers(stack([2, 2, 2]))


def test_covers_on_every_axis():
    assert covers([(3, 1, (1, 1)), (3, 1, (3, 2))])
    assert not covers([(3, 1, (1, 1)), (3, 1, (3, 4))])
    assert not covers([(2, 3), (2,)])  # a stride larger than the kernel passes over samples
    assert covers([(3,)] * 800)  # more than 1e308 paths
    with pytest.raises(OverflowError, match="coverage: there are more than 1e308 paths"):
        coverage([(3,)] * 800)


def test_plans_have_the_fewest_layers_and_the_smallest_rates():
    for kernel, size in itertools.product((2, 3, 4), range(1, 30)):
        rates = plan_dilations(size, kernel=kernel)
        best = None
        for count in range(6):
            fits = [
                tried
                for tried in itertools.combinations_with_replacement(range(1, 17), count)
                if 0 <= 1 + (kernel - 1) * sum(tried) - size < kernel - 1
                and covers(stack(tried, kernel))
            ]
            if fits:
                best = min(max(tried, default=0) for tried in fits)
                break
        assert len(rates) == count
        assert max(rates, default=0) == best
        assert rates in fits


def test_plans_of_a_given_depth():
    for layers in range(4, 31):
        rates = plan_dilations(61, layers=layers)
        assert (len(rates), 1 + 2 * sum(rates)) == (layers, 61)
        assert covers(stack(rates))
    assert plan_dilations(61, layers=30) == (1,) * 30
    assert plan_dilations(1) == ()


# --- gradients ------------------------------------------------------------------------------------


def test_effective_field_is_the_gradient():
    w = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2)))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 11, 2)))

    def fn(w, x):
        return {"y": jnp.tanh(jaxdil.conv(x, w, dilation=2))}

    truth = np.abs(jax.jacobian(lambda x: fn(w, x)["y"])(x))
    for unit, index in [(None, (0, 5, 1)), ((0, 3, 0), (0, 3, 0))]:
        effect = effective_receptive_field(fn, unit=unit, argnum=1)
        np.testing.assert_allclose(effect(w, x), truth[index], rtol=1e-12)
        np.testing.assert_allclose(jax.jit(effect)(w, x), truth[index], rtol=1e-12)
    several = effective_receptive_field(fn, unit=(0, slice(2, 4)), argnum=1)(w, x)
    signed = jax.jacobian(lambda x: fn(w, x)["y"])(x)
    np.testing.assert_allclose(several, np.abs(signed[0, 2:4].sum((0, 1))), rtol=1e-12)


def test_effective_field_of_equal_weights_is_a_bell():
    """Luo et al., section 2: paths over paths, which tend to a Gaussian."""
    depth = 12

    def fn(x):
        for _ in range(depth):
            x = jaxdil.conv(x, jnp.full((3, 1, 1), 1 / 3))
        return x

    effect = effective_receptive_field(fn)(jnp.ones((1, 41, 1)))[0, :, 0]
    paths = coverage([(3,)] * depth)
    np.testing.assert_allclose(effect[20 - depth : 21 + depth], paths / 3.0**depth, rtol=1e-12)
    variance = np.sum(np.asarray(effect) * (np.arange(41) - 20) ** 2)
    assert variance == pytest.approx(depth * 2 / 3, rel=1e-12)


# --- published networks ---------------------------------------------------------------------------
# Araujo et al., doi:10.23915/distill.00021, table of receptive fields. One channel: more change
# nothing on the spatial axes.


def convolved(x, k, stride=1):
    return jax.nn.relu(jaxdil.conv(x, jnp.ones((k, k, 1, 1), x.dtype), stride=stride))


def max_pool(x, k, stride):
    window, strides = (1, k, k, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, "SAME")


def vgg16(x):
    for depth in (2, 2, 3, 3, 3):
        for _ in range(depth):
            x = convolved(x, 3)
        x = max_pool(x, 2, 2)
    return x


def resnet50(x, stride_last):
    x = max_pool(convolved(x, 7, 2), 3, 2)
    for stage, depth in enumerate((3, 4, 6, 3)):
        at = depth - 1 if stride_last else 0
        # The first stage keeps the size if the stride comes first, the last if it comes last.
        whole = stage == (3 if stride_last else 0)
        for block in range(depth):
            stride = 2 if block == at and not whole else 1
            y = convolved(convolved(convolved(x, 1), 3, stride), 1)
            short = convolved(x, 1, stride) if stride > 1 or block == 0 else x
            x = jax.nn.relu(y + short)
    return x


def test_networks_of_the_literature():
    x = jax.ShapeDtypeStruct((1, 224, 224, 1), jnp.float32)
    assert receptive_field(vgg16, axes=(1, 2))(x)[:2] == ((212, 212), (32.0, 32.0))
    slim = receptive_field(lambda x: resnet50(x, stride_last=True), axes=1)(x)
    assert slim[:2] == (483, 32.0)  # TF-Slim's, the one in the table
    usual = receptive_field(lambda x: resnet50(x, stride_last=False), axes=1)(x)
    assert usual[:2] == (427, 32.0)
    small = jnp.ones((1, 96, 96, 1), jnp.float32)
    seen = receptive_inputs(vgg16, unit=(0, 1, 1, 0))(small)
    assert seen.any((0, 2, 3)).all()


def test_a_model_of_flax():
    linen = pytest.importorskip("flax.linen")

    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            for rate in (1, 2, 4):
                y = linen.Conv(4, (3, 3), kernel_dilation=rate)(x)
                y = linen.BatchNorm(use_running_average=True)(y)
                x = linen.gelu(y) + x
            x = linen.max_pool(x, (2, 2), (2, 2))
            return linen.ConvTranspose(4, (2, 2), (2, 2))(x), x.mean((1, 2))

    x = jax.ShapeDtypeStruct((2, 32, 32, 4), jnp.float32)
    model = Model()
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    dense, pooled = receptive_field(model.apply, axes=(0, 1, 2), argnum=1)(params, x)
    assert dense.size == (1, 16, 16)
    assert dense.jump == (1.0, 1.0, 1.0)
    assert pooled.size[0] == 1
    assert pooled.size[1:] == (15 + 1 + 2 * 15,) * 2  # the fields of all units together


# --- errors ---------------------------------------------------------------------------------------


X = np.ones((1, 8, 2), np.float32)


def double(x):
    return 2 * x


ERRORS = {
    "axes of layers": (
        lambda: receptive_field([(3,)], axes=0),
        ValueError,
        r"receptive_field: axes and argnum are for functions; a layer has an entry an axis, got a",
    ),
    "an axis that is not there": (
        lambda: receptive_field(double, axes=(1, 3))(X),
        ValueError,
        r"receptive_field: axes must be of the 3 of the input, got \(1, 3\)",
    ),
    "no array": (
        lambda: receptive_field(double)(3.0),
        TypeError,
        r"receptive_field: argument 0 of the function must be an array, got float\n  Pass argnum= ",
    ),
    "no such argument": (
        lambda: receptive_inputs(double, argnum=1)(X),
        TypeError,
        r"receptive_inputs: argument 1 of the function must be an array, got 1 arguments",
    ),
    "no samples": (
        lambda: coverage(double)(X[:0]),
        ValueError,
        r"coverage: the input must have samples, got shape \(0, 8, 2\)",
    ),
    "unit of layers": (
        lambda: coverage([(3,)], unit=0),
        ValueError,
        r"coverage: unit is for functions, got unit=0 with layers\n  Every unit of a",
    ),
    "a unit that is not there": (
        lambda: coverage(double, unit=(0, 8))(X),
        ValueError,
        r"coverage: unit must index the result, of shape \(1, 8, 2\), got \(0, 8\)\n  index 8 is",
    ),
    "no unit": (
        lambda: receptive_inputs(double, unit=slice(0, 0))(X),
        ValueError,
        r"receptive_inputs: unit=slice\(0, 0, None\) is none of the result, of shape \(1, 8, 2\)",
    ),
    "two results": (
        lambda: coverage(lambda x: (x, x))(X),
        ValueError,
        r"coverage: the function must return one array, got 2\n  Return the one that is meant",
    ),
    "layers that are none": (
        lambda: covers(3),
        TypeError,
        r"covers: layers must be a sequence of layers, got 3",
    ),
    "an int input": (
        lambda: effective_receptive_field(double)(X.astype(int)),
        TypeError,
        r"effective_receptive_field: argument 0 of the function must be an array of floats, got in",
    ),
    "an argument that is missing": (
        lambda: effective_receptive_field(double, argnum=2)(X),
        TypeError,
        r"effective_receptive_field: argument 2 of the function must be an array of floats, got 1 ",
    ),
    "several results of a gradient": (
        lambda: effective_receptive_field(lambda x: (x, x))(X),
        ValueError,
        r"effective_receptive_field: the function must return one array, got 2",
    ),
    "rates": (
        lambda: hdc_distance([]),
        ValueError,
        r"hdc_distance: dilations must be one rate a layer, at least one, got \[\]",
    ),
    "a rate": (
        lambda: hdc_distance([1, 0]),
        ValueError,
        r"hdc_distance: dilations\[1\] must be >= 1, got 0",
    ),
    "size": (
        lambda: plan_dilations(0),
        ValueError,
        r"plan_dilations: size must be >= 1, got 0",
    ),
    "one tap": (
        lambda: plan_dilations(9, kernel=1),
        ValueError,
        r"plan_dilations: kernel must be >= 2, got 1",
    ),
    "too few layers": (
        lambda: plan_dilations(100, layers=4),
        ValueError,
        r"plan_dilations: 4 layers of 3 taps see 9 to 81 samples .*\n  For 100 take 5 to 50 layers",
    ),
    "too many layers": (
        lambda: plan_dilations(5, layers=3),
        ValueError,
        r"plan_dilations: 3 layers of 3 taps see 7 to 27 samples without holes, got size=5",
    ),
    "a unit of a share": (
        lambda: receptive_field([(3,)])[-1].padding_share(-1, 9),
        ValueError,
        r"padding_share: unit must be >= 0, got -1",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_came_and_what_is_needed(name):
    call, kind, message = ERRORS[name]
    with pytest.raises(kind, match=f"^{message}"):
        call()
