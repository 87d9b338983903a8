/* SPDX-License-Identifier: Apache-2.0
 * conform LOG GROUP...: waits until its standard input ends (so that it can be traced first), makes the calls of each group, and
 * writes what it knows to LOG: 1 MiB of header whose first u64 is the number of bytes of text, then one JSON line per call. */
#include "truth.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void run_all_processes(void);

static const char *program, *log_path;
static const struct {
	const char *name;
	void (*run)(void);
} GROUPS[] = {
	{ "matrix", run_matrix }, { "errors", run_errors }, { "datagrams", run_datagrams }, { "vectors", run_vectors },
	{ "streams", run_streams }, { "numbers", run_numbers }, { "unseen", run_unseen }, { "memory", run_memory }, { "descriptors", run_descriptors },
	{ "processes", run_all_processes }, { "nothing", run_nothing }, { "storm", run_storm }, { "unix-storm", run_unix_storm },
};

static void run_all_processes(void)
{
	run_processes(program, log_path);
}

static void run_group(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(GROUPS) / sizeof(GROUPS[0]); i++) {
		if (!strcmp(name, GROUPS[i].name)) {
			GROUPS[i].run();
			return;
		}
	}
	fprintf(stderr, "conform: no group %s\n", name);
	exit(2);
}

static void wait_to_be_traced(void)
{
	struct pollfd input = { .fd = 0, .events = POLLIN };

	CHECK(poll(&input, 1, -1) == 1); /* not read(2): that would be a data call that no log tells of */
}

int main(int argc, char **argv)
{
	int i;

	if (argc < 3) {
		fprintf(stderr, "conform LOG GROUP...\n");
		return 2;
	}
	program = "/proc/self/exe";
	log_path = argv[1];
	log_open(log_path);
	unmapped = mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(unmapped != MAP_FAILED);
	signal(SIGPIPE, SIG_IGN);
	if (!strcmp(argv[2], "resumed")) {
		run_resumed(atoi(argv[3]), atoi(argv[4]));
		_exit(0);
	}
	wait_to_be_traced();
	for (i = 2; i < argc; i++)
		run_group(argv[i]);
	log_close();
	_exit(0);
}
