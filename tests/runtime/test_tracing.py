"""One trace follows a change from the request to where it is applied, on both members."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from tests.waiting import until
from tribes.channel.trail import Trail
from tribes.config.recorder import RecorderConfig
from tribes.errors import ConfigError, RemoteProtocolError
from tribes.links.own_wire import FEATURE_TRACE
from tribes.recorder.file import read_recording
from tribes.recorder.replay import replay
from tribes.runtime import parts
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.links import Links
from tribes.runtime.otel import SPANS_MAX, OtelTracing, make_tracing

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler

    from tribes.config.model import NodeConfig
    from tribes.wire.outputs import Write

MakeConfig = Callable[..., "NodeConfig"]

TRACED = b"TPY\x0d"


class Spans:
    """What the nodes of a test make, each with a provider of its own, as processes have."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.exporters: list[InMemorySpanExporter] = []
        self.providers: list[TracerProvider] = []
        self.sampler: Sampler = ALWAYS_ON
        monkeypatch.setattr(parts, "make_tracing", self.make)

    def make(self) -> OtelTracing:
        exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=self.sampler)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        self.exporters.append(exporter)
        self.providers.append(provider)
        return OtelTracing(provider.get_tracer("tribes"))

    def of(self, node: int) -> tuple[ReadableSpan, ...]:
        return self.exporters[node].get_finished_spans()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    return Spans(monkeypatch)


def traced(config: NodeConfig, **more: Any) -> NodeConfig:
    return msgspec.structs.replace(config, tracing=True, **more)


def tree(spans: tuple[ReadableSpan, ...]) -> dict[str, str]:
    """Each span's name, and that of the span it belongs to."""
    names = {span.context.span_id: span.name for span in spans if span.context}
    return {span.name: names.get(span.parent.span_id, "?") if span.parent else "" for span in spans}


def traces_of(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What any node writes from now on, where it carries a trace."""
    sent: list[bytes] = []
    write = Links.write

    def note(own: Links, output: Write) -> None:
        sent.extend(chunk for chunk in output.chunks if TRACED in chunk)
        write(own, output)

    monkeypatch.setattr(Links, "write", note)
    return sent


async def together(*nodes: GroupChannel) -> None:
    await until(lambda: all(each.members and each.is_ready for each in nodes))


async def test_a_trace_follows_a_commit_through_both_members(
    make_config: MakeConfig, spans: Spans
) -> None:
    """One trace id; commit, send, every interceptor, receive, every interceptor again, apply, each
    within the one before.
    """
    a = GroupChannel(traced(make_config("a", contexts=("shop",), send_options=6)))
    b = GroupChannel(traced(make_config("b", contexts=("shop",), send_options=6)))
    async with a, b:
        await together(a, b)
        session = a.manager("shop").create()
        session["x"] = 1
        result = await a.acommit(session)
        assert result.acked == ("b",)
        await until(lambda: any(each.name == "tribes.apply" for each in spans.of(1)))
    found = (*spans.of(0), *spans.of(1))
    assert len({span.context.trace_id for span in found if span.context}) == 1
    assert tree(found) == {
        "tribes.commit": "",
        "tribes.send": "tribes.commit",
        "tribes.send MessageDispatchInterceptor": "tribes.send",
        "tribes.receive": "tribes.send MessageDispatchInterceptor",
        "tribes.receive TcpFailureDetector": "tribes.receive",
        "tribes.apply": "tribes.receive TcpFailureDetector",
    }
    assert {span.name.partition(" ")[0] for span in spans.of(1)} == {
        *("tribes.receive", "tribes.apply")
    }


async def test_a_message_belongs_to_the_span_that_sends_it(
    make_config: MakeConfig, spans: Spans
) -> None:
    """And nothing is made of one that is sent in none."""
    a, b = GroupChannel(traced(make_config("a"))), GroupChannel(traced(make_config("b")))
    async with a, b:
        b.add_message_listener(lambda _: None, inline=True)
        await together(a, b)
        await a.send(b"alone", options=6)
        assert spans.of(0) == spans.of(1) == ()
        with spans.providers[0].get_tracer("test").start_as_current_span("mine"):
            await a.send(b"with", options=6)
    found = (*spans.of(0), *spans.of(1))
    assert tree(found)["tribes.send"] == "mine"
    assert "tribes.receive" in tree(found)


async def test_many_commits_in_one_message_are_linked(
    make_config: MakeConfig, spans: Spans
) -> None:
    """The message belongs to the first, and names the others."""
    a = GroupChannel(traced(make_config("a", contexts=("shop",))))
    b = GroupChannel(traced(make_config("b", contexts=("shop",))))
    async with a, b:
        await together(a, b)
        manager = a.manager("shop")
        for number in range(3):
            session = manager.create()
            session["n"] = number
            manager.commit(session)
        await until(lambda: any(each.name == "tribes.apply" for each in spans.of(1)))
    [send] = [span for span in spans.of(0) if span.name == "tribes.send"]
    commits = [span.context for span in spans.of(0) if span.name == "tribes.commit"]
    assert [link.context.span_id for link in send.links] == [
        each.span_id for each in commits[1:] if each
    ]


@pytest.mark.parametrize("who", ["neither", "sender", "receiver", "tomcat"])
async def test_nothing_is_on_the_wire_for_who_does_not_take_it(
    make_config: MakeConfig, spans: Spans, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """A member without tracing, and one that speaks Tomcat's link, get the frames that they always
    got; the feature is not even offered by who makes no spans.
    """
    configs = [make_config(name, contexts=("shop",), send_options=6) for name in ("a", "b")]
    if who in ("sender", "tomcat"):
        configs[0] = traced(configs[0])
    if who in ("receiver", "tomcat"):
        configs[1] = traced(configs[1])
    if who == "tomcat":
        plain = msgspec.structs.replace(configs[1].channel, own_link=False)
        configs[1] = msgspec.structs.replace(configs[1], channel=plain)
    a, b = map(GroupChannel, configs)
    async with a, b:
        await together(a, b)
        traces = traces_of(monkeypatch)
        session = a.manager("shop").create()
        session["x"] = 1
        assert (await a.acommit(session)).acked == ("b",)
        assert traces == []
        for node, config in ((a, configs[0]), (b, configs[1])):
            offers = node.shell.core.channel._identity.side.features & FEATURE_TRACE
            assert bool(offers) == config.tracing
            assert (node.shell.core.channel.trail is None) == (not config.tracing)
    if configs[1].tracing:
        assert spans.of(-1) == ()


@pytest.mark.parametrize("is_sampled", [True, False])
async def test_what_is_not_sampled_costs_no_bytes(
    make_config: MakeConfig, spans: Spans, monkeypatch: pytest.MonkeyPatch, *, is_sampled: bool
) -> None:
    """A trace that its sampler drops is not carried on."""
    spans.sampler = ALWAYS_ON if is_sampled else ALWAYS_OFF
    a = GroupChannel(traced(make_config("a", contexts=("shop",), send_options=6)))
    b = GroupChannel(traced(make_config("b", contexts=("shop",), send_options=6)))
    async with a, b:
        await together(a, b)
        traces = traces_of(monkeypatch)
        session = a.manager("shop").create()
        session["x"] = 1
        assert (await a.acommit(session)).acked == ("b",)
    assert bool(traces) == is_sampled
    assert bool(spans.of(0)) == bool(spans.of(1)) == is_sampled


async def test_a_traced_node_can_be_recorded(
    make_config: MakeConfig, spans: Spans, tmp_path: Path
) -> None:
    """The spans' bytes are noted with the inputs: the run writes the same."""
    recorder = RecorderConfig(directory=str(tmp_path))
    a = GroupChannel(traced(make_config("a", contexts=("shop",)), recorder=recorder))
    b = GroupChannel(traced(make_config("b", contexts=("shop",), send_options=6)))
    async with a, b:
        await together(a, b)
        for _ in range(5):
            session = a.manager("shop").create()
            session["x"] = 1
            await a.acommit(session)
        assert a.sessions.recorder is not None
        said = a.sessions.recorder.write(contents=True, why="a test")
    [result] = replay(read_recording(tmp_path / said["path"]))
    assert result.ran
    assert result.difference is None
    assert spans.of(0)


def test_an_error_ends_the_span_with_it() -> None:
    """And what is around it goes on with its own span."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = OtelTracing(provider.get_tracer("test"))
    trail = Trail(tracing)
    root = tracing.begin("root", b"", {})

    def fail() -> None:
        raise RemoteProtocolError("no")

    with trail.following((root,)):
        with pytest.raises(RemoteProtocolError):
            trail.span("inner", {}, fail)
        assert trail.current == root
    assert trail.current == b""
    [inner] = exporter.get_finished_spans()
    assert inner.status.description == "RemoteProtocolError"


def test_spans_that_nobody_ends_are_bounded() -> None:
    """The oldest is ended."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = OtelTracing(provider.get_tracer("test"))
    for number in range(SPANS_MAX + 10):
        tracing.begin(f"forgotten {number}", b"", {})
    assert len(tracing._spans) == SPANS_MAX
    ended = [span.name for span in exporter.get_finished_spans()]
    assert ended == [f"forgotten {number}" for number in range(10)]


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the key; and a node that does not ask for it loads nothing of it."""
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with pytest.raises(ConfigError, match=r"tribes\[otel\]") as caught:
        make_tracing()
    assert caught.value.key == "tracing"
    code = "import sys, tribes, tribes.runtime.group_channel; print('opentelemetry' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "False"
