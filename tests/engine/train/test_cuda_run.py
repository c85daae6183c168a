"""Whole runs by the CUDA backend: rows refilled from one pack of an architecture, and what a user can do wrong.

Without a GPU the kernels run in Triton's interpreter.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wse.engine.errors import UsageError
from wse.engine.train import Options, ReferenceBackend, Run, resolve_options
from wse.engine.train.backend import DeviceMemoryError
from wse.engine.train.cuda import CudaBackend
from wse.engine.train.options import backend_for
from wse.engine.zoo import Zoo

# NumPy warns of exponentials in the interpreter.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

SMALL = {
    "width_conv": 4,
    "depth_conv": 2,
    "batch_size": [3, 4],
    "images_per_epoch": 4,
    "epochs": 2,
    "snapshots": 2,
    "training_images": 5,
    "validation_images": 6,
    "test_images": 7,
    "early_stopping": True,
    "min_epochs": 1,
    "stop_worse": 1,
}


def small_run(tiny_space, folder, backend=None, rows=2, **overrides):
    space = tiny_space("small-cnn", **{**SMALL, **overrides})
    return Run(Options(space=space, models=3, folder=folder, seed=5, rows=rows), backend)


def test_a_population_is_the_references(device, tiny_space, tmp_path):
    backend = CudaBackend("fp32", device=device, evaluation_images=20)
    assert small_run(tiny_space, tmp_path / "cuda", backend).execute()
    assert small_run(tiny_space, tmp_path / "reference", ReferenceBackend(torch.float64)).execute()
    zoo, reference = Zoo.open(tmp_path / "cuda"), Zoo.open(tmp_path / "reference")
    assert (zoo.manifest.backend, zoo.manifest.precision) == ("cuda", "fp32")
    for member in range(3):
        got, expected = zoo[member].weights(), reference[member].weights()
        assert got.shape == expected.shape
        np.testing.assert_array_equal(got[0], expected[0], err_msg="initial weights are the same bits")
        change = np.linalg.norm(expected[-1] - expected[0])
        assert np.linalg.norm(got[-1] - expected[-1]) <= 1e-3 * change
    table, expected_table = zoo.members.to_pydict(), reference.members.to_pydict()
    for column in ("status", "epochs", "samples_trained", "samples_evaluated"):
        assert table[column] == expected_table[column]
    np.testing.assert_allclose(table["test_loss"], expected_table["test_loss"], rtol=1e-3)


class Cramped(ReferenceBackend):
    """Has room for one row, and says so where a GPU would: when memory is taken, or later."""

    def __init__(self, most, late):
        super().__init__()
        self.most, self.late, self.opened = most, late, []

    def open(self, architecture, rows, context):
        self.opened.append(rows)
        pack = super().open(architecture, rows, context)
        if rows > self.most:
            if not self.late:
                raise DeviceMemoryError("too little")
            pack.advance = self.fail
        return pack

    def fail(self):
        raise DeviceMemoryError("too little")


@pytest.mark.parametrize("late", [False, True])
def test_fewer_side_by_side_if_memory_is_short(late, tiny_space, tmp_path, capsys):
    backend = Cramped(most=1, late=late)
    assert small_run(tiny_space, tmp_path / "zoo", backend, rows=3).execute()
    assert backend.opened == [3, 1]
    assert "going on with 1 at a time" in capsys.readouterr().err
    assert Zoo.open(tmp_path / "zoo").members.num_rows == 3


def test_too_little_memory_for_one_network_is_an_error(tiny_space, tmp_path):
    with pytest.raises(DeviceMemoryError):
        small_run(tiny_space, tmp_path / "zoo", Cramped(most=0, late=False)).execute()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_errors_say_so():
    with pytest.raises(UsageError, match="needs an NVIDIA GPU"):
        backend_for("cuda")
    with pytest.raises(UsageError, match="--precision bf16 needs"):
        backend_for("auto", precision="bf16")
    with pytest.raises(UsageError, match="or --device reference, which rounds alike"):
        backend_for("cpu", precision="bf16")
    assert backend_for("reference", precision="bf16").precision == "bf16"
    assert backend_for("auto").name == "cpu"
    assert backend_for("auto", precision="fp32").name == "cpu"


def test_unknown_precision():
    with pytest.raises(UsageError, match="`precision` \\(='fp8'\\) must be bf16 or fp32"):
        backend_for("cpu", precision="fp8")


def test_a_resumed_run_goes_on_with_its_precision(tiny_space, tmp_path):
    space = tiny_space("small-cnn", **SMALL)
    folder = tmp_path / "zoo"
    assert Run(Options(space=space, models=1, folder=folder, device="reference")).execute()
    options, _ = resolve_options(models=None, folder=folder, resume=True)
    assert (options.device, options.precision) == ("reference", "fp32")
    options, _ = resolve_options(models=None, folder=folder, resume=True, device="cpu")
    assert (options.device, options.precision) == ("cpu", None)
