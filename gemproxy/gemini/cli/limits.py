"""How long the CLI is waited for, how much it may write, and when its parts are replaced."""

from __future__ import annotations

from attrs import define

from gemproxy.gemini.cli.sizes import WorkerSizes


@define
class CliLimits:
    """
    Times are in seconds, sizes in bytes.

    @ivar start_timeout: for a process until it is ready.
    @ivar setup_timeout: for a call that no model is asked for, such as opening a session.
    @ivar cancel_grace: for an unwanted answer to end by itself.
    @ivar cancel_timeout: for it to end after C{session/cancel}.
    @ivar kill_delay: between SIGTERM and SIGKILL.
    @ivar exit_delay: between the end of a process's pipes and its own end.
    @ivar line_limit: size of a line of ACP.
    @ivar stray_limit: unexpected messages in the life of a process. Some come with every session.
    @ivar stderr_limit: size of all that a process writes to stderr.
    @ivar prompts_per_session: the CLI forgets a prompt whose reply is empty, as all are for it, so
        a session costs no more after a thousand. It is replaced for whatever else it may keep.
    @ivar sessions_per_worker: the CLI frees no session. Starting a process costs as much as some
        hundred requests.
    @ivar heap: node's limit of a process's heap.
    @ivar memory_per_worker: resident memory.
    @ivar look_interval: between two looks at whether a process reacts.
    @ivar settling: from when a process is ready until it counts as one that stays.
    @ivar growth_delay: between the moment when requests find no place in the workers there are, and
        the start of another. Short answers make place earlier.
    @ivar idle_life: for which an idle worker is kept, if it is not the only one.
    @ivar review_interval: between two searches for idle workers.
    @ivar first_restart_delay: before a second start in a row that fails; doubles with each.
    @ivar last_restart_delay: the longest of these.
    """

    start_timeout: float = 60.0
    setup_timeout: float = 60.0
    cancel_grace: float = 1.0
    cancel_timeout: float = 5.0
    kill_delay: float = 3.0
    exit_delay: float = 1.0
    line_limit: int = 128 * 1024 * 1024
    stray_limit: int = 20_000
    stderr_limit: int = 64 * 1024 * 1024
    prompts_per_session: int = 500
    sessions_per_worker: int = 200
    heap: int = WorkerSizes().heap
    memory_per_worker: int = WorkerSizes().worn
    look_interval: float = 1.0
    settling: float = 10.0
    growth_delay: float = 0.3
    idle_life: float = 300.0
    review_interval: float = 30.0
    first_restart_delay: float = 0.5
    last_restart_delay: float = 30.0
