"""The layouts of bpf/include and ext/include as Cython sees them. Declares; the headers define."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

ctypedef unsigned long long u64  # __u64 by its own name: pointers to the two differ in C

cdef extern from "dt_records.h" nogil:
    enum:
        DT_RECORD_VERSION
        DT_MAX_PAYLOAD
        DT_MAX_IOVECS
        DT_MAX_MESSAGES
        DT_COMM_LEN
        DT_BATCH_BYTES
        DT_MAX_COUNTERS
        DT_KIND_DATA
        DT_KIND_CONN
        DT_KIND_PROC
        DT_KIND_LOG
        DT_INGRESS
        DT_EGRESS
        DT_CONN_CONNECT
        DT_CONN_ACCEPT
        DT_CONN_PEER_CLOSED
        DT_CONN_CLOSED
        DT_PROC_FORK
        DT_PROC_EXEC
        DT_PROC_EXIT
        DT_LOG_ERROR
        DT_LOG_WARNING
        DT_LOG_INFO
        DT_LOG_DEBUG
        DT_RECORD_SEQ_VALID
        DT_RECORD_SEQ_AMBIGUOUS
        DT_RECORD_PEEK
        DT_RECORD_TRUNCATED
        DT_RECORD_READ_FAULT
        DT_RECORD_ENTER_MISSED
        DT_RECORD_FIRST
        DT_RECORD_FRESH
        DT_RECORD_COUNTED
        DT_RECORD_URING
        DT_PID_TRACE
        DT_PID_DENY
        DT_PID_FOLLOW
        DT_LIMIT_EVERY
        DT_LIMIT_DEFAULT
        DT_LIMIT_MUTE
        DT_CALL_BLOCKED
        DT_RULES_COMM
        DT_RULES_EXE
        DT_RULES_CGROUP
        DT_RULES_PORT
        DT_RULES_ALLOW_PROCESS
        DT_RULES_ALLOW_PORT
        DT_RULE_ALLOW
        DT_RULE_DENY

    ctypedef struct dt_quintuple "struct dt_quintuple":
        uint8_t local_addr[16]
        uint8_t peer_addr[16]
        uint16_t local_port
        uint16_t peer_port
        uint16_t family
        uint8_t l4_protocol
        uint8_t tcp_state

    ctypedef struct dt_record "struct dt_record":
        uint64_t enter_ns
        uint64_t exit_ns
        uint64_t socket
        uint64_t cpu_count
        dt_quintuple tuple
        uint32_t netns
        uint32_t tgid
        uint32_t tid
        int32_t result
        uint32_t payload_len
        uint32_t seq_enter
        uint32_t seq_exit
        uint32_t parent_tgid
        uint16_t flags
        uint16_t cpu
        uint8_t kind
        uint8_t code
        uint8_t direction
        uint8_t message_index

    ctypedef struct dt_limit "struct dt_limit":
        uint32_t payload_limit
        uint16_t local_port
        uint16_t peer_port

    # Of these some members or none matter outside of the probes; core/wire takes their places from the header.
    ctypedef struct dt_socket_info "struct dt_socket_info":
        uint32_t flags

    ctypedef struct dt_inflight "struct dt_inflight":
        uint64_t enter_ns
        uint16_t flags

    ctypedef struct dt_thread "struct dt_thread":
        uint32_t tid
        dt_inflight call

    ctypedef struct dt_process "struct dt_process":
        uint8_t comm[16]
        uint64_t start_ns
        uint64_t cgroup

    ctypedef struct dt_log "struct dt_log":
        uint32_t message
        uint32_t level
        u64 values[3]

    ctypedef struct dt_batch "struct dt_batch":
        uint64_t generation
        uint64_t used
        uint8_t bytes[1]

    ctypedef struct dt_counts "struct dt_counts":
        u64 value[64]

    ctypedef struct dt_config "struct dt_config":
        uint64_t socket_fops
        uint64_t deadline_ns
        uint64_t bytes_per_s
        uint32_t events_per_s
        uint32_t all_processes
        uint32_t filter_epoch
        uint32_t rules
        uint32_t payload_bytes
        uint32_t head_bytes
        uint32_t batch_bytes
        uint32_t unix_sockets
        uint32_t lapsed
        uint32_t log_level
        uint32_t learn_tgid
        uint32_t learn_fd

    ctypedef struct dt_file_id "struct dt_file_id":
        uint64_t inode
        uint64_t device

    ctypedef struct dt_endpoint "struct dt_endpoint":
        uint8_t addr[16]
        uint16_t port
        uint8_t pad[6]

cdef extern from "dt_span.h" nogil:
    enum:
        DT_SPAN_SERVER
        DT_SPAN_CLIENT
        DT_SPAN_PRODUCER
        DT_SPAN_CONSUMER
        DT_STATUS_UNSET
        DT_STATUS_ERROR
        DT_SEQ_NONE
        DT_SEQ_TCP
        DT_SEQ_TLS
        DT_SEQ_UNIX
        DT_SPAN_CUT
        DT_SPAN_GAP
        DT_SPAN_MID_STREAM
        DT_SPAN_INCOMPLETE
        DT_SPAN_SEQ_AMBIGUOUS
        DT_SPAN_CLOCK_UNCERTAIN

    ctypedef struct dt_span "struct dt_span":
        uint64_t span_id
        uint64_t connection_id
        uint64_t start_ns
        uint64_t request_end_ns
        uint64_t response_start_ns
        uint64_t end_ns
        uint64_t connect_ns
        uint64_t request_bytes
        uint64_t response_bytes
        uint8_t local_addr[16]
        uint8_t peer_addr[16]
        uint32_t netns
        uint32_t pid
        uint32_t req_tid
        uint32_t resp_tid
        uint32_t connect_tid
        uint32_t req_seq
        uint32_t resp_seq
        uint32_t stream_id
        uint32_t process
        uint32_t name
        uint32_t error_type
        uint32_t attr_first
        uint32_t weight
        uint16_t attr_count
        uint16_t local_port
        uint16_t peer_port
        uint16_t flags
        uint8_t kind
        uint8_t protocol
        uint8_t status
        uint8_t seq_space

    ctypedef struct dt_attribute "struct dt_attribute":
        uint32_t key
        uint32_t text
        int64_t number
