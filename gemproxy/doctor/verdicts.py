"""
What the facts mean, and what mends them. Pure.

Each fix has its command in backticks.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping

from gemproxy.chat.errors import ChatError
from gemproxy.doctor.facts import Answered, Asked, Listener, PortFact, Unanswered
from gemproxy.doctor.findings import Finding, failed, ok, skipped, warning
from gemproxy.gemini.cli.install import INSTALL_CLI, PINNED_VERSION, CliUnusable
from gemproxy.gemini.translate.errors import KEY_REFUSED, AttemptFailure, api_failure
from gemproxy.http.proxies import PROXY_VARIABLES, Proxy
from gemproxy.openai.errors import refusal

NETWORK, KEY, CLOCK = "network", "key", "clock"
STATE = "shared state"

# Seconds by which a clock may be off without a word, and those from which on certificates and
# signed requests may be refused.
_A_LITTLE_OFF = 30.0
_FAR_OFF = 300.0

_NEW_KEY = "Make a key at https://aistudio.google.com/apikey, then `export GEMINI_API_KEY=your-key`"
_CHECK_CLOCK = "`sudo timedatectl set-ntp true`"
_UNAUTHORIZED = (401, 403)


def node_found(version: str) -> Finding:
    return ok("node", f"Node {version}.")


def unusable(check: str, error: CliUnusable) -> Finding:
    return failed(check, f"{error.problem}.", f"{error.mend[0].upper()}{error.mend[1:]}.")


def cli_found(executable: str, version: str | None) -> Finding:
    """@param version: None if it cannot be found out."""
    if version == PINNED_VERSION:
        return ok("cli", f"The Gemini CLI {version} is {executable}.")
    shown = f"is version {version}" if version else "does not tell its version"
    return warning(
        "cli",
        f"{executable} {shown}; gemproxy is tested with {PINNED_VERSION}.",
        f"`gemproxy doctor --cli` finds out whether it will do; `{INSTALL_CLI}` installs the tested"
        " one.",
    )


def network(
    url: str,
    proxy: Proxy | None,
    environ: Mapping[str, str],
    asked: Asked,
    variable: str = "GOOGLE_GEMINI_BASE_URL",
) -> Finding:
    """
    Whether Google can be reached.

    @param url: the base URL of its API.
    @param proxy: the one on the way; None for none.
    @param variable: what sets the URL.
    """
    way = f" through the proxy {proxy}" if proxy else ""
    if isinstance(asked, Answered):
        if asked.status == 404 or (asked.is_success and not asked.is_json):
            return failed(
                NETWORK,
                f"{url} answers{way}, but not as the Gemini API does.",
                f"Correct the address, or `unset {variable}` to have Google's own.",
            )
        return ok(NETWORK, f"{url} answers{way}.")
    if asked.is_untrusted:
        return failed(NETWORK, asked.reason, f"{_TRUST} And look at the clock: {_CHECK_CLOCK}.")
    if proxy is not None:
        return failed(
            NETWORK,
            asked.reason,
            f"`curl -sSI -x {proxy} {shlex.quote(url)}` shows what the proxy says. Correct its"
            " address (http://user:password@host:port if it asks for a user), or"
            f" `unset {_proxy_variables(environ)}` to do without.",
        )
    if _proxy_variables(environ):
        return failed(
            NETWORK,
            asked.reason,
            f"`curl -sSI {shlex.quote(url)}` shows what the system says; the variables of proxies"
            f" are {_proxy_variables(environ)}.",
        )
    return failed(
        NETWORK,
        asked.reason,
        f"`curl -sSI {shlex.quote(url)}` shows what the system says. If this network has a proxy:"
        " `export HTTPS_PROXY=http://host:port`.",
    )


_TRUST = (
    "If a CA of your own signs certificates here, name its bundle:"
    " `export SSL_CERT_FILE=/path/bundle.pem` (docs/settings.md, Proxies and certificates)."
)


def _proxy_variables(environ: Mapping[str, str]) -> str:
    return " ".join(name for name in PROXY_VARIABLES if environ.get(name))


_NEW_CREDENTIALS = (
    "Set GOOGLE_CLOUD_PROJECT, and `gcloud auth application-default login` or"
    " GOOGLE_APPLICATION_CREDENTIALS to a file of credentials; or set GOOGLE_API_KEY"
    " (docs/vertex.md)."
)


def credentials(error: ChatError) -> Finding:
    """@param error: why Vertex AI cannot be asked, or refuses."""
    return failed(KEY, error.message, _NEW_CREDENTIALS)


def key(
    number: int,
    asked: Asked,
    failure: Callable[[int, bytes], AttemptFailure] = api_failure,
    is_vertex: bool = False,
) -> Finding:
    """
    Whether Google takes the key.

    @param number: of keys that are set; the first was tried.
    @param failure: what a response with an error means.
    @param is_vertex: whether it is Vertex AI that was asked.
    """
    if not number and is_vertex:
        return failed(KEY, "GOOGLE_CLOUD_PROJECT is not set.", _NEW_CREDENTIALS)
    if not number:
        return failed(
            KEY,
            "GEMINI_API_KEY is not set.",
            f"{_NEW_KEY}. Without one, `twistd -n gemproxy --demo` shows how gemproxy works.",
        )
    if isinstance(asked, Unanswered):
        return skipped(KEY, "The Gemini API cannot be asked.")
    if asked.is_success and asked.is_json:
        others = f" The first of {number} keys was tried." if number > 1 else ""
        return ok(KEY, f"Google takes the key.{others}")
    if asked.is_success or asked.status == 404:
        return skipped(KEY, "What answers is not the Gemini API.")
    error = failure(asked.status, asked.body).error
    if error.code == KEY_REFUSED and is_vertex:
        return credentials(error)
    if error.code == KEY_REFUSED:
        return failed(KEY, error.message, f"{_NEW_KEY}.")
    if error.code == "region_not_supported":
        return failed(
            KEY,
            error.message,
            "Let the connections go out elsewhere: `export HTTPS_PROXY=http://host:port`.",
        )
    return warning(
        KEY,
        f"Google does not say whether it takes the key: {error.message}",
        "Try again in a minute: `gemproxy doctor`.",
    )


def clock(asked: Asked) -> Finding:
    """Whether this machine's clock is right, by Google's."""
    if isinstance(asked, Unanswered) or asked.date is None:
        return skipped(CLOCK, "No server has told the time.")
    # A server's date has whole seconds.
    off = asked.now - asked.date
    if abs(off) < _A_LITTLE_OFF:
        return ok(CLOCK, "The clock is right.")
    judged = warning if abs(off) < _FAR_OFF else failed
    side = "ahead of" if off > 0 else "behind"
    return judged(
        CLOCK,
        f"The clock is {abs(off):,.0f} s {side} the server's: certificates and signed requests may"
        " be refused, and the times in the journal are wrong.",
        f"{_CHECK_CLOCK} sets it from the network.",
    )


def upstream(
    name: str, url: str, setting: str, keys: int, is_chosen: bool, asked: Asked
) -> Finding:
    """
    Whether an upstream can be reached, and takes its token.

    @param url: its base URL.
    @param setting: what its token is set by.
    @param keys: the number of its tokens; the first was tried.
    @param is_chosen: whether somebody has set it: New-API has an address without being set.
    """
    check = f"upstream {name}"
    if isinstance(asked, Unanswered):
        if asked.is_untrusted:
            return failed(check, asked.reason, _TRUST)
        look = f"`curl -sSi {shlex.quote(url)}` shows what the system says."
        if not is_chosen:
            return warning(
                check,
                f"{asked.reason} Gemini's models need no upstream.",
                f"Start New-API (docs/new-api.md) or `export UPSTREAM_URL=...`. {look}",
            )
        return failed(check, asked.reason, f"Start it, or correct its address. {look}")
    if asked.status in _UNAUTHORIZED and not keys:
        return ok(check, f"{url} answers. Clients need a token of their own.")
    if asked.is_success and asked.is_json:
        token = "takes the token" if keys else "answers without a token"
        others = f" The first of {keys} was tried." if keys > 1 else ""
        return ok(check, f"{url} {token}.{others}")
    if asked.status in _UNAUTHORIZED:
        return failed(
            check,
            f"{url} refuses the token: {_words_of(asked)}",
            f"Make a token there, then set {setting}: `export FIXED_API_KEY=your-token`."
            if setting == "FIXED_API_KEY"
            else f"Make a token there, set {setting}, then `gemproxy check`.",
        )
    return warning(
        check,
        f"{url} answers, but does not list its models: {_words_of(asked)}",
        f"`curl -sSi {shlex.quote(url)}/models` shows the whole answer.",
    )


def _words_of(asked: Answered) -> str:
    if asked.is_success:
        return "what it answers is no JSON."
    return refusal(asked.status, b"", asked.body, (), "its address").message


def state(url: str, problem: str | None) -> Finding:
    """
    Whether the server of what daemons share can be written to.

    @param url: where it is, without its password.
    @param problem: why not, as a sentence about "it"; None if it can.
    """
    if problem is None:
        return ok(STATE, f"{url} can be written to.")
    return failed(
        STATE,
        f"{url}: {problem}. Each daemon goes by what it knows itself.",
        "Start Valkey or Redis (docs/shared-state.md), or correct its address:"
        " `export STATE_URL=redis://host:6379`.",
    )


def state_uninstalled(reason: str) -> Finding:
    return failed(
        STATE,
        f"STATE_URL needs what is not installed, or too old: {reason.rstrip('.')}.",
        "`python -m pip install 'gemproxy[redis]'`",
    )


def port(number: int | str, setting: str, fact: PortFact) -> Finding:
    """
    Whether gemproxy may listen.

    @param number: the port, or a Twisted endpoint.
    @param setting: what it is set by.
    """
    check = f"port {number}"
    another = f"`export {setting}=...` for another port"
    match fact.listener:
        case Listener.NOBODY:
            return ok(check, "It is free.")
        case Listener.DAEMON:
            return ok(check, "gemproxy listens there.")
        case Listener.UNKNOWN:
            return skipped(check, f"{fact.reason} The start of the daemon will tell.")
        case Listener.STRANGER:
            look = f"`ss -ltnp 'sport = :{number}'`" if isinstance(number, int) else "`ss -lxp`"
            return failed(
                check,
                "Another program listens there.",
                f"{look} shows which one. Stop it, or {another}.",
            )
    return failed(check, f"gemproxy cannot listen there: {fact.reason}", f"Use {another}.")


def folder(setting: str, path: str, reason: str | None) -> Finding:
    """
    Whether files can be made in a folder.

    @param reason: why not; None if they can.
    """
    check = f"folder {setting}"
    if reason is None:
        return ok(check, f"{path} can be written.")
    quoted = shlex.quote(path)
    return failed(
        check,
        f"{path} cannot be written: {reason}.",
        f'`sudo install -d -o "$(id -un)" {quoted}`, or `export {setting}=...` for another folder.',
    )


def demo(is_on: bool, asked: Asked) -> Finding:
    """
    Whether the demo answers.

    @param is_on: whether the daemon serves it instead of Gemini.
    """
    if isinstance(asked, Unanswered) or not asked.is_success:
        said = asked.reason if isinstance(asked, Unanswered) else f"Its status is {asked.status}."
        return failed(
            "demo",
            f"The demo does not answer on this machine: {said}",
            "`ip address show lo` tells whether the machine has an address of its own; `python -m"
            " pip install --force-reinstall gemproxy` installs what may be missing.",
        )
    if is_on:
        return warning(
            "demo",
            "The demo answers in place of Gemini: no model of Google's is asked.",
            f"{_NEW_KEY}, and start without --demo: `twistd -n gemproxy`.",
        )
    return ok("demo", "The demo answers.")
