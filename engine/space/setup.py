"""What may vary from member to member (``Setup``) and what one run decides for all (``Settings``).

Both are strict records: every field is a key of a space file, and a value outside its type is an error that
names the key. Names and meanings are in ``docs/space.md``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from msgspec.inspect import BoolType, FloatType, IntType, UnionType, type_info

from wse.kernels.optim import OptimizerForm, OptimizerKind

from ..nets import Activation, Initialization

ArrowType = Literal["string", "int64", "double", "bool"]
PositiveInt = Annotated[int, Meta(ge=1)]
# Bounds far beyond what is useful, so that a slip of the finger is an error and not a machine out of memory.
Width = Annotated[int, Meta(ge=1, le=4096)]
FilterSize = Annotated[int, Meta(ge=1, le=32)]
BatchSize = Annotated[int, Meta(ge=1, le=65536)]
Epochs = Annotated[int, Meta(ge=1, le=1_000_000_000)]  # and an epoch is a 32-bit word of random numbers' addresses
PositiveFloat = Annotated[float, Meta(gt=0)]
NonNegativeFloat = Annotated[float, Meta(ge=0)]


class Setup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One member's training set-up: a value for every property.

    A property that does not apply to a member is None: ``init_std`` where the initialisation has no free scale,
    ``depth_fc`` and ``width_fc`` in a family without hidden fully connected layers, ``width_fc`` also in a member
    without.
    """

    dataset: str
    optimizer: OptimizerKind
    learning_rate: PositiveFloat
    learning_rate_schedule: Literal["constant", "cosine"]
    batch_size: BatchSize
    augmentation: bool
    activation: Activation
    initialization: Initialization
    init_std: PositiveFloat | None
    dropout: Annotated[float, Meta(ge=0, lt=1)]
    l2: NonNegativeFloat
    weight_decay: NonNegativeFloat
    train_fraction: Annotated[float, Meta(gt=0, le=1)]
    epochs: Epochs
    images_per_epoch: PositiveInt | None
    batch_norm: bool
    filter_size: FilterSize
    depth_conv: PositiveInt
    width_conv: Width
    depth_fc: Annotated[int, Meta(ge=0)] | None
    width_fc: Width | None


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for every member of a run.

    Attributes:
        family: the architecture family.
        optimizer_form: whose constants and formulas the optimizers follow.
        momentum: coefficient of the momentum optimizer.
        init_constant: the weight of the constant initialisation.
        gamma_std: standard deviation of batch normalisation's initial gamma around 1.
        early_stopping: whether members stop by the rule of ``engine/train/schedule.py``.
        min_epochs: early stopping waits for this many epochs.
        stop_worse: consecutive epochs of falling validation accuracy that stop a member.
        stop_below: epochs below the moving average of validation accuracy that stop a member.
        stop_flat: consecutive epochs of unchanged validation accuracy that stop a member.
        snapshots: how many snapshots are spread evenly over a member's training, or at which epochs they are
            taken; the last epoch always has one.
        validation_fraction: share of the official training images kept for validation.
        training_images: how many training images are evaluated at a snapshot; None: all.
        validation_images: how many validation images are evaluated; None: all.
        test_images: how many test images are evaluated; None: all.
    """

    family: Literal["nws", "small-cnn"]
    optimizer_form: OptimizerForm
    momentum: Annotated[float, Meta(ge=0, lt=1)]
    init_constant: float
    gamma_std: NonNegativeFloat
    early_stopping: bool
    min_epochs: PositiveInt
    stop_worse: PositiveInt
    stop_below: PositiveInt
    stop_flat: PositiveInt
    snapshots: (
        Annotated[int, Meta(ge=2, le=10_000)]
        | Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(min_length=1)]
    )
    validation_fraction: Annotated[float, Meta(gt=0, lt=1)]
    training_images: PositiveInt | None
    validation_images: PositiveInt | None
    test_images: PositiveInt | None


def arrow_types() -> dict[str, ArrowType]:
    """For every property the Arrow type of its values: "string", "int64", "double" or "bool"."""
    names: dict[type, ArrowType] = {BoolType: "bool", IntType: "int64", FloatType: "double"}
    types: dict[str, ArrowType] = {}
    for field in msgspec.structs.fields(Setup):
        kind = type_info(field.type)
        options = kind.types if isinstance(kind, UnionType) else (kind,)
        types[field.name] = next((names[type(option)] for option in options if type(option) in names), "string")
    return types


PROPERTIES: tuple[str, ...] = Setup.__struct_fields__
SETTINGS: tuple[str, ...] = Settings.__struct_fields__
