"""The clients that are tested, and what each does: the table of docs/clients.md."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from tests.clients.features import FEATURES
from tests.support import ROOT

HERE = Path(__file__).parent
LOCKS = HERE / "locks"
INSTALLED = ROOT / ".cache" / "clients"

ALL = tuple(FEATURES)


@frozen
class Sdk:
    """
    A library, in one of its ways to ask.

    @ivar name: the heading of its configuration in the page.
    @ivar dialect: what it speaks.
    @ivar package: the name in its registry.
    @ivar program: what uses it, in C{programs/}.
    @ivar features: what it does, of L{FEATURES}.
    @ivar place: the lock file that pins it, and the folder where it is installed; C{node} has
        packages of npm.
    """

    name: str
    dialect: str
    package: str
    program: str
    features: Sequence[str] = ALL
    place: str = "sdks"

    @property
    def module(self) -> str:
        """The name that the program knows its configuration by."""
        return "set_" + re.sub(r"\W+", "_", self.name.lower()).strip("_")


@frozen
class Program:
    """
    A program that people use.

    @ivar name: the heading of its configuration in the page.
    @ivar dialect: what it speaks.
    @ivar package: the name in its registry.
    @ivar does: what the test has it do, as the page says it.
    @ivar place: see L{Sdk}.
    """

    name: str
    dialect: str
    package: str
    does: str
    place: str = "programs"


def without(*features: str) -> tuple[str, ...]:
    """What a library does that has no way to do these."""
    return tuple(feature for feature in ALL if feature not in features)


CHAT, RESPONSES, MESSAGES, NATIVE = "chat", "Responses", "Messages", "Gemini"

SDKS = (
    Sdk("openai-python, chat", CHAT, "openai", "openai_sdk.py"),
    Sdk("openai-python, Responses", RESPONSES, "openai", "openai_sdk.py"),
    Sdk("anthropic-python", MESSAGES, "anthropic", "anthropic_sdk.py"),
    Sdk("google-genai, Python", NATIVE, "google-genai", "google_sdk.py"),
    Sdk("OpenAI Agents SDK", RESPONSES, "openai-agents", "agents_sdk.py"),
    Sdk("LangChain, chat", CHAT, "langchain-openai", "langchain_sdk.py", without("thoughts")),
    Sdk("LangChain, Responses", RESPONSES, "langchain-openai", "langchain_sdk.py"),
    Sdk("LangChain, Anthropic", MESSAGES, "langchain-anthropic", "langchain_sdk.py"),
    Sdk("LangChain, Google", NATIVE, "langchain-google-genai", "langchain_sdk.py"),
    Sdk("pydantic-ai, chat", CHAT, "pydantic-ai-slim", "pydantic_ai_sdk.py"),
    Sdk("pydantic-ai, Responses", RESPONSES, "pydantic-ai-slim", "pydantic_ai_sdk.py"),
    Sdk(
        "pydantic-ai, Anthropic",
        MESSAGES,
        "pydantic-ai-slim",
        "pydantic_ai_sdk.py",
        without("structured"),
    ),
    Sdk("pydantic-ai, Google", NATIVE, "pydantic-ai-slim", "pydantic_ai_sdk.py"),
    Sdk(
        "LlamaIndex, chat",
        CHAT,
        "llama-index-llms-openai-like",
        "llama_index_sdk.py",
        without("thoughts"),
        "llama-index",
    ),
    Sdk("litellm, chat", CHAT, "litellm", "litellm_sdk.py"),
    Sdk("litellm, Anthropic", MESSAGES, "litellm", "litellm_sdk.py", without("structured")),
    Sdk("litellm, Google", NATIVE, "litellm", "litellm_sdk.py"),
    Sdk("openai-node, chat", CHAT, "openai", "openai_sdk.mjs", place="node"),
    Sdk("openai-node, Responses", RESPONSES, "openai", "openai_sdk.mjs", place="node"),
    Sdk("anthropic-node", MESSAGES, "@anthropic-ai/sdk", "anthropic_sdk.mjs", place="node"),
    Sdk("google-genai, JavaScript", NATIVE, "@google/genai", "google_sdk.mjs", place="node"),
    Sdk(
        "Vercel AI SDK, chat", CHAT, "@ai-sdk/openai", "vercel_sdk.mjs", without("thoughts"), "node"
    ),
    Sdk("Vercel AI SDK, Responses", RESPONSES, "@ai-sdk/openai", "vercel_sdk.mjs", place="node"),
    Sdk("Vercel AI SDK, Anthropic", MESSAGES, "@ai-sdk/anthropic", "vercel_sdk.mjs", place="node"),
    Sdk("Vercel AI SDK, Google", NATIVE, "@ai-sdk/google", "vercel_sdk.mjs", place="node"),
)

_EDITS = "reads a file, edits it, runs a command, ends"

CODEX = Program("Codex CLI", RESPONSES, "@openai/codex", _EDITS)
CLAUDE = Program("Claude Code", MESSAGES, "@anthropic-ai/claude-code", _EDITS)
OPENCODE = Program("opencode", CHAT, "opencode-ai", _EDITS)
QWEN = Program("qwen-code", CHAT, "@qwen-code/qwen-code", _EDITS)
AIDER = Program("aider", CHAT, "aider-chat", "edits a file, commits it", "aider")
SILLYTAVERN = Program(
    "SillyTavern", CHAT, "sillytavern", "connects, lists the models, streams an answer"
)

PROGRAMS = (CODEX, CLAUDE, OPENCODE, QWEN, AIDER, SILLYTAVERN)


def pinned(client: Sdk | Program) -> str:
    """The version that the tests run."""
    if (of_npm := LOCKS / client.place / "package-lock.json").exists():
        lock = json.loads(of_npm.read_text())
        version = lock["packages"][f"node_modules/{client.package}"]["version"]
        assert isinstance(version, str)
        return version
    lock_file = (LOCKS / f"{client.place}.lock").read_text()
    [found] = re.findall(rf"(?m)^{re.escape(client.package)}==(\S+)", lock_file)
    assert isinstance(found, str)
    return found


def sdk_row(sdk: Sdk) -> str:
    marks = ["yes" if feature in sdk.features else "no" for feature in FEATURES]
    return f"| {' | '.join([_link(sdk.name), pinned(sdk), sdk.dialect, *marks])} |"


def program_row(program: Program) -> str:
    cells = [_link(program.name), pinned(program), program.dialect, program.does]
    return f"| {' | '.join(cells)} |"


def _link(name: str) -> str:
    return f"[{name}](#{re.sub(r'[^a-z0-9 -]', '', name.lower()).replace(' ', '-')})"
