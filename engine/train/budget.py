"""Fit a run to a time, by a rule: fewer images an epoch first, then fewer epochs, and nothing else.

``images_per_epoch`` falls to no less than ``LEAST_IMAGES``, ``epochs`` to no less than ``LEAST_EPOCHS``; what the
space has less of stays. What is found becomes part of the space, so the zoo can be made again without the budget.
"""

from __future__ import annotations

from ..errors import UsageError
from ..space import Space
from ..text import seconds_text
from .estimate import Speed
from .plan import Plan, make_plan
from .run import Run

LEAST_IMAGES = 2000
LEAST_EPOCHS = 5
# The rest is for writing, for a busier hour, and for what a few seconds of measuring miss.
SHARE = 0.9
# So many members stand for the population while caps are tried.
_SAMPLED_MEMBERS = 1000


def fit_space(run: Run, speed: Speed, seconds: float) -> Space:
    """The space of a run, shortened so that the run fits a time even if no member stops early.

    Args:
        run: in full.
        speed: of this machine at it.
        seconds: it may take.

    Returns:
        The space as it is if all fits. Caps are of two digits, such as 12,000 images.

    Raises:
        UsageError: it cannot be made to fit; says how many members would.
    """
    space = run.options.space
    if speed.seconds(run.plan) <= SHARE * seconds:
        return space
    largest = {
        "images_per_epoch": max(len(images.train_labels) for images in run.image_sets.values()),
        "epochs": max(member.setup.epochs for member in run.members),
    }
    for name, least in (("images_per_epoch", LEAST_IMAGES), ("epochs", LEAST_EPOCHS)):
        caps = [cap for cap in _round_numbers(largest[name]) if cap > least]
        if _seconds(space.capped(name, least), run, speed) <= SHARE * seconds:
            low = least
            while caps:  # the largest that fits is left
                middle = len(caps) // 2
                if _seconds(space.capped(name, caps[middle]), run, speed) <= SHARE * seconds:
                    low, caps = caps[middle], caps[middle + 1 :]
                else:
                    caps = caps[:middle]
            return space.capped(name, low)
        space = space.capped(name, least)
    least_seconds = _seconds(space, run, speed)
    models = run.options.models
    fitting = int(models * SHARE * seconds / least_seconds)
    advice = f"take {fitting:,} --models, or fewer snapshots" if fitting else "take fewer snapshots"
    raise UsageError(
        f"--budget of {seconds_text(seconds)}: {models:,} models take about {seconds_text(least_seconds)} here "
        f"even with {LEAST_EPOCHS} epochs of {LEAST_IMAGES:,} images; {advice}, or measure on "
        "fewer images (--set test_images=2000)"
    )


def _round_numbers(most: int) -> list[int]:
    """Numbers of at most two digits and zeros, up to ``most``, ascending."""
    numbers = [digits * 10**zeros for zeros in range(len(str(most))) for digits in range(10, 100)]
    return [*range(1, 10), *(number for number in numbers if number <= most)]


def _seconds(space: Space, run: Run, speed: Speed) -> float:
    """What a population of another space takes, by some of its members."""
    options = run.options
    count = min(options.models, _SAMPLED_MEMBERS)
    plan: Plan = make_plan(
        space.members(options.seed, range(count)),
        run.context,
        members_per_pack=None,
        dtype=options.dtype,
        faithful=options.faithful,
    )
    return speed.seconds(plan) * options.models / count
