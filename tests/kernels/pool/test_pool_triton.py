"""The mean over all pixels against float64 PyTorch, in memory full of NaN."""

from __future__ import annotations

import pytest
import torch

from wse.kernels.pool import reference
from wse.kernels.pool.triton import average, average_gradient

from ..conftest import ROUNDED

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NaN in the interpreter's numpy


@pytest.mark.parametrize(
    ("images", "height", "width", "channels", "stored", "margin"),
    [(33, 3, 3, 16, 16, 0), (2, 1, 1, 5, 8, 1), (2, 2, 4, 70, 72, 2)],
    ids=["small-cnn", "one pixel", "more than a block"],
)
def test_forward_and_gradient(
    images: int, height: int, width: int, channels: int, stored: int, margin: int, dtype: torch.dtype, device: str
) -> None:
    torch.manual_seed(3)
    x = torch.full((images, height, width + 2 * margin, channels), torch.nan, dtype=dtype, device=device)
    inside = slice(margin, margin + width)
    x[:, :, inside] = torch.randn(images, height, width, channels)
    x[0, :, inside] = torch.nan  # a diverged neighbour
    y, dy = (torch.full((images, stored), torch.nan, dtype=dtype, device=device) for _ in range(2))
    dy[1:, :channels] = torch.randn(images - 1, channels)
    dx = torch.full_like(x, torch.nan)
    average(x, y, width=width)
    average_gradient(dy, dx, width=width)

    x64 = x[:, :, inside].double().requires_grad_()
    means = reference.average(x64)
    (gradient,) = torch.autograd.grad(means, x64, dy[:, :channels].double())
    near = {"rtol": 1e-6 + (ROUNDED if dtype == torch.bfloat16 else 0.0), "atol": 1e-6, "equal_nan": True}
    torch.testing.assert_close(y[:, :channels].double(), means, **near)
    torch.testing.assert_close(dx[:, :, inside].double(), gradient, **near)
    assert (y[:, channels:] == 0).all()
    assert dx[:, :, :margin].isnan().all()  # nobody wrote there
    assert dx[:, :, margin + width :].isnan().all()


def test_what_does_not_fit_is_refused() -> None:
    x, y = torch.zeros(2, 3, 5, 4), torch.zeros(2, 4)
    with pytest.raises(ValueError, match="one for each"):
        average(x, y[:1], width=5)
    with pytest.raises(ValueError, match="of 3 x 4 pixels with a margin on both sides"):
        average(x, y, width=4)
    with pytest.raises(ValueError, match="must be contiguous"):
        average(x, torch.zeros(4, 2).T, width=5)
