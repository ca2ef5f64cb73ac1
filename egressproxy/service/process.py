"""One worker process as its supervisor sees it: started, asked, watched, ended."""

from __future__ import annotations

import asyncio
import itertools
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from egressproxy.errors import ServiceError
from egressproxy.service.channel import Channel, socket_pair
from egressproxy.service.child import Child
from egressproxy.service.messages import End, Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from egressproxy.service.messages import Answer, Order

MODULE: Final = "egressproxy.service.worker"
END_GRACE_S: Final = 4.0
"""How long an ending worker may take (its record log above all) until it is killed."""


class WorkerTimeoutError(ServiceError):
    """A worker did not answer in time: it hangs."""

    code = "worker_timeout"


class WorkerGoneError(ServiceError):
    """A worker ended before it answered."""

    code = "worker_gone"


class WorkerProcess:
    """A started worker. ``exited`` is done, with the return code, once the process has ended.

    Construct on the loop's own thread, see ``Child``.

    Raises:
        ServiceError: no process or descriptor is to be had.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self._loop = asyncio.get_running_loop()
        ours, theirs = socket_pair()
        with theirs:
            control = theirs.fileno()
            try:
                self._child = Child(MODULE, [str(control)], [control])
            except OSError as error:
                ours.close()
                raise ServiceError(f"worker {index} cannot be started: {error}") from error
        self._serials = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._channel = Channel(ours, self._answered, self._closed)
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._child.exited.add_done_callback(self._ended)

    @property
    def pid(self) -> int:
        """The process id, valid until ``exited`` is done."""
        return self._child.pid

    async def ask(
        self,
        order: Callable[[int], Order],
        *,
        timeout_s: float,
        descriptors: Sequence[int] = (),
    ) -> Answer:
        """Give an order (made with its serial) and await the answer.

        Raises:
            WorkerTimeoutError: no answer within ``timeout_s``.
            WorkerGoneError: the worker ended.
            ServiceError: the worker refused; the message is its own.
        """
        if self.exited.done():
            raise WorkerGoneError(f"worker {self.index} has ended")
        serial = next(self._serials)
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._asked[serial] = future
        try:
            self._send(order(serial), descriptors)
            async with asyncio.timeout(timeout_s):
                answer = await future
        except TimeoutError as error:
            raise WorkerTimeoutError(
                f"worker {self.index} (pid {self.pid}) did not answer within {timeout_s:g} s"
            ) from error
        finally:
            self._asked.pop(serial, None)
        if isinstance(answer, Failed):
            raise ServiceError(f"worker {self.index}: {answer.what}")
        return answer

    def end(self) -> None:
        """Let the process cut its flows and end soon; one that does not is killed."""
        with suppress(ServiceError):
            self._channel.send(End())
        self._loop.call_later(END_GRACE_S, self.kill)

    def kill(self) -> None:
        """End the process at once; harmless when it has ended."""
        self._child.kill()

    def _send(self, order: Order, descriptors: Sequence[int]) -> None:
        try:
            self._channel.send(order, descriptors)
        except (ServiceError, OSError) as error:  # closed, or no descriptor is left to copy to
            raise WorkerGoneError(f"worker {self.index} cannot be told: {error}") from error

    def _answered(self, answer: Answer, descriptors: list[int]) -> None:
        for fd in descriptors:  # no answer has any
            os.close(fd)
        future = self._asked.get(answer.serial)
        if future is not None and not future.done():
            future.set_result(answer)

    def _closed(self) -> None:
        """The worker hung up: it is ending, or has lost its senses and is made to end."""
        self._fail_asked()
        self._loop.call_later(END_GRACE_S, self.kill)

    def _fail_asked(self) -> None:
        for future in self._asked.values():
            if not future.done():
                future.set_exception(WorkerGoneError(f"worker {self.index} has ended"))

    def _ended(self, code: asyncio.Future[int]) -> None:
        self._channel.close()
        self._fail_asked()
        if not self.exited.done():
            self.exited.set_result(code.result())
