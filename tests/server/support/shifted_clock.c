/*
 * A clock that a test can set: preloaded into a server, it adds to the wall
 * clock and to the monotonic clock what a file shared with the test says.
 *
 * SHIFTED_CLOCK names the file: two 64-bit integers, microseconds.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct timeval;

static const int64_t unshifted[2];
static const volatile int64_t *shift = unshifted;	/* wall, monotonic */

__attribute__((constructor)) static void
open_shift(void)
{
	const char *path = getenv("SHIFTED_CLOCK");
	int			file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void	   *shared;

	if (file < 0)
		return;
	shared = mmap(NULL, sizeof(unshifted), PROT_READ, MAP_SHARED, file, 0);
	close(file);
	if (shared != MAP_FAILED)
		shift = shared;
}

int
clock_gettime(clockid_t clock, struct timespec *now)
{
	int			result = (int) syscall(SYS_clock_gettime, clock, now);
	int64_t		nanoseconds;

	if (result != 0)
		return result;
	if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
		nanoseconds = shift[0] % 1000000 * 1000 + now->tv_nsec;
	else if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_RAW || clock == CLOCK_MONOTONIC_COARSE)
		nanoseconds = shift[1] % 1000000 * 1000 + now->tv_nsec;
	else
		return result;
	now->tv_sec += shift[clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE ? 0 : 1] / 1000000;
	now->tv_sec += nanoseconds / 1000000000 - (nanoseconds < 0);
	now->tv_nsec = (nanoseconds + 1000000000) % 1000000000;
	return result;
}

int
gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec precise;

	(void) zone;
	clock_gettime(CLOCK_REALTIME, &precise);
	((int64_t *) now)[0] = precise.tv_sec;
	((int64_t *) now)[1] = precise.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *now)
{
	struct timespec precise;

	clock_gettime(CLOCK_REALTIME, &precise);
	if (now)
		*now = precise.tv_sec;
	return precise.tv_sec;
}
