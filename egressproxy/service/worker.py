"""The worker process: ``python -m egressproxy.service.worker CONTROL_FD``, started by a supervisor.

It obeys the orders of ``service.messages`` from its control socket and ends when that socket does.
A policy is unpacked in a background thread, so that the engine keeps serving; only the commit, the
exchange of one reference and the judging of the open flows anew, runs on the engine's own thread.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, assert_never

from egressproxy.errors import EgressproxyError, ServiceError
from egressproxy.policy.ship import receive
from egressproxy.service.bundle import unpack_chunks
from egressproxy.service.channel import Channel
from egressproxy.service.child import end_with_parent
from egressproxy.service.garbage import Garbage
from egressproxy.service.journal import configure_journal, journal
from egressproxy.service.messages import (
    Abort,
    Answer,
    Boot,
    Commit,
    Committed,
    Done,
    Drain,
    End,
    Failed,
    Order,
    Prepare,
    Reopen,
    Status,
    StatusReport,
    Survey,
)
from egressproxy.service.serving import Serving
from egressproxy.service.stall import StallProbe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from egressproxy.planes.survey import FlowFacts
    from egressproxy.policy.ruleset import Ruleset

SWITCH_INTERVAL_S: Final = 0.0005
"""How long a background thread may keep the interpreter while the engine waits for it."""
HOUSEKEEPING_S: Final = 0.25
SWAP_POLL_S: Final = 0.002
EXIT_FAULT: Final = 70  # EX_SOFTWARE, sysexits.h
_IGNORED_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Worker:
    """Orders in, answers out; construct and ``run`` on the loop."""

    def __init__(self, control: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        self._channel = Channel(control, self._take, self._finished.set)
        self._group = asyncio.TaskGroup()
        self._probe = StallProbe(self._loop)
        self._garbage = Garbage()
        self._serving: Serving | None = None
        self._prepared: tuple[int, Ruleset] | None = None
        self._generation = 0
        self._is_draining = False
        self._exit_code = 0

    async def run(self) -> int:
        """Obey until told to end, or until the supervisor is gone; the exit code."""
        async with self._group as group:
            housekeeping = group.create_task(self._keep_house(), name="housekeeping")
            await self._finished.wait()
            housekeeping.cancel()
        if self._serving is not None:
            await self._serving.close()
        self._channel.close()  # last: the supervisor takes it for the end
        return self._exit_code

    async def _keep_house(self) -> None:
        self._garbage.take_over()
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            self._garbage.turn()
            if self._is_draining and not self._active:
                self._finished.set()

    @property
    def _active(self) -> int:
        return self._serving.active if self._serving else 0

    def _take(self, order: Order, descriptors: list[int]) -> None:
        if isinstance(order, Prepare | Commit):  # these take their time
            name = f"{type(order).__name__.lower()} {order.generation}"
            self._group.create_task(self._follow(order, descriptors), name=name)
            return
        if isinstance(order, Survey):
            self._group.create_task(self._survey(order, descriptors), name="survey")
            return
        try:
            answer = self._obey(order, descriptors)
        except EgressproxyError as error:
            answer = Failed(order.serial, str(error))
        self._answer(answer)

    async def _follow(self, order: Prepare | Commit, descriptors: list[int]) -> None:
        """A step to a new policy; whatever fails, the answer goes out."""
        try:
            if isinstance(order, Prepare):
                answer = await self._prepare(order, descriptors)
            else:
                answer = await self._commit(order)
        except Exception as error:  # noqa: BLE001 - a worker outlives a policy it cannot take
            journal().exception("policy cannot be taken", generation=order.generation)
            self._probe.stop()
            answer = Failed(order.serial, str(error) or repr(error))
        self._answer(answer)

    def _obey(self, order: Boot | Abort | Drain | End | Reopen | Status, fds: list[int]) -> Answer:
        match order:
            case Boot():
                self._serving = Serving(order.spec, fds, self._fault)
            case Abort():
                self._prepared = None
                self._probe.stop()
            case Drain():
                self._is_draining = True
                if self._serving is not None:
                    self._serving.drain()
            case End():
                self._finished.set()
            case Reopen():
                self._booted().reopen_log()
            case Status():
                return StatusReport(order.serial, self._generation, self._active)
            case _:
                assert_never(order)
        return Done(order.serial)

    async def _prepare(self, order: Prepare, descriptors: list[int]) -> Answer:
        self._probe.start()
        self._prepared = order.generation, await asyncio.to_thread(_build, descriptors)
        return Done(order.serial)

    async def _commit(self, order: Commit) -> Answer:
        if self._prepared is None or self._prepared[0] != order.generation:
            raise ServiceError(f"generation {order.generation} is not prepared")
        self._generation, ruleset = self._prepared
        self._prepared = None
        swap = self._booted().commit(ruleset)
        while swap is not None and not swap.done:  # noqa: ASYNC110 - the engine knows no event
            await asyncio.sleep(SWAP_POLL_S)
        self._garbage.built()
        return Committed(
            order.serial,
            revoked=swap.closed if swap else 0,
            kept=swap.kept if swap else 0,
            stall_s=self._probe.stop(),
        )

    async def _survey(self, order: Survey, descriptors: list[int]) -> None:
        """Look at the open flows, a slice a turn; whatever fails, the answer goes out."""
        answer: Answer = Done(order.serial)
        try:
            found = await self._booted().survey(order.most)
            _write(found, descriptors)
        except Exception as error:  # noqa: BLE001 - a worker outlives a question
            answer = Failed(order.serial, str(error) or repr(error))
        finally:
            for fd in descriptors:
                os.close(fd)
        self._answer(answer)

    def _booted(self) -> Serving:
        if self._serving is None:
            raise ServiceError("the worker is not booted")
        return self._serving

    def _answer(self, answer: Answer) -> None:
        with suppress(ServiceError):  # the supervisor is gone, and so is the question
            self._channel.send(answer)

    def _fault(self, error: Exception) -> None:
        journal().error("engine fault, the worker ends", exc_info=error)
        self._exit_code = EXIT_FAULT
        self._finished.set()


def _write(found: list[FlowFacts], descriptors: Sequence[int]) -> None:
    if not descriptors:
        raise ServiceError("nothing to write to arrived: too many open files")
    with open(descriptors[0], "wb", closefd=False) as paper:
        pickle.dump(found, paper, protocol=pickle.HIGHEST_PROTOCOL)


def _build(descriptors: Sequence[int]) -> Ruleset:
    if not descriptors:
        raise ServiceError("the policy did not arrive: too many open files")
    bundle, *tables = descriptors
    try:
        return receive(unpack_chunks(bundle), tables)
    finally:
        for fd in descriptors:
            os.close(fd)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """The loop to use: uvloop where it is installed, else asyncio's own."""
    try:
        import uvloop  # no wheel for some platforms
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _work(control: socket.socket) -> int:
    return await Worker(control).run()


def main() -> None:
    """Run a worker on the control socket whose descriptor is the first argument."""
    for number in _IGNORED_SIGNALS:  # a terminal or a service manager sends them to the whole group
        signal.signal(number, signal.SIG_IGN)
    control, supervisor = (int(argument) for argument in sys.argv[1:3])
    configure_journal()
    end_with_parent(supervisor)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(_work(socket.socket(fileno=control)))
    sys.exit(code)


if __name__ == "__main__":
    main()
