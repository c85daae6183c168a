"""Softmax cross-entropy of a pack, its gradient, and what evaluation counts, for Triton.

R images, P members, N outputs, CN columns that a row of logits has in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import triton
import triton.language as tl
from torch import Tensor

from ..packs import Pack
from ..triton_variant import Variant

_BLOCK_R = 32
_BLOCK_TALLY = 128


@triton.jit
def cross_entropy_kernel(
    logits_ptr,
    gradient_ptr,
    losses_ptr,
    answers_ptr,
    indices_ptr,
    labels_ptr,
    tiles_ptr,
    row_offsets_ptr,
    N: tl.constexpr,
    CN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
    LEARNS: tl.constexpr,
):
    """A tile of one member's images."""
    tile = tiles_ptr + tl.program_id(0) * 3
    member, first, end = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    if first == end:
        return
    rows, outputs = first + tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_N)
    there = rows < end
    at = rows[:, None].to(tl.int64) * CN + outputs[None, :]
    inside = there[:, None] & (outputs[None, :] < N)
    logits = tl.load(logits_ptr + at, mask=inside, other=0.0).to(tl.float32)
    logits = tl.where(outputs[None, :] < N, logits, float("-inf"))
    images = tl.load(indices_ptr + rows, mask=there, other=0)
    labels = tl.load(labels_ptr + images, mask=there, other=0).to(tl.int32)

    largest = tl.max(logits, 1)
    powers = tl.exp(logits - largest[:, None])
    total = tl.sum(powers, 1)
    is_label = outputs[None, :] == labels[:, None]
    of_label = tl.sum(tl.where(is_label, logits, 0.0), 1)
    tl.store(losses_ptr + rows, largest - of_label + tl.log(total), mask=there)
    # A NaN is larger than all numbers, as in PyTorch; of equals the first is taken.
    is_nan = logits != logits
    wins = tl.where(tl.max(is_nan.to(tl.int32), 1)[:, None] != 0, is_nan, logits == largest[:, None])
    tl.store(answers_ptr + rows, tl.min(tl.where(wins, outputs[None, :], N - 1), 1), mask=there)
    if LEARNS:
        images_of_member = tl.load(row_offsets_ptr + member + 1) - tl.load(row_offsets_ptr + member)
        softmax = powers / total[:, None]
        gradient = (softmax - tl.where(is_label, 1.0, 0.0)) / images_of_member.to(tl.float32)
        # The columns that are no outputs become 0: they are read as if they were.
        gradient = tl.where(outputs[None, :] < N, gradient, 0.0)
        stored = there[:, None] & (outputs[None, :] < CN)
        tl.store(gradient_ptr + at, gradient.to(gradient_ptr.dtype.element_ty), mask=stored)


def cross_entropy(
    logits: Tensor,
    pack: Pack,
    *,
    indices: Tensor,
    labels: Tensor,
    losses: Tensor,
    answers: Tensor,
    outputs: int,
    gradient: Tensor | None,
) -> None:
    """Losses and answers of all images, and the gradient of each member's mean loss.

    Args:
        logits: bfloat16 or float32 [R, CN]; columns past the outputs are not read.
        pack: whose images they are.
        indices: int32 [R], which image of the resident sets a row is.
        labels: uint8, of all resident images.
        losses: float32 [R], written, in nats.
        answers: int32 [R], written: the output with the largest logit.
        outputs: N.
        gradient: bfloat16 or float32 [R, CN], written; None when nothing is learnt.
    """
    tiles = pack.tiles(items_per_image=1, size=_BLOCK_R)
    cross_entropy_kernel[(len(tiles),)](
        logits,
        logits if gradient is None else gradient,
        losses,
        answers,
        indices,
        labels,
        tiles.table,
        pack.row_offsets,
        N=outputs,
        CN=logits.shape[1],
        BLOCK_N=triton.next_power_of_2(logits.shape[1]),
        BLOCK_R=_BLOCK_R,
        LEARNS=gradient is not None,
        num_warps=4,
    )


@triton.jit(do_not_specialize=["P"])
def mean_loss_kernel(means_ptr, losses_ptr, row_offsets_ptr, tick_ptr, P, BLOCK: tl.constexpr):
    """One member's images, in order."""
    member = tl.program_id(0)
    begin, stop = tl.load(row_offsets_ptr + member), tl.load(row_offsets_ptr + member + 1)
    if begin == stop:
        return
    sums = tl.zeros((BLOCK,), tl.float32)
    for first in range(begin, stop, BLOCK):
        rows = first + tl.arange(0, BLOCK)
        sums += tl.load(losses_ptr + rows, mask=rows < stop, other=0.0)
    at = tl.load(tick_ptr).to(tl.int64) * P + member
    tl.store(means_ptr + at, tl.sum(sums, 0) / (stop - begin).to(tl.float32))


def mean_loss(means: Tensor, losses: Tensor, pack: Pack, *, tick: Tensor) -> None:
    """Each member's mean loss of a step.

    Args:
        means: float32 [S, P], of S steps; row ``tick`` is written where a member has images.
        losses: float32 [R].
        pack: whose images they are.
        tick: int32 [1], which of the S steps this is.
    """
    mean_loss_kernel[(pack.members,)](
        means, losses, pack.row_offsets, tick, pack.members, BLOCK=_BLOCK_TALLY, num_warps=4
    )


@triton.jit
def tally_kernel(
    sums_ptr,
    correct_ptr,
    predicted_ptr,
    losses_ptr,
    answers_ptr,
    indices_ptr,
    labels_ptr,
    row_offsets_ptr,
    N: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One member's images, in order; nobody else writes its counts."""
    member = tl.program_id(0)
    begin, stop = tl.load(row_offsets_ptr + member), tl.load(row_offsets_ptr + member + 1)
    if begin == stop:
        return
    outputs = tl.arange(0, BLOCK_N)
    sums = tl.zeros((BLOCK,), tl.float64)
    correct = tl.zeros((BLOCK,), tl.int32)
    predicted = tl.zeros((BLOCK_N,), tl.int32)
    for first in range(begin, stop, BLOCK):
        rows = first + tl.arange(0, BLOCK)
        there = rows < stop
        sums += tl.load(losses_ptr + rows, mask=there, other=0.0).to(tl.float64)
        answers = tl.load(answers_ptr + rows, mask=there, other=-1)
        images = tl.load(indices_ptr + rows, mask=there, other=0)
        labels = tl.load(labels_ptr + images, mask=there, other=0).to(tl.int32)
        correct += (answers == labels).to(tl.int32)
        predicted += tl.sum((answers[:, None] == outputs[None, :]).to(tl.int32), 0)
    tl.store(sums_ptr + member, tl.load(sums_ptr + member) + tl.sum(sums, 0))
    tl.store(correct_ptr + member, tl.load(correct_ptr + member) + tl.sum(correct, 0))
    counts = predicted_ptr + member * N + outputs
    tl.store(counts, tl.load(counts, mask=outputs < N, other=0) + predicted, mask=outputs < N)


def tally(
    sums: Tensor,
    correct: Tensor,
    predicted: Tensor,
    pack: Pack,
    *,
    losses: Tensor,
    answers: Tensor,
    indices: Tensor,
    labels: Tensor,
) -> None:
    """Add what evaluation counts, in place.

    Args:
        sums: float64 [P], of losses in nats.
        correct: int32 [P], images classified rightly.
        predicted: int32 [P, N], images given to each output.
        pack: whose images they are.
        losses: float32 [R].
        answers: int32 [R].
        indices: int32 [R], which image of the resident sets a row is.
        labels: uint8, of all resident images.
    """
    N = predicted.shape[1]
    tally_kernel[(pack.members,)](
        sums,
        correct,
        predicted,
        losses,
        answers,
        indices,
        labels,
        pack.row_offsets,
        N=N,
        BLOCK_N=triton.next_power_of_2(N),
        BLOCK=_BLOCK_TALLY,
        num_warps=4,
    )


def variants() -> Iterator[Variant]:
    """Ten and twenty outputs, in the columns that linear layers give them."""
    tables = {**dict.fromkeys(("answers_ptr", "indices_ptr", "row_offsets_ptr"), "*i32"), "labels_ptr": "*u8"}
    for N, CN in ((10, 16), (20, 24)):
        for dtype in ("bf16", "fp32"):
            for learns in (True, False):
                yield Variant(
                    kernel=cross_entropy_kernel,
                    name=f"cross-entropy-{N}-of-{CN}-{dtype}-{'learns' if learns else 'measures'}",
                    signature={
                        **tables,
                        "tiles_ptr": "*i32",
                        "logits_ptr": f"*{dtype}",
                        "gradient_ptr": f"*{dtype}",
                        "losses_ptr": "*fp32",
                    },
                    constexprs={
                        "N": N,
                        "CN": CN,
                        "BLOCK_N": triton.next_power_of_2(CN),
                        "BLOCK_R": _BLOCK_R,
                        "LEARNS": learns,
                    },
                )
    yield Variant(
        kernel=mean_loss_kernel,
        name="mean-loss",
        signature={
            **dict.fromkeys(("means_ptr", "losses_ptr"), "*fp32"),
            **dict.fromkeys(("row_offsets_ptr", "tick_ptr"), "*i32"),
            "P": "i32",
        },
        constexprs={"BLOCK": _BLOCK_TALLY},
    )
    for N in (10, 20):
        yield Variant(
            kernel=tally_kernel,
            name=f"tally-{N}",
            signature={
                **tables,
                "sums_ptr": "*fp64",
                "correct_ptr": "*i32",
                "predicted_ptr": "*i32",
                "losses_ptr": "*fp32",
            },
            constexprs={"N": N, "BLOCK_N": triton.next_power_of_2(N), "BLOCK": _BLOCK_TALLY},
        )
