/* A kernel's io_uring made of plain structures, for uring_cases.c. Included by host.h. */
struct host_kiocb {
	union {
		__u64 file;
		struct {
			__u64 file, buf;
			__u32 len, msg_flags;
			__u16 flags;
			__u32 slot;
		} sr;
		struct {
			__u64 file, pad[3], addr;
			__u32 len;
		} rw;
	};
	__u64 pad, ctx, task, async_data, user_data;
	__s32 res;
	__u32 cqe_flags, flags;
	__u8 opcode;
};
struct host_ring { __u64 files; };
struct host_async { __u64 done, buffer; };
struct host_completion { __u64 user_data; __s32 res; __u32 flags; };

#define DT_OFF_KIOCB_FILE offsetof(struct host_kiocb, file)
#define DT_OFF_KIOCB_CMD 0
#define DT_OFF_KIOCB_OPCODE offsetof(struct host_kiocb, opcode)
#define DT_OFF_KIOCB_FLAGS offsetof(struct host_kiocb, flags)
#define DT_OFF_KIOCB_CQE offsetof(struct host_kiocb, user_data)
#define DT_OFF_KIOCB_CTX offsetof(struct host_kiocb, ctx)
#define DT_OFF_KIOCB_TASK offsetof(struct host_kiocb, task)
#define DT_OFF_KIOCB_ASYNC_DATA offsetof(struct host_kiocb, async_data)
#define DT_OFF_ASYNC_BUFFER offsetof(struct host_async, buffer)
#define DT_OFF_ASYNC_DONE offsetof(struct host_async, done)
#define DT_OFF_RING_FILES offsetof(struct host_ring, files)
#define DT_OFF_CQE_USER_DATA 0
#define DT_OFF_CQE_RES 8
#define DT_OFF_CQE_FLAGS 12
#define DT_OFF_SR_BUF offsetof(struct host_kiocb, sr.buf)
#define DT_OFF_SR_LEN offsetof(struct host_kiocb, sr.len)
#define DT_OFF_SR_MSG_FLAGS offsetof(struct host_kiocb, sr.msg_flags)
#define DT_OFF_SR_FLAGS offsetof(struct host_kiocb, sr.flags)
#define DT_OFF_ACCEPT_SLOT offsetof(struct host_kiocb, sr.slot)
#define DT_OFF_RW_ADDR offsetof(struct host_kiocb, rw.addr)
#define DT_OFF_RW_LEN offsetof(struct host_kiocb, rw.len)
#define DT_MAX_URING 4
#ifndef DT_ARGS_URING_COMPLETE
#define DT_ARGS_URING_COMPLETE 3
#endif
