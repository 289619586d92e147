"""Keeps a process that crashes from writing down what it has in memory."""

import resource


def leave_no_core() -> None:
    """Forbid core files to this process and its children: they would hold passwords, tokens and session ids."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
