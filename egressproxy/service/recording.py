"""``Recording``: the recorder as the supervisor sees it; its death harms no flow.

The supervisor owns the pipe and keeps both ends open, so that what is in it outlives a recorder
that dies, and no writer is ever without a reader. Another recorder is started then, after growing
pauses; until it reads, the pipe fills, and its writers drop and count.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

from egressproxy.errors import ServiceError, StoreError
from egressproxy.observe.cells import ReviewCount
from egressproxy.observe.tee import Tee, recorder_pipe
from egressproxy.planes.context import AllowRecords
from egressproxy.service.channel import Channel, socket_pair
from egressproxy.service.child import Child, exit_text
from egressproxy.service.journal import journal
from egressproxy.service.recorder_messages import Opened, RecorderSpec, Refused, ReopenNote
from egressproxy.service.reload_history import past_reports

if TYPE_CHECKING:
    from types import TracebackType

    from egressproxy.observe.counters import Counters
    from egressproxy.service.options import LogOptions, RunOptions
    from egressproxy.service.recorder_messages import Answer, Note
    from egressproxy.service.report import ReloadReport

MODULE: Final = "egressproxy.service.recorder"
START_PATIENCE_S: Final = 30.0
"""For a new process to load its modules, and a database to answer."""
END_GRACE_S: Final = 10.0
"""How long an ending recorder may take to store what is left, until it is killed."""
NOTES_S: Final = 3.0
"""Before that, to take what it was not yet told."""
FIRST_RESTART_DELAY_S: Final = 0.1
MAX_RESTART_DELAY_S: Final = 30.0
STEADY_AFTER_S: Final = 60.0
MAX_WAITING_NOTES: Final = 500


class Recording:
    """An async context manager: the recorder is started on entry, see ``opened``.

    Args:
        spec: what the recorder has to know.
        counters: of the whole service.

    Raises:
        ServiceError: (on entry) no process or descriptor is to be had.
    """

    def __init__(self, spec: RecorderSpec, counters: Counters) -> None:
        self._spec = spec
        self._counters = counters
        self._notes: deque[Note | ReopenNote] = deque(maxlen=MAX_WAITING_NOTES)
        self._child: Child | None = None
        self._channel: Channel | None = None
        self._has_started = False
        self.past: tuple[ReloadReport, ...] = ()
        """Reloads before this service's start, oldest first, as the store has them."""
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        try:
            self._reader, self.descriptor = recorder_pipe()
        except OSError as error:
            raise ServiceError(f"no pipe for the review: {error}") from error

    @property
    def pid(self) -> int | None:
        """The recorder's process id, where there is one now."""
        is_running = self._child is not None and not self._child.exited.done()
        return self._child.pid if self._child is not None and is_running else None

    def tee(self) -> Tee:
        """A writer for a record log of this process; it has to be closed before the end."""
        return Tee(os.dup(self.descriptor))

    def reopen(self) -> None:
        """Let the recorder open files of exports by name again."""
        if self._spec.exports:
            self._notes.append(ReopenNote())
            self._send_notes()

    def note(self, note: Note) -> None:
        """Send a note; while there is no recorder it waits, and of very many the newest do."""
        self._notes.append(note)
        self._send_notes()

    async def __aenter__(self) -> Self:
        """Start."""
        try:
            self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Once every writer has ended: let the recorder store what is left, and end."""
        await self._end()

    async def keep(self) -> None:
        """Replace a recorder that ends; runs until cancelled."""
        delay_s = FIRST_RESTART_DELAY_S
        while True:
            began = time.monotonic()
            if self._child is not None:
                code = await asyncio.shield(self._child.exited)
                journal().error("the recorder ended, flows go on", how=exit_text(code))
            if time.monotonic() - began > STEADY_AFTER_S:
                delay_s = FIRST_RESTART_DELAY_S
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, MAX_RESTART_DELAY_S)
            self._counters.supervisor().review(ReviewCount.RESTARTS)
            try:
                self._start()
            except ServiceError as error:
                self._child = None
                journal().error("no recorder can be started, flows go on", why=str(error))

    async def opened(self) -> None:
        """Wait for the recorder's word on its store; one that may work later is no error.

        Raises:
            StoreError: it cannot be had, and trying again would not help.
            ServiceError: there is no such word, or an export cannot be opened.
        """
        child = self._child
        assert child is not None  # noqa: S101 - entered
        waited: set[asyncio.Future[Any]] = {self._answer, child.exited}
        await asyncio.wait(waited, timeout=START_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if not self._answer.done():
            how = exit_text(child.exited.result()) if child.exited.done() else "no answer"
            raise ServiceError(
                f"the recorder did not start ({how})", hint="its own message stands above"
            )
        answer = self._answer.result()
        if isinstance(answer, Opened):
            self.past = past_reports(answer.reloads)
        elif answer.code == ServiceError.code:
            raise ServiceError(answer.message, hint=answer.hint)
        elif answer.is_final:
            raise StoreError(answer.message, hint=answer.hint, code=answer.code)
        self._has_started = True

    def _start(self) -> Child:
        ours, theirs = socket_pair()
        control, shared = theirs.fileno(), self._counters.fd
        with theirs:
            try:
                self._child = Child(
                    MODULE,
                    [str(self._reader), str(control), str(shared)],
                    [self._reader, control, shared],
                )
            except OSError as error:
                ours.close()
                raise ServiceError(f"the recorder cannot be started: {error}") from error
        self._channel = Channel(ours, self._answered, self._hung_up)
        self._channel.send(replace(self._spec, is_again=self._has_started))
        self._send_notes()
        return self._child

    def _answered(self, answer: Answer, _: list[int]) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)
        elif isinstance(answer, Refused) and answer.is_final:  # one that was started later
            journal().error(
                "the review store cannot be had any more", why=answer.message, hint=answer.hint
            )

    def _hung_up(self) -> None:
        self._channel = None

    def _send_notes(self) -> None:
        while self._notes and self._channel is not None:
            try:
                self._channel.send(self._notes[0])
            except ServiceError as error:  # it is no packet: too large
                journal().error("a note for the review is lost", why=str(error))
            self._notes.popleft()

    async def _all_sent(self) -> None:
        """Notes first, and then the end: a recorder that hangs is waited for only so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(NOTES_S):
                while self._channel and self._channel.is_sending:  # noqa: ASYNC110 - rare
                    await asyncio.sleep(0.005)

    async def _end(self) -> None:
        if not self._has_started:
            if self._child is not None:
                self._child.kill()  # nothing was given to it
        elif self._child is None or self._child.exited.done():
            with suppress(ServiceError):
                self._start()  # for what is in the pipe
        await self._all_sent()
        os.close(self.descriptor)  # the last writer: the recorder sees the end
        if self._channel is not None:
            self._channel.close()
        if self._child is not None:
            await asyncio.wait({self._child.exited}, timeout=END_GRACE_S)
            if not self._child.exited.done():
                journal().error("the recorder does not end, it is killed")
                self._child.kill()
                await self._child.exited
        os.close(self._reader)


def recorder_spec(options: RunOptions, store: str | None, since: float) -> RecorderSpec:
    """What the recorder of a service with these options has to know."""
    return RecorderSpec(
        store=store,
        gateway=options.gateway,
        max_age_days=options.settings.review_max_age_days,
        max_bytes=options.settings.review_max_bytes,
        allows=allows_text(options.log),
        since=since,
        workers=options.workers,
        exports=options.exports,
        rotate_bytes=options.settings.log_rotate_bytes,
        rotate_files=options.settings.log_rotate_files,
    )


def allows_text(log: LogOptions) -> str:
    """Which allows are recorded, as ``--log-allows`` says it."""
    return f"1/{log.sample_every}" if log.allows is AllowRecords.SAMPLE else str(log.allows)
