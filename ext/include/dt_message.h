/* SPDX-License-Identifier: Apache-2.0
 * What the flow stage tells the pair stage: one row per event of a message or a connection, in the order of the stream.
 * A row lives for one pass over a batch; nothing stores or sends it. */
#ifndef DT_MESSAGE_H
#define DT_MESSAGE_H

#include <stdint.h>

/* dt_message.event, bits */
#define DT_EVENT_BEGIN 0x01 /* its head is complete; blob is set */
#define DT_EVENT_END 0x02   /* its last byte is known; with BEGIN in one row when both come at once */
#define DT_EVENT_CLOSE 0x04 /* the connection is over: cause, last_exit_ns */
#define DT_EVENT_GAP 0x08   /* framing was lost in this direction: what follows cannot be paired until SYNC */
#define DT_EVENT_SYNC 0x10  /* with BEGIN: the connection was quiet before it, so that it starts a new exchange */
#define DT_EVENT_EXIT 0x20  /* the process of this connection ended; its open requests end with it */

enum dt_close_cause {
	DT_CAUSE_NONE = 0, /* evicted, or the end of a recording: why is not known */
	DT_CAUSE_CLOSED = 1,
	DT_CAUSE_RESET = 2,
	DT_CAUSE_EXITED = 3,
	DT_CAUSE_TIMEOUT = 4,
};

/* dt_message.marks, bits: what is known about the bytes of this message */
#define DT_MARK_AMBIGUOUS 0x01 /* a stream position is not proven */
#define DT_MARK_CUT 0x02       /* known only in part */
#define DT_MARK_GAP 0x04       /* bytes were missing inside it */
#define DT_MARK_NO_SEQ 0x08    /* positions count bytes seen; they are not a TCP stream's */

struct dt_message {
	uint64_t position;       /* of its first byte; the low 32 bits are the stream position */
	uint64_t size;           /* bytes so far (BEGIN), of the whole message (END) */
	uint64_t first_enter_ns; /* the call that moved its first byte */
	uint64_t first_exit_ns;
	uint64_t last_enter_ns;  /* the call that moved its last byte so far */
	uint64_t last_exit_ns;
	uint64_t id;             /* protocols that pair by id */
	uint32_t flow;           /* slot in the flow table */
	uint32_t tgid;           /* of the call that moved its first byte */
	uint32_t first_tid;
	uint32_t head_tid;       /* of the call that completed its head */
	uint32_t last_tid;
	uint32_t blob_at;        /* its attributes in the rows' blob memory */
	uint32_t blob_size;
	uint8_t event;           /* DT_EVENT_* */
	uint8_t type;            /* enum dt_msg_type */
	uint8_t flags;           /* DT_MSG_* */
	uint8_t marks;           /* DT_MARK_* */
	uint8_t direction;
	uint8_t protocol;
	uint8_t cause;           /* enum dt_close_cause */
	uint8_t pad;
};

#endif
