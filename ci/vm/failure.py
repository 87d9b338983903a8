"""The one error of ci/kernels: a sentence for the person who ran it."""


class KernelsError(Exception):
    """What failed, where, and what to do."""
