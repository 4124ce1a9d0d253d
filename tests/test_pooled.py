"""Convolutions that only a pooling reads: which they are, and what is chosen for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometries import equations
from jax import lax
from processors import of_this_jax, pretend, rule_and_method

import jaxdil
from jaxdil._primitive import conv_p
from jaxdil._rules import cpu_cores

pytestmark = pytest.mark.core

BF16 = jnp.bfloat16
NUMBERS = np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4)
LAST, FIRST = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")


def ones(shape):
    return jnp.ones(shape, jnp.float32)


def pool(y, window=2, stride=None, padding="VALID", reducer=lax.max, start=-jnp.inf):
    window, stride = (1, window, window, 1), (1, stride or window, stride or window, 1)
    return lax.reduce_window(y, np.array(start, y.dtype), reducer, window, stride, padding)


def convolve(x, w, numbers=LAST, stride=1, padding="SAME"):
    return lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=numbers)


def marks(fn, *arrays):
    """Whether each convolution of the accelerated function is told to be pooled."""
    program = jax.make_jaxpr(jaxdil.accelerate(fn))(*arrays).jaxpr
    return [e.params["pooled"] for e in equations(program) if e.primitive is conv_p]


def example(*, x=(2, 8, 8, 3), w=(3, 3, 3, 4)):
    return ones(x), ones(w)


class TestWhichAre:
    @pytest.mark.parametrize(
        "behind",
        [
            pool,
            lambda y: pool(jax.nn.relu(y + NUMBERS)),
            lambda y: pool(y, reducer=lax.add, start=0.0) / 4,
            lambda y: pool(y, reducer=lax.min, start=jnp.inf),
            lambda y: pool(y, 3),
            lambda y: y.sum((1, 2)),
            lambda y: jax.nn.relu(y).mean((1, 2)),
            lambda y: y.max((1, 2)),
            lambda y: y.min((1, 2)),
            lambda y: pool(jax.nn.silu(y)),
            lambda y: pool(jax.nn.gelu(y)),
            lambda y: pool(jax.nn.gelu(y, approximate=False)),
            lambda y: pool(jax.nn.elu(y)),
            lambda y: pool(jax.nn.leaky_relu(y)),
            lambda y: pool(jax.nn.relu6(y)),
            lambda y: pool(jax.nn.hard_swish(y)),
            lambda y: pool(jax.nn.softplus(y) + jnp.tanh(y)),
            lambda y: pool(y.astype(BF16)),
            # A normalisation with numbers of its own, and a residual sum.
            lambda y: pool(jax.nn.relu((y - NUMBERS) * lax.rsqrt(1 + NUMBERS))),
            lambda y: pool(y + ones((2, 8, 8, 4))),
            lambda y: (pool(y), y.mean((1, 2))),
            lambda y: jax.nn.relu(pool(y)),
            # A row of convolutions, or a residual block of them.
            lambda y: pool(convolve(jax.nn.relu(y), ones((3, 3, 4, 5)))),
            lambda y: pool(convolve(y, ones((3, 3, 4, 4)), padding="VALID")),
            lambda y: pool(convolve(y, ones((1, 1, 4, 4)))) + pool(y),
            lambda y: pool(y + convolve(jax.nn.relu(y), ones((3, 3, 4, 4)))),
            # An axis of one element on the way.
            lambda y: pool(lax.squeeze(jax.nn.relu(y.reshape(2, 1, 8, 8, 4)), (1,))),
            lambda y: pool(y[None, :, None].squeeze((0, 2))),
        ],
    )
    def test_read_by_a_pooling_alone(self, behind):
        assert set(marks(lambda x, w: behind(convolve(x, w)), *example())) == {True}

    @pytest.mark.parametrize(
        "behind",
        [
            lambda y: y,
            jax.nn.relu,
            lambda y: (pool(y), y),
            lambda y: (pool(y), 2 * y),
            # Windows that overlap, or are padded: XLA makes no one program of these.
            lambda y: pool(y, 3, 2),
            lambda y: pool(y, 2, 1),
            lambda y: pool(y, 3, padding="SAME"),
            lambda y: lax.reduce_window(
                y,
                -jnp.inf,
                lax.max,
                (1, 2, 2, 1),
                (1, 2, 2, 1),
                "VALID",
                window_dilation=(1, 2, 1, 1),
            ),
            lambda y: lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 2), (1, 2, 2, 2), "VALID"),
            lambda y: lax.reduce_window(y, -jnp.inf, lax.max, (2, 2, 2, 1), (2, 2, 2, 1), "VALID"),
            # Other sums than over space.
            lambda y: y.mean((0, 1, 2)),
            lambda y: y.sum(-1),
            lambda y: y.sum((1, 2, 3)),
            lambda y: y.sum(1),
            # Convolutions with a stride, in groups, or that another reads too.
            lambda y: pool(convolve(y, ones((3, 3, 4, 4)), stride=2)),
            lambda y: pool(
                lax.conv_general_dilated(
                    y,
                    ones((3, 3, 2, 4)),
                    (1, 1),
                    "SAME",
                    dimension_numbers=LAST,
                    feature_group_count=2,
                )
            ),
            lambda y: (pool(convolve(y, ones((3, 3, 4, 4)))), y),
            lambda y: convolve(y, ones((3, 3, 4, 4))),
            # As a kernel.
            lambda y: pool(convolve(ones((1, 8, 8, 8)), y[:, :3, :3].reshape(3, 3, 8, 1))),
            # Other readers between.
            lambda y: pool(y[:, ::2]),
            lambda y: pool(y.reshape(2, 4, 16, 4)),
            lambda y: pool(y[..., ::-1]),
            lambda y: pool(jax.nn.softmax(y)),
            lambda y: pool(jnp.cumsum(y, 1)),
            lambda y: pool(jnp.concatenate([y, y])),
            lambda y: lax.cond(y[0, 0, 0, 0] > 0, pool, lambda y: -pool(y), y),
        ],
    )
    def test_read_by_something_else(self, behind):
        assert not marks(lambda x, w: behind(convolve(x, w)), *example())[0]

    def test_a_sum_over_many_positions_of_several_images_is_no_pooling(self):
        def network(x, w):
            return convolve(x, w).mean((1, 2))

        w = ones((3, 3, 3, 4))
        assert marks(network, ones((2, 20, 20, 3)), w) == [True]
        assert marks(network, ones((2, 20, 21, 3)), w) == [False]
        assert marks(network, ones((1, 20, 21, 3)), w) == [True]

    def test_images_one_by_one(self):
        """Equinox has a layer for one image, and `vmap` around it."""

        def image(x, w):
            y = lax.squeeze(convolve(x[None], w, FIRST), (0,))
            y = lax.squeeze(convolve(jax.nn.relu(y)[None], w, FIRST), (0,))
            return y.mean((1, 2))

        x, w = ones((4, 3, 8, 8)), ones((3, 3, 3, 3))
        assert marks(jax.vmap(image, (0, None)), x, w) == [True, True]

    def test_channels_first_sums_alone_are(self):
        def network(x, w):
            y = convolve(x, w, FIRST)
            return lax.reduce_window(y, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

        w = ones((4, 3, 3, 3))
        assert marks(network, ones((2, 3, 8, 8)), w) == [False]
        summed = marks(lambda x, w: convolve(x, w, FIRST).sum((2, 3)), ones((2, 3, 8, 8)), w)
        assert summed == [True]

    def test_each_for_itself(self):
        def network(x, w, v):
            y = pool(jax.nn.relu(convolve(x, w)))
            return convolve(y, v), pool(convolve(jnp.tanh(y), v))

        assert marks(network, *example(), ones((3, 3, 4, 4))) == [True, False, True]

    def test_sizes_that_are_symbols_are_not(self):
        images, side = jax.export.symbolic_shape("n, s")
        w = ones((3, 3, 3, 4))
        for behind in (pool, lambda y: y.mean((1, 2)), lambda y: pool(y[None].squeeze(0))):
            for shape in ((images, 8, 8, 3), (2, side, side, 3)):
                network = jaxdil.accelerate(lambda x, behind=behind: behind(convolve(x, w)))
                exported = jax.export.export(jax.jit(network))(
                    jax.ShapeDtypeStruct(shape, np.float32)
                )
                x = ones((2, 8, 8, 3))
                np.testing.assert_allclose(exported.call(x), network(x), rtol=1e-6)

    def test_in_programs_within(self):
        def step(carry, x):
            return carry, pool(jax.nn.relu(convolve(x, carry)))

        x, w = example()
        assert marks(lambda x, w: lax.scan(step, w, x[None])[1], x, w) == [True]
        assert marks(jax.jit(lambda x, w: pool(convolve(x, w))), x, w) == [True]
        assert marks(jax.checkpoint(lambda x, w: pool(convolve(x, w))), x, w) == [True]
        # What a function returns is read by nobody knows what.
        assert marks(lambda x, w: pool(jax.jit(convolve)(x, w)), x, w) == [False]

    def test_jaxdil_s_own_convolutions_too(self):
        def network(x, w):
            return pool(jaxdil.conv(x, w, method="xla or auto"))

        x, w = example()
        (eqn,) = (
            e
            for e in equations(jax.make_jaxpr(jaxdil.accelerate(network))(x, w).jaxpr)
            if e.primitive is conv_p
        )
        assert eqn.params["pooled"]
        assert eqn.params["method"] == "xla or auto"
        alone = jax.make_jaxpr(network)(x, w).jaxpr
        assert [e.params["pooled"] for e in equations(alone) if e.primitive is conv_p] == [False]

    def test_derivatives_are_not(self):
        def loss(x, w):
            return pool(jax.nn.relu(convolve(x, w))).sum()

        x, w = example()
        inner = jax.make_jaxpr(jax.grad(jaxdil.accelerate(loss), (0, 1)))(x, w).jaxpr
        found = [e.params["pooled"] for e in equations(inner) if e.primitive is conv_p]
        assert found == [False] * 3
        assert marks(jax.grad(loss, (0, 1)), x, w) == [False] * 3

    def test_a_batch_of_them_is_not(self):
        network = jaxdil.accelerate(lambda x, w: pool(convolve(x, w)))
        x, w = example()
        program = jax.make_jaxpr(jax.vmap(network, (0, None)))(x[None], w).jaxpr
        found = [e.params["pooled"] for e in equations(program) if e.primitive is conv_p]
        assert found == [False]

    def test_the_result_is_lax_s(self):
        def network(x, w):
            return pool(jax.nn.relu(convolve(x, w)))

        numbers = np.random.default_rng(0)
        x = numbers.normal(size=(2, 28, 28, 32)).astype(np.float32)
        w = numbers.normal(size=(3, 3, 32, 48)).astype(np.float32)
        got, expected = jax.jit(jaxdil.accelerate(network))(x, w), jax.jit(network)(x, w)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
        grads = [
            jax.jit(jax.grad(lambda x, w, f=f: jnp.sum(f(x, w) ** 2), (0, 1)))(x, w)
            for f in (jaxdil.accelerate(network), network)
        ]
        for got, expected in zip(*grads, strict=True):
            size = np.abs(expected).max()
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * size)

    def test_policies_see_lax_s_convolution(self):
        seen = []

        def keep(primitive, *_, **params):
            seen.append((primitive.name, sorted(params)))
            return False

        def loss(x, w):
            return pool(convolve(x, w)).sum()

        x, w = example()
        found = []
        for fn in (loss, jaxdil.accelerate(jax.checkpoint(loss, policy=keep))):
            seen.clear()
            jax.make_jaxpr(jax.grad(fn if found else jax.checkpoint(fn, policy=keep)))(x, w)
            found.append([entry for entry in seen if entry[0].startswith("conv")])
        assert found[0] == found[1] != []


def chosen(x, w, *, dtype=np.float32, numbers=LAST, pooled=True, **options):
    """Rule and method of a convolution in front of a pooling: "C19 planes", or "xla"."""

    def network(x, w):
        y = convolve(x, w, numbers, **options)
        return pool(jax.nn.relu(y)) if pooled else y

    like = (jax.ShapeDtypeStruct(shape, dtype) for shape in (x, w))
    row = jaxdil.explain(network, platform="cpu", gradients=False)(*like)[0]
    return rule_and_method(row)


@pytest.fixture
def xeon(monkeypatch):
    pretend(monkeypatch, model="Intel(R) Xeon(R) Processor")
    monkeypatch.setattr(cpu_cores, "cores", lambda: 2)


BARE, TWO = {"padding": "VALID"}, {"stride": 2}
HALF = {"dtype": BF16}


@pytest.mark.parametrize(
    ("x", "w", "options", "alone", "pooled"),
    [
        # Idle cores.
        ((4, 48, 48, 32), (3, 3, 32, 64), {}, "xla | C18 margin | xla", "xla | C23 xla | xla"),
        # One channel: up to 20 outputs, 8 in bfloat16.
        ((8, 28, 28, 1), (3, 3, 1, 20), {}, "C6 taps", "C6 taps"),
        ((8, 28, 28, 1), (3, 3, 1, 21), {}, "C6 taps", "C6 taps | C23 xla | C23 xla"),
        ((8, 28, 28, 1), (3, 3, 1, 8), HALF, "C6 taps", "C6 taps"),
        ((8, 28, 28, 1), (3, 3, 1, 9), HALF, "C6 taps", "C6 taps | C23 xla | C23 xla"),
        # One tap: to half as many outputs, without a stride, of 32 MB.
        (
            (4, 32, 32, 64),
            (1, 1, 64, 32),
            {},
            "xla | C7 taps | C7 taps",
            "xla | C7 taps | C7 taps",
        ),
        (
            (4, 32, 32, 64),
            (1, 1, 64, 33),
            {},
            "xla | C7 taps | C7 taps",
            "xla | C23 xla | C23 xla",
        ),
        (
            (4, 64, 64, 64),
            (1, 1, 64, 48),
            TWO,
            "xla | C7 taps | C7 taps",
            "xla | C23 xla | C23 xla",
        ),
        ((64, 56, 56, 64), (1, 1, 64, 32), {}, "xla | C7 taps | xla", "xla | C23 xla | C23 xla"),
        # An odd number of channels: not unpadded with patches of 4 MB.
        (
            (1, 128, 128, 3),
            (3, 3, 3, 32),
            {},
            "xla | C11 even | xla",
            "xla | C11 even | xla",
        ),
        (
            (1, 64, 64, 3),
            (3, 3, 3, 32),
            BARE,
            "xla | C11 even | xla",
            "xla | C11 even | xla",
        ),
        (
            (4, 102, 102, 3),
            (3, 3, 3, 32),
            BARE,
            "xla | C11 even | xla",
            "xla | C23 xla | xla",
        ),
        # Not padded, patches of 4 MB: from channels times outputs of 8192 on.
        ((4, 50, 50, 64), (3, 3, 64, 127), BARE, "xla | C18 margin | xla", "xla | C23 xla | xla"),
        (
            (4, 50, 50, 64),
            (3, 3, 64, 128),
            BARE,
            "xla | C18 margin | xla",
            "xla | C18 margin | xla",
        ),
        ((4, 50, 50, 64), (3, 3, 64, 15), BARE, "xla | C18 margin | xla", "xla | C18 margin | xla"),
        # More channels than it was measured with, and as few positions as channels.
        ((4, 28, 28, 64), (3, 3, 64, 257), {}, "xla", "xla"),
        ((64, 8, 8, 48), (1, 1, 48, 256), {}, "xla | C7 taps | C7 taps", "xla | C23 xla | C23 xla"),
        ((64, 8, 8, 48), (1, 1, 48, 257), {}, "xla | C7 taps | C7 taps", "xla | C7 taps | C7 taps"),
        ((4, 8, 9, 192), (3, 3, 192, 192), {}, "xla | C18 margin | xla", "xla | C18 margin | xla"),
        ((5, 8, 9, 192), (3, 3, 192, 192), {}, "xla | C18 margin | xla", "xla | C23 xla | xla"),
        ((1, 12, 16, 128), (3, 3, 128, 128), {}, "xla", "xla"),
        ((1, 12, 16, 127), (3, 3, 127, 127), {}, "xla | C11 even | xla", "xla | C23 xla | xla"),
        # From 8 channels on, to 16 outputs and more; odd ones from 33 on.
        ((4, 28, 28, 8), (3, 3, 8, 16), {}, "xla", "xla | C23 xla | xla"),
        ((4, 28, 28, 6), (3, 3, 6, 16), {}, "xla", "xla"),
        ((4, 28, 28, 24), (3, 3, 24, 15), {}, "xla", "xla"),
        (
            (4, 28, 28, 31),
            (3, 3, 31, 17),
            {},
            "xla | C11 even | C11 even",
            "xla | C11 even | C11 even",
        ),
        ((4, 28, 28, 33), (3, 3, 33, 17), {}, "xla | C11 even | xla", "xla | C23 xla | xla"),
        # Patches of 4 MB and a little less.
        (
            (4, 33, 33, 64),
            (2, 2, 64, 128),
            BARE,
            "xla | C18 margin | xla",
            "xla | C18 margin | xla",
        ),
        ((4, 32, 33, 64), (2, 2, 64, 128), BARE, "xla | C18 margin | xla", "xla | C23 xla | xla"),
        # With a stride.
        (
            (8, 40, 40, 64),
            (3, 3, 64, 64),
            TWO | BARE,
            "xla | C18 slabs | xla",
            "xla | C23 xla | xla",
        ),
        # Half precision: 64 channels without a stride.
        (
            (4, 28, 28, 64),
            (3, 3, 64, 64),
            HALF,
            "xla | C14 im2col | C14 im2col",
            "xla | C14 im2col | C14 im2col",
        ),
        (
            (4, 28, 28, 63),
            (3, 3, 63, 64),
            HALF,
            "xla | C14 im2col | C14 im2col",
            "xla | C23 xla | C14 im2col",
        ),
    ],
)
def test_what_is_chosen_before_a_pooling(xeon, x, w, options, alone, pooled):
    found = chosen(x, w, pooled=False, **options), chosen(x, w, **options)
    assert found == (of_this_jax(alone), of_this_jax(pooled))
