"""Loads the probes as the agent does and shows what the kernel made of them. Exit status 1 when nothing is attached; whether a
group that is not there should be is for the host to say (kernels.toml)."""

import json
import sys

import verdict_of_load

from deeptrace.core.wire import SIZEOFS
from deeptrace.loader import client

RING_BYTES = 1 << 20


def load(sizeofs: dict[str, int]) -> None:
    """One load. sizeofs: the layouts of the compiled core, for the loader to compare; none: not compared."""
    load_probes = verdict_of_load.keep(client.load_probes)
    load_probes(config=client.ProbeConfig(), ring_bytes_per_cpu=RING_BYTES, sizeofs=sizeofs).close()


def main() -> int:
    try:
        load(SIZEOFS)
    except client.ProbeError as e:
        if "different versions" in str(e):
            # Not built since bpf/include changed: what the verifier says is wanted all the same.
            verdict_of_load.VERDICT.unlink()
            load({})
            said = json.loads(verdict_of_load.VERDICT.read_text())
            verdict_of_load.VERDICT.write_text(json.dumps({**said, "warnings": [str(e), *said["warnings"]]}))
    said = json.loads(verdict_of_load.VERDICT.read_text())
    for name, sizes in said.pop("programs", {}).items():
        print(f"{sizes['verified_insns']:>9} steps {sizes['xlated_insns']:>6} insns  {name}")
    notes = "".join(said.pop("notes", []))
    print(f"{json.dumps(said, indent=1)}\n{notes}")
    return 1 if "error" in said else 0


if __name__ == "__main__":
    sys.exit(main())
