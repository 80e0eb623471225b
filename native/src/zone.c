/*
 * Time zones: the server's own tz code behind the core's two callbacks.
 */
#include "postgres.h"

#include "guc.h"
#include "zone.h"

#include "common/int.h"
#include "utils/timestamp.h"

#define EPOCH_SHIFT_USEC \
	(((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)) * USECS_PER_DAY)

static int32_t
offset_at(void *zone, int64_t at)
{
	pg_time_t	time = (pg_time_t) at;
	struct pg_tm *local = pg_localtime(&time, (pg_tz *) zone);

	return local ? (int32_t) local->tm_gmtoff : 0;
}

static bool
next_change(void *zone, int64_t at, int64_t *change)
{
	pg_time_t	time = (pg_time_t) at;

	/* The server also counts changes of the abbreviation alone: skip those. */
	for (;;)
	{
		long		before_offset;
		long		after_offset;
		int			before_isdst;
		int			after_isdst;
		pg_time_t	boundary;

		if (pg_next_dst_boundary(&time, &before_offset, &before_isdst, &boundary,
								 &after_offset, &after_isdst, (pg_tz *) zone) <= 0)
			return false;
		if (before_offset != after_offset)
		{
			*change = (int64_t) boundary;
			return true;
		}
		if (boundary <= time)
			return false;
		time = boundary;
	}
}

pg_tz *
clockwork_zone_find(const char *name)
{
	pg_tz	   *zone = pg_tzset(name && name[0] ? name : cron_timezone);

	return zone && pg_tz_acceptable(zone) ? zone : NULL;
}

ScheduleZone
clockwork_zone_callbacks(pg_tz *zone)
{
	ScheduleZone callbacks = {zone, offset_at, next_change};

	return callbacks;
}

ScheduleInstant
clockwork_zone_instant(TimestampTz timestamp)
{
	return (ScheduleInstant) timestamp + EPOCH_SHIFT_USEC;
}

TimestampTz
clockwork_zone_timestamp(ScheduleInstant instant)
{
	if (instant == SCHEDULE_NEVER)
		return DT_NOEND;
	return (TimestampTz) (instant - EPOCH_SHIFT_USEC);
}

int64
clockwork_interval_usec(const Interval *interval)
{
	int64		days = (int64) interval->month * DAYS_PER_MONTH + interval->day;
	int64		usec;

	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &usec))
		return days < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	if (pg_add_s64_overflow(usec, interval->time, &usec))
		return interval->time < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	return usec;
}
