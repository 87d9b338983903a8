/* Writes records into a batch and a ring as the probes and perf do, for so many ms, while somebody reads them:
 *     append FILE RING_BYTES BATCH_BYTES MILLISECONDS
 * FILE holds one page of perf's control data, the ring, and one struct dt_batch. Prints: data events ring_full. */
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "dt_records.h"

#define PAGE 4096

static struct perf_event_mmap_page *page;
static __u8 *data;
static __u64 ring_bytes, batch_bytes, ring_full;
static __u64 counts[2];

static __u64 now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void ring_write(__u64 at, const void *from, __u64 n)
{
	const __u8 *p = from;

	while (n--)
		data[at++ & (ring_bytes - 1)] = *p++;
}

/* One sample, or -1 when it does not fit. */
static int submit(const void *raw, __u32 bytes)
{
	__u32 raw_bytes = ((bytes + 4 + 7) & ~7u) - 4;
	struct perf_event_header header = { .type = PERF_RECORD_SAMPLE, .size = sizeof(header) + 4 + raw_bytes };
	__u64 head = page->data_head, tail = __atomic_load_n(&page->data_tail, __ATOMIC_ACQUIRE);

	if (head + header.size - tail >= ring_bytes)
		return -1;
	ring_write(head, &header, sizeof(header));
	ring_write(head + sizeof(header), &raw_bytes, 4);
	ring_write(head + sizeof(header) + 4, raw, bytes);
	__atomic_store_n(&page->data_head, head + header.size, __ATOMIC_RELEASE);
	return 0;
}

static __u32 record_at(__u8 *at, __u8 kind, __u32 payload_bytes)
{
	struct dt_record *record = (struct dt_record *)at;

	memset(record, 0, sizeof(*record));
	record->cpu_count = ++counts[kind != DT_KIND_DATA];
	record->kind = kind;
	record->payload_len = payload_bytes;
	memset(record + 1, (__u8)record->cpu_count, payload_bytes);
	record->exit_ns = record->enter_ns = now_ns();
	return sizeof(*record) + payload_bytes;
}

static void flush(struct dt_batch *batch)
{
	if (submit(batch->bytes, batch->used) < 0)
		ring_full += batch->records;
	batch->records = 0;
	__atomic_store_n(&batch->used, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&batch->generation, batch->generation + 1, __ATOMIC_RELEASE);
}

int main(int n, char **arguments)
{
	int fd = open(arguments[1], O_RDWR);
	__u64 end_ns = now_ns() + strtoull(arguments[4], 0, 10) * 1000000;
	__u8 event[sizeof(struct dt_record) + 64];
	struct dt_batch *batch;
	unsigned int chance = 17;

	ring_bytes = strtoull(arguments[2], 0, 10);
	batch_bytes = strtoull(arguments[3], 0, 10);
	page = mmap(NULL, PAGE + ring_bytes + sizeof(*batch), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (n != 5 || page == MAP_FAILED)
		return 1;
	data = (__u8 *)page + PAGE;
	batch = (struct dt_batch *)(data + ring_bytes);
	while (now_ns() < end_ns) {
		__u32 what = rand_r(&chance) % 1000;
		__u64 used = batch->used;

		if (what < 20) {
			if (submit(event, record_at(event, DT_KIND_CONN, what)) < 0)
				ring_full++;
		} else if (what < 22) {
			usleep(what == 20 ? 100 : 4000); /* a quiet CPU: what waits is taken from it */
		} else {
			used += (record_at(batch->bytes + used, DT_KIND_DATA, what % 300) + 7) & ~7u;
			batch->records++;
			__atomic_store_n(&batch->used, used, __ATOMIC_RELEASE);
			if (used >= batch_bytes)
				flush(batch);
		}
	}
	printf("%llu %llu %llu\n", counts[0], counts[1], ring_full);
	return 0;
}
