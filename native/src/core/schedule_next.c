/*
 * The next due time.
 *
 * A zone cuts time into stretches of constant offset.  Inside a stretch the
 * search is pure calendar arithmetic on local readings: find the date by year,
 * month and day masks, then the time of day by bitmaps.  A stretch without a
 * match costs one step, and a match that lies far ahead is jumped to, so
 * neither minutes nor days are ever walked.
 *
 * At the seams between stretches live the rules for clock changes:
 *
 *	- A wildcard schedule takes readings as they come: lost ones are lost,
 *	  repeated ones run again.
 *	- Any other runs once per reading.  A reading that has been seen before is
 *	  passed over, and readings lost in a gap of less than three hours run
 *	  once, at the instant the gap ends.
 *
 * To know what has been seen before, the walk begins a day before `after`.
 */
#include "schedule_calendar.h"

/* What the walk searches for. */
typedef struct Search
{
	const Schedule *schedule;
	const ScheduleZone *zone;
	bool		match_dom_and_dow;
	int64_t		reading;		/* of @at: the only one there is */
} Search;

/* A stretch of constant offset, [start, end) in Unix seconds. */
typedef struct Stretch
{
	int64_t		start;
	int64_t		end;
	int32_t		offset;
} Stretch;

static ScheduleInstant next_of_interval(const Schedule *schedule,
										ScheduleInstant anchor, ScheduleInstant after);
static ScheduleInstant next_of_calendar(const Search *search, ScheduleInstant after);
static int64_t walk_wildcard(const Search *search, int64_t from);
static int64_t walk_fixed(const Search *search, int64_t from, bool *lost);
static int64_t find_reading(const Search *search, int64_t from);
static int64_t find_time_of_day(const Schedule *schedule, int64_t from);
static int64_t find_jump(const Stretch *stretch, int64_t from, int64_t reading);
static Stretch stretch_at(const ScheduleZone *zone, int64_t at);

ScheduleInstant
clockwork_schedule_next(const Schedule *schedule, const ScheduleZone *zone,
						bool match_dom_and_dow, ScheduleInstant anchor,
						ScheduleInstant after)
{
	Search		search = {schedule, zone, match_dom_and_dow, 0};

	switch (schedule->kind)
	{
		case SCHEDULE_CALENDAR:
			return next_of_calendar(&search, after);
		case SCHEDULE_INTERVAL:
			return next_of_interval(schedule, anchor, after);
		case SCHEDULE_AT:
			{
				ScheduleInstant at = clockwork_schedule_locate(schedule, zone);

				return at > after ? at : SCHEDULE_NEVER;
			}
		case SCHEDULE_REBOOT:
		case SCHEDULE_AFTER:
			break;
	}
	return SCHEDULE_NEVER;
}

/* Differences are taken unsigned: the two instants may be anything. */
static ScheduleInstant
next_of_interval(const Schedule *schedule, ScheduleInstant anchor,
				 ScheduleInstant after)
{
	int64_t		step = schedule->microseconds;

	if (after < anchor)
		after = anchor;
	else
		step -= (int64_t) (((uint64_t) after - (uint64_t) anchor) % (uint64_t) step);
	return after < INT64_MAX - step ? after + step : SCHEDULE_NEVER;
}

static ScheduleInstant
next_of_calendar(const Search *search, ScheduleInstant after)
{
	int64_t		from = floor_div(after, US_PER_SECOND) + 1;
	int64_t		due;

	/* Stay where there are dates, and where offsets cannot overflow. */
	if (from < -2 * SECONDS_PER_DAY)
		from = -2 * SECONDS_PER_DAY;
	if (from > SEARCH_END)
		return SCHEDULE_NEVER;

	if ((search->schedule->flags & FLAGS_WILDCARD) != 0)
		due = walk_wildcard(search, from);
	else
		due = walk_fixed(search, from, NULL);
	return due == INT64_MAX ? SCHEDULE_NEVER : due * US_PER_SECOND;
}

/* The first instant at or after `from` whose reading matches. */
static int64_t
walk_wildcard(const Search *search, int64_t from)
{
	Stretch		stretch = stretch_at(search->zone, from);

	for (;;)
	{
		int64_t		reading = find_reading(search, from + stretch.offset);

		if (reading != INT64_MAX && reading - stretch.offset < stretch.end)
			return reading - stretch.offset;
		from = find_jump(&stretch, from, reading);
		if (from > SEARCH_END)
			return INT64_MAX;
		stretch = stretch_at(search->zone, from);
	}
}

/*
 * The first due time at or after `from` of a schedule that runs once per
 * reading.  `seen` is the end of the readings that have already been.  *lost,
 * if asked for, tells whether the reading fell into a gap.
 */
static int64_t
walk_fixed(const Search *search, int64_t from, bool *lost)
{
	Stretch		stretch = stretch_at(search->zone, from - OFFSET_MAX);
	int64_t		seen = stretch.start + stretch.offset;

	for (;;)
	{
		int64_t		begin = stretch.start > from ? stretch.start : from;
		int64_t		not_before = begin + stretch.offset > seen ? begin + stretch.offset : seen;
		int64_t		reading;
		int64_t		gap_start;
		int64_t		target;

		/* A stretch that is over before `from` has nothing to give. */
		reading = stretch.end > from ? find_reading(search, not_before) : not_before;
		if (stretch.end > from && reading != INT64_MAX &&
			reading - stretch.offset < stretch.end)
			return reading - stretch.offset;

		target = find_jump(&stretch, begin, reading);
		if (target > SEARCH_END)
			return INT64_MAX;
		if (target > stretch.end)
		{
			stretch = stretch_at(search->zone, target);
			seen = stretch.start + stretch.offset;
			continue;
		}

		/* Cross the seam. */
		gap_start = stretch.end + stretch.offset;
		if (seen < gap_start)
			seen = gap_start;
		stretch = stretch_at(search->zone, stretch.end);
		if (stretch.start >= from && stretch.start + stretch.offset > seen)
		{
			int64_t		gap_end = stretch.start + stretch.offset;

			if (gap_end - gap_start < GAP_LIMIT && find_reading(search, seen) < gap_end)
			{
				if (lost != NULL)
					*lost = true;
				return stretch.start;
			}
		}
	}
}

/*
 * Where to go on when `reading`, the first match from `from` on, lies beyond
 * the stretch: its end, or past it if nothing between can match.
 *
 * A reading is within OFFSET_MAX of its instant.  So if the stretch reaches
 * far enough that no later instant can read less than what was searched, no
 * run comes until OFFSET_MAX before the match; another OFFSET_MAX is left to
 * look back over.
 */
static int64_t
find_jump(const Stretch *stretch, int64_t from, int64_t reading)
{
	int64_t		target;

	if (stretch->end == INT64_MAX)
		return INT64_MAX;
	if (stretch->end - from < 2 * OFFSET_MAX)
		return stretch->end;
	if (reading == INT64_MAX)
		return INT64_MAX;
	target = reading - 2 * OFFSET_MAX;
	return target > stretch->end ? target : stretch->end;
}

/* The first matching reading at or after `from`, or INT64_MAX. */
static int64_t
find_reading(const Search *search, int64_t from)
{
	int64_t		day = floor_div(from, SECONDS_PER_DAY);
	int64_t		date;
	int64_t		time;

	if (search->schedule->kind == SCHEDULE_AT)
		return search->reading >= from ? search->reading : INT64_MAX;

	date = clockwork_schedule_find_date(search->schedule, search->match_dom_and_dow, day);
	if (date == day)
	{
		time = find_time_of_day(search->schedule, from - day * SECONDS_PER_DAY);
		if (time >= 0)
			return day * SECONDS_PER_DAY + time;
		date = clockwork_schedule_find_date(search->schedule,
											search->match_dom_and_dow, day + 1);
	}
	if (date == INT64_MAX)
		return INT64_MAX;
	return date * SECONDS_PER_DAY + find_time_of_day(search->schedule, 0);
}

/* The first matching second of the day at or after `from`, or -1. */
static int64_t
find_time_of_day(const Schedule *schedule, int64_t from)
{
	int			hour = (int) (from / 3600);
	int			minute = (int) (from / 60 % 60);
	int			second = (int) (from % 60);
	uint64_t	hours = (uint64_t) schedule->hour >> hour << hour;
	uint64_t	minutes = schedule->minute;
	uint64_t	seconds = schedule->second;

	if (hours == 0)
		return -1;
	if (lowest_bit(hours) == hour)
	{
		uint64_t	seconds_left = seconds >> second << second;
		uint64_t	minutes_left = minutes >> minute << minute;

		/* This minute if any of its seconds is left, else a later one. */
		if ((minutes_left >> minute & 1) != 0 && seconds_left != 0)
			return hour * 3600 + minute * 60 + lowest_bit(seconds_left);
		minutes_left &= ~(UINT64_C(1) << minute);
		if (minutes_left != 0)
			return hour * 3600 + lowest_bit(minutes_left) * 60 + lowest_bit(seconds);
		hours &= hours - 1;
		if (hours == 0)
			return -1;
	}
	return lowest_bit(hours) * 3600 + lowest_bit(minutes) * 60 + lowest_bit(seconds);
}

static Stretch
stretch_at(const ScheduleZone *zone, int64_t at)
{
	Stretch		stretch;

	stretch.start = at;
	stretch.end = INT64_MAX;
	stretch.offset = 0;
	if (zone == NULL)
		return stretch;

	stretch.offset = zone->offset_at(zone->zone, at);
	if (!zone->next_change(zone->zone, at, &stretch.end) || stretch.end <= at)
		stretch.end = INT64_MAX;
	return stretch;
}

/*
 * A reading that exists runs once, at its first occurrence; one lost in a
 * short gap runs when the gap ends, and its fraction of a second is lost too.
 */
ScheduleInstant
clockwork_schedule_locate(const Schedule *schedule, const ScheduleZone *zone)
{
	Search		search = {schedule, zone, false, 0};
	bool		lost = false;
	int64_t		due;

	if ((schedule->flags & FLAG_LOCAL) == 0)
		return schedule->microseconds;

	search.reading = floor_div(schedule->microseconds, US_PER_SECOND);
	due = walk_fixed(&search, search.reading - 2 * OFFSET_MAX, &lost);
	if (due == INT64_MAX)
		return SCHEDULE_NEVER;
	due *= US_PER_SECOND;
	if (!lost)
		due += schedule->microseconds - search.reading * US_PER_SECOND;
	return due;
}
