/* SPDX-License-Identifier: Apache-2.0
 * An io_uring by the plain system calls: one request at a time is submitted, one completion at a time is taken. Ends the program
 * with a sentence when something fails that should not. */
#ifndef URING_H
#define URING_H

#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENTRIES 8          /* requests in flight; the cases have two at most */

static int ring;
static unsigned *sq_tail, *sq_mask, *sq_array, *sq_flags, *cq_head, *cq_tail, *cq_mask;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;
static int is_async, is_sqpoll, is_fixed, setup_flags;

static void must(long result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		exit(2);
	}
}

static void ring_open(void)
{
	struct io_uring_params p = { .flags = setup_flags, .sq_thread_idle = 1000 };
	int none[64], i;
	char *sq, *cq;

	ring = syscall(SYS_io_uring_setup, ENTRIES, &p);
	if (ring < 0) {
		printf("unavailable %s\n", strerror(errno));
		exit(0);
	}
	sq = mmap(NULL, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(*cqes), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
	sqes = mmap(NULL, p.sq_entries * sizeof(*sqes), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	sq_tail = (void *)(sq + p.sq_off.tail);
	sq_mask = (void *)(sq + p.sq_off.ring_mask);
	sq_array = (void *)(sq + p.sq_off.array);
	sq_flags = (void *)(sq + p.sq_off.flags);
	cq_head = (void *)(cq + p.cq_off.head);
	cq_tail = (void *)(cq + p.cq_off.tail);
	cq_mask = (void *)(cq + p.cq_off.ring_mask);
	cqes = (void *)(cq + p.cq_off.cqes);
	for (i = 0; i < 64; i++)
		none[i] = -1;
	if (is_fixed)
		must(syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILES, none, 64), "register files");
}

static struct io_uring_sqe *request(int opcode, int fd, const void *address, unsigned length, uint64_t user_data)
{
	struct io_uring_sqe *sqe = &sqes[*sq_tail & *sq_mask];

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = opcode;
	sqe->fd = fd;
	sqe->addr = (uintptr_t)address;
	sqe->len = length;
	sqe->user_data = user_data;
	sqe->flags = is_async ? IOSQE_ASYNC : 0;
	if (is_fixed && fd >= 0) { /* registered under its own number */
		struct io_uring_files_update update = { .offset = fd, .fds = (uintptr_t)&fd };

		must(syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILES_UPDATE, &update, 1), "register a file");
		sqe->flags |= IOSQE_FIXED_FILE;
	}
	return sqe;
}

static void submit(void)
{
	sq_array[*sq_tail & *sq_mask] = *sq_tail & *sq_mask;
	__atomic_store_n(sq_tail, *sq_tail + 1, __ATOMIC_SEQ_CST);
	if (!is_sqpoll)
		must(syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0), "submit");
	else if (__atomic_load_n(sq_flags, __ATOMIC_SEQ_CST) & IORING_SQ_NEED_WAKEUP)
		must(syscall(SYS_io_uring_enter, ring, 1, 0, IORING_ENTER_SQ_WAKEUP, NULL, 0), "wake");
}

struct done {
	uint64_t user_data;
	int res;
	unsigned flags;
};

static struct done completion(void)
{
	struct io_uring_cqe *cqe;
	struct done done;

	while (__atomic_load_n(cq_tail, __ATOMIC_ACQUIRE) == *cq_head)
		must(syscall(SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0), "wait");
	cqe = &cqes[*cq_head & *cq_mask];
	done = (struct done){ cqe->user_data, cqe->res, cqe->flags };
	__atomic_store_n(cq_head, *cq_head + 1, __ATOMIC_RELEASE);
	return done;
}

#endif
