"""What several processes share, in one process that stands for each of them in turn."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from art_lfr.core.processes import Processes, _sendable, one_process


def as_process(rank: int, size: int, found: list[Any]) -> Processes:
    """One of several processes; `found` is what all of them, this one too, have to tell."""
    process = Processes.single()
    process.rank, process.size = rank, size
    utils = SimpleNamespace(
        gather_object=lambda mine: [*found[:rank], *mine, *found[rank + 1 :]],
        broadcast_object_list=lambda message: None if rank == 0 else message.__setitem__(0, found),
    )
    process._accelerate = SimpleNamespace(utils=utils)
    return process


def test_each_does_its_own_and_skips_the_others_in_order() -> None:
    calls: list[str] = []

    def noted(kind: str) -> Callable[[int], str]:
        return lambda index: calls.append(f"{kind} {index}") or f"{kind} {index}"  # type: ignore[func-returns-value]

    found = [(["of 0", "of 3"], None), None, (["of 2"], None)]
    results = as_process(1, 3, found).dealt(5, noted("done"), noted("skipped"))
    assert calls == ["skipped 0", "done 1", "skipped 2", "skipped 3", "done 4"]
    assert results == ["of 0", "done 1", "of 2", "of 3", "done 4"]


def test_an_error_of_another_process_is_raised_here() -> None:
    found = [None, ([], ValueError("of the other"))]
    with pytest.raises(ValueError, match="of the other"):
        as_process(0, 2, found).dealt(2, lambda index: index)


def test_an_error_of_its_own_is_told_before_it_is_raised() -> None:
    told = []

    def gather(mine: list[Any]) -> list[Any]:
        told.extend(mine)
        return [([0], None), *mine]

    process = as_process(1, 2, [])
    process._accelerate.utils.gather_object = gather
    with pytest.raises(ZeroDivisionError):
        process.dealt(2, lambda index: index // 0)
    assert [type(error) for _, error in told] == [ZeroDivisionError]


def test_an_error_of_the_main_process_is_raised_in_the_others() -> None:
    def never() -> None:
        raise AssertionError("only the main process works")

    with pytest.raises(OSError, match="no space"):
        as_process(1, 2, (None, OSError("no space"))).by_main(never)  # type: ignore[arg-type]
    assert as_process(1, 2, ("its result", None)).by_main(never) == "its result"  # type: ignore[arg-type, func-returns-value]


class UnpicklableError(Exception):
    """Takes more than its message."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def test_an_error_that_does_not_pickle_is_told_in_words() -> None:
    error = pickle.loads(pickle.dumps(_sendable(UnpicklableError("a", "b"))))
    assert (type(error), str(error)) == (RuntimeError, "UnpicklableError: a b")
    kept = _sendable(KeyError("k"))
    assert isinstance(kept, KeyError)


def test_what_one_process_does_by_itself_asks_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "all")
    with one_process():
        with one_process():
            pass
        assert Processes().size == 1
    with pytest.raises(ValueError, match="WORLD_SIZE is 'all'"):
        Processes()
