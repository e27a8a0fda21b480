"""Models of equal size: how wide a design may be for so many parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from training.models import Config, build

TOLERANCE = 0.01  # of the parameters that are wanted
_WIDEST = 1 << 14

AnyConfig = TypeVar("AnyConfig", bound=Config)


class SizeUnreachable(ValueError):
    """No width gives a design the wanted number of parameters."""


def count_parameters(config: Config) -> int:
    """Of the model that ``config`` describes, without making room for it."""
    with torch.device("meta"):
        model = build(config)
    return sum(parameter.numel() for parameter in model.parameters())


def of_equal_size(design: Callable[[int], AnyConfig], parameters: int) -> AnyConfig:
    """``design`` of the width whose number of parameters is nearest to ``parameters``.

    design: the configuration of a width; a wider one has more parameters.

    Raises SizeUnreachable where the nearest is more than TOLERANCE away.
    """
    narrow, wide = 1, 2
    while count_parameters(design(wide)) < parameters and wide < _WIDEST:
        narrow, wide = wide, 2 * wide
    while wide - narrow > 1:
        middle = (narrow + wide) // 2
        if count_parameters(design(middle)) < parameters:
            narrow = middle
        else:
            wide = middle
    nearest = min(
        (design(narrow), design(wide)), key=lambda c: abs(count_parameters(c) - parameters)
    )
    found = count_parameters(nearest)
    if abs(found - parameters) > TOLERANCE * parameters:
        raise SizeUnreachable(
            f"the nearest to {parameters:,} parameters is {found:,} with {nearest}; "
            "allow more, steps between widths are then smaller"
        )
    return nearest
