"""Run items in groups: those that can share one call to Milvus share it."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Output = TypeVar("Output")


def run_grouped(
    items: Sequence[Item], key: Callable[[Item], Hashable], run: Callable[[Sequence[Item]], Sequence[Output]]
) -> list[Output]:
    """Call `run` once for all items with the same key; return the outputs in the order of the items.

    `run` returns one output for each item of its group, in order.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(key(item), []).append(index)
    outputs: dict[int, Output] = {}
    for indexes in groups.values():
        outputs.update(zip(indexes, run([items[index] for index in indexes]), strict=True))
    return [outputs[index] for index in range(len(items))]
