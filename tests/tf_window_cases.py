"""TensorFlow's morphology and pooling: the cases of `tests/tf_cases.py` that slide a window."""

from peer import Case

X1, X2, X3 = (2, 9, 2), (2, 8, 7, 3), (1, 4, 5, 6, 2)


def cases():
    """Morphology, and pooling over one to three axes."""
    yield from morphology()
    yield from pooling()


def morphology():
    """dilation2d and erosion2d: small integers tie all the time, so gradients show who is first."""
    for function in ("dilation2d", "erosion2d"):
        for taps, strides, rates, padding in [
            ((3, 3), (1, 1), (1, 1), "SAME"),
            ((2, 4), (1, 1), (2, 1), "SAME"),
            ((4, 2), (2, 1), (1, 3), "SAME"),
            ((3, 2), (2, 3), (2, 3), "SAME"),
            ((2, 3), (1, 2), (3, 2), "VALID"),
        ]:
            options = {"strides": [1, *strides, 1], "padding": padding, "data_format": "NHWC"}
            options["dilations"] = [1, *rates, 1]
            yield Case(function, (X2, (*taps, 3)), options)
        options = {"strides": [1, 1, 1, 1], "padding": "SAME", "data_format": "NHWC"}
        options["dilations"] = [1, 2, 1, 1]
        for dtype in ("bfloat16", "float64", "int32", "int8"):
            yield Case(function, (X2, (2, 3, 3)), options, dtype)


def shares(kind, x):
    """Whether TensorFlow, on a CPU, gives the whole gradient to each of equal samples."""
    return kind == "MAX" and len(x) == 5


def pooling():
    """pool, and the functions of its two types."""
    for kind in ("MAX", "AVG"):
        for x, taps, more in [
            (X1, [3], {"dilations": [2]}),
            (X1, [4], {"strides": [3], "padding": "SAME"}),
            (X2, [2, 3], {"dilations": [3, 1]}),
            (X2, [3, 2], {"strides": [2, 1], "padding": "SAME"}),
            (X3, [2, 3, 2], {"strides": [1, 2, 1], "padding": "SAME"}),
        ]:
            options = {"window_shape": taps, "pooling_type": kind, **more}
            yield Case("pool", (x,), options, forward_only=shares(kind, x))
        name = f"{kind.lower()}_pool"
        for rank, x in enumerate((X1, X2, X3), 1):
            for padding in ("SAME", "VALID"):
                options = {"ksize": 3, "strides": 2, "padding": padding}
                yield Case(f"{name}{rank}d", (x,), options, forward_only=shares(kind, x))
        listed = {"ksize": [1, 2, 3, 1], "strides": [1, 2, 1, 1], "padding": "SAME"}
        for dtype in ("float32", "bfloat16", "float64"):
            yield Case(name, (X2,), listed, dtype)
    pairs = [[0, 0], [1, 0], [2, 1], [0, 0]]
    yield Case("max_pool", (X2,), {"ksize": 3, "strides": [2, 1], "padding": pairs})
