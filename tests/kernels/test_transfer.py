"""Numbers of the host in tensors of a device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wse.kernels.transfer import sent, write


@pytest.mark.parametrize(
    "values",
    [[True, False, True], [1, 2, 3], np.arange(3), np.array([0.1, 0.2, 0.3]), np.arange(6, dtype=np.int16)[::2]],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32])
def test_numbers_arrive_in_the_tensors_dtype(device, values, dtype):
    made = sent(values, dtype, torch.device(device))
    assert made.dtype == dtype
    assert made.device.type == torch.device(device).type
    np.testing.assert_array_equal(made.cpu().numpy(), torch.from_numpy(np.array(values)).to(dtype).numpy())


def test_a_part_is_written_and_the_host_may_go_on(device):
    to = torch.zeros(2, 4, device=device)
    values = np.array([1.0, 2.0])
    write(to[1, 1:3], values)
    values[:] = 9
    assert to.tolist() == [[0, 0, 0, 0], [0, 1, 2, 0]]
