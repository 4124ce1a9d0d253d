"""The rules of the house that a machine can check: names, signatures, docs, imports, sizes."""

import ast
import doctest
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import jaxdil

PACKAGE = Path(jaxdil.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# lax's own signature, options by position included: it stands wherever lax's stands.
LAX_SIGNATURE = {"conv_general_dilated"}
# Twins keep the argument order of the library they mirror.
TWINS = {"tf", "torch"}


def name_of(path, package=PACKAGE):
    """jaxdil/_methods/xla.py -> "_methods.xla", its __init__ -> "_methods", ours -> "__init__"."""
    parts = path.relative_to(package).with_suffix("").parts
    if len(parts) > 1 and parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


def import_path(path):
    """jaxdil/_methods/xla.py -> "jaxdil._methods.xla"."""
    name = name_of(path)
    return "jaxdil" if name == "__init__" else f"jaxdil.{name}"


every_module = pytest.mark.parametrize("path", MODULES, ids=name_of)


# --- names ----------------------------------------------------------------------------------------


def public_submodules():
    """The modules that `import jaxdil` makes reachable: jaxdil.tf, jaxdil.reference, ..."""
    return [name for name in jaxdil.__all__ if inspect.ismodule(getattr(jaxdil, name, None))]


def public_functions():
    """(where, name, function) of every public function; a class is none."""
    places = {"jaxdil": jaxdil} | {f"jaxdil.{n}": getattr(jaxdil, n) for n in public_submodules()}
    for where, module in places.items():
        for name in module.__all__:
            thing = getattr(module, name, None)
            if callable(thing) and not inspect.isclass(thing):
                yield where, name, thing


FUNCTIONS = [pytest.param(*entry, id=f"{entry[0]}.{entry[1]}") for entry in public_functions()]
OWN_FUNCTIONS = [p for p in FUNCTIONS if p.values[0].removeprefix("jaxdil.") not in TWINS]
every_function = pytest.mark.parametrize(("where", "name", "function"), FUNCTIONS)
every_own_function = pytest.mark.parametrize(("where", "name", "function"), OWN_FUNCTIONS)


def test_all_is_what_is_there():
    # In a process of its own: here, other tests have imported modules that a user has not.
    there = fresh("import jaxdil; report = [n for n in vars(jaxdil) if not n.startswith('_')]")
    declared = [name for name in jaxdil.__all__ if name != "__version__"]
    assert sorted(there) == sorted(declared)
    assert list(jaxdil.__all__) == sorted(set(jaxdil.__all__))


@pytest.mark.parametrize("submodule", public_submodules())
def test_all_of_a_public_module_is_what_is_defined_in_it(submodule):
    module = getattr(jaxdil, submodule)
    defined = {
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", None) == module.__name__
        if callable(thing)
    }
    assert defined <= set(module.__all__), "public names missing from __all__"
    assert all(hasattr(module, name) for name in module.__all__)
    assert list(module.__all__) == sorted(set(module.__all__))


# --- signatures -----------------------------------------------------------------------------------


def positional_options(function):
    """The parameters that have a default and yet can be passed by position."""
    return [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.default is not p.empty and p.kind is not p.KEYWORD_ONLY
    ]


def unannotated(function):
    """The parameters, and perhaps "return", that have no annotation."""
    signature = inspect.signature(function)
    missing = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
    return missing + (["return"] if signature.return_annotation is signature.empty else [])


@every_own_function
def test_options_are_keyword_only(where, name, function):
    if name not in LAX_SIGNATURE:
        assert not positional_options(function), f"make them keyword-only in {where}.{name}"


@every_function
def test_method_is_the_last_option(where, name, function):
    names = [
        p.name for p in inspect.signature(function).parameters.values() if p.kind != p.VAR_KEYWORD
    ]
    assert "method" not in names[:-1]


@every_function
def test_everything_is_annotated(where, name, function):
    assert not unannotated(function)


def test_the_signature_checks_can_fail():
    def sloppy(x, stride=1, *, padding: str = "SAME"):
        return x

    assert positional_options(sloppy) == ["stride"]
    assert unannotated(sloppy) == ["x", "stride", "return"]


# --- docstrings -----------------------------------------------------------------------------------

EQUATION = re.compile(r"^\s+\w+(\[[^]]*\])?\s*=\s", re.MULTILINE)


def gaps(function):
    """What the docstring of a function lacks."""
    text = inspect.getdoc(function) or ""
    lacks = []
    if inspect.signature(function).parameters and "Args:\n" not in text:
        lacks.append("Args:")
    nothing = inspect.signature(function).return_annotation in (None, "None")
    if not nothing and "Returns:\n" not in text and not EQUATION.search(text):
        lacks.append("Returns: or an equation")
    if ">>> " not in text:
        lacks.append("an example (>>>)")
    return lacks


@every_function
def test_docstring_says_arguments_result_and_example(where, name, function):
    lacks = gaps(function)
    if where == "jaxdil.reference":
        # Its functions share their arguments, which stand once at the top of the module.
        lacks = [gap for gap in lacks if "example" in gap]
    assert not lacks, f"{where}.{name} lacks {lacks}"


def test_the_docstring_check_can_fail():
    def bare(x):
        """Twice x."""

    def told(x):
        """Twice x.

            y[n] = 2 x[n]

        Args:
          x: any number.

        >>> 1 + 1
        2
        """

    assert gaps(bare) == ["Args:", "Returns: or an equation", "an example (>>>)"]
    assert gaps(told) == []


def doctests(path):
    """The examples of every docstring in a file.

    They are read from the source, because doctest's own search silently passes over functions that
    a decorator has wrapped.
    """
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
            text := ast.get_docstring(node, clean=False)
        ):
            name = getattr(node, "name", path.stem)
            test = doctest.DocTestParser().get_doctest(
                text, {}, name, str(path), node.body[0].lineno - 1
            )
            if test.examples:
                yield test


def run_doctests(path):
    """Run the examples of a file in the namespace of its module; the failures, as text."""
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report = []
    for test in doctests(path):
        # As a reader would have it: the module's own names, and the package by its name.
        test.globs = {**vars(importlib.import_module(import_path(path))), "jaxdil": jaxdil}
        runner.run(test, out=report.append)
    return "".join(report)


WITH_DOCTESTS = [path for path in MODULES if any(doctests(path))]


@pytest.mark.usefixtures("user_defaults")
def test_a_wrong_doctest_is_found(tmp_path, monkeypatch):
    wrong = tmp_path / "wrong.py"
    wrong.write_text('def f():\n    """Two.\n\n    >>> 1 + 1\n    3\n    """\n')
    monkeypatch.setattr(sys.modules[__name__], "import_path", lambda path: "math")
    assert "Expected:\n    3" in run_doctests(wrong)


PARTS = 3


@pytest.mark.core
@pytest.mark.parametrize("part", range(PARTS))
def test_doctests_hold_and_so_do_annotations(part):
    """Every example, beartype checking each argument and result against its annotation.

    In a process without the flags of conftest.py: compiled as a user compiles.
    """
    failures = fresh(
        f"""
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from jaxtyping import TypeCheckError, install_import_hook
        with install_import_hook("jaxdil", "beartype.beartype"):
            import jaxdil
            import test_api
            paths = test_api.WITH_DOCTESTS[{part}::{PARTS}]
            report = "".join(test_api.run_doctests(path) for path in paths)
        try:
            jaxdil.conv("no", "arrays")
        except TypeCheckError:
            pass
        else:
            report += "no annotation was checked"
        """
    )
    assert not failures, failures


# --- imports --------------------------------------------------------------------------------------

# A module imports only modules of lower rungs. Those of the ground may import each other.
LADDER = [
    {"_problem", "_layout", "_geometry", "_errors", "_swap", "_plain", "_outline", "_loop"}
    | {"_measure", "_reads", "_active", "_device", "_triton", "_choice", "_turns", "_terms"}
    | {"_pooled"},
    {"_pallas", "_pallas.axes", "_pallas.narrow", "_pallas.gpu_tiles"} | {"_pallas.varying"},
    {"_pallas.plan_1d", "_pallas.plan_2d"},
    {"_pallas.plan_3d", "_pallas.layouts"},
    {"_pallas.asked", "_pallas.joined"},
    {"_pallas.plan_dense"},
    {"_pallas.plan_dense_gradient", "_pallas.plan_groups", "_pallas.plan_volumes"},
    {"_pallas.plan_groups_gradient", "_pallas.plan_volumes_gradient"},
    # These import Pallas, and are imported when a kernel is lowered.
    {"_pallas.lying", "_pallas.lying_1d"},
    {"_pallas.mended"},
    {"_pallas.tpu_1d", "_pallas.tpu_2d", "_pallas.gpu_forward", "_pallas.gpu_kernel_grad"},
    {"_pallas.tpu_2d_gradient", "_pallas.tpu_3d", "_pallas.tpu_dense"},
    {"_pallas.tpu_dense_gradient", "_pallas.tpu_groups", "_pallas.tpu_volumes"},
    {"_pallas.tpu_3d_gradient"},
    {"_pallas.tpu_groups_gradient", "_pallas.tpu_volumes_gradient"},
    {"_methods"},  # the contract, and the table of names; it loads a method when one is asked for
    {"_methods.*"},  # never each other
    {"_rules.tpu_kernel_gradients", "_rules.cpu_products"},
    {"_rules.cpu_amd", "_rules.cpu_intel", "_rules.cpu_pooled"},
    {"_rules.cpu_channels"},
    {
        "_rules.cpu_cores",
        "_rules.cpu_groups",
        "_rules.cpu_library",
        "_rules.cpu_taps",
        "_rules.cpu_volumes",
    },
    {"_rules.cpu_few"},
    {"_rules.cpu", "_rules.cuda", "_rules.tpu"},
    {"_rules"},
    {"_dispatch"},
    {"_primitive"},
    {"_roles"},
    {"_arguments", "_pad"},
    {"_padding", "_bias"},
    {"_window"},
    {"_conv", "_adjoint", "_resample", "_slide", "_batched"},
    {"_depthwise", "_transpose", "_with_space_to_batch", "_pool", "_unfold", "_per_example"},
    {"streaming._registers"},
    {"streaming._segments", "streaming._resumed"},
    {"streaming._causal"},
    {"streaming._advance"},
    {"streaming._carry"},
    {"streaming._network", "streaming._stacks"},
    {"_shapes", "_local", "_morphology"},
    {"_kernels"},
    {"weights"},
    {"tf._arguments"},
    {"tf._conv", "tf._pool"},
    {"tf._gradients"},
    {"tf._depth"},
    {"_convolve"},
    {"tf._depthwise", "tf._transpose", "tf._space_to_batch", "tf._morphology", "tf._pool_nd"},
    {"modules._norm"},
    {"modules._layer"},
    {"modules.*"},  # a paper each, never each other
    {"modules"},
    {"_read_rules"},
    {"_tape", "_plan_dilations"},
    {"torch._arguments"},
    {"torch._pad", "torch._pooling"},
    {"torch._conv", "torch._fold", "torch._pixel", "torch._pool", "torch._transpose"},
    {"tf", "torch", "_receptive_field", "_transform"},
    {"_explanation"},
    {"_explain", "_install", "_coverage"},
    {"_costs"},
    {"tuning._entry"},
    {"tuning._file"},
    {"tuning._table"},
    {"tuning._tune"},
    {"tuning", "sharding", "streaming", "plot"},
    {"__init__"},
]
GROUND = LADDER[0]


def rung(name):
    """The height of a module on the ladder."""
    package, _, module = name.partition(".")
    known = {name} if any(name in names for names in LADDER) or not module else {f"{package}.*"}
    heights = [height for height, names in enumerate(LADDER) if known & names]
    assert heights, f"give {name} a rung in LADDER"
    return heights[0]


def imports_of(path, package=PACKAGE):
    """What a file imports, anywhere in it: our modules by ladder name, the others by top level."""
    ours, others = set(), set()
    modules = {name_of(p, package) for p in package.rglob("*.py")}

    def add(dotted):
        top, _, rest = dotted.partition(".")
        if top != package.name:
            others.add(top)
        else:
            # `jaxdil._methods.xla.apply` and `jaxdil.conv` name what a module has: find the module.
            parts = rest.split(".")
            known = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
            ours.add(next((name for name in known if name in modules), "__init__"))

    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # relative: `from . import x`, `from .x import y`
                home = [package.name, *path.relative_to(package).parts][: -node.level]
                base = ".".join([*home, *filter(None, [node.module])])
            for alias in node.names:
                add(f"{base}.{alias.name}")
    return ours, others


def ladder_violations(path, package=PACKAGE):
    """The imports of a file that do not go down the ladder."""
    name = name_of(path, package)
    ours, others = imports_of(path, package)
    if name == "reference":
        # The oracle shares nothing with what it judges.
        strangers = others - {"numpy"} - set(sys.stdlib_module_names)
        return sorted(ours | strangers)
    if name == "__init__":
        return []
    on_ground = name in GROUND
    return sorted(
        target
        for target in ours
        if target == "reference"
        or (rung(target) >= rung(name) and not (on_ground and target in GROUND))
    )


@every_module
def test_imports_go_down_the_ladder(path):
    wrong = ladder_violations(path)
    assert not wrong, f"{name_of(path)} may not import {wrong}"


@pytest.mark.parametrize(
    ("file", "source", "caught"),
    [
        ("_geometry.py", "from jaxdil import _conv", ["_conv"]),
        ("_geometry.py", "from jaxdil import _errors", []),
        ("_conv.py", "import jaxdil", ["__init__"]),
        ("_conv.py", "from jaxdil import conv", ["__init__"]),
        ("_conv.py", "def f():\n    from jaxdil._transform import explain", ["_transform"]),
        ("_conv.py", "from jaxdil import reference", ["reference"]),
        ("_conv.py", "import jax\nfrom jaxdil._methods.xla import apply", []),
        ("_methods/xla.py", "from . import taps", ["_methods.taps"]),
        ("_methods/xla.py", "from jaxdil._methods.taps import apply", ["_methods.taps"]),
        ("_methods/xla.py", "from jaxdil._methods import Convolve", []),
        ("_methods/xla.py", "from .. import _dispatch", ["_dispatch"]),
        ("_transform.py", "from jaxdil import _explain", ["_explain"]),
        ("_explain.py", "from jaxdil import _transform", []),
        (
            "reference.py",
            "import jax, math, numpy\nfrom jaxdil import _geometry",
            ["_geometry", "jax"],
        ),
        ("reference.py", "import math\nfrom numpy.lib import stride_tricks", []),
    ],
)
def test_the_ladder_check_finds_planted_imports(tmp_path, file, source, caught):
    package = tmp_path / "jaxdil"
    (package / "_methods").mkdir(parents=True)
    for name in ["_geometry", "_errors", "_conv", "_transform", "_explain", "_dispatch"]:
        (package / f"{name}.py").touch()
    for name in ["__init__", "reference", "_methods/__init__", "_methods/xla", "_methods/taps"]:
        (package / f"{name}.py").touch()
    (package / file).write_text(source)
    assert ladder_violations(package / file, package) == caught


# --- sizes ----------------------------------------------------------------------------------------


@every_module
def test_no_module_is_over_its_limit(path):
    lines = len(path.read_text().splitlines())
    limit = 400 if name_of(path).startswith("_methods.pallas") else 350
    assert lines <= limit, f"{name_of(path)} has {lines} lines: split it along an idea"


# --- import jaxdil changes nothing ----------------------------------------------------------------


def fresh(source):
    """Run code in a new Python, warnings being errors; what it left in `report`."""
    code = "import json, sys\n" + textwrap.dedent(source) + "\nprint('\\n' + json.dumps(report))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        env={name: value for name, value in os.environ.items() if name != "XLA_FLAGS"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# Everything of JAX that can be seen through public modules, before and after a statement. JAX's own
# modules are imported beforehand, so that what they register is not laid at our door.
DIFFERENCE = """
import os
import jax, jax.export, jax.extend.core, jax.interpreters.mlir, jax.numpy, jax.sharding
from jax.extend.core import Primitive
from jax.interpreters import ad, batching

def tables():
    rules = [
        ("jvp", ad.primitive_jvps),
        ("transpose", ad.primitive_transposes),
        ("batching", batching.primitive_batchers),  # no dict in newer JAX: it writes to the next
        ("batching", batching.fancy_primitive_batchers),
    ]
    seen = {f"rule: {kind} of {primitive}": rule
            for kind, table in rules if isinstance(table, dict)
            for primitive, rule in table.items()
            if not str(primitive).startswith("jaxdil")}
    seen |= {f"option: {name}": value for name, value in jax.config.values.items()}
    seen |= {f"environment: {name}": value for name, value in os.environ.items()}
    for module in (jax, jax.lax, jax.numpy, jax.nn):
        seen |= {f"name: {module.__name__}.{name}": thing for name, thing in vars(module).items()
                 if not (name.startswith("__") or type(thing) is type(jax))}
    for primitive in vars(jax.lax).values():
        if isinstance(primitive, Primitive):
            seen |= {f"attribute: {primitive}.{name}": v for name, v in vars(primitive).items()}
    return seen

HEAVY = {"equinox", "flax", "haiku", "keras", "matplotlib", "scipy", "tensorflow", "torch"}

def heavy():
    return {name for name in sys.modules
            if name.split(".")[0] in HEAVY or name.startswith("jax.experimental.pallas")}

before, loaded = tables(), heavy()
STATEMENT
after = tables()
report = sorted(name for name in before.keys() | after.keys()
                if name not in before or name not in after or before[name] is not after[name]
                and not (name[:4] in ("opti", "envi") and before[name] == after[name]))
report += sorted(f"module: {name}" for name in heavy() - loaded)

# The number of devices can be set only as long as no backend has started.
try:
    jax.config.update("jax_num_cpu_devices", 3)
except RuntimeError:
    report.append("a backend was started")
"""


def difference(statement):
    """What a statement changes in JAX and in the process."""
    return fresh(DIFFERENCE.replace("STATEMENT", statement))


@pytest.mark.core
def test_import_changes_nothing():
    assert difference("import jaxdil") == []


# What is changed, and how it is told.
CHANGES = {
    "jax.config.update('jax_enable_x64', True)": "option: jax_enable_x64",
    "jax.lax.conv = None": "name: jax.lax.conv",
    "ad.primitive_jvps[jax.lax.sin_p] = None": "rule: jvp of sin",
    "batching.primitive_batchers[Primitive('other')] = None": "rule: batching of other",
    "jax.lax.sin_p.def_impl(None)": "attribute: sin.impl",
    "os.environ['XLA_FLAGS'] = ''": "environment: XLA_FLAGS",
    "import matplotlib": "module: matplotlib",
    "jax.numpy.zeros(1)": "a backend was started",
}


def test_the_import_check_can_fail():
    found = difference("\n".join(CHANGES))
    assert [seen for seen in CHANGES.values() if seen not in found] == []


def test_the_import_check_lets_our_own_primitive_pass():
    assert difference("batching.primitive_batchers[Primitive('jaxdil_conv')] = None") == []
