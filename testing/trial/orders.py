"""Requests that show what their answer has to be, and whether what came is that."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

from attrs import define, evolve, field, frozen

from bench.numbers import percentile
from testing.trial.client import Outcome, request
from testing.trial.markers import expected, new_marker
from testing.trial.upstreams import PAGE, SAID

CLEAR_STATUSES = (429, 500, 502, 503, 504)
# Seconds for which a busy machine may keep a heartbeat.
_STALL = 2.0


@define
class Order:
    """One request, and how its client is going to behave."""

    marker: str
    kind: str
    model: str
    stream: bool
    to_gemini_port: bool = False
    leave_after: int | None = None
    leave_at: float | None = None
    slow: bool = False
    turns_before: int = 0

    @classmethod
    def draw(cls, number: int, kinds: Mapping[str, int], randomness: random.Random) -> Order:
        """
        Some request of a client that behaves well.

        @param kinds: how often each is wanted, out of all of them.
        """
        kind = randomness.choices(list(kinds), list(kinds.values()))[0]
        return cls(
            new_marker(number, randomness),
            kind,
            "gemini-2.5-flash" if kind == "gemini" else "gpt-x",
            stream=randomness.random() < 0.6,
            to_gemini_port=kind == "gemini" and randomness.random() < 0.5,
            turns_before=randomness.choice((0, 0, 1, 4)),
        )

    @property
    def path(self) -> str:
        return "/v1/embeddings" if self.kind == "passed" else "/v1/chat/completions"

    @property
    def body(self) -> dict[str, Any]:
        if self.kind == "passed":
            return {"model": self.model, "input": self.marker}
        history = [
            {"role": role, "content": f"{role} {turn} of {self.number}"}
            for turn in range(self.turns_before)
            for role in ("user", "assistant")
        ]
        return {
            "model": self.model,
            "messages": [
                {"role": "system", "content": f"Be number {self.number}."},
                *history,
                {"role": "user", "content": f"Please say {self.marker}."},
            ],
            "stream": self.stream,
        }

    @property
    def number(self) -> str:
        return self.marker.partition("x")[0].removeprefix("mk")

    @property
    def text(self) -> str:
        return expected(self.marker, stops_at_tags=not self.to_gemini_port)

    def request(self) -> bytes:
        return request("POST", self.path, self.body)


@define
class Verdict:
    """@ivar wrong: what must not be; None if nothing is."""

    kind: str
    wrong: str | None = None


@frozen
class Times:
    """
    What a daemon's settings say, in seconds.

    @ivar timeout: the silence after which an upstream is given up, and not before.
    @ivar heartbeat: the longest silence of a stream.
    """

    timeout: float
    heartbeat: float

    def fault(self, order: Order, outcome: Outcome, kind: str) -> str | None:
        """What was too early or too late, if anything was."""
        if "upstream_timeout" in kind and outcome.seconds < self.timeout * 0.9:
            return f"given up after {outcome.seconds:.1f} s"
        if order.stream and not order.slow and outcome.silence > self.heartbeat + _STALL:
            return f"{outcome.silence:.1f} s without a heartbeat"
        return None


def judge(order: Order, outcome: Outcome, times: Times) -> Verdict:
    """What became of a request, and whether that is right."""
    try:
        verdict = _judged(order, outcome)
        return evolve(verdict, wrong=verdict.wrong or times.fault(order, outcome, verdict.kind))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return Verdict("unreadable", f"{error!r}: {bytes(outcome.raw[-300:])!r}")


def _judged(order: Order, outcome: Outcome) -> Verdict:
    if outcome.refused:
        return Verdict("refused", "no connection")
    if outcome.late:
        return Verdict("stuck", f"stuck after {bytes(outcome.raw[-200:])!r}")
    if not outcome.whole and not outcome.left:
        return Verdict("cut", f"cut: {bytes(outcome.raw[-300:])!r}")
    if outcome.status not in (0, 200):
        if outcome.whole and outcome.body == PAGE:
            # Somebody else's error is passed on as itself.
            return Verdict(f"error, as a page, {outcome.status}")
        return _judged_error(outcome.status, json.loads(outcome.body) if outcome.whole else {})
    if order.kind == "passed":
        right = outcome.left or json.loads(outcome.body) == {"echo": order.marker}
        return Verdict("left" if outcome.left else "answered", None if right else "not its echo")
    if order.stream:
        return _judged_stream(order, outcome)
    if not outcome.whole:
        return Verdict("left")
    document = json.loads(outcome.body)
    if "error" in document:
        return _judged_error(200, document)
    choice = document["choices"][0]
    if choice["finish_reason"] == "content_filter":
        return Verdict("blocked")
    right = choice["message"]["content"] == order.text
    return Verdict("answered", None if right else f"wrong text: {document!r}"[:500])


def _judged_error(status: int, body: dict[str, Any]) -> Verdict:
    if not body:
        return Verdict("left")
    error = body["error"]
    message = error["message"]
    when = "error" if status != 200 else "error after the head"
    kind = f"{when}, {error.get('code') or 'as itself'}" + (f", {status}" if status != 200 else "")
    if "itself failed" in message or not message:
        return Verdict(kind, f"no clear error: {error!r}")
    if status not in (200, *CLEAR_STATUSES):
        return Verdict(kind, f"status {status}: {error!r}")
    if status == 500 and SAID not in message:
        return Verdict(kind, f"an error of our own: {error!r}")
    return Verdict(kind)


def _judged_stream(order: Order, outcome: Outcome) -> Verdict:
    events = outcome.events
    chunks = [e for e in events if isinstance(e, dict) and "choices" in e]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    if not order.text.startswith(text):
        return Verdict("streamed", f"wrong text: {text[-300:]!r}")
    if outcome.left:
        return Verdict("left")
    finishes = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    if events and isinstance(events[-1], dict) and "error" in events[-1]:
        return _judged_error(200, events[-1])
    if not events or events[-1] != "[DONE]" or len(finishes) != 1:
        return Verdict("streamed", f"no proper end: {events[-2:]!r}")
    if finishes == ["content_filter"]:
        return Verdict("blocked")
    return Verdict("answered", None if text == order.text else f"half a text: {text[-300:]!r}")


@define
class Figures:
    """
    What became of all requests.

    @ivar kinds: how many, by what became of them.
    @ivar wrong: what should not have been.
    @ivar seconds: of those that were answered, by kind of request.
    """

    kinds: Counter[str] = field(factory=Counter)
    wrong: list[str] = field(factory=list)
    seconds: dict[str, list[float]] = field(factory=dict)

    def count(self, name: str, verdict: Verdict, outcome: Outcome, what: str) -> None:
        self.kinds[f"{name}: {verdict.kind}"] += 1
        if verdict.wrong is not None:
            self.wrong.append(f"{what}: {verdict.wrong}")
        if verdict.kind == "answered":
            self.seconds.setdefault(name, []).append(outcome.seconds)

    def lines(self) -> list[str]:
        lines = [f"requests: {self.kinds.total()}"]
        lines += [f"  {kind}: {count}" for kind, count in sorted(self.kinds.items())]
        lines += ["times of those answered:"]
        for name, seconds in sorted(self.seconds.items()):
            ordered = sorted(seconds)
            p50, p99 = (percentile(ordered, percent, 1000) or 0 for percent in (50, 99))
            lines.append(f"  {name}: {len(ordered)}, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        lines += [f"wrong: {len(self.wrong)}", *(f"  {text[:1000]}" for text in self.wrong[:20])]
        return lines
