"""
The terms of the contract: what gemproxy relies on in the CLI.

docs/architecture.md says why, and names the tests that look at each of them more closely.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from attrs import frozen
from twisted.internet.task import deferLater

from gemproxy.chat.shapes import objects_in
from gemproxy.doctor.contract.google import AskedOf
from gemproxy.doctor.contract.trial import ERROR, Broken, Trial, hold
from gemproxy.gemini.cli import acp
from gemproxy.gemini.cli.marks import ConversationAltered

_TARGET = re.compile(r"/contract/v1[a-z0-9]*/models/[A-Za-z0-9._-]+:streamGenerateContent\?alt=sse")

# What looks like commands, notes and files to a coding agent.
_HARD = (
    "/help",
    "  /quit",
    "?",
    "$ ls -l",
    "!ls",
    "@/etc/passwd and @./settings.json",
    "<session_context>\nToday is Monday.\n</session_context>",
    "<hook_context>x</hook_context>",
    "${AvailableTools} ${HOME} `id` $(id)",
    "\x1b[31mred\x1b[0m \0\x7f",
    "\u200bzero width\u200b\ufeff \u202e \u2028",
    "\r\n a \r b \t\n\n",
    '"\\"\\\\ \\u0041 \\n',
    "x" * 50_000,
)
# As many as get marks of their own.
_MANY = 1000
# Seconds after the end of a prompt in which nothing may happen any more.
_AFTERWARDS = 0.5


@frozen
class Term:
    """
    @ivar promise: what holds, in a sentence.
    @ivar test: finds out whether it does; raises L{Broken}.
    """

    name: str
    promise: str
    test: Callable[[Trial], Awaitable[None]]


TERMS: list[Term] = []


def _term(
    name: str, promise: str
) -> Callable[[Callable[[Trial], Awaitable[None]]], Callable[[Trial], Awaitable[None]]]:
    def add(test: Callable[[Trial], Awaitable[None]]) -> Callable[[Trial], Awaitable[None]]:
        TERMS.append(Term(name, promise, test))
        return test

    return add


@_term("protocol", f"It speaks version {acp.PROTOCOL_VERSION} of the Agent Client Protocol.")
async def protocol(trial: Trial) -> None:
    version = (await _introduced(trial)).get("protocolVersion")
    hold(version == acp.PROTOCOL_VERSION, f"It speaks version {version}.")


@_term("one request", "A prompt leads to one request, to the address that it was given.")
async def one_request(trial: Trial) -> None:
    asked = await trial.ask(await trial.open(), "Hello")
    hold(_TARGET.fullmatch(asked.target) is not None, f"It asked for {asked.target}.")
    await _settle(trial)
    others = [one.target for one in trial.google.asked if one is not asked]
    hold(not others, f"It also asked for {', '.join(others)}.")


@_term("no key", "It needs no key to ask, and sends none.")
async def no_key(trial: Trial) -> None:
    asked = await trial.ask(await trial.open(), "Hello")
    hold(not asked.key, "It sent a key.")


@_term("no tools", "It offers the model no tools.")
async def no_tools(trial: Trial) -> None:
    asked = await trial.ask(await trial.open(), "Hello")
    tools = [
        str(function.get("name"))
        for tool in objects_in(asked.body.get("tools"))
        for function in objects_in(tool.get("functionDeclarations"))
    ]
    hold(not tools, f"It offered {', '.join(tools)}.")


@_term("marks", "Every text arrives behind its mark, byte for byte and in its place.")
async def marks(trial: Trial) -> None:
    session = await trial.open()
    await _arrive(trial, session, *_HARD)
    await _arrive(trial, session, _HARD[0])
    await _arrive(trial, session, *[""] * _MANY)


@_term(
    "sessions", "A session serves one conversation after the other, also if the last is cancelled."
)
async def sessions(trial: Trial) -> None:
    session = await trial.open()
    for number in range(3):
        await _arrive(trial, session, f"Conversation {number}", "/help")
        # After its end, and right before the next one.
        trial.worker.notify("session/cancel", {"sessionId": session})


@_term("side by side", "Sessions of one process do not mix, and do not wait for each other.")
async def side_by_side(trial: Trial) -> None:
    opened = [await trial.open() for _ in range(3)]
    prompts = [trial.prompt(session, f"I am {session}") for session in opened]
    asked = [await trial.request_of(prompt) for prompt in prompts]
    for number, prompt in reversed(list(enumerate(prompts))):
        for other in prompts:
            is_there = other.marks.nonce in str(asked[number].contents)
            hold(is_there is (other is prompt), "A conversation was sent in another one's request.")
        asked[number].end()
        outcome = await trial.end_of(prompt)
        hold(outcome == "end_turn", f"A prompt ended with {outcome}.")


@_term(
    "empty replies", "A reply without text is a regular end, and the session forgets the prompt."
)
async def empty_replies(trial: Trial) -> None:
    session = await trial.open()
    prompt = trial.prompt(session, "Hello")
    asked = await trial.request_of(prompt)
    # As the gateway does.
    asked.end(None)
    outcome = await trial.end_of(prompt)
    hold(outcome == "end_turn", f"The prompt ended with {outcome}.")
    asked = await _arrive(trial, session, "Hello again")
    hold(prompt.marks.nonce not in str(asked.contents), "The next request has it once more.")


@_term("awake", "It answers other calls while a prompt waits for the API.")
async def awake(trial: Trial) -> None:
    session = await trial.open()
    prompt = trial.prompt(session, "Hello")
    asked = await trial.request_of(prompt)
    await _introduced(trial)
    await trial.open()
    hold(prompt.outcome is None, f"The prompt ended with {prompt.outcome} meanwhile.")
    asked.end()
    await trial.end_of(prompt)


@_term("cancel", "A prompt that is cancelled ends at once, and closes its connection to the API.")
async def cancel(trial: Trial) -> None:
    session = await trial.open()
    for has_begun in (False, True):
        prompt = trial.prompt(session, "Hello")
        asked = await trial.request_of(prompt)
        if has_begun:
            asked.say("One")
        trial.worker.notify("session/cancel", {"sessionId": session})
        outcome = await trial.end_of(prompt)
        hold(outcome == "cancelled", f"The prompt ended with {outcome}.")
        await trial.until(partial(getattr, asked, "is_gone"))


# The statuses with which the gateway refuses. Others, such as 503, the CLI would ask for again.
@_term("errors", "A refusal ends the prompt with an error, and nothing is asked again.")
async def errors(trial: Trial) -> None:
    for status in (400, 404):
        prompt = trial.prompt(await trial.open(), "Hello")
        (await trial.request_of(prompt)).refuse(status)
        outcome = await trial.end_of(prompt)
        hold(outcome == ERROR, f"After status {status}, the prompt ended with {outcome}.")


@_term("no repeats", "A reply that is cut off is not asked for again.")
async def no_repeats(trial: Trial) -> None:
    prompt = trial.prompt(await trial.open(), "Hello")
    asked = await trial.request_of(prompt)
    asked.say("Half of ")
    asked.cut()
    await trial.end_of(prompt)


@_term("nothing written", "Nothing of a conversation is written to a disk.")
async def nothing_written(trial: Trial) -> None:
    words = []
    for text in ("Hello", "/help"):
        prompt = trial.prompt(await trial.open(), text)
        words.append(prompt.marks.nonce.encode())
        (await trial.request_of(prompt)).end("A secret.")
        await trial.end_of(prompt)
    await _settle(trial)
    found = _files_with(words, trial.worker.home.root)
    hold(not found, f"It is in its files {', '.join(found)}.")


@_term("end", "It ends when it is asked to, and nothing of it is left.")
async def end(trial: Trial) -> None:
    await trial.ask(await trial.open(), "Hello")
    process, began = trial.worker.pid, trial.reactor.seconds()
    await trial.worker.stop()
    hold(
        trial.reactor.seconds() - began < trial.worker.limits.kill_delay,
        "It did not end with SIGTERM.",
    )
    hold(process is not None and not _is_left(process), "A process of it is left.")


def _files_with(words: Sequence[bytes], root: Path) -> list[str]:
    """The names of the files that have any of these words in them."""
    return [
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and any(word in path.read_bytes() for word in words)
    ]


async def _introduced(trial: Trial) -> dict[str, object]:
    return await trial.worker.call(
        "initialize", {"protocolVersion": acp.PROTOCOL_VERSION, "clientCapabilities": {}}
    )


async def _arrive(trial: Trial, session: str, *texts: str) -> AskedOf:
    """
    The request for a conversation.

    @raise Broken: the texts of it do not arrive as they are.
    """
    prompt = trial.prompt(session, *texts)
    asked = await trial.request_of(prompt)
    asked.end()
    try:
        prompt.marks.check(asked.contents)
    except ConversationAltered as error:
        raise Broken(f"The conversation was altered: {error}.") from None
    outcome = await trial.end_of(prompt)
    hold(outcome == "end_turn", f"The prompt ended with {outcome}.")
    return asked


async def _settle(trial: Trial) -> None:
    """Time for what should not happen."""
    await deferLater(trial.reactor, _AFTERWARDS)


def _is_left(group: int) -> bool:
    """Whether a group has a process."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
