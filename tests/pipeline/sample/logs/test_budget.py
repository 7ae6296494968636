"""A goal is shared fairly."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.sample.logs.budget import fair_shares

DEMANDS = st.dictionaries(st.integers(), st.floats(0, 1e6), min_size=1, max_size=30)


def test_what_a_rare_key_does_not_need_goes_to_the_others() -> None:
    assert fair_shares({"rare": 1.0, "often": 50.0, "flood": 1000.0}, 31.0) == {"rare": 1, "often": 15, "flood": 15}


def test_no_demands_have_no_shares() -> None:
    assert fair_shares({}, 10.0) == {}


@given(DEMANDS, st.floats(0, 1e6))
def test_shares_sum_to_the_goal_or_to_all_demands(demands: dict[int, float], goal: float) -> None:
    shares = fair_shares(demands, goal)
    assert sum(shares.values()) == pytest.approx(min(goal, sum(demands.values())), rel=1e-6, abs=1e-6)


@given(DEMANDS, st.floats(0, 1e6))
def test_nobody_gets_more_than_asked_or_less_than_a_smaller_asker(demands: dict[int, float], goal: float) -> None:
    shares = fair_shares(demands, goal)
    assert all(shares[key] <= demand for key, demand in demands.items())
    ranked = [shares[key] for key, _ in sorted(demands.items(), key=lambda item: item[1])]
    assert all(less <= more + 1e-6 for less, more in pairwise(ranked))
