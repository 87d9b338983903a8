# SPDX-License-Identifier: Apache-2.0
from dt_proto cimport dt_protocol

cdef class L7Protocol:
    cdef const dt_protocol *table
    cdef readonly int id
    cdef readonly int pairing
    cdef readonly str name
    cdef readonly tuple ports

# table: static memory of the protocol's module, which stays loaded as long as the process runs.
cdef L7Protocol l7_protocol(const dt_protocol *table, str name, tuple ports)
