"""Faults of pydantic in one line."""

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator

from hybridserve_llm.faults import first_fault


class Point(BaseModel):
    watts: float = Field(gt=0)

    @field_validator("watts")
    @classmethod
    def _check(cls, value: float) -> float:
        if value > 1000:
            raise ValueError("no GPU draws that much")
        return value


_POINTS = TypeAdapter(dict[str, list[Point]])


def error_of(text: str) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        _POINTS.validate_json(text)
    return caught.value


def test_the_location_is_a_path_of_keys() -> None:
    error = error_of('{"points": [{"watts": 1}, {"watts": 0}, {"watts": -1}]}')
    assert first_fault(error) == "points.1.watts: Input should be greater than 0"
    assert first_fault(error, shows_value=True) == (
        "points.1.watts = 0: Input should be greater than 0"
    )


def test_our_own_messages_have_no_prefix_of_pydantic() -> None:
    error = error_of('{"points": [{"watts": 2000}]}')
    assert first_fault(error) == "points.0.watts: no GPU draws that much"


def test_a_fault_of_the_whole_input_is_the_message_alone() -> None:
    error = error_of("not JSON")
    assert first_fault(error).startswith("Invalid JSON")
    assert first_fault(error, shows_value=True).startswith("Invalid JSON")


def test_a_long_value_is_cut() -> None:
    text = first_fault(error_of('{"points": "' + "x" * 200 + '"}'), shows_value=True)
    assert text.startswith("points = '" + "x" * 79 + ": ")
