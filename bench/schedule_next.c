/*
 * How long the schedule core takes: nanoseconds for one parse and one next.
 *
 * Usage: schedule_next <zones file>, where the file has lines
 * "second<TAB>offset" of one zone; bench/schedule_next.py makes it.  Reads
 * patterns from standard input, one a line, and answers each with
 * "parse<TAB>next<TAB>calls of the zone per next".
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "schedule.h"

#define CHANGES_MAX 4000
#define US INT64_C(1000000)

/* 2026-03-01 00:00 UTC: one week before a change of the clock in New York. */
#define START (INT64_C(1772323200) * US)

static int64_t at[CHANGES_MAX];
static int32_t offset[CHANGES_MAX];
static int	count;
static long calls;

static int
find(int64_t second)
{
	int			low = 0;
	int			high = count;

	while (high - low > 1)
	{
		int			middle = (low + high) / 2;

		if (at[middle] <= second)
			low = middle;
		else
			high = middle;
	}
	calls++;
	return low;
}

static int32_t
offset_at(void *zone, int64_t second)
{
	(void) zone;
	return offset[find(second)];
}

static bool
next_change(void *zone, int64_t second, int64_t *change)
{
	int			next = find(second) + 1;

	(void) zone;
	if (next >= count)
		return false;
	*change = at[next];
	return true;
}

static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	return (double) time.tv_sec * 1e9 + (double) time.tv_nsec;
}

static double
time_parse(const char *text, Schedule *schedule)
{
	double		best = 1e18;
	int			round;

	for (round = 0; round < 7; round++)
	{
		ScheduleReport report;
		double		start = now();
		int			i;

		for (i = 0; i < 20000; i++)
		{
			if (!clockwork_schedule_parse(text, strlen(text), "job", 3, schedule, &report))
			{
				fprintf(stderr, "%s: %s\n", text, report.detail);
				exit(1);
			}
		}
		best = now() - start < best ? now() - start : best;
	}
	return best / 20000;
}

static double
time_next(const Schedule *schedule, const ScheduleZone *zone, double *calls_each)
{
	double		best = 1e18;
	int			round;

	for (round = 0; round < 7; round++)
	{
		int64_t		after = START;
		double		start = now();
		int			i;

		calls = 0;
		for (i = 0; i < 5000; i++)
		{
			after = clockwork_schedule_next(schedule, zone, false, 0, after);
			if (after == SCHEDULE_NEVER || after > START + 20 * 366 * 86400 * US)
				after = START;
		}
		best = now() - start < best ? now() - start : best;
		*calls_each = (double) calls / 5000;
	}
	return best / 5000;
}

int
main(int argc, char **argv)
{
	ScheduleZone zone = {NULL, offset_at, next_change};
	char		line[1000];
	FILE	   *file = argc == 2 ? fopen(argv[1], "r") : NULL;
	long long	second;
	int			east;

	if (file == NULL)
	{
		fprintf(stderr, "usage: %s <zones file>\n", argv[0]);
		return 2;
	}
	while (count < CHANGES_MAX && fscanf(file, "%lld %d", &second, &east) == 2)
	{
		at[count] = second;
		offset[count++] = east;
	}
	fclose(file);
	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		Schedule	schedule;
		double		parse;
		double		next;
		double		each;

		line[strcspn(line, "\n")] = '\0';
		parse = time_parse(line, &schedule);
		next = time_next(&schedule, &zone, &each);
		printf("%.1f\t%.1f\t%.1f\n", parse, next, each);
	}
	return 0;
}
