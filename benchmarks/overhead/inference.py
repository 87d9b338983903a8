"""What a message costs more in the compiled core while its connection's protocol is still unknown."""

from deeptrace.registry import load_protocols

from ..pipeline import EXCHANGES, measure_pipeline

MESSAGES = 32_768
PASSES = 5  # the fastest counts
KNOWN = 64  # connections: after the first messages their protocol is known


def inference_ns(*, quick: bool) -> list[float]:
    """ns per message: of connections with one exchange each, less those of few connections. One figure per protocol and pass.

    It holds opening the flow too, which cannot be told from inference by a clock.
    """
    protocols = load_protocols()
    found = []
    for kind in EXCHANGES:
        for _ in range(1 if quick else 3):
            new = 1e9 / measure_pipeline(kind, MESSAGES, PASSES, connections=MESSAGES // 2, protocols=protocols)
            known = 1e9 / measure_pipeline(kind, MESSAGES, PASSES, connections=KNOWN, protocols=protocols)
            found.append(new - known)
    return sorted(found)
