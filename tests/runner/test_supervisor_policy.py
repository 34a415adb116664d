"""What the supervisor decides, without any process."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.draft_model import DraftFiles
from runner.loaded_model import DeviceUse, LoadedModel, LoadOptions
from runner.supervisor.memory import Holding, MemoryPlan, Room
from runner.supervisor.policy import (
    Evict,
    Fits,
    Occupant,
    Refuse,
    Wait,
    crashes_in_a_row,
    includes,
    load_options,
    make_room,
    merge_wishes,
    reload_reason,
    restart_delay,
)
from runner.supervisor.types import DraftWish, LoadWishes

CPU = DeviceUse("CPU", "cpu", "", 4, 0, 0)
GPU = DeviceUse("GPU0", "gpu", "", 4, 8 << 30, 8 << 30)


def occupant(
    key: str, ram: int, last_used: int = 0, *, vram: int = 0, busy: bool = False, leaving: bool = False
) -> Occupant:
    return Occupant(key, Holding(ram, vram), is_idle=not busy and not leaving, is_leaving=leaving, last_used=last_used)


def loaded(**changes: Any) -> LoadedModel:
    facts: dict[str, Any] = {
        "architecture": "fake", "engine": "fake", "context_length": 4096, "training_context": 8192,
        "max_sequences": 16, "vocabulary": 10, "size": 1, "size_vram": 0, "layers": 4, "gpu_layers": 0,
        "devices": (CPU,), "placement": "", "threads": 2, "has_chat_template": True, "can_shift": True,
    }  # fmt: skip
    return LoadedModel(**(facts | changes))


def test_what_fits_evicts_nobody() -> None:
    assert make_room(5, Room(5, 0), [occupant("idle", 100)]) == Fits()


def test_idle_models_go_least_recently_used_first_and_no_more_than_it_takes() -> None:
    idle = [occupant("new", 4, 30), occupant("old", 4, 10), occupant("middle", 4, 20)]
    assert make_room(8, Room(2, 0), idle) == Evict(("old", "middle"))


def test_a_used_model_is_never_evicted_but_waited_for() -> None:
    both = [occupant("busy", 10, busy=True), occupant("idle", 2)]
    assert make_room(4, Room(2, 0), both) == Evict(("idle",))
    assert make_room(12, Room(2, 0), both) == Wait(("busy",))


def test_nothing_goes_in_vain() -> None:
    decision = make_room(100, Room(2, 0), [occupant("busy", 10, busy=True), occupant("idle", 2)])
    assert decision == Refuse(Room(14, 0))


def test_what_is_leaving_already_is_awaited_before_anything_is_evicted() -> None:
    assert make_room(8, Room(2, 0), [occupant("leaving", 6, leaving=True), occupant("idle", 9)]) == Wait(("leaving",))
    assert make_room(12, Room(2, 0), [occupant("leaving", 6, leaving=True), occupant("idle", 9)]) == Evict(("idle",))


def test_nothing_is_refused_while_the_gpus_are_unknown() -> None:
    assert make_room(10**15, Room(2, None), []) == Fits()


def test_a_place_on_the_gpu_is_worth_an_idle_model_but_not_a_wait() -> None:
    idle = occupant("idle", 0, vram=6)
    assert make_room(7, Room(100, 2), [idle]) == Evict(("idle",))
    assert make_room(7, Room(100, 2), [occupant("busy", 0, vram=6, busy=True)]) == Fits()
    assert make_room(7, Room(100, 2), [idle], uses_gpu=False) == Fits()


def test_a_model_may_lie_in_both_memories() -> None:
    assert make_room(10, Room(6, 5), []) == Fits()
    assert make_room(12, Room(6, 5), []) == Refuse(Room(6, 5))
    assert make_room(10, Room(6, 5), [], uses_gpu=False) == Refuse(Room(6, 0))


@given(
    needed=st.integers(0, 100),
    ram=st.integers(0, 50),
    rows=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 5), st.sampled_from(["idle", "busy", "leaving"])), max_size=6
    ),
)
def test_decisions_about_room_are_sound(needed: int, ram: int, rows: list[tuple[int, int, str]]) -> None:
    occupants = [
        occupant(str(number), size, used, busy=kind == "busy", leaving=kind == "leaving")
        for number, (size, used, kind) in enumerate(rows)
    ]
    by_key = {each.key: each for each in occupants}
    leaving = sum(each.holding.ram for each in occupants if each.is_leaving)
    decision = make_room(needed, Room(ram, 0), occupants)
    match decision:
        case Fits():
            assert needed <= ram
        case Evict(keys):
            assert keys
            assert all(by_key[key].is_idle for key in keys)
            freed = [by_key[key].holding.ram for key in keys]
            assert ram + leaving + sum(freed) >= needed
            assert ram + leaving + sum(freed[:-1]) < needed
        case Wait(keys):
            assert keys
            assert not any(by_key[key].is_idle for key in keys)
            assert ram < needed <= ram + sum(each.holding.ram for each in occupants)
        case Refuse(room):
            assert needed > room.ram == ram + sum(each.holding.ram for each in occupants)


def test_the_union_of_wishes_takes_the_largest_window_and_the_first_of_the_rest() -> None:
    merged = merge_wishes(LoadWishes(num_ctx=100, num_gpu=0), LoadWishes(num_ctx=200, num_gpu=5, num_thread=3))
    assert merged == LoadWishes(num_ctx=200, num_gpu=0, num_thread=3)


_values = st.none() | st.integers(0, 3)
_wishes = st.builds(LoadWishes, num_ctx=_values, num_batch=_values, num_gpu=_values, num_thread=_values)


@given(_wishes, _wishes, _wishes)
def test_a_union_serves_the_first_and_changes_nothing_when_merged_again(
    first: LoadWishes, second: LoadWishes, third: LoadWishes
) -> None:
    union = merge_wishes(first, second, third)
    assert includes(union, first)
    assert merge_wishes(union, second) == union
    if includes(union, second):
        assert merge_wishes(second, union) == union


@pytest.mark.parametrize(
    ("wishes", "reason"),
    [
        ({}, None),
        ({"num_ctx": 4096}, None),
        ({"num_ctx": 100}, None),
        ({"num_ctx": 4097}, "window of 4097"),
        ({"num_ctx": 100_000}, "window of 8192"),
        ({"num_batch": 512}, None),
        ({"num_batch": 128}, None),
        ({"num_batch": 1024}, "num_batch 1024"),
        ({"num_thread": 2}, None),
        ({"num_thread": 4}, "num_thread 4"),
        ({"use_mmap": True}, None),
        ({"use_mmap": False}, "use_mmap false"),
        ({"num_gpu": 99}, None),
        ({"main_gpu": 1}, None),
        ({"use_mlock": False, "kv_cache_type": "f16", "flash_attention": "auto"}, None),
        ({"use_mlock": True}, "use_mlock true"),
        ({"kv_cache_type": "q8_0"}, "kv_cache_type q8_0, and f16 was loaded"),
        ({"flash_attention": "off"}, "flash_attention off"),
        ({"tensor_split": (3.0, 1.0), "split_mode": "row", "num_cpu_moe": 4}, None),
        ({"rope_frequency_scale": 0.5}, "rope_frequency_scale 0.5, and the model's own was loaded"),
        ({"num_ctx": 100_000, "rope_frequency_scale": 0.5}, "window of 16384"),
    ],
)
def test_reasons_to_load_again_on_a_machine_without_gpu(wishes: dict[str, Any], reason: str | None) -> None:
    found = reload_reason(LoadOptions(context_length=4096), loaded(), LoadWishes(**wishes))
    assert (found is None) if reason is None else (found is not None and reason in found)


def test_whoever_asks_for_no_stretching_gets_the_model_as_it_was_made() -> None:
    stretched = LoadOptions(context_length=4096, rope_frequency_scale=0.5, kv_cache_type="q8_0")
    plain = LoadWishes()
    reason = reload_reason(stretched, loaded(), plain)
    assert reason == "a request asked for rope_frequency_scale the model's own, and 0.5 was loaded"
    same = LoadWishes(rope_frequency_scale=0.5)
    assert reload_reason(stretched, loaded(), same) is None
    assert not includes(same, plain)
    assert merge_wishes(plain, same) == plain


def test_another_draft_model_has_the_model_loaded_again_and_a_request_without_one_takes_any() -> None:
    def wish(name: str, digest: str) -> LoadWishes:
        return LoadWishes(draft=DraftWish(DraftFiles(name, digest, ("file",)), 1, 1))

    small = wish("small", "1").draft
    assert small is not None
    options = LoadOptions(context_length=4096, draft=small.files)
    assert reload_reason(options, loaded(), LoadWishes()) is None
    assert reload_reason(options, loaded(), wish("the same by another name", "1")) is None
    assert reload_reason(options, loaded(), wish("other", "2")) == (
        "a request asked for the draft model other, and small was loaded"
    )
    assert "and none was loaded" in (reload_reason(LoadOptions(4096), loaded(), wish("small", "1")) or "")
    assert merge_wishes(LoadWishes(num_ctx=10), wish("small", "1")).draft == small
    plan = MemoryPlan(0, 0, 0, 4096)
    assert load_options(wish("small", "1"), plan, max_sequences=1).draft == small.files


def test_parts_of_a_model_move_between_gpus_when_they_are_asked_to() -> None:
    model = loaded(devices=(CPU, GPU))
    options = LoadOptions(context_length=4096, tensor_split=(1.0, 1.0))
    assert reload_reason(options, model, LoadWishes(tensor_split=(1.0, 1.0))) is None
    assert reload_reason(options, model, LoadWishes(tensor_split=(3.0, 1.0))) == (
        "a request asked for tensor_split 3,1, and 1,1 was loaded"
    )
    assert "num_cpu_moe 8" in (reload_reason(options, model, LoadWishes(num_cpu_moe=8)) or "")


@pytest.mark.parametrize(
    ("asked", "gpu_layers", "wish", "reloads"),
    [
        (None, 4, 4, False),
        (None, 4, 99, False),
        (None, 4, -1, False),
        (None, 4, 0, True),
        (None, 0, 99, True),
        (99, 0, 99, False),  # they did not fit, and would not now
        (0, 0, 0, False),
        (0, 0, 2, True),
        (2, 2, 3, True),
    ],
)
def test_layers_on_the_gpu_are_moved_when_that_can_change_something(
    asked: int | None, gpu_layers: int, wish: int, reloads: bool
) -> None:
    options = LoadOptions(context_length=4096, num_gpu=asked)
    model = loaded(gpu_layers=gpu_layers, devices=(CPU, GPU))
    assert (reload_reason(options, model, LoadWishes(num_gpu=wish)) is not None) is reloads


def test_a_window_that_the_engine_made_smaller_is_not_asked_for_again() -> None:
    options = LoadOptions(context_length=8000)
    assert reload_reason(options, loaded(context_length=4096), LoadWishes(num_ctx=8000)) is None


def test_the_first_restart_is_immediate_and_later_ones_take_longer() -> None:
    delays = [restart_delay(crashes) for crashes in range(10)]
    assert delays[:3] == [0, 0, 0.5]
    assert delays == sorted(delays)
    assert delays[-1] == 5


def test_a_worker_that_lived_long_starts_a_new_count() -> None:
    assert crashes_in_a_row(3, lived_seconds=1) == 4
    assert crashes_in_a_row(3, lived_seconds=3600) == 1
