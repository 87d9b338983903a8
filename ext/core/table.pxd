# SPDX-License-Identifier: Apache-2.0
"""The flow table: what is remembered of each connection, and of each of its two directions."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from deeptrace.core.blocks cimport block_pool
from dt_message cimport dt_message
from dt_proto cimport dt_msg, dt_protocol
from dt_wire cimport dt_quintuple

cdef enum:
    NO_FLOW = 0xFFFFFFFF
    MAX_PROTOCOLS = 64  # registered protocols; ids are one byte
    MAX_CALLS = 8  # calls whose times are kept per carried head; later ones count as the last
    UNKNOWN_DIRECTION = 255
    MAX_WISHES = 4096  # payload limits that wait for the agent: two seconds of what it writes

cdef enum:  # flow.state
    INFERRING = 0
    KNOWN = 1
    UNKNOWN = 2  # given up: bytes are counted, nothing else
    UPGRADED = 3  # left its protocol: likewise

cdef enum:  # flow.capture
    CAPTURE_DEFAULT = 0
    CAPTURE_RAISED = 1
    CAPTURE_MUTED = 2

cdef enum:  # stream.mode: what the next byte of the direction is
    AT_HEAD = 0
    IN_SIZE = 1  # of a body whose size is known
    IN_FRAMED = 2  # of a body that its protocol walks through
    IN_UNTIL_EOF = 3
    SEARCHING = 4  # framing is lost; looking for the next message
    IN_UNTIL_TURN = 5  # its end was not captured: it ends where the other end's turn begins

cdef enum:  # flow.role: which end this is
    ROLE_UNSEEN = 0
    ROLE_CLIENT = 1
    ROLE_SERVER = 2

cdef struct call:  # the syscall that moved some bytes
    uint64_t at  # logical position of the first of these bytes
    uint64_t enter_ns
    uint64_t exit_ns
    uint32_t tid
    uint32_t tgid
    uint8_t marks  # DT_MARK_*

cdef struct carry_block:  # an incomplete head, copied; the bytes follow this header
    uint32_t capacity  # of the bytes
    uint32_t size
    uint32_t n_calls
    uint32_t pad
    call calls[8]

cdef struct held_call:  # bytes that came before those in front of them; they follow this header
    held_call *next  # by ascending position
    call meta
    uint64_t earliest  # where it may begin at the earliest, if its position is not proven
    uint32_t size
    uint32_t captured

cdef struct stream:
    uint64_t next_at  # logical position (32 bits of sequence below an epoch) after all bytes taken in, carried ones included
    uint8_t started  # 0 no byte yet, 1 position known, 2 the first bytes are held until those before them come
    uint8_t mode
    uint8_t role  # enum dt_role
    uint8_t lost  # framing was lost and no message has been found since
    uint8_t in_message  # a head was framed and its end was not
    uint8_t many_tids  # more than one thread moved bytes
    uint32_t tid  # that moved the last ones
    uint8_t dropped  # bytes were passed over while inferring
    uint8_t in_gap  # the bytes missing behind the run at hand were lost, not left out at the capture limit
    uint16_t n_held
    uint32_t held_bytes
    held_call *held
    carry_block *carry
    uint64_t left  # IN_SIZE, IN_FRAMED: bytes to pass over
    uint8_t ends_after_left  # IN_FRAMED: the message ends then
    dt_msg msg
    dt_message row  # the message at hand, once its head is complete

cdef struct flow:
    uint64_t key_hash
    uint64_t socket
    dt_quintuple tuple
    uint32_t netns
    uint32_t tgid  # whose call moved bytes last
    uint32_t slot
    uint32_t lru_next  # towards the most recently used
    uint32_t lru_previous
    uint32_t due_next  # list of flows with something to be done at a time: held bytes, an end of stream to come
    uint32_t due_previous
    uint32_t closing_next
    uint8_t in_due
    uint8_t in_use
    uint8_t state
    uint8_t request_direction
    uint8_t role
    uint8_t mid_stream
    uint8_t shared  # more than one process moved bytes
    uint8_t closing  # 1: CLOSED was seen, the flow ends after a linger
    uint8_t cause
    uint8_t fin_seen
    uint8_t last_direction
    uint8_t out_of_sync  # framing was lost or the flow was joined under way: wait for quiet
    uint8_t quiet  # it was quiet before the next message to come
    uint8_t hints_broken
    uint8_t last_type  # of the last message: enum dt_msg_type
    uint8_t overlapped  # a request began while an earlier one had no whole response
    uint8_t turns  # requests that began when all before them were answered, weighed, up to a limit
    uint32_t burst  # requests since the last turn
    uint8_t split  # a request was only half there when the last response began
    uint8_t on_trial  # turns are counted from a start that is not known
    uint8_t tries
    uint8_t errors  # BAD frames since the last good one
    uint32_t n_messages
    const dt_protocol *protocol
    uint64_t connection_id
    uint64_t opened_ns
    uint64_t last_ns  # last byte in either direction
    uint64_t closing_ns
    uint64_t connect_ns
    uint32_t connect_tid
    uint8_t *hints  # ring of the hints of unanswered requests
    uint32_t hint_first
    uint32_t n_hints
    uint32_t hint_capacity
    stream streams[2]
    # the pair stage's, exchanges of pair.pyx
    void *open_first
    void *open_last
    void *early_first  # responses seen before their request
    void *early_last
    void *reading  # its request has begun and not ended
    void *answering  # its response has begun and not ended
    uint32_t n_open
    uint8_t pair_state
    uint8_t first_done  # connect_ns was given to a span
    # what is asked of the probes (limits.pyx)
    uint8_t capture
    uint8_t n_muted  # times it was muted
    uint8_t refused  # it was counted as refused a higher limit
    uint32_t limit  # the payload limit wished for, if capture is not the default
    uint64_t limit_ns  # when it was muted, or needed its raised limit last

cdef struct limit_wish:  # what the agent is to write to LIMITS
    uint64_t socket
    uint32_t limit
    uint16_t local_port
    uint16_t peer_port

ctypedef void (*drain_rows)(void *context) noexcept nogil

cdef struct flow_table:
    flow **chunks
    uint32_t n_chunks
    uint32_t max_chunks
    uint32_t *index  # open addressing: slot + 1, 0 empty
    uint32_t index_mask
    uint32_t max_flows
    uint32_t n_flows
    uint32_t n_slots  # slots ever made
    uint32_t free_first  # free slots, linked through lru_next
    uint32_t parted_first  # removed flows that rows still name, linked through lru_next; free after the next drain
    uint32_t lru_first
    uint32_t lru_last
    uint32_t due_first
    uint32_t closing_first
    uint32_t closing_last
    uint32_t *owners  # open addressing by tgid: {tgid, flows} pairs
    uint32_t owner_mask
    uint32_t n_owners
    block_pool pool
    uint64_t *counters
    const dt_protocol *protocols[64]
    uint16_t ports[64][8]
    uint32_t n_protocols
    dt_message *rows
    uint32_t n_rows
    uint32_t row_capacity
    uint8_t *blob
    uint32_t blob_size
    uint32_t blob_capacity
    uint64_t boot_hash
    uint64_t capture_start_ns
    uint64_t carried_bytes
    uint64_t hold_ns
    uint64_t quiet_ns
    uint64_t idle_ns
    uint64_t linger_ns
    uint32_t payload_bytes  # what the probes capture of a call by default; 0: no wishes are made
    uint32_t payload_max_bytes
    uint32_t max_raised
    uint32_t n_raised
    uint32_t n_muted
    uint32_t n_wishes
    limit_wish *wishes
    uint64_t swept_ns  # when limits were looked through
    uint64_t reach  # logical position up to which the call at hand is captured by default
    uint8_t beyond  # framing needs bytes of the call at hand that stand behind it
    uint8_t out_of_memory
    drain_rows drain
    void *drain_context

cdef inline flow *flow_at(flow_table *t, uint32_t slot) noexcept nogil:
    return &t.chunks[slot >> 8][slot & 255]

cdef bint is_stream(const dt_quintuple *tuple) noexcept nogil
cdef bint is_unix(const dt_quintuple *tuple) noexcept nogil
cdef bint table_init(flow_table *t, uint32_t max_flows, uint64_t pool_bytes) noexcept nogil
cdef void table_free(flow_table *t) noexcept nogil
cdef uint64_t flow_hash(uint64_t socket, const dt_quintuple *tuple, uint32_t netns) noexcept nogil
cdef flow *flow_find(flow_table *t, uint64_t key_hash, uint64_t socket, const dt_quintuple *tuple) noexcept nogil
cdef flow *flow_add(flow_table *t, uint64_t key_hash, uint64_t socket, const dt_quintuple *tuple, uint32_t netns, uint64_t now_ns) noexcept nogil
cdef void flow_remove(flow_table *t, flow *f) noexcept nogil
cdef void flow_captured(flow_table *t, flow *f, uint8_t capture) noexcept nogil
cdef void flow_touch(flow_table *t, flow *f) noexcept nogil
cdef void flow_own(flow_table *t, flow *f, uint32_t tgid) noexcept nogil
cdef uint32_t owned_flows(flow_table *t, uint32_t tgid) noexcept nogil
cdef void due_add(flow_table *t, flow *f) noexcept nogil
cdef void due_remove(flow_table *t, flow *f) noexcept nogil
cdef void recycle_parted(flow_table *t) noexcept nogil
cdef dt_message *row_add(flow_table *t) noexcept nogil
cdef uint8_t *blob_room(flow_table *t, uint32_t size) noexcept nogil
