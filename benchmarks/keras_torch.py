"""Keras' torch backend, in a process of its own: Keras has one backend a process.

The parent sends a word a call, "infer" or "step", and waits for the answer, so that the two take
turns. A step is what a training loop written in PyTorch does: forward, cross entropy, backward, and
gradient descent on every parameter in place; an inference records no gradients.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["Peer", "missing"]

_ROOT = pathlib.Path(__file__).parent.parent


def missing() -> str | None:
    """Why the torch backend cannot take part, or None."""
    for name in ("keras", "torch"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed: pip install 'jaxdil[peers]'"
    return None


class Peer:
    """The same layers and weights as a network of Keras in this process, on the torch backend."""

    def __init__(
        self, network: Any, batch: tuple[np.ndarray, np.ndarray], *, threads: int, rate: float
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        path = pathlib.Path(self._folder.name)
        np.savez(path / "weights.npz", *network.get_weights())
        np.savez(path / "batch.npz", x=batch[0], wanted=batch[1])
        order = {"network": network.to_json(), "threads": threads, "rate": rate}
        (path / "order.json").write_text(json.dumps(order))
        environment = {**os.environ, "KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.keras_torch", str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT, env=environment,
        )  # fmt: skip
        self.version = self._answer()

    def call(self, word: str) -> str:
        """Run one inference or one step; what it answers, when it is done."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._answer()

    def outputs(self) -> np.ndarray:
        """The outputs at inference, with the weights as they were given."""
        path = self.call("outputs")
        return np.load(path)

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().strip()
        if not answer:
            msg = "Keras on PyTorch ended early; its message stands above"
            raise RuntimeError(msg)
        return answer


def _serve(path: pathlib.Path) -> None:
    # Keras and its libraries may print; the answers have a channel of their own.
    answers, sys.stdout = sys.stdout, sys.stderr
    infer, step, version = _network(path)
    print(version, file=answers, flush=True)
    for line in sys.stdin:
        word = line.strip()
        if word == "outputs":
            np.save(path / "outputs.npy", infer().detach().cpu().numpy())
            answer = str(path / "outputs.npy")
        else:
            answer = f"{float({'infer': infer, 'step': step}[word]().flatten()[0]):.6g}"
        print(answer, file=answers, flush=True)


def _network(path: pathlib.Path) -> tuple[Callable[[], Any], Callable[[], Any], str]:
    import keras
    import torch

    order = json.loads((path / "order.json").read_text())
    torch.set_num_threads(order["threads"])
    network = keras.models.model_from_json(order["network"])
    saved = np.load(path / "weights.npz")
    network.set_weights([saved[name] for name in saved.files])
    batch = np.load(path / "batch.npz")
    x, wanted = torch.from_numpy(batch["x"]), torch.from_numpy(batch["wanted"]).long()
    parameters = [variable.value for variable in network.trainable_variables]

    def infer() -> Any:
        with torch.no_grad():
            return network(x, training=False)

    def step() -> Any:
        loss = torch.nn.functional.cross_entropy(network(x, training=True), wanted)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(order["rate"] * gradient)
        return loss

    return infer, step, f"{torch.__version__} keras {keras.__version__}"


if __name__ == "__main__":
    _serve(pathlib.Path(sys.argv[1]))
