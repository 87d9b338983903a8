"""The errors that reach a user. Each message is one sentence or two: what failed, where, and what to do."""


class DeepTraceError(Exception):
    """Base of all errors that a command shows as one line; anything else is a defect of ours."""

    exit_code = 1


class UsageError(DeepTraceError):
    """An option or a setting that cannot be used as given."""

    exit_code = 2


class ProbeError(DeepTraceError):
    """The kernel side could not be loaded."""


class CaptureError(DeepTraceError):
    """A record file or a packet capture that cannot be read or written."""


class WireError(DeepTraceError):
    """A batch that does not decode, or a peer that speaks another version."""


class StoreError(DeepTraceError):
    """The store refused a read or a write; nothing of that write was stored."""


class ServerUnreachable(DeepTraceError):
    """No DeepTrace server answered."""
