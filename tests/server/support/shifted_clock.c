/*
 * A clock that a test can set: preloaded into a server, it adds to the wall
 * clock and to the monotonic clock what a file shared with the test says, and
 * lets both stand still from a moment on.
 *
 * SHIFTED_CLOCK names the file: three 64-bit integers, microseconds; the last
 * one is the moment, on the wall clock, since 1970, or 0.
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

static const int64_t unshifted[3];
static const volatile int64_t *shift = unshifted;	/* wall, monotonic, stop */

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

/* How long the clocks have stood still. */
static int64_t
stood_still(void)
{
	int64_t		stop = shift[2];
	struct timespec real;
	int64_t		wall;

	if (stop == 0 || syscall(SYS_clock_gettime, CLOCK_REALTIME, &real) != 0)
		return 0;
	wall = (int64_t) real.tv_sec * 1000000 + real.tv_nsec / 1000 + shift[0];
	return wall > stop ? wall - stop : 0;
}

int
clock_gettime(clockid_t clock, struct timespec *now)
{
	int			result = (int) syscall(SYS_clock_gettime, clock, now);
	int64_t		by;
	int64_t		nanoseconds;

	if (result != 0)
		return result;
	if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
		by = shift[0];
	else if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_RAW || clock == CLOCK_MONOTONIC_COARSE)
		by = shift[1];
	else
		return result;
	by -= stood_still();
	nanoseconds = by % 1000000 * 1000 + now->tv_nsec;
	now->tv_sec += by / 1000000 + nanoseconds / 1000000000 - (nanoseconds < 0);
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
