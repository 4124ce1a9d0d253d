"""Methods measured on the device at hand: which one is the fastest for each of your convolutions.

    table = tune(step, *args)       measure every convolution of a function
    table.save(path)                for later
    with load(path): ...            choose by it in this thread
    use(load(path))                 or in the whole process

`auto` otherwise knows rules only, made on other machines. docs/tuning.md has examples.
"""

from jaxdil.tuning._entry import Key, Times
from jaxdil.tuning._table import Table, active, load, use
from jaxdil.tuning._tune import tune

__all__ = ["Key", "Table", "Times", "active", "load", "tune", "use"]
