"""The HTTP session by playbook: what happens ``>>`` what it commands, in order.

A playbook is written as a list of lines. ``C`` lines are what the client side does, ``U1`` lines
what upstream 1 does; ``>>`` lines are the commands expected since. Bytes are compared whole, with
the fields that a test does not care about kept out of the requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from egressproxy.names import DnsName
from egressproxy.planes.http_commands import (
    CloseClient,
    CloseReason,
    CloseUpstream,
    Dial,
    Finished,
    NameRecord,
    Opened,
    RefuseClient,
    SendClient,
    SendUpstream,
    Tunnel,
)
from egressproxy.planes.http_session import HttpSession
from egressproxy.policy.verdict import Action, Reason, Verdict
from egressproxy.wire.http_authority import Authority

if TYPE_CHECKING:
    from egressproxy.planes.http_commands import Command

ALLOW = Verdict(Action.ALLOW, Reason.RULE, "rules/ok")
DENY = Verdict(Action.DENY, Reason.DEFAULT_DENY)
AUDITED = Verdict(Action.ALLOW, Reason.NOT_TLS_OR_HTTP, would_deny=True)

GET_A = b"GET /a HTTP/1.1\r\nHost: ok-a.example\r\n\r\n"
GET_B = b"GET /b HTTP/1.1\r\nHost: ok-b.example\r\n\r\n"
DENIED = b"GET /no HTTP/1.1\r\nHost: no.example\r\n\r\n"
POST_A = b"POST /a HTTP/1.1\r\nHost: ok-a.example\r\nContent-Length: 5\r\n\r\n"
CHUNKED_A = b"POST /a HTTP/1.1\r\nHost: ok-a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OK_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
WEBSOCKET = (
    b"GET /ws HTTP/1.1\r\nHost: ok-a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@dataclass
class Play:
    """A session, its policy, and everything it commanded."""

    port: int | None = 80
    audit: bool = False
    max_buffer_bytes: int = 4096
    denied: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    records: list[NameRecord] = field(default_factory=list)
    seen: list[Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.session = HttpSession(
            self.judge,
            port=self.port,
            max_head_bytes=4096,
            max_buffer_bytes=self.max_buffer_bytes,
        )

    def judge(self, authority: Authority | None, fault: Reason | None) -> Verdict:
        self.asked.append((str(authority), str(fault)))
        if fault is not None:
            return AUDITED if self.audit else Verdict(Action.DENY, fault)
        name = str(authority and authority.name)
        return ALLOW if name.startswith("ok") and name not in self.denied else DENY

    def run(self, commands: list[Command]) -> list[str]:
        """Commands as short lines; pages are cut to their status and reason."""
        self.seen += commands
        self.records += [each.record for each in commands if isinstance(each, Finished)]
        return [line(each) for each in commands if not isinstance(each, Opened)]

    def client(self, data: bytes) -> list[str]:
        return self.run(self.session.receive_client(data))

    def client_eof(self) -> list[str]:
        return self.run(self.session.client_eof())

    def up(self, number: int, data: bytes) -> list[str]:
        return self.run(self.session.receive_upstream(number, data))

    def up_eof(self, number: int) -> list[str]:
        return self.run(self.session.upstream_eof(number))

    def up_lost(self, number: int) -> list[str]:
        return self.run(self.session.upstream_lost(number))

    def connect(self, number: int) -> list[str]:
        return self.run(
            self.session.upstream_connected(
                number, dialled_ip=f"192.0.2.{number}", destination_match="yes"
            )
        )

    def open(self, request: bytes = GET_A) -> list[str]:
        """The first request, dialled and connected as upstream 1."""
        self.client(request)
        return self.connect(1)

    def kept_alive(self) -> Play:
        """After one whole exchange with ok-a.example."""
        self.open()
        assert self.up(1, OK) == [f"client < {short(OK)}"]
        return self

    @property
    def opened(self) -> list[str]:
        """The names that were opened, in order."""
        return [str(each.record.authority) for each in self.seen if isinstance(each, Opened)]

    def data_to(self, peer: int | None) -> bytes:
        return b"".join(
            command.data
            for command in self.seen
            if (isinstance(command, SendClient) and peer is None)
            or (isinstance(command, SendUpstream) and command.upstream == peer)
        )


def line(command: Command) -> str:
    match command:
        case SendClient(data):
            return f"client < {short(data)}"
        case SendUpstream(number, data):
            return f"{number} < {short(data)}"
        case Dial(number, authority, _):
            return f"dial {number} {authority}"
        case CloseUpstream(number, reset):
            return f"{'reset' if reset else 'close'} {number}"
        case RefuseClient(data):
            return f"refuse {short(data)}"
        case CloseClient(reset):
            return "reset client" if reset else "close client"
        case Tunnel(number, _):
            return f"tunnel {number}"
        case Opened(record):
            return f"opened {record.authority}"
        case Finished(record):
            return (
                f"finished {record.authority} {record.verdict.action} {record.verdict.reason}"
                f" {record.requests} {record.close_reason}"
            )


def short(data: bytes) -> str:
    """Bytes as one line; a page of ours as its status and reason."""
    if b"Proxy-Status: egressproxy" in data:
        reason = data.partition(b"reason: ")[2].partition(b"\n")[0].decode()
        return f"{data[9:12].decode()} {reason}"
    return data.decode("latin-1").replace("\r\n", "|")


A_LINE = "GET /a HTTP/1.1|Host: ok-a.example||"
B_LINE = "GET /b HTTP/1.1|Host: ok-b.example||"
OK_LINE = "client < HTTP/1.1 200 OK|Content-Length: 2||ok"


class TestKeepAlive:
    def test_one_request(self) -> None:
        play = Play()
        assert play.client(GET_A) == ["dial 1 ok-a.example:80"]
        assert play.connect(1) == [f"1 < {A_LINE}"]
        assert play.up(1, OK) == [OK_LINE]
        assert play.client_eof() == [
            "close 1",
            "finished ok-a.example:80 allow rule 1 client_closed",
            "close client",
        ]
        record = play.records[0]
        assert (record.bytes_up, record.bytes_down) == (len(GET_A), len(OK))
        assert (record.dialled_ip, record.destination_match) == ("192.0.2.1", "yes")
        assert play.session.is_over

    def test_a_name_is_opened_once_and_when_it_has_an_upstream(self) -> None:
        play = Play()
        play.client(GET_A)
        assert play.opened == []
        play.connect(1)
        assert play.opened == ["ok-a.example:80"]
        play.up(1, OK_CLOSE)
        play.client(GET_A)
        play.connect(2)
        assert play.opened == ["ok-a.example:80"]

    def test_what_never_has_an_upstream_is_not_opened(self) -> None:
        play = Play()
        play.client(GET_A)
        play.run(play.session.upstream_failed(1, Reason.DIAL_FAILED))
        assert play.opened == []
        assert [each.verdict.action for each in play.records] == [Action.ERROR]

    def test_the_same_name_uses_the_same_upstream_and_every_request_is_judged(self) -> None:
        play = Play().kept_alive()
        for _ in range(3):
            assert play.client(GET_A) == [f"1 < {A_LINE}"]
            assert play.up(1, OK) == [OK_LINE]
        assert play.asked == [("ok-a.example:80", "None")] * 4
        assert play.client_eof()[1] == "finished ok-a.example:80 allow rule 4 client_closed"

    def test_another_allowed_name_reaches_its_own_upstream(self) -> None:
        play = Play().kept_alive()
        assert play.client(GET_B) == [
            "close 1",
            "dial 2 ok-b.example:80",
        ]
        assert play.connect(2) == [f"2 < {B_LINE}"]
        assert play.up(2, OK) == [OK_LINE]
        assert play.client(GET_A) == ["close 2", "dial 3 ok-a.example:80"]
        assert play.connect(3) == [f"3 < {A_LINE}"]
        assert play.up(3, OK) == [OK_LINE]
        assert play.client_eof() == [
            "close 3",
            "finished ok-b.example:80 allow rule 1 client_closed",
            "finished ok-a.example:80 allow rule 2 client_closed",
            "close client",
        ]

    def test_a_denied_name_after_an_allowed_one(self) -> None:
        play = Play().kept_alive()
        assert play.client(DENIED) == [
            "close 1",
            "finished no.example:80 deny default_deny 1 refused",
            "finished ok-a.example:80 allow rule 1 refused",
            "refuse 403 default_deny",
        ]
        assert play.data_to(1) == GET_A

    def test_a_name_that_a_reload_denied(self) -> None:
        play = Play().kept_alive()
        play.denied.add("ok-a.example")
        assert play.client(GET_A)[-1] == "refuse 403 default_deny"
        assert play.data_to(1) == GET_A

    def test_a_verdict_that_a_reload_changed_dials_again(self) -> None:
        play = Play().kept_alive()
        other = Verdict(Action.ALLOW, Reason.RULE, "rules/other")
        play.session._judge = lambda _authority, _fault: other
        assert play.client(GET_A) == [
            "finished ok-a.example:80 allow rule 1 evicted",
            "close 1",
            "dial 2 ok-a.example:80",
        ]

    def test_the_client_asks_for_the_last(self) -> None:
        play = Play()
        assert play.open(GET_A[:-2] + b"Connection: close\r\n\r\n") == [
            f"1 < {A_LINE[:-1]}Connection: close||"
        ]
        assert play.up(1, OK) == [
            "client < HTTP/1.1 200 OK|Content-Length: 2|Connection: close||ok",
            "close 1",
            "finished ok-a.example:80 allow rule 1 done",
            "close client",
        ]

    def test_http_1_0(self) -> None:
        play = Play()
        play.open(b"GET /a HTTP/1.0\r\nHost: ok-a.example\r\nConnection: keep-alive\r\n\r\n")
        assert play.up(1, b"HTTP/1.1 100 Continue\r\n\r\n") == []
        assert play.up(1, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n") == [
            "client < HTTP/1.1 200 OK|Connection: close||ok"
        ]
        assert play.up(1, b"0\r\n\r\n")[-1] == "close client"

    def test_the_upstream_closes_after_its_response(self) -> None:
        play = Play()
        play.open()
        assert play.up(1, OK_CLOSE) == [OK_LINE, "close 1"]
        assert play.client(GET_A) == ["dial 2 ok-a.example:80"]
        assert play.connect(2) == [f"2 < {A_LINE}"]

    @pytest.mark.parametrize("event", ["up_eof", "up_lost"])
    def test_the_upstream_leaves_between_requests(self, event: str) -> None:
        play = Play().kept_alive()
        assert getattr(play, event)(1) == ["close 1"]
        assert not play.session.wants_upstream_data()
        assert play.client(GET_A) == ["dial 2 ok-a.example:80"]
        assert play.connect(2) == [f"2 < {A_LINE}"]
        assert play.up(2, OK) == [OK_LINE]

    def test_what_nobody_asked_for_is_not_the_next_answer(self) -> None:
        play = Play().kept_alive()
        assert play.up(1, OK) == ["reset 1"]
        assert play.client(GET_A) == ["dial 2 ok-a.example:80"]

    def test_what_follows_a_response_is_not_the_next_answer(self) -> None:
        play = Play()
        play.open()
        assert play.up(1, OK + OK) == [OK_LINE, "close 1"]

    def test_more_names_than_are_kept(self) -> None:
        play = Play().kept_alive()
        for number in range(20):
            play.client(f"GET / HTTP/1.1\r\nHost: ok-{number}.example\r\n\r\n".encode())
            play.connect(number + 2)
            play.up(number + 2, OK)
        assert [record.close_reason for record in play.records] == [CloseReason.EVICTED] * 5
        play.client_eof()
        assert len(play.records) == 21
        assert len({id(record) for record in play.records}) == 21


class TestPipelining:
    def test_answers_in_order(self) -> None:
        play = Play()
        play.client(GET_A + GET_B + GET_A)
        assert play.connect(1) == [f"1 < {A_LINE}"]
        assert play.up(1, OK) == [
            OK_LINE,
            "close 1",
            "dial 2 ok-b.example:80",
        ]
        assert play.connect(2) == [f"2 < {B_LINE}"]
        assert play.up(2, OK) == [OK_LINE, "close 2", "dial 3 ok-a.example:80"]

    def test_the_refusal_waits_for_the_answer_before_it(self) -> None:
        play = Play()
        assert play.client(GET_A + DENIED + GET_A) == [
            "dial 1 ok-a.example:80",
        ]
        assert play.connect(1) == [f"1 < {A_LINE}"]
        assert play.asked == [("ok-a.example:80", "None")]
        assert play.up(1, OK[:-1]) == [OK_LINE[:-1]]
        assert play.up(1, OK[-1:]) == [
            "client < k",
            "close 1",
            "finished no.example:80 deny default_deny 1 refused",
            "finished ok-a.example:80 allow rule 1 refused",
            "refuse 403 default_deny",
        ]
        assert play.data_to(1) == GET_A

    def test_the_last_one_is_answered_after_a_half_close(self) -> None:
        play = Play()
        play.client(GET_A + GET_A)
        play.client_eof()
        assert play.connect(1) == [f"1 < {A_LINE}"]
        assert play.up(1, OK) == [OK_LINE, f"1 < {A_LINE}"]
        assert play.up(1, OK) == [
            "client < HTTP/1.1 200 OK|Content-Length: 2|Connection: close||ok",
            "close 1",
            "finished ok-a.example:80 allow rule 2 done",
            "close client",
        ]

    def test_after_the_last_nothing_is_read(self) -> None:
        play = Play()
        play.client(GET_A[:-2] + b"Connection: close\r\n\r\n" + DENIED)
        play.connect(1)
        assert play.up(1, OK)[-1] == "close client"
        assert [record.verdict for record in play.records] == [ALLOW]


class TestBodies:
    def test_a_body_streams_up(self) -> None:
        play = Play()
        assert play.open(POST_A + b"he") == [
            "1 < POST /a HTTP/1.1|Host: ok-a.example|Content-Length: 5||he"
        ]
        assert play.client(b"llo" + GET_A) == ["1 < llo"]
        assert play.up(1, OK) == [OK_LINE, f"1 < {A_LINE}"]

    def test_chunks_are_cut_anew_and_extensions_dropped(self) -> None:
        play = Play()
        play.open(CHUNKED_A)
        assert play.client(b"2;a=b\r\nhe\r\n3\r\nllo\r\n") == ["1 < 5|hello|"]
        assert play.client(b"0\r\nT: 1\r\n\r\n") == ["1 < 0|T: 1||"]

    def test_a_body_before_the_connection_is_kept_and_bounded(self) -> None:
        play = Play()
        play.client(POST_A.replace(b": 5", b": 99999"))
        assert play.session.wants_client_data()
        play.client(b"x" * 5000)
        assert not play.session.wants_client_data()
        assert play.connect(1)[0].endswith("x" * 5000)
        assert play.session.wants_client_data()

    def test_pipelined_bytes_are_bounded(self) -> None:
        play = Play()
        play.open()
        play.client(GET_A * 200)
        assert not play.session.wants_client_data()

    def test_expect_continue(self) -> None:
        play = Play()
        expect = POST_A[:-2] + b"Expect: 100-continue\r\n\r\n"
        assert "Expect: 100-continue" in play.open(expect)[0]
        assert play.up(1, b"HTTP/1.1 100 Continue\r\n\r\n") == ["client < HTTP/1.1 100 Continue||"]
        assert play.client(b"hello") == ["1 < hello"]
        assert play.up(1, OK) == [OK_LINE]

    def test_expect_continue_denied_says_so_at_once(self) -> None:
        play = Play()
        expect = POST_A.replace(b"ok-a", b"no")[:-2] + b"Expect: 100-continue\r\n\r\n"
        assert play.client(expect)[-1] == "refuse 403 default_deny"

    def test_a_refusal_while_the_body_is_still_coming(self) -> None:
        play = Play()
        assert play.client(POST_A.replace(b"ok-a", b"no") + b"he") == [
            "finished no.example:80 deny default_deny 1 refused",
            "refuse 403 default_deny",
        ]
        assert play.client(b"llo") == []
        assert not play.session.wants_client_data()

    def test_an_answer_before_the_request_is_whole(self) -> None:
        play = Play()
        play.open(POST_A + b"he")
        assert play.up(1, b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n") == [
            "client < HTTP/1.1 413 Too Large|Content-Length: 2|Connection: close||"
        ]
        assert play.client(b"l") == ["1 < l"]
        assert play.up(1, b"no") == [
            "client < no",
            "reset 1",
            "finished ok-a.example:80 allow rule 1 done",
            "close client",
        ]

    def test_an_answer_that_began_early_and_ended_late(self) -> None:
        play = Play()
        play.open(POST_A + b"he")
        play.up(1, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        assert play.client(b"llo") == ["1 < llo"]
        assert play.up(1, b"ok")[-2:] == [
            "finished ok-a.example:80 allow rule 1 done",
            "close client",
        ]

    @pytest.mark.parametrize("broken", [b"-1\r\n", b"2\r\nheX", b"zz\r\n"])
    def test_broken_chunks_are_refused_and_the_upstream_reset(self, broken: bytes) -> None:
        play = Play()
        play.open(CHUNKED_A)
        assert play.client(broken) == [
            "reset 1",
            "finished ok-a.example:80 deny ambiguous_request 1 refused",
            "finished ok-a.example:80 allow rule 1 refused",
            "refuse 400 ambiguous_request",
        ]
        assert b"0\r\n\r\n" not in play.data_to(1)

    def test_broken_chunks_after_the_answer_began(self) -> None:
        play = Play()
        play.open(CHUNKED_A)
        play.up(1, OK[:-1])
        assert play.client(b"-1\r\n") == [
            "finished ok-a.example:80 deny ambiguous_request 1 refused",
            "reset 1",
            "finished ok-a.example:80 allow rule 1 refused",
            "reset client",
        ]

    def test_the_client_ends_within_its_body(self) -> None:
        play = Play()
        play.open(POST_A + b"he")
        assert play.client_eof() == [
            "reset 1",
            "client < 400 client_closed",
            "finished ok-a.example:80 allow rule 1 client_closed",
            "close client",
        ]

    def test_the_client_ends_within_its_body_after_the_answer_began(self) -> None:
        play = Play()
        play.open(POST_A + b"he")
        play.up(1, OK[:-1])
        assert play.client_eof()[-1] == "reset client"

    def test_a_body_that_ended_before_the_connection(self) -> None:
        play = Play()
        play.client(POST_A + b"he")
        assert play.client_eof() == []
        assert play.connect(1)[-1] == "close client"

    def test_head_and_304_have_no_body(self) -> None:
        play = Play()
        play.open(GET_A.replace(b"GET", b"HEAD"))
        assert play.up(1, OK[:-2]) == [OK_LINE[:-2]]
        assert play.client(GET_A) == [f"1 < {A_LINE}"]
        assert play.up(1, b"HTTP/1.1 304 X\r\nContent-Length: 9\r\n\r\n") == [
            "client < HTTP/1.1 304 X|Content-Length: 9||"
        ]
        assert play.client(GET_A) == [f"1 < {A_LINE}"]


class TestResponses:
    def test_tiny_chunks_are_gathered(self) -> None:
        play = Play()
        play.open()
        play.up(1, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert play.up(1, b"1\r\na\r\n1\r\nb\r\n1\r\nc") == ["client < 3|abc|"]
        assert play.up(1, b"\r\n1\r\nd\r\n0\r\n\r\n") == ["client < 1|d|0||"]

    def test_framed_by_close_is_cut_anew(self) -> None:
        play = Play()
        play.open()
        assert play.up(1, b"HTTP/1.1 200 OK\r\n\r\nok") == [
            "client < HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|"
        ]
        assert play.up_eof(1) == ["client < 0||", "close 1"]
        assert play.client(GET_A) == ["dial 2 ok-a.example:80"]

    @pytest.mark.parametrize(
        "response",
        [
            OK[:-1],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        ],
        ids=["length", "chunked"],
    )
    @pytest.mark.parametrize(
        ("event", "reason"), [("up_eof", "upstream_closed"), ("up_lost", "upstream_reset")]
    )
    def test_cut_responses_are_never_completed(
        self, response: bytes, event: str, reason: str
    ) -> None:
        play = Play()
        play.open()
        play.up(1, response)
        assert getattr(play, event)(1) == [
            "reset 1",
            f"finished ok-a.example:80 allow rule 1 {reason}",
            "reset client",
        ]
        assert not play.data_to(None).endswith(b"0\r\n\r\n")

    @pytest.mark.parametrize("version", [b"1.0", b"1.1"])
    def test_a_reset_does_not_end_a_response_framed_by_close(self, version: bytes) -> None:
        play = Play()
        play.open(GET_A.replace(b"1.1", version))
        play.up(1, b"HTTP/1.1 200 OK\r\n\r\nok")
        assert play.up_lost(1)[-1] == "reset client"

    @pytest.mark.parametrize(
        "response",
        [
            b"nonsense\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            SWITCH,
        ],
        ids=["nonsense", "cl-te", "switch-not-asked"],
    )
    def test_malformed(self, response: bytes) -> None:
        play = Play()
        play.open()
        assert play.up(1, response) == [
            "reset 1",
            "client < 502 malformed_response",
            "finished ok-a.example:80 allow rule 1 malformed_response",
            "close client",
        ]

    def test_malformed_in_the_middle(self) -> None:
        play = Play()
        play.open()
        play.up(1, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        assert play.up(1, b"zz\r\n")[-1] == "reset client"

    @pytest.mark.parametrize(
        ("event", "reason"), [("up_eof", "upstream_closed"), ("up_lost", "upstream_reset")]
    )
    def test_no_answer_on_a_fresh_connection(self, event: str, reason: str) -> None:
        play = Play()
        play.open()
        assert getattr(play, event)(1) == [
            "reset 1",
            "client < 502 upstream_closed",
            f"finished ok-a.example:80 allow rule 1 {reason}",
            "close client",
        ]

    @pytest.mark.parametrize("event", ["up_eof", "up_lost"])
    def test_no_answer_on_a_used_connection_is_asked_again_once(self, event: str) -> None:
        play = Play().kept_alive()
        play.client(GET_A)
        assert getattr(play, event)(1) == ["close 1", "dial 2 ok-a.example:80"]
        assert play.connect(2) == [f"2 < {A_LINE}"]
        assert getattr(play, event)(2)[1] == "client < 502 upstream_closed"
        assert play.records[0].requests == 2

    @pytest.mark.parametrize(
        "request_bytes", [GET_A.replace(b"GET", b"POST"), POST_A.replace(b"POST", b"PUT")]
    )
    def test_what_may_not_be_asked_again(self, request_bytes: bytes) -> None:
        play = Play().kept_alive()
        play.client(request_bytes)
        assert play.up_eof(1)[1] == "client < 502 upstream_closed"

    def test_what_was_answered_in_part_is_not_asked_again(self) -> None:
        play = Play().kept_alive()
        play.client(GET_A)
        play.up(1, b"HTTP/1.1 2")
        assert play.up_eof(1)[1] == "client < 502 upstream_closed"


class TestDialling:
    @pytest.mark.parametrize(
        ("reason", "status"),
        [
            (Reason.RESOLVE_FAILED, 502),
            (Reason.DIAL_FAILED, 502),
            (Reason.DIAL_TIMEOUT, 504),
        ],
    )
    def test_errors(self, reason: Reason, status: int) -> None:
        play = Play()
        play.client(GET_A)
        assert play.run(play.session.upstream_failed(1, reason)) == [
            f"finished ok-a.example:80 error {reason} 1 error",
            f"client < {status} {reason}",
            "close client",
        ]
        assert play.records[0].verdict.rule_id == "rules/ok"

    @pytest.mark.parametrize(
        "reason", [Reason.FORBIDDEN_ADDRESS, Reason.DESTINATION_MISMATCH, Reason.LOOP]
    )
    def test_denies_of_the_address(self, reason: Reason) -> None:
        play = Play()
        play.client(GET_A)
        assert play.run(play.session.upstream_failed(1, reason)) == [
            f"finished ok-a.example:80 deny {reason} 1 refused",
            f"refuse 403 {reason}",
        ]

    def test_an_error_after_a_success_is_a_record_of_its_own(self) -> None:
        play = Play().kept_alive()
        play.up_eof(1)
        play.client(GET_A)
        assert play.run(play.session.upstream_failed(2, Reason.DIAL_FAILED)) == [
            "finished ok-a.example:80 error dial_failed 1 error",
            "client < 502 dial_failed",
            "finished ok-a.example:80 allow rule 1 error",
            "close client",
        ]

    def test_the_client_leaves_while_dialling(self) -> None:
        play = Play()
        play.client(GET_A)
        assert play.run(play.session.client_lost()) == [
            "reset 1",
            "finished ok-a.example:80 allow rule 0 client_reset",
            "reset client",
        ]
        assert play.connect(1) == []

    def test_events_of_upstreams_that_are_gone_do_nothing(self) -> None:
        play = Play().kept_alive()
        play.client(GET_B)
        assert play.up(1, OK) == []
        assert play.up_eof(1) == []
        assert play.up_lost(1) == []
        assert play.connect(1) == []
        assert play.run(play.session.upstream_failed(1, Reason.DIAL_FAILED)) == []


class TestWebsocket:
    def test_a_tunnel_with_what_each_side_sent_ahead(self) -> None:
        play = Play()
        assert play.open(WEBSOCKET + b"\x81\x02hi") == [
            "1 < GET /ws HTTP/1.1|Host: ok-a.example|Connection: Upgrade|Upgrade: websocket||"
        ]
        assert play.up(1, SWITCH + b"\x81\x02yo") == [
            f"client < {short(SWITCH)}\x81\x02yo",
            "1 < \x81\x02hi",
            "tunnel 1",
        ]
        tunnel = play.seen[-1]
        assert isinstance(tunnel, Tunnel)
        assert tunnel.record.requests == 1
        assert tunnel.record.bytes_down == len(SWITCH) + 4
        assert play.session.is_over
        assert play.records == []

    def test_other_names_are_finished_before_the_tunnel(self) -> None:
        play = Play()
        play.open(GET_B)
        play.up(1, OK)
        play.client(WEBSOCKET)
        play.connect(2)
        assert play.up(2, SWITCH)[1:] == [
            "finished ok-b.example:80 allow rule 1 done",
            "tunnel 2",
        ]

    def test_an_upstream_that_does_not_switch(self) -> None:
        play = Play()
        play.open(WEBSOCKET)
        assert play.up(1, OK) == [OK_LINE]
        assert play.client(GET_A) == [f"1 < {A_LINE}"]

    def test_other_protocols_are_not_offered(self) -> None:
        play = Play()
        assert play.open(WEBSOCKET.replace(b"websocket", b"irc/6.9")) == [
            "1 < GET /ws HTTP/1.1|Host: ok-a.example||"
        ]
        assert play.up(1, OK) == [OK_LINE]
        assert play.client(GET_A) == [f"1 < {A_LINE}"]

    def test_a_denied_websocket(self) -> None:
        play = Play()
        assert play.client(WEBSOCKET.replace(b"ok-a", b"no"))[-1] == "refuse 403 default_deny"


class TestBytesThatAreRefused:
    @pytest.mark.parametrize(
        ("data", "status", "reason", "host"),
        [
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "ambiguous_request", "None"),
            (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "host_mismatch", "b:80"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "h2c_refused", "None"),
            (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 403, "h2c_refused", "a:443"),
            (GET_A[:-2] + b"Upgrade: h2c\r\n\r\n", 403, "h2c_refused", "ok-a.example:80"),
            (b"GET / HTTP/1.1\r\nX: " + b"y" * 5000, 431, "head_too_large", "None"),
            (b"SSH-2.0-x\r\n", 400, "not_tls_or_http", "None"),
        ],
    )
    def test_first(self, data: bytes, status: int, reason: str, host: str) -> None:
        play = Play()
        assert play.client(data) == [
            f"finished {host} deny {reason} 1 refused",
            f"refuse {status} {reason}",
        ]
        assert play.asked == [(host, reason)]

    def test_later(self) -> None:
        play = Play().kept_alive()
        assert play.client(b"SSH-2.0-x\r\n\r\n") == [
            "close 1",
            "finished None deny ambiguous_request 1 refused",
            "finished ok-a.example:80 allow rule 1 refused",
            "refuse 400 ambiguous_request",
        ]

    def test_audit_softens_neither_ambiguous_nor_later_bytes(self) -> None:
        play = Play(audit=True)
        play.client(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert play.records[0].verdict == Verdict(Action.DENY, Reason.AMBIGUOUS_REQUEST)

    def test_an_address_is_judged_as_one(self) -> None:
        play = Play()
        assert play.client(b"GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n")[-1] == (
            "refuse 403 ip_literal"
        )
        assert play.asked == [("10.0.0.1:80", "ip_literal")]

    def test_an_audited_address_is_dialled(self) -> None:
        play = Play(audit=True)
        assert play.client(b"GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n")[-1] == "dial 1 10.0.0.1:80"
        assert play.connect(1) == ["1 < GET / HTTP/1.1|Host: 10.0.0.1||"]

    def test_audited_bytes_that_are_not_http_become_a_tunnel(self) -> None:
        play = Play(audit=True)
        assert play.client(b"SSH-2.0-x\r\n") == ["dial 1 None"]
        assert play.client(b"more") == []
        assert play.connect(1) == ["1 < SSH-2.0-x|more", "tunnel 1"]

    def test_audited_bytes_whose_dial_fails_get_no_page(self) -> None:
        play = Play(audit=True)
        play.client(b"SSH-2.0-x\r\n")
        assert play.run(play.session.upstream_failed(1, Reason.DIAL_FAILED)) == [
            "finished None error dial_failed 1 error",
            "close client",
        ]


class TestEnds:
    def test_nothing_was_said(self) -> None:
        play = Play()
        assert play.session.awaits_head
        assert play.client_eof() == [
            "finished None deny closed_before_hello 0 client_closed",
            "close client",
        ]

    def test_a_part_of_the_first_head(self) -> None:
        play = Play()
        play.client(GET_A[:9])
        assert play.client_eof()[0] == "finished None deny closed_before_hello 0 client_closed"

    def test_a_part_of_a_later_head(self) -> None:
        play = Play().kept_alive()
        play.client(GET_A[:9])
        assert play.client_eof() == [
            "close 1",
            "finished ok-a.example:80 allow rule 1 client_closed",
            "close client",
        ]

    def test_half_close_after_the_request(self) -> None:
        play = Play()
        play.client(GET_A)
        assert play.client_eof() == []
        assert not play.session.wants_client_data()
        play.connect(1)
        assert play.up(1, OK) == [
            "client < HTTP/1.1 200 OK|Content-Length: 2|Connection: close||ok",
            "close 1",
            "finished ok-a.example:80 allow rule 1 done",
            "close client",
        ]

    def test_the_hello_timeout(self) -> None:
        play = Play()
        play.client(GET_A[:9])
        assert play.session.awaits_head
        assert play.run(play.session.timed_out()) == [
            "finished None deny hello_timeout 1 refused",
            "refuse 408 hello_timeout",
        ]

    def test_the_hello_timeout_without_a_byte(self) -> None:
        play = Play()
        assert play.run(play.session.timed_out()) == [
            "finished None deny hello_timeout 0 timeout",
            "close client",
        ]

    def test_the_timeout_of_a_later_head(self) -> None:
        play = Play().kept_alive()
        assert (play.session.awaits_head, play.session.is_idle) == (False, True)
        play.client(GET_A[:9])
        assert (play.session.awaits_head, play.session.is_idle) == (True, False)
        assert play.run(play.session.timed_out()) == [
            "client < 408 hello_timeout",
            "close 1",
            "finished ok-a.example:80 allow rule 1 timeout",
            "close client",
        ]

    def test_the_timeout_between_requests(self) -> None:
        play = Play().kept_alive()
        assert play.run(play.session.timed_out()) == [
            "close 1",
            "finished ok-a.example:80 allow rule 1 idle",
            "close client",
        ]

    def test_no_timeout_while_a_request_is_under_way(self) -> None:
        play = Play()
        play.open()
        assert not play.session.awaits_head
        assert play.run(play.session.timed_out()) == []

    def test_between_requests_nobody_is_active(self) -> None:
        assert Play().kept_alive().session.active is None

    def test_drain_between_requests(self) -> None:
        play = Play().kept_alive()
        assert play.run(play.session.drain())[1:] == [
            "finished ok-a.example:80 allow rule 1 drained",
            "close client",
        ]

    def test_drain_lets_a_request_finish(self) -> None:
        play = Play()
        play.open()
        assert play.run(play.session.drain()) == []
        assert play.up(1, OK) == [
            "client < HTTP/1.1 200 OK|Content-Length: 2|Connection: close||ok",
            "close 1",
            "finished ok-a.example:80 allow rule 1 drained",
            "close client",
        ]

    def test_revoked(self) -> None:
        play = Play()
        play.open()
        assert play.session.active == Authority(DnsName("ok-a.example"), None, 80)
        assert play.run(play.session.abort(CloseReason.REVOKED)) == [
            "reset 1",
            "finished ok-a.example:80 allow rule 1 revoked",
            "reset client",
        ]

    def test_after_the_end_nothing_happens(self) -> None:
        play = Play().kept_alive()
        play.client_eof()
        assert play.client(GET_A) == []
        assert play.client_eof() == []
        assert play.run(play.session.client_lost()) == []
        assert play.run(play.session.timed_out()) == []
        assert play.run(play.session.drain()) == []
        assert play.up(1, OK) == []
        assert not play.session.wants_client_data()
        assert not play.session.wants_upstream_data()
        assert not play.session.awaits_head
        assert not play.session.is_idle


class TestExplicit:
    def test_absolute_form(self) -> None:
        play = Play(port=None)
        assert play.client(
            b"GET http://ok-a.example:8080/p HTTP/1.1\r\nHost: ok-a.example:8080\r\n"
            b"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\n\r\n"
        ) == ["dial 1 ok-a.example:8080"]
        assert play.connect(1) == ["1 < GET /p HTTP/1.1|Host: ok-a.example:8080||"]

    def test_two_ports_are_two_destinations(self) -> None:
        play = Play(port=None)
        line = b"GET http://ok-a.example%s/ HTTP/1.1\r\nHost: ok-a.example%s\r\n\r\n"
        play.open(line % (b"", b""))
        play.up(1, OK)
        assert play.client(line % (b":81", b":81")) == [
            "close 1",
            "dial 2 ok-a.example:81",
        ]

    def test_origin_form_is_refused(self) -> None:
        play = Play(port=None)
        assert play.client(GET_A)[-1] == "refuse 400 ambiguous_request"

    def test_connect_after_requests_is_refused(self) -> None:
        play = Play(port=None)
        assert play.client(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")[-1] == (
            "refuse 400 ambiguous_request"
        )


class TestFlags:
    def test_the_upstream_is_read_once_connected(self) -> None:
        play = Play()
        assert not play.session.wants_upstream_data()
        play.client(GET_A)
        assert not play.session.wants_upstream_data()
        play.connect(1)
        assert play.session.wants_upstream_data()
        play.up(1, OK)
        assert play.session.wants_upstream_data()

    def test_a_head_larger_than_the_buffer_is_still_read(self) -> None:
        play = Play(max_buffer_bytes=10)
        play.client(GET_A[:20])
        assert play.session.wants_client_data()
