/* SPDX-License-Identifier: Apache-2.0
 * The span row as it goes from pairing to batch, wire and store. Same rules as bpf/include/dt_records.h.
 * Text stands in the string table of the batch that holds the row; a string reference is an index into it, 0 is "".
 */
#ifndef DT_SPAN_H
#define DT_SPAN_H

#ifndef DT_NO_LINUX_TYPES
#include <linux/types.h>
#endif

enum dt_span_kind { DT_SPAN_SERVER = 1, DT_SPAN_CLIENT = 2, DT_SPAN_PRODUCER = 3, DT_SPAN_CONSUMER = 4 };
enum dt_span_status { DT_STATUS_UNSET = 0, DT_STATUS_ERROR = 1 };
enum dt_seq_space { DT_SEQ_NONE = 0, DT_SEQ_TCP = 1, DT_SEQ_TLS = 2, DT_SEQ_UNIX = 3 };

/* dt_span.flags, shown under these names in lower case */
#define DT_SPAN_CUT 0x0001             /* the capture limit hid part of a message */
#define DT_SPAN_GAP 0x0002             /* bytes were missing in the stream */
#define DT_SPAN_MID_STREAM 0x0004      /* the connection was joined after its start */
#define DT_SPAN_INCOMPLETE 0x0008      /* no whole response was seen */
#define DT_SPAN_SEQ_AMBIGUOUS 0x0010   /* stream positions are not proven */
#define DT_SPAN_CLOCK_UNCERTAIN 0x0020 /* times may be off */

struct dt_span {
	__u64 span_id;            /* hash64(boot id, netns, tuple, request position, stream id, kind, request start) */
	__u64 connection_id;      /* hash64 of what identifies the connection on its host */
	__u64 start_ns;           /* Unix ns, as all times below */
	__u64 request_end_ns;
	__u64 response_start_ns;  /* 0: no response */
	__u64 end_ns;
	__u64 connect_ns;         /* enter of connect(2), on the first request of a connection that was seen connecting; else 0 */
	__u64 request_bytes;
	__u64 response_bytes;
	__u8 local_addr[16];      /* a unix socket (DT_SEQ_UNIX) has none: 8 bytes hashed from its struct sock, equal at both ends */
	__u8 peer_addr[16];
	__u32 netns;
	__u32 pid;                /* 0: not known (a packet capture) */
	__u32 req_tid;
	__u32 resp_tid;
	__u32 connect_tid;
	__u32 req_seq;            /* stream position of the request's first byte; DT_SEQ_UNIX: bytes seen before it, which is equal at
	                           * both ends only if neither was joined under way */
	__u32 resp_seq;
	__u32 stream_id;
	__u32 process;            /* row in the batch's process table */
	__u32 name;               /* string reference */
	__u32 error_type;         /* string reference; 0: none */
	__u32 attr_first;         /* first row in the batch's attribute table */
	__u32 weight;             /* how many requests this span stands for */
	__u16 attr_count;
	__u16 local_port;
	__u16 peer_port;
	__u16 flags;              /* DT_SPAN_* */
	__u8 kind;                /* enum dt_span_kind */
	__u8 protocol;            /* number of the L7 protocol */
	__u8 status;              /* enum dt_span_status */
	__u8 seq_space;           /* enum dt_seq_space */
};

struct dt_attribute {
	__u32 key;                /* number in attributes.def */
	__u32 text;               /* string reference (TEXT, ID) */
	__s64 number;             /* NUMBER */
};

#endif
