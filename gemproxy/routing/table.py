"""Who gets a model: one table that people can read. No I/O."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from attrs import frozen

from gemproxy.chat.models import OTHER_PREFIXES, is_gemini, plain_name

GEMINI = "gemini"
"""The name of the Gemini backend, among the upstreams."""

# What may stand in front of a name of Gemini's.
_GEMINI_PREFIXES = ("", "gemini", "google", "models")
_TRUE_NAME = re.compile(r"gemini-[a-z0-9._-]+")


@frozen
class Target:
    """
    @ivar upstream: the name of an upstream, or GEMINI.
    @ivar model: the name under which it knows the model.
    """

    upstream: str
    model: str

    def __str__(self) -> str:
        return f"{self.upstream}/{self.model}"


@frozen
class Member:
    """
    An upstream, as far as routes go.

    @ivar patterns: names of models that are its own, with C{*}.
    """

    name: str
    prefix: str
    patterns: tuple[str, ...] = ()


class BadRoute(ValueError):
    """A route is invalid; the message says which and why."""


@frozen
class RoutingTable:
    """
    The rules, in the order in which they are asked: explicit routes, prefixes, patterns of
    upstreams, Gemini's list, the lists of the upstreams, C{gemini} in the name, the first upstream.

    @ivar members: the upstreams; the first one gets what nobody else does.
    @ivar routes: the targets of names, with C{*}.
    """

    members: tuple[Member, ...]
    routes: Mapping[str, tuple[str, ...]]

    def check(self) -> None:
        """@raise BadRoute: a route names an upstream that is not there."""
        for name, targets in self.routes.items():
            for target in targets:
                if self._prefixed(target) is None:
                    known = ", ".join([GEMINI, *(member.prefix for member in self.members)])
                    raise BadRoute(
                        f"route '{name}': '{target}' must begin with the name of an upstream and"
                        f" '/': {known}."
                    )

    def explicit(self, model: str) -> tuple[Target, ...]:
        """The targets that are certain without any list; empty if there are none."""
        name = model.strip()
        for pattern, targets in self.routes.items():
            match = _matches(pattern, name)
            if match is not None:
                return tuple(self._target(target, match, name) for target in targets)
        prefixed = self._prefixed(name)
        if prefixed is not None:
            return (prefixed,)
        for member in self.members:
            if any(_matches(pattern, name) is not None for pattern in member.patterns):
                return (Target(member.name, name),)
        return ()

    def _target(self, target: str, match: str, name: str) -> Target:
        filled = self._prefixed(target.replace("*", match or name))
        assert filled is not None  # noqa: S101 - for mypy
        return filled

    def _prefixed(self, name: str) -> Target | None:
        prefix, slash, rest = name.partition("/")
        if not slash or not rest:
            return None
        if prefix.lower() == GEMINI:
            return Target(GEMINI, plain_name(rest))
        for member in self.members:
            if prefix == member.prefix:
                return Target(member.name, rest)
        return None

    def is_surely_gemini(self, model: str) -> bool:
        """Whether a name is Gemini's unless a list says otherwise."""
        prefix = model.strip().lower().rpartition("/")[0]
        return prefix in _GEMINI_PREFIXES and _TRUE_NAME.fullmatch(plain_name(model)) is not None

    def may_be_gemini(self, model: str) -> bool:
        """Whether it takes Gemini's list to tell."""
        return plain_name(model).startswith(OTHER_PREFIXES)

    def needs_upstream_lists(self, model: str) -> bool:
        """Whether it takes the lists of the upstreams to tell, if Gemini's does not."""
        return len(self.members) > 1 or is_gemini(model)

    def listed(
        self,
        model: str,
        gemini: Collection[str] | None,
        upstreams: Mapping[str, Collection[str]],
    ) -> Target:
        """
        The target by the lists.

        @param gemini: Gemini's list, by L{plain_name}; None if it is not known.
        @param upstreams: the lists of the upstreams, by their names, as far as known.
        """
        name, plain = model.strip(), plain_name(model)
        if gemini is not None and plain in gemini:
            return Target(GEMINI, plain)
        for member in self.members:
            if name in upstreams.get(member.name, ()):
                return Target(member.name, name)
        if is_gemini(name) or not self.members:
            return Target(GEMINI, plain)
        return Target(self.members[0].name, model)

    def rows(self) -> list[tuple[str, str]]:
        """The rules for people: what is asked for, and who gets it."""
        rows = [(name, ", then ".join(targets)) for name, targets in self.routes.items()]
        rows.append((f"{GEMINI}/*", f"{GEMINI}/*"))
        rows += [(f"{member.prefix}/*", f"{member.name}/*") for member in self.members]
        rows += [
            (pattern, f"{member.name}/*") for member in self.members for pattern in member.patterns
        ]
        rows.append(("(a name in Gemini's list)", "gemini/*"))
        rows += [(f"(a name in the list of {m.name})", f"{m.name}/*") for m in self.members]
        rows.append(("*gemini*", "gemini/*"))
        if self.members:
            rows.append(("*", f"{self.members[0].name}/*"))
        return rows


def _matches(pattern: str, name: str) -> str | None:
    """What the first C{*} of a pattern stands for in a name; None if they do not match."""
    match = _compiled(pattern).fullmatch(name)
    if match is None:
        return None
    return match[1] if match.lastindex else ""


@lru_cache(1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("(.*)".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def as_text(rows: Sequence[tuple[str, str]]) -> str:
    """Rows as a table for a terminal."""
    width = max(len(name) for name, _ in rows)
    return "".join(f"{name:<{width}}  ->  {target}\n" for name, target in rows)
