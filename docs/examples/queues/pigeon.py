"""Pigeon, a queue. Jobs wait in a loft, and each is tried at most twice."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Job:
    id: str
    function: Callable[..., object]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    urgent: bool = False


class Loft:
    def __init__(self) -> None:
        self.waiting: deque[Job] = deque()

    def put(self, jobs: list[Job]) -> None:
        for job in jobs:
            self.waiting.insert(0 if job.urgent else len(self.waiting), job)

    def work(self) -> None:
        while self.waiting:
            job = self.waiting.popleft()
            for _ in range(2):
                try:
                    job.function(*job.args, **job.kwargs)
                    break
                except Exception as error:
                    print(f"{job.function.__name__} failed: {error}")
