"""The fault switches check what they are given and tell who listens."""

from __future__ import annotations

import pytest

from reactive_worker.local.faults import FaultAction, Faults


def test_all_are_off_at_first_and_after_a_reset() -> None:
    faults = Faults()
    initial = faults.snapshot()
    faults.deaf = True
    faults.apply({"rest_status": 503, "clock_offset": -3, "refuse_joins": "no"})
    assert faults.rest_status == 503
    assert faults.clock_offset == -3.0
    faults.reset()
    assert faults.snapshot() == initial
    assert not initial["deaf"]


@pytest.mark.parametrize(
    "changes",
    [
        {"deaf": 1},
        {"system_ok_delay": -1},
        {"rest_status": 200},
        {"clock_offset": "1 hour"},
        {"refuse_joins": 5},
        {"drop_sockets": 5},
        {"drop_sockets": True},
        {"system_error_all": None},
        {"no_such_switch": True},
    ],
)
def test_a_value_that_does_not_fit_changes_nothing(changes: dict[str, object]) -> None:
    faults = Faults()
    with pytest.raises(ValueError, match=next(iter(changes))):
        faults.apply({"swallow": True, **changes})
    assert faults.snapshot() == Faults().snapshot()


def test_an_unknown_attribute_is_refused() -> None:
    with pytest.raises(AttributeError, match="dead"):
        Faults().dead = True  # type: ignore[attr-defined]


def test_actions_reach_the_listeners_once() -> None:
    faults = Faults()
    heard: list[FaultAction] = []
    unsubscribe = faults.subscribe(heard.append)
    faults.drop_sockets(1012)
    faults.apply({"phx_close_all": True, "phx_error_all": False, "system_error_all": "broken"})
    unsubscribe()
    faults.drop_sockets()
    assert heard == [
        FaultAction("drop_sockets", code=1012),
        FaultAction("phx_close_all"),
        FaultAction("system_error_all", message="broken"),
    ]
