"""Prometheus metrics of the server."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mira_jax.serving.engine import Engine

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the duration histogram, in seconds."""
OTHER = "other"
"""The label for paths that are not served. This bounds the label cardinality."""


class Metrics:
    """Requests by path and status, their durations, and the counters of the engine."""

    def __init__(self, engine: Engine, paths: frozenset[str]):
        """`paths`: the paths that have their own label value."""
        self._paths = paths
        self._registry = CollectorRegistry()
        self._requests = Counter("mira_requests", "Requests answered, by path and status.", ["path", "status"], registry=self._registry)
        self._seconds = Histogram(
            "mira_request_seconds",
            "Seconds from the start of a request to the end of its response.",
            ["path"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._registry.register(_EngineCounts(engine))

    def text(self) -> bytes:
        """Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)

    def add(self, path: str, status: int, seconds: float) -> None:
        path = path if path in self._paths else OTHER
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)


class Counted:
    """ASGI middleware that records each request in `metrics` after its response was sent or its client disconnected."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start, status = time.perf_counter(), 500

        async def send_and_record(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_record)
        finally:
            self._metrics.add(scope["path"], status, time.perf_counter() - start)


class _EngineCounts(Collector):
    """Reads the engine's counters on each scrape."""

    def __init__(self, engine: Engine):
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        engine, counters = self._engine, self._engine.counters
        yield GaugeMetricFamily("mira_waiting", "Prompts waiting in the queue.", engine.waiting)
        yield GaugeMetricFamily("mira_running", "Completions being decoded.", engine.running)
        yield CounterMetricFamily("mira_completions", "Completions finished.", counters.completions)
        yield CounterMetricFamily("mira_prompt_tokens", "Prompt tokens processed.", counters.prompt_tokens)
        yield CounterMetricFamily("mira_generated_tokens", "Tokens generated.", counters.drawn_tokens)
        yield CounterMetricFamily("mira_decode_steps", "Decode steps of the batch.", counters.decode_steps)
        yield CounterMetricFamily("mira_prefix_hits", "Prompts with a hit in the prefix cache.", counters.prefix_hits)
        yield CounterMetricFamily("mira_prefix_tokens", "Prompt tokens taken from the prefix cache.", counters.prefix_tokens)
