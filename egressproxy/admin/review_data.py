"""``ReviewData``: the one way in which pages reach the store and judge what is in it.

Questions block, so they run in threads: plain ones in a few, and those that judge in one of its
own, because a ruleset and a classifier belong to one thread. How many wait, and for how long, is
bounded. What goes wrong is a ``TroubleError``, which becomes a page that says what to do.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from egressproxy.errors import StoreError
from egressproxy.policy.compile import compile_policy
from egressproxy.review.classify import Classifier
from egressproxy.review.model import Filter

if TYPE_CHECKING:
    from collections.abc import Callable

    from egressproxy.policy.rules import Policy
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.review.store import Store
    from egressproxy.service.supervisor import Supervisor

THREADS: Final = 2
MAX_WAITING: Final = 16
"""Questions asked and not yet answered; more are turned away."""
TIMEOUT_S: Final = 20.0
CLASSIFIER_S: Final = 60.0
"""How long a classifier is used: what sources do changes slowly, dates in a policy daily."""
MAX_CLASSIFIERS: Final = 4
DEFAULT_SPAN_S: Final = 24 * 3600

T = TypeVar("T")


class TroubleError(Exception):
    """Why there is no answer: ``status`` for programs, the rest for people.

    ``example`` is what to type.
    """

    def __init__(
        self, message: str, hint: str = "", *, example: str = "", status: int = 503
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.example = example
        self.status = status


EXAMPLE: Final = "egressproxy up … --review-store /var/lib/egressproxy/review.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What a question that judges is given; for its own thread alone.

    ``policy`` and ``ruleset`` are those in force, ``None`` before the policy is loaded.
    """

    store: Store
    classifier: Classifier
    policy: Policy | None
    ruleset: Ruleset | None
    now: float


class ReviewData:
    """Answers questions about the store of a supervisor, which it opens when first asked."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._store: Store | None = None
        self._opening = threading.Lock()
        self._asking = ThreadPoolExecutor(THREADS, thread_name_prefix="review")
        self._judging = ThreadPoolExecutor(1, thread_name_prefix="judge")
        self._waiting = 0
        self._ruleset: tuple[Policy, Ruleset] | None = None
        self._classifiers: OrderedDict[tuple[object, ...], tuple[float, Classifier]] = OrderedDict()

    @property
    def is_configured(self) -> bool:
        """Whether there is a store to ask."""
        return self._supervisor.options.review_store is not None

    async def ask(self, question: Callable[[Store], T]) -> T:
        """Ask the store.

        Raises:
            TroubleError: there is no store, it cannot be read, or it is too busy.
        """
        return await self._run(self._asking, lambda: question(self._open()))

    async def review(self, question: Callable[[Review], T], where: Filter | None = None) -> T:
        """Ask the store and judge by the policy in force.

        Args:
            question: what to do, in the judging thread.
            where: in whose span the sources' behaviour is looked at; the last day by default.

        Raises:
            TroubleError: there is no store, it cannot be read, or it is too busy.
        """
        crew = self._supervisor.crew
        policy = crew.current.policy if crew else None

        def judge() -> T:
            store, now = self._open(), time.time()
            ruleset = self._own_ruleset(policy) if policy else None
            since = where.since if where else None
            until = where.until if where else None
            times = (now - DEFAULT_SPAN_S if since is None else since, until or now)
            classifier = self._classifier(store, ruleset, times, now)
            return question(
                Review(store=store, classifier=classifier, policy=policy, ruleset=ruleset, now=now)
            )

        return await self._run(self._judging, judge)

    async def judge(self, question: Callable[[Policy, Ruleset], T]) -> T:
        """Judge by the policy in force, without the store.

        Raises:
            TroubleError: no policy is loaded yet, or too much is asked.
        """
        crew = self._supervisor.crew
        if crew is None:
            raise TroubleError("the policy is not loaded yet", "try again in a moment")
        policy = crew.current.policy
        return await self._run(self._judging, lambda: question(policy, self._own_ruleset(policy)))

    def close(self) -> None:
        """End the threads and close the store; a question that runs is not waited for."""
        for threads in (self._asking, self._judging):
            threads.shutdown(wait=False, cancel_futures=True)
        if self._store is not None:
            self._store.close()

    async def _run(self, threads: ThreadPoolExecutor, question: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise TroubleError("the review is busy", "others ask too; try again in a moment")
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(threads, question)
        future.add_done_callback(self._answered)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await asyncio.shield(future)
        except TimeoutError as error:
            raise TroubleError(
                f"the review store gave no answer within {TIMEOUT_S:.0f} s",
                "ask for a shorter span",
            ) from error
        except StoreError as error:
            raise TroubleError(error.message, error.hint) from error

    def _answered(self, future: asyncio.Future[T]) -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # of one that nobody waits for any more: it is not news

    def _open(self) -> Store:
        place = self._supervisor.options.review_store
        if place is None:
            raise TroubleError(
                "this gateway keeps no review store",
                "start it with one; what is denied from then on can be reviewed here",
                example=EXAMPLE,
                status=200,
            )
        with self._opening:
            if self._store is None:
                from egressproxy.review.store import (
                    open_store,
                )  # as late as pages are (admin.later)

                self._store = open_store(place, is_reader=True)
            return self._store

    def _own_ruleset(self, policy: Policy) -> Ruleset:
        """The policy compiled once more: a ruleset has memories, and the service's is in use."""
        if self._ruleset is None or self._ruleset[0] is not policy:
            self._ruleset = (policy, compile_policy(policy))
        return self._ruleset[1]

    def _classifier(
        self, store: Store, ruleset: Ruleset | None, times: tuple[float, float], now: float
    ) -> Classifier:
        """Of the policy last compiled, for the behaviour of sources between two moments."""
        policy = self._ruleset[0] if self._ruleset and ruleset else None
        key = (policy and policy.digest, *(round(each / CLASSIFIER_S) for each in times))
        made_at, classifier = self._classifiers.get(key, (0.0, None))
        if classifier is None or now - made_at > CLASSIFIER_S:
            from egressproxy.review.behaviour import observe_behaviour

            since, until = times
            behaviour = observe_behaviour(store, since, until)
            classifier = Classifier(policy, ruleset, behaviour, now=now)
            self._classifiers[key] = (now, classifier)
            while len(self._classifiers) > MAX_CLASSIFIERS:
                self._classifiers.popitem(last=False)
        return classifier
