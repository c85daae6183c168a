"""What ``zoo.json`` says of a run before it has begun."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from ..data import ImageSet
from ..nets import Layout
from ..space import Member, arrow_types
from ..zoo import ArchitectureEntry, ImageSetEntry, Manifest
from .backend import Backend
from .options import Options


def manifest_of(
    options: Options, backend: Backend, members: Sequence[Member], image_sets: Mapping[str, ImageSet]
) -> Manifest:
    """The manifest of a zoo that is still to be made.

    Args:
        options: of the run.
        backend: that trains.
        members: the population.
        image_sets: those that occur in it, by name.
    """
    return Manifest(
        wse_version=version("wse"),
        software={
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "safetensors", "torch")},
        },
        seed=options.seed,
        models=options.models,
        space=options.space.to_config(),
        labels="faithful" if options.faithful else "eval",
        backend=backend.name,
        precision=backend.precision,
        dtype=options.dtype,
        image_sets={
            name: ImageSetEntry(
                sha256=images.sha256,
                train=len(images.train_labels),
                test=len(images.test_labels),
                classes=images.n_classes,
            )
            for name, images in image_sets.items()
        },
        architectures={
            architecture.name: ArchitectureEntry.of(Layout(architecture))
            for architecture in dict.fromkeys(member.architecture for member in members)
        },
        config_types=arrow_types(),
    )
