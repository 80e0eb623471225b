/*
 * Membership: which dates, readings and instants belong to a schedule.
 *
 * Dates are answered a month at a time, as a 31-bit mask.  Instants are
 * answered from the definition (docs/schedules.md, "Clock changes") by
 * looking back over the offsets of the last day, not by asking for the next
 * run: the tests hold one against the other.
 */
#include "schedule_calendar.h"

static bool matches_calendar(const Schedule *schedule, const ScheduleZone *zone,
							 bool match_dom_and_dow, int64_t at);
static bool matches_reading(const Schedule *schedule, bool match_dom_and_dow,
							int64_t reading);
static bool matches_lost_reading(const Schedule *schedule, bool match_dom_and_dow,
								 int64_t from, int64_t until);
static uint32_t mask_month_days(const Schedule *schedule, const CivilMonth *month);
static uint32_t mask_week_days(const Schedule *schedule, const CivilMonth *month);
static uint32_t nearest_workday(const CivilMonth *month, int day);
static int32_t offset_at(const ScheduleZone *zone, int64_t at);
static int64_t next_change(const ScheduleZone *zone, int64_t at);

bool
clockwork_schedule_matches(const Schedule *schedule, const ScheduleZone *zone,
						   bool match_dom_and_dow, ScheduleInstant anchor,
						   ScheduleInstant instant)
{
	switch (schedule->kind)
	{
		case SCHEDULE_CALENDAR:
			if (instant % US_PER_SECOND != 0)
				return false;
			return matches_calendar(schedule, zone, match_dom_and_dow,
									instant / US_PER_SECOND);
		case SCHEDULE_INTERVAL:
			return instant > anchor && instant != SCHEDULE_NEVER &&
				((uint64_t) instant - (uint64_t) anchor) %
				(uint64_t) schedule->microseconds == 0;
		case SCHEDULE_AT:
			return instant != SCHEDULE_NEVER &&
				clockwork_schedule_locate(schedule, zone) == instant;
		case SCHEDULE_REBOOT:
		case SCHEDULE_AFTER:
			break;
	}
	return false;
}

/*
 * Walk the stretches of constant offset from a day before `at` up to `at`.
 * An earlier reading equal to ours makes ours a repetition; a gap that ends
 * exactly at `at` may bring the runs it swallowed.
 */
static bool
matches_calendar(const Schedule *schedule, const ScheduleZone *zone,
				 bool match_dom_and_dow, int64_t at)
{
	int64_t		start = at - OFFSET_MAX;
	int64_t		reading;
	int64_t		end;
	int32_t		offset;
	bool		repeated = false;
	bool		wildcard = (schedule->flags & FLAGS_WILDCARD) != 0;

	if (at < -2 * SECONDS_PER_DAY || at > SEARCH_END)
		return false;

	reading = at + offset_at(zone, at);
	if (wildcard)
		return matches_reading(schedule, match_dom_and_dow, reading);

	offset = offset_at(zone, start);
	for (end = next_change(zone, start); end <= at; end = next_change(zone, end))
	{
		int32_t		before = offset;

		offset = offset_at(zone, end);
		if (reading < end + before)
			repeated = true;
		if (end == at && offset > before && offset - before < GAP_LIMIT &&
			matches_lost_reading(schedule, match_dom_and_dow,
								 end + before, end + offset))
			return true;
	}
	return !repeated && matches_reading(schedule, match_dom_and_dow, reading);
}

static bool
matches_lost_reading(const Schedule *schedule, bool match_dom_and_dow,
					 int64_t from, int64_t until)
{
	int64_t		reading;

	for (reading = from; reading < until; reading++)
		if (matches_reading(schedule, match_dom_and_dow, reading))
			return true;
	return false;
}

static bool
matches_reading(const Schedule *schedule, bool match_dom_and_dow, int64_t reading)
{
	int64_t		day = floor_div(reading, SECONDS_PER_DAY);
	int			second = (int) (reading - day * SECONDS_PER_DAY);
	int			day_of_month;
	CivilMonth	month;

	if ((schedule->second >> (second % 60) & 1) == 0 ||
		(schedule->minute >> (second / 60 % 60) & 1) == 0 ||
		(schedule->hour >> (second / 3600) & 1) == 0)
		return false;

	month = month_of_day(day, &day_of_month);
	return has_year(schedule, month.year) && has_month(schedule, month.month) &&
		(clockwork_schedule_mask_days(schedule, &month, match_dom_and_dow)
		 >> day_of_month & 1) != 0;
}

uint32_t
clockwork_schedule_mask_days(const Schedule *schedule, const CivilMonth *month,
							 bool match_dom_and_dow)
{
	uint32_t	all = ALL_DAYS >> (31 - month->length) & ALL_DAYS;
	uint32_t	by_month = mask_month_days(schedule, month);
	uint32_t	by_week = mask_week_days(schedule, month);

	if (match_dom_and_dow || (schedule->flags & FLAGS_BOTH_DAYS) != 0)
		return by_month & by_week & all;
	return (by_month | by_week) & all;
}

/* May have bits beyond the end of the month: the caller cuts them off. */
static uint32_t
mask_month_days(const Schedule *schedule, const CivilMonth *month)
{
	uint32_t	days = schedule->day;
	uint32_t	left = schedule->day_from_last;

	for (; left != 0; left &= left - 1)
	{
		int			day = month->length - lowest_bit(left);

		if (day >= 1)
			days |= UINT32_C(1) << day;
	}
	if (schedule->workday != 0)
		days |= nearest_workday(month, schedule->workday);
	if (schedule->workday_from_last != 0)
		days |= nearest_workday(month, month->length + 1 - schedule->workday_from_last);
	return days;
}

/* The Monday to Friday nearest to `day` without leaving the month. */
static uint32_t
nearest_workday(const CivilMonth *month, int day)
{
	int			weekday;

	if (day < 1 || day > month->length)
		return 0;
	weekday = (month->first_weekday + day - 1) % 7;
	if (weekday == 6)
		day += day == 1 ? 2 : -1;
	else if (weekday == 0)
		day += day == month->length ? -2 : 1;
	return UINT32_C(1) << day;
}

static uint32_t
mask_week_days(const Schedule *schedule, const CivilMonth *month)
{
	uint32_t	days = 0;
	uint32_t	left = schedule->weekday;
	uint64_t	nth = schedule->weekday_nth;

	if (left == ALL_WEEKDAYS)
		return ALL_DAYS;
	for (; left != 0; left &= left - 1)
	{
		int			first = 1 + (lowest_bit(left) + 7 - month->first_weekday) % 7;

		days |= UINT32_C(0x10204081) << first;	/* every seventh bit */
	}
	for (; nth != 0; nth &= nth - 1)
	{
		int			bit = lowest_bit(nth);
		int			day = 1 + (bit / 6 + 7 - month->first_weekday) % 7 + bit % 6 * 7;

		if (bit % 6 == 5)		/* the last one is the fourth or the fifth */
			day -= day - 7 > month->length ? 14 : 7;
		if (day <= 31)
			days |= UINT32_C(1) << day;
	}
	return days;
}

int64_t
clockwork_schedule_find_date(const Schedule *schedule, bool match_dom_and_dow,
							 int64_t from)
{
	int			day_of_month;
	uint32_t	not_before;
	CivilMonth	month;

	if (from < 0)
		from = 0;				/* 1970-01-01, the first date there is */
	month = month_of_day(from, &day_of_month);
	not_before = ~UINT32_C(0) << day_of_month;

	while (month.year <= SCHEDULE_YEAR_MAX)
	{
		if (has_month(schedule, month.month) && has_year(schedule, month.year))
		{
			uint32_t	days = clockwork_schedule_mask_days(schedule, &month,
															match_dom_and_dow);

			days &= not_before;
			if (days != 0)
				return month.first_day + lowest_bit(days) - 1;
		}
		not_before = ~UINT32_C(0);
		advance_month(&month);
	}
	return INT64_MAX;
}

static int32_t
offset_at(const ScheduleZone *zone, int64_t at)
{
	return zone == NULL ? 0 : zone->offset_at(zone->zone, at);
}

/* INT64_MAX if there is no further change. */
static int64_t
next_change(const ScheduleZone *zone, int64_t at)
{
	int64_t		change;

	if (zone == NULL || !zone->next_change(zone->zone, at, &change) || change <= at)
		return INT64_MAX;
	return change;
}
