"""What the orders have in common in which the backends keep weights."""

from __future__ import annotations

from ..nets import Layout, TensorSpec


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple that is not smaller."""
    return -(-value // multiple) * multiple


def stages(layout: Layout) -> tuple[list[TensorSpec], ...]:
    """A layout's tensors: weights, what else is trained, then what is not: frozen biases and moving statistics.

    In this order l2 and weight decay take a prefix of the vector, and an optimizer a longer one.
    """
    weights, others, untrained = [], [], []
    for spec in layout.tensors.values():
        if spec.kind == "weight":
            weights.append(spec)
        elif spec.frozen or spec.is_statistic:
            untrained.append(spec)
        else:
            others.append(spec)
    return weights, others, untrained
