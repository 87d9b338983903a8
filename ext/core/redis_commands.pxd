# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from dt_proto cimport DT_ATTRS_RUN_BYTES

cdef enum:
    MAX_NAME = 32  # bytes of a command with its second word; longest is SENTINEL GET-MASTER-ADDR-BY-NAME

cdef enum:  # dt_msg.hint: what the oldest unanswered command says about the next reply
    HINT_NONE = 0
    HINT_COMMAND = 1
    HINT_SUBSCRIBE = 2  # confirmed by arrays or pushes that otherwise come unasked
    HINT_ANY_TIME = 3  # allowed while subscribed, so that messages may come before its reply
    HINT_REPLICATE = 4  # after its reply the connection carries the replication stream

cdef enum:  # Command.kind, bits
    HAS_KEY = 1  # its first argument is a key
    CONTAINER = 2  # its second word is part of its name
    SECRET = 4  # nothing of its arguments is shown, not even how many

ctypedef struct Command:
    uint64_t name[4]  # upper case, padded with zeros
    uint32_t size
    uint8_t kind
    uint8_t hint
    uint8_t run_size
    uint8_t run[DT_ATTRS_RUN_BYTES]  # the attributes that every request with this command has, db.query.text last

# The entry of a command's name in any case; 0 if it is not a known one, which may be a secret and is not shown.
cdef uint32_t command_of(const uint8_t *word, uint32_t n) noexcept nogil
# The entry of container and second word; the container's own if the word is not a known one.
cdef uint32_t command_of_two(uint32_t container, const uint8_t *word, uint32_t n) noexcept nogil
cdef const Command *command_at(uint32_t entry) noexcept nogil
