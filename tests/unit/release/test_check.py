"""Figures in a bundle are bounds: never below what was measured, and the same for the same weights."""

import pytest

from distill.release.check import Distance, bound


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, 0.0), (3.8e-7, 1e-5), (0.00609, 0.007), (0.0345, 0.04), (0.01, 0.01), (0.96, 1.0), (2.0, 2.0)],
)
def test_a_distance_is_rounded_up_to_one_digit(value, shown):
    assert bound(value, 1e-5) == shown
    assert bound(value, 1e-5) >= value


def test_sums_in_another_order_give_the_same_figures():
    one = Distance(3.78e-7, 1.1e-15, 1.0, 5, 36, 1e-3, "float32").as_json()
    two = Distance(4.02e-7, 0.9e-15, 1.0, 5, 36, 1e-3, "float32").as_json()
    assert one == two
