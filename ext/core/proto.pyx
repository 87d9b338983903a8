# SPDX-License-Identifier: Apache-2.0
"""Holds one L7 protocol's table of C functions behind a Python object. Never calls them."""


cdef class L7Protocol:
    """A protocol as its module exports it: `PROTOCOL`. id: chosen once, never reused; ports: where it usually listens."""

    def __repr__(self) -> str:
        return f"L7Protocol(id={self.id}, name={self.name!r}, ports={self.ports!r})"


cdef L7Protocol l7_protocol(const dt_protocol *table, str name, tuple ports):
    cdef L7Protocol protocol = L7Protocol.__new__(L7Protocol)
    protocol.table = table
    protocol.id = table.id
    protocol.pairing = table.pairing
    protocol.name = name
    protocol.ports = ports
    return protocol
