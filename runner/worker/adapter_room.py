"""Memory for LoRA adapters: reserved before they are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from runner.adapters import AdapterSet
from runner.chat.types import Failed
from runner.messages import Beside
from runner.worker.reserve import Answer, Reserve


@dataclass(frozen=True, slots=True)
class AwaitAdapters:
    """Call `go_on` when there is memory for these adapters, or with the error when there is none."""

    adapters: AdapterSet
    go_on: Callable[[Failed | None], None]


class AdapterRoom:
    """Which adapters may be read; they stay as long as the model does. Used on the engine thread."""

    def __init__(self, reserve: Reserve) -> None:
        self._reserve = reserve
        self._sizes: dict[str, int] = {}
        """Of those that there is memory for, by their digests."""
        self._waiting: deque[AwaitAdapters] = deque()

    def wait(self, one: AwaitAdapters) -> None:
        """Have somebody told when it is clear whether there is room for it."""
        self._waiting.append(one)
        self.settle()

    def settle(self) -> None:
        """Tell those who wait, first come first, as far as it is clear."""
        while self._waiting:
            one = self._waiting[0]
            sizes = self._sizes | {use.digest: use.size for use in one.adapters}
            answer = self._reserve.ask(Beside.ADAPTERS, sum(sizes.values()))
            if answer is Answer.ASKED:
                return
            self._waiting.popleft()
            if answer is Answer.GIVEN:
                self._sizes = sizes
                one.go_on(None)
            else:
                what = "the LoRA adapters of this request"
                one.go_on(self._reserve.refusal(Beside.ADAPTERS, what, "Leave some out with lora_scales"))
