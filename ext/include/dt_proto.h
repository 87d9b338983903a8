/* SPDX-License-Identifier: Apache-2.0
 * What a protocol file sees and says: bounded buffers, verdicts, one message, its attributes.
 * Pure C without allocation, I/O or clock. Protocol files do no pointer arithmetic of their own: they read through buf_*.
 */
#ifndef DT_PROTO_H
#define DT_PROTO_H

#include <stdint.h>
#include <string.h>

enum dt_verdict { DT_BAD = -1, DT_MORE = 0, DT_OK = 1 };
enum dt_role { DT_ROLE_REQUEST = 0, DT_ROLE_RESPONSE = 1 };
enum dt_pairing { DT_PAIR_IN_ORDER = 1, DT_PAIR_BY_ID = 2 };

/* A contiguous run of captured bytes and a cursor. data and size are fixed during a call; only `at` moves.
 * missing > 0 or eof: nothing contiguous will follow data[size-1]; then DT_MORE means that the rest cannot be had, and a
 * parser that can still say something true returns DT_OK with DT_MSG_CUT instead. */
typedef struct dt_buf {
	const uint8_t *data;
	uint32_t size;
	uint32_t at;
	uint64_t missing;     /* bytes known to be missing right after the run */
	uint8_t eof;          /* the direction has ended */
} dt_buf;

static inline uint32_t buf_left(const dt_buf *b) { return b->size - b->at; }
static inline int buf_final(const dt_buf *b) { return b->missing > 0 || b->eof; }
/* The next n bytes, consumed; NULL (and nothing consumed) if there are fewer. */
static inline const uint8_t *buf_take(dt_buf *b, uint32_t n)
{
	if (b->size - b->at < n)
		return NULL;
	const uint8_t *p = b->data + b->at;
	b->at += n;
	return p;
}
static inline const uint8_t *buf_peek(const dt_buf *b, uint32_t n)
{
	return b->size - b->at < n ? NULL : b->data + b->at;
}
/* Offset from the cursor of the first `byte` within `limit` bytes, or -1. */
static inline int32_t buf_find(const dt_buf *b, uint8_t byte, uint32_t limit)
{
	uint32_t n = b->size - b->at;
	if (n > limit)
		n = limit;
	const uint8_t *hit = n ? (const uint8_t *)memchr(b->data + b->at, byte, n) : NULL;
	return hit ? (int32_t)(hit - (b->data + b->at)) : -1;
}
/* The next line without its CRLF or LF, consumed with it; NULL (and nothing consumed) if no LF is there. */
static inline const uint8_t *buf_line(dt_buf *b, uint32_t *n)
{
	const uint8_t *line = b->data + b->at;
	uint32_t left = b->size - b->at, size;
	const uint8_t *lf = left ? (const uint8_t *)memchr(line, '\n', left) : NULL;

	if (lf == NULL)
		return NULL;
	size = (uint32_t)(lf - line);
	b->at += size + 1;
	*n = size > 0 && line[size - 1] == '\r' ? size - 1 : size;
	return line;
}

enum dt_msg_type {
	DT_MSG_REQUEST = 1,
	DT_MSG_RESPONSE = 2,  /* final: ends its request */
	DT_MSG_INTERIM = 3,   /* belongs to the open request and does not end it (100-continue) */
	DT_MSG_ONE_WAY = 4,   /* answers nothing, expects nothing (push) */
};
#define DT_MSG_CUT 0x01       /* known only in part */
#define DT_MSG_ERROR_CLIENT 0x02 /* an error in the eyes of a CLIENT span */
#define DT_MSG_ERROR_SERVER 0x04 /* an error in the eyes of a SERVER span */
#define DT_MSG_LOST 0x08      /* its end cannot be found: this direction must look for the next message (resync) */
#define DT_MSG_UPGRADE 0x10   /* after this message the connection speaks something else */

enum dt_body {
	DT_BODY_NONE = 0,     /* the message ends at the cursor */
	DT_BODY_SIZE = 1,     /* body_size more bytes belong to it, captured or not; nobody looks at them */
	DT_BODY_FRAMED = 2,   /* body() finds the end; it works on dt_msg.state */
	DT_BODY_EOF = 3,      /* it lasts until the direction ends */
};

#define DT_MSG_SLICES 16
typedef struct dt_slice { uint32_t at, size; } dt_slice; /* offset from the message's first byte */

/* One message as its protocol file describes it. The flow stage zeroes it before frame(). */
typedef struct dt_msg {
	uint8_t type;         /* enum dt_msg_type */
	uint8_t flags;        /* DT_MSG_* */
	uint8_t body;         /* enum dt_body */
	uint8_t hint;         /* request: handed to frame() of its response */
	int32_t status;       /* the protocol's own code; 0: none */
	uint64_t body_size;
	uint64_t id;          /* DT_PAIR_BY_ID: what joins request and response */
	uint64_t state[4];    /* DT_BODY_FRAMED: the protocol's own, kept per direction until the body ends */
	uint64_t skip;        /* set by body(): bytes to pass over before it is called again or before the message ends */
	dt_slice slices[DT_MSG_SLICES]; /* the protocol's own; valid for attributes() of this message */
} dt_msg;

/* The keys of attributes. */
enum dt_attribute_key {
#define DT_ATTRIBUTE(number, NAME, text, type) DT_ATTR_##NAME = number,
#include "attributes.def"
#undef DT_ATTRIBUTE
};

/* Attributes of one message: a run of {u16 key, u16 size, bytes} in the caller's memory, who sets data, size, capacity.
 * Texts are always valid UTF-8 without control characters: attrs_put, through which every text goes, writes a byte that is
 * neither as %XX. That keeps rows, JSON and terminals safe whatever the traffic. */
#define DT_ATTR_MAX_TEXT 1024 /* bytes of one value; longer ones are cut: rows stay small whatever the traffic */
#define DT_ATTRS_MAX_BYTES 4096 /* enough room for any one message of the protocols here */
typedef struct dt_attrs {
	uint8_t *data;
	uint32_t size;
	uint32_t capacity;
	uint32_t open;        /* attrs_open .. attrs_close: where the open text stands; */
	uint32_t end;         /* and how far it may reach */
} dt_attrs;

/* Bytes of the UTF-8 character at p (n left), 0 if it is none or a control character. RFC 3629 section 4. */
static inline uint32_t utf8_size(const uint8_t *p, uint32_t n)
{
	uint8_t c = p[0];

	if (c < 0x80)
		return c >= 0x20 && c != 0x7f;
	if (c < 0xc2 || n < 2 || (p[1] & 0xc0) != 0x80)
		return 0;
	if (c < 0xe0)
		return p[1] < 0xa0 && c == 0xc2 ? 0 : 2; /* U+0080..U+009F are controls */
	if (n < 3 || (p[2] & 0xc0) != 0x80)
		return 0;
	if (c < 0xf0)
		return (c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] >= 0xa0) ? 0 : 3;
	if (c > 0xf4 || n < 4 || (p[3] & 0xc0) != 0x80)
		return 0;
	return (c == 0xf0 && p[1] < 0x90) || (c == 0xf4 && p[1] >= 0x90) ? 0 : 4;
}

/* Begin a text that attrs_put fills and attrs_close ends; one at a time. */
static inline void attrs_open(dt_attrs *a, uint16_t key)
{
	a->open = a->end = a->size;
	if (a->capacity - a->size < 4)
		return;
	memcpy(a->data + a->size, &key, 2);
	a->size += 4;
	a->end = a->capacity - a->size > DT_ATTR_MAX_TEXT ? a->size + DT_ATTR_MAX_TEXT : a->capacity;
}
static inline void attrs_put(dt_attrs *a, const uint8_t *text, uint32_t n)
{
	static const uint8_t hex[] = "0123456789ABCDEF";
	const uint64_t ones = 0x0101010101010101ull;
	uint32_t i = 0, k;
	uint64_t w;

	while (i < n && a->size < a->end) {
		if (n - i >= 8 && a->end - a->size >= 8) { /* eight plain ASCII characters at once */
			memcpy(&w, text + i, 8);
			if (!((w | (w + ones) | (w - 0x20 * ones)) & 0x80 * ones)) {
				memcpy(a->data + a->size, &w, 8);
				a->size += 8;
				i += 8;
				continue;
			}
		}
		if ((uint8_t)(text[i] - 0x20) < 0x5f) {
			a->data[a->size++] = text[i++];
			continue;
		}
		k = utf8_size(text + i, n - i);
		if (a->end - a->size < (k ? k : 3)) { /* no half characters */
			a->end = a->size;
			return;
		}
		if (k) {
			memcpy(a->data + a->size, text + i, k);
			a->size += k;
			i += k;
		} else {
			a->data[a->size++] = '%';
			a->data[a->size++] = hex[text[i] >> 4];
			a->data[a->size++] = hex[text[i] & 15];
			i += 1;
		}
	}
}
static inline void attrs_close(dt_attrs *a)
{
	uint16_t n;

	if (a->size < a->open + 4)
		return;
	n = (uint16_t)(a->size - a->open - 4);
	memcpy(a->data + a->open + 2, &n, 2);
}
static inline void attrs_text(dt_attrs *a, uint16_t key, const uint8_t *text, uint32_t n)
{
	attrs_open(a, key);
	attrs_put(a, text, n);
	attrs_close(a);
}
static inline void attrs_number(dt_attrs *a, uint16_t key, int64_t value)
{
	uint16_t head[2];

	if (a->capacity - a->size < 12)
		return;
	head[0] = key;
	head[1] = 8;
	memcpy(a->data + a->size, head, 4);
	memcpy(a->data + a->size + 4, &value, 8);
	a->size += 12;
}
/* A run of n bytes of attributes made before, in DT_ATTRS_RUN_BYTES of memory: a copy of constant size is a few moves.
 * 0 if there is no room for it. */
#define DT_ATTRS_RUN_BYTES 128
static inline int attrs_run(dt_attrs *a, const uint8_t *run, uint32_t n)
{
	if (a->capacity - a->size < DT_ATTRS_RUN_BYTES)
		return 0;
	memcpy(a->data + a->size, run, DT_ATTRS_RUN_BYTES);
	a->size += n;
	return 1;
}
/* Go on with the text that was closed last and has n bytes; attrs_put and attrs_close follow. */
static inline void attrs_reopen(dt_attrs *a, uint32_t n)
{
	a->end = a->size;
	if (a->size < n + 4) {
		a->open = a->size;
		return;
	}
	a->open = a->size - n - 4;
	a->end = a->capacity - a->open > DT_ATTR_MAX_TEXT + 4 ? a->open + 4 + DT_ATTR_MAX_TEXT : a->capacity;
}

/* The functions of one protocol. Each is total: any bytes give a verdict, in time linear in the run. */
typedef struct dt_protocol {
	uint8_t id;           /* chosen once, never reused */
	uint8_t pairing;      /* enum dt_pairing */
	uint8_t evident;      /* a response's first bytes cannot be mistaken for the inside of another */
	/* 0..100: how sure these first bytes of a direction are a message of this protocol in this role. */
	int (*probe)(const uint8_t *p, uint32_t n, uint8_t role);
	/* Cut one message at the cursor. DT_OK: cursor after its head. DT_MORE, DT_BAD: cursor untouched. hint: of the
	 * oldest unanswered request (role response; 0 if none). */
	int (*frame)(dt_buf *b, uint8_t role, uint8_t hint, dt_msg *out);
	/* DT_BODY_FRAMED: continue. Called right after frame(), even on an empty run, then whenever m->skip bytes have passed
	 * and more arrived. DT_OK: the message ends m->skip bytes (captured or not) after the cursor. DT_MORE: cursor after
	 * what was understood, m->skip may be set (the caller zeroes it before each call). DT_BAD: the end cannot be found.
	 * NULL if the protocol has none. */
	int (*body)(dt_buf *b, uint8_t role, dt_msg *m);
	/* Offset of the next likely message in n bytes after a gap, or n. */
	uint32_t (*resync)(const uint8_t *p, uint32_t n, uint8_t role);
	/* Write the attributes of the message whose first byte is head[0], redacted. Call it before body() touches m.
	 * ERROR_TYPE counts only where flags say that the message is an error in the eyes of the span's kind. */
	void (*attributes)(const uint8_t *head, const dt_msg *m, uint8_t role, dt_attrs *out);
} dt_protocol;

#endif
