"""One launch that takes an optimizer step for every member of a pack, for Triton.

Weights, gradients and state are arenas [P, D], a row a member. Members differ in optimizer, form, rate and count,
all read at run time: the forms of an optimizer differ in scalars only, which the host works out in float64 and
rounds once, so that the kernel has one branch a kind.

P members, D values of a row, S steps of a table, K columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import triton
import triton.language as tl
from torch import Tensor

from ..triton_variant import Variant
from .reference import CONSTANTS, OptimizerForm, OptimizerKind

SGD, MOMENTUM, RMSPROP, ADAM = range(4)
KIND_CODES: dict[OptimizerKind, int] = {"sgd": SGD, "momentum": MOMENTUM, "rmsprop": RMSPROP, "adam": ADAM}

CONSTANT_COLUMNS = 7
STEP_COLUMNS = 3

_BLOCK = 512
_SGD, _MOMENTUM, _RMSPROP = tl.constexpr(SGD), tl.constexpr(MOMENTUM), tl.constexpr(RMSPROP)
_CONSTANT_COLUMNS, _STEP_COLUMNS = tl.constexpr(CONSTANT_COLUMNS), tl.constexpr(STEP_COLUMNS)


@triton.jit(do_not_specialize=["P"])
def step_kernel(
    weights_ptr,
    gradient_ptr,
    first_state_ptr,
    second_state_ptr,
    live_ptr,
    kinds_ptr,
    constants_ptr,
    steps_ptr,
    tick_ptr,
    P,
    D,
    n_weights,
    n_trained,
    BLOCK: tl.constexpr,
):
    """A block of one member's values."""
    member = tl.program_id(0)
    if tl.load(live_ptr + member) == 0:
        return
    places = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = places < n_trained
    at = member.to(tl.int64) * D + places
    kind = tl.load(kinds_ptr + member)
    constants = constants_ptr + member * _CONSTANT_COLUMNS
    step = steps_ptr + (tl.load(tick_ptr).to(tl.int64) * P + member) * _STEP_COLUMNS
    decay, size, scale = tl.load(step), tl.load(step + 1), tl.load(step + 2)
    keep, gain = tl.load(constants + 1), tl.load(constants + 2)

    w = tl.load(weights_ptr + at, mask=there, other=0.0)
    g = tl.load(gradient_ptr + at, mask=there, other=0.0)
    is_weight = places < n_weights
    g = tl.where(is_weight, g + tl.load(constants) * w, g)
    w = tl.where(is_weight, w - decay * w, w)
    if kind == _SGD:
        w = w - size * g
    elif kind == _MOMENTUM:
        velocity = tl.load(first_state_ptr + at, mask=there, other=0.0)
        velocity = keep * velocity + scale * g
        w = w - size * velocity
        tl.store(first_state_ptr + at, velocity, mask=there)
    elif kind == _RMSPROP:
        square = tl.load(first_state_ptr + at, mask=there, other=0.0)
        square = keep * square + gain * g * g
        root = tl.sqrt_rn(square + tl.load(constants + 5)) + tl.load(constants + 6)
        w = w - tl.div_rn(size * g, root)
        tl.store(first_state_ptr + at, square, mask=there)
    else:
        mean = tl.load(first_state_ptr + at, mask=there, other=0.0)
        square = tl.load(second_state_ptr + at, mask=there, other=0.0)
        mean = keep * mean + gain * g
        square = tl.load(constants + 3) * square + tl.load(constants + 4) * g * g
        root = tl.sqrt_rn(square * scale) + tl.load(constants + 6)
        w = w - tl.div_rn(size * mean, root)
        tl.store(first_state_ptr + at, mean, mask=there)
        tl.store(second_state_ptr + at, square, mask=there)
    tl.store(weights_ptr + at, w, mask=there)


def optimizer_step(
    weights: Tensor,
    gradient: Tensor,
    state: Tensor,
    *,
    live: Tensor,
    kinds: Tensor,
    constants: Tensor,
    steps: Tensor,
    tick: Tensor,
    n_weights: int,
    n_trained: int,
) -> None:
    """One step of every live member, in place on ``weights`` and ``state``.

    The arithmetic is that of the reference's ``add_l2``, ``decay`` and ``step``, in this order.

    Args:
        weights: float32 [P, D].
        gradient: float32 [P, D] of the loss, l2 not included.
        state: float32 [2, P, D]; what a kind does not remember is left alone.
        live: int32 [P]; a member with 0 is left as it is.
        kinds: int32 [P], values of ``KIND_CODES``.
        constants: float32 [P, 7] from ``constant_columns``.
        steps: float32 [S, P, 3] from ``step_columns``.
        tick: int32 [1], which of the S steps this is.
        n_weights: l2 and decay apply to values 0 to n_weights - 1 of a row.
        n_trained: values from n_trained on are left alone.
    """
    P, D = weights.shape
    step_kernel[(P, triton.cdiv(n_trained, _BLOCK))](  # members first: no other dimension may exceed 65,535
        weights,
        gradient,
        state[0],
        state[1],
        live,
        kinds,
        constants,
        steps,
        tick,
        P,
        D,
        n_weights,
        n_trained,
        BLOCK=_BLOCK,
        num_warps=4,
    )


def initial_mean_square(kind: OptimizerKind, form: OptimizerForm) -> float:
    """What the first state of a member holds before its first step; the second holds 0."""
    return CONSTANTS[form].rmsprop_start if kind == "rmsprop" else 0.0


def constant_columns(
    kind: OptimizerKind, form: OptimizerForm, *, momentum: float, l2: float
) -> npt.NDArray[np.float32]:
    """What a member's steps have in common, float32 [7].

    The columns: twice the l2 coefficient; decay and gain of the first state; decay and gain of Adam's mean
    square; epsilon inside the root, and outside.
    """
    constants = CONSTANTS[form]
    row = [2 * l2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    match kind:
        case "momentum":
            row[1] = momentum
        case "rmsprop":
            row[1:3] = constants.rho, 1 - constants.rho
            row[5 if form == "tf1" else 6] = constants.rmsprop_epsilon
        case "adam":
            row[1:5] = constants.beta1, 1 - constants.beta1, constants.beta2, 1 - constants.beta2
            row[6] = constants.adam_epsilon
    return np.array(row, dtype=np.float32)


def step_columns(
    kinds: Sequence[OptimizerKind],
    form: OptimizerForm,
    *,
    rates: npt.NDArray[np.float64],
    first_counts: npt.NDArray[np.int64],
    weight_decays: npt.NDArray[np.float64],
) -> npt.NDArray[np.float32]:
    """What changes from step to step, float32 [S, P, 3].

    The columns: what decoupled decay takes off; the step's size; the gain of the momentum, or what Adam multiplies
    its mean square by under the root.

    Args:
        kinds: the members' optimizers, P of them.
        form: whose formulas and constants.
        rates: float64 [S, P], learning rates of consecutive steps.
        first_counts: int64 [P], count of the first of them; 1 for a member's first step.
        weight_decays: float64 [P], the coefficients.
    """
    names, columns = np.array(kinds), np.ones((*rates.shape, STEP_COLUMNS))
    columns[..., 0] = rates * weight_decays
    columns[..., 1] = rates
    if form == "keras":
        here = names == "momentum"
        columns[:, here, 1] = -1.0
        columns[:, here, 2] = -rates[:, here]
    here = names == "adam"
    if here.any():
        counts = first_counts[here] + np.arange(len(rates))[:, None]
        correction1 = 1 - CONSTANTS[form].beta1 ** counts
        correction2 = 1 - CONSTANTS[form].beta2 ** counts
        if form == "torch":
            columns[:, here, 1] = rates[:, here] / correction1
            columns[:, here, 2] = 1 / correction2
        else:
            columns[:, here, 1] = rates[:, here] * np.sqrt(correction2) / correction1
    return columns.astype(np.float32)


def variants() -> Iterator[Variant]:
    """One form serves all."""
    arenas = ("weights_ptr", "gradient_ptr", "first_state_ptr", "second_state_ptr", "constants_ptr", "steps_ptr")
    signature = {
        **dict.fromkeys(arenas, "*fp32"),
        **dict.fromkeys(("live_ptr", "kinds_ptr", "tick_ptr"), "*i32"),
        **dict.fromkeys(("P", "D", "n_weights", "n_trained"), "i32"),
    }
    yield Variant(
        kernel=step_kernel,
        name="step",
        signature=signature,
        constexprs={"BLOCK": _BLOCK},
        aligned=("D", "n_weights", "n_trained"),
    )
