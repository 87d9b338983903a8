"""The loader's own error: one sentence for the user, and the tool's output behind it. Runs in both processes."""

from __future__ import annotations

LAYOUT_GUARD = "DeepTrace layout guard:"  # begins the compiler's message when bpf/ and the compiled core differ


class LoadFailure(Exception):
    """The probes cannot be loaded. message: what, where, what to do; detail: compiler or verifier output, may be long."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail
