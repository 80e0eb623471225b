/*
 * Counts a server's flushes to disk, from inside: preload it into the postmaster.
 *
 * The file that CLOCKWORK_SYNC_COUNTS names, at least 16 bytes, is shared by
 * all processes of the server: the first 64-bit number counts fdatasync (the
 * write-ahead log), the second fsync (data files, mostly the checkpointer's).
 * Far cheaper than tracing, so that what is counted is what is measured.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t *counts;

__attribute__((constructor)) static void
open_counts(void)
{
	const char *path = getenv("CLOCKWORK_SYNC_COUNTS");
	int			file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void	   *shared;

	if (file < 0)
		return;
	shared = mmap(NULL, 2 * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (shared != MAP_FAILED)
		counts = shared;
	close(file);
}

static void
count(int which)
{
	if (counts)
		__atomic_fetch_add(&counts[which], 1, __ATOMIC_RELAXED);
}

int
fdatasync(int file)
{
	count(0);
	return (int) syscall(SYS_fdatasync, file);
}

int
fsync(int file)
{
	count(1);
	return (int) syscall(SYS_fsync, file);
}
