"""One assumption moves, the others stay: hand-worked."""

import pytest
from pydantic import ValidationError

from distill.config import Serving
from evals.economics import nano_per_second
from evals.tornado import Assumptions, shocks, tornado

BASE = Assumptions(one_off=90.0, other=0.004, own=0.001, utilisation=0.3)


def bars(base):
    return {bar["case"].split(" \u00b1")[0]: bar for bar in tornado(base, "teacher")["bars"]}


def test_every_bar_is_the_break_even_with_that_assumption_alone_moved():
    found = tornado(BASE, "teacher")
    assert (found["base"], found["against"]) == (30_000, "teacher")
    ends = {name: (bar["low"], bar["high"]) for name, bar in bars(BASE).items()}
    assert ends == {
        "reference price": (90_000, 18_000),  # 90 / (0.002 - 0.001), 90 / (0.006 - 0.001)
        "machine price": (27_693, 32_728),  # 90 / 0.00325, 90 / 0.00275, rounded up
        "utilisation": (45_000, 27_000),  # own 0.002, own 0.000667
        "speed": (45_000, 27_000),
        "one-off bill": (15_000, 45_000),
    }
    assert found["bars"][0]["case"] == "reference price \u00b150 %"
    widths = [abs(bar["high"] - bar["low"]) for bar in found["bars"]]
    assert widths == sorted(widths, reverse=True)


def test_an_end_that_is_never_reached_says_so_and_makes_the_widest_bar():
    dear = Assumptions(one_off=90.0, other=0.004, own=0.003, utilisation=0.3)
    first = tornado(dear, "teacher")["bars"][0]
    assert (first["low"], first["low_ending"], first["high_ending"]) == (None, "never", "after")
    assert tornado(Assumptions(None, 0.004, 0.001, 0.3), "teacher") is None


def test_a_machine_that_both_systems_run_on_moves_both():
    both = Assumptions(90.0, 0.004, 0.001, 0.3, other_hosted=True)
    rows = {row["case"]: row for row in shocks(both)}
    assert rows["machine price +25 %"]["times"] == pytest.approx(4.0)
    assert rows["utilisation -50 %"]["reference"] == pytest.approx(8.0)
    assert rows["speed -50 %"]["times"] == pytest.approx(2.0)
    assert {row["case"]: row for row in shocks(BASE)}["machine price +25 %"]["times"] == pytest.approx(3.2)


def test_shocks_move_one_assumption_each():
    rows = {row["case"]: row for row in shocks(BASE)}
    assert rows["as measured"]["times"] == pytest.approx(4.0)
    assert rows["reference price -50 %"]["times"] == pytest.approx(2.0)
    assert rows["utilisation -50 %"]["times"] == pytest.approx(2.0)
    assert rows["utilisation +50 %"]["times"] == pytest.approx(6.0)


def test_no_machine_works_more_than_all_the_time():
    full = Assumptions(90.0, 0.004, 0.001, utilisation=0.8)
    rows = {row["case"]: row for row in shocks(full)}
    assert rows["utilisation +50 %, at most 100 %"]["times"] == pytest.approx(5.0)  # a quarter more, not half
    assert bars(full)["utilisation"]["high"] == pytest.approx(90 / (0.004 - 0.0008), abs=1)
    for share in (0.0, -0.1, 1.01):
        with pytest.raises(ValueError, match="share of the paid hours"):
            Assumptions(90.0, 0.004, 0.001, utilisation=share)
        with pytest.raises(ValidationError):
            Serving(eur_per_hour=1.0, utilisation=share)


def test_a_utilisation_above_one_is_refused_where_the_price_is_made_too():
    class Stated:
        eur_per_hour, utilisation = 1.0, 1.2

    with pytest.raises(ValueError, match="utilisation"):
        nano_per_second(Stated())
