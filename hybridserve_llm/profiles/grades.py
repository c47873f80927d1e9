"""Grade how much an estimate of time, power or energy is worth; printed with every figure."""

from collections.abc import Iterable
from typing import Literal, get_args

Grade = Literal["measured", "calibrated-2pt", "fleet-fit", "datasheet"]
"""Best first.

* `measured`: read off a table of measurements of this model, GPU and engine.
* `calibrated-2pt`: the fitted model, corrected by measurements of this model on this GPU.
* `fleet-fit`: the model as fitted to measurements of other models on GPUs of this type.
* `datasheet`: the fitted model carried over to a GPU type on which nothing was fitted.
"""

GRADES: tuple[Grade, ...] = get_args(Grade)


def worst_grade(grades: Iterable[Grade]) -> Grade:
    """Return the grade of a figure that is made of others: the worst of theirs.

    Raises:
        ValueError: `grades` is empty.
    """
    return max(grades, key=GRADES.index)
