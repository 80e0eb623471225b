/*
 * The civil calendar, and what a schedule says about one month of it.
 *
 * Days are counted from 1970-01-01, which is day 0; every day here has 86400
 * seconds.  Time zones are dealt with in schedule_next.c and schedule_match.c.
 */
#ifndef CLOCKWORK_CORE_SCHEDULE_CALENDAR_H
#define CLOCKWORK_CORE_SCHEDULE_CALENDAR_H

#include "schedule.h"

#define SECONDS_PER_DAY INT64_C(86400)
#define US_PER_SECOND INT64_C(1000000)

/* No local clock is further than this from UTC. */
#define OFFSET_MAX (INT64_C(26) * 3600)

/* Readings lost in a gap at least this long are not made up for. */
#define GAP_LIMIT (INT64_C(3) * 3600)

/* 2200-01-03: no clock anywhere still shows a date there is a year bit for. */
#define SEARCH_END (INT64_C(84008) * SECONDS_PER_DAY)

#define ALL_MINUTES ((UINT64_C(1) << 60) - 1)
#define ALL_HOURS ((UINT32_C(1) << 24) - 1)
#define ALL_DAYS UINT32_C(0xfffffffe)
#define ALL_MONTHS 0x1ffe
#define ALL_WEEKDAYS 0x7f
#define YEAR_COUNT (SCHEDULE_YEAR_MAX - SCHEDULE_YEAR_MIN + 1)

/* Schedule.flags: how a field was written, where that changes its meaning. */
#define FLAG_SECOND_STAR 0x01	/* begins with "*" */
#define FLAG_MINUTE_STAR 0x02
#define FLAG_HOUR_STAR 0x04
#define FLAG_DAY_STAR 0x08		/* begins with "*" or "?" */
#define FLAG_WEEKDAY_STAR 0x10
#define FLAG_BOTH_DAYS 0x20		/* "+": both day fields must match */
#define FLAG_LOCAL 0x40			/* @at without an offset: a local reading */

/* A schedule with any of these follows elapsed time across clock changes. */
#define FLAGS_WILDCARD (FLAG_SECOND_STAR | FLAG_MINUTE_STAR | FLAG_HOUR_STAR)

/* With any of these both day fields must match. */
#define FLAGS_BOTH_DAYS (FLAG_DAY_STAR | FLAG_WEEKDAY_STAR | FLAG_BOTH_DAYS)

typedef struct CivilMonth
{
	int			year;
	int			month;			/* 1-12 */
	int			length;			/* 28-31 */
	int			first_weekday;	/* of day 1; Sunday is 0 */
	int64_t		first_day;		/* day number of day 1 */
} CivilMonth;

static inline int64_t
floor_div(int64_t value, int64_t by)
{
	return value / by - (value % by < 0);
}

static inline bool
is_leap_year(int year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static inline int
month_length(int year, int month)
{
	if (month == 2)
		return is_leap_year(year) ? 29 : 28;
	return 30 + ((month + (month > 7)) & 1);
}

static inline int
weekday_of(int64_t day)
{
	return (int) (((day + 4) % 7 + 7) % 7);
}

/* Day number of a date: years counted from March, so leap days come last. */
static inline int64_t
day_number(int year, int month, int day)
{
	int64_t		y = month > 2 ? year : year - 1;
	int64_t		era = floor_div(y, 400);
	int64_t		year_of_era = y - era * 400;
	int64_t		day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100
		+ day_of_year - 719468;
}

/* The month a day number lies in; *day_of_month gets 1-31. */
static inline CivilMonth
month_of_day(int64_t day, int *day_of_month)
{
	CivilMonth	month;
	int64_t		shifted = day + 719468;
	int64_t		era = floor_div(shifted, 146097);
	uint32_t	day_of_era = (uint32_t) (shifted - era * 146097);
	uint32_t	year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524
							   - day_of_era / 146096) / 365;
	uint32_t	day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4
											- year_of_era / 100);
	uint32_t	march = (5 * day_of_year + 2) / 153;

	*day_of_month = (int) (day_of_year - (153 * march + 2) / 5 + 1);
	month.month = (int) (march < 10 ? march + 3 : march - 9);
	month.year = (int) (era * 400) + (int) year_of_era + (month.month <= 2);
	month.length = month_length(month.year, month.month);
	month.first_day = day - *day_of_month + 1;
	month.first_weekday = weekday_of(month.first_day);
	return month;
}

static inline void
advance_month(CivilMonth *month)
{
	month->first_day += month->length;
	month->first_weekday = (month->first_weekday + month->length) % 7;
	if (++month->month > 12)
	{
		month->month = 1;
		month->year++;
	}
	month->length = month_length(month->year, month->month);
}

/* Position of the lowest bit set; `bits` is not 0. */
static inline int
lowest_bit(uint64_t bits)
{
#if defined(__GNUC__)
	return __builtin_ctzll(bits);
#else
	int			at = 0;

	while ((bits & 1) == 0)
	{
		bits >>= 1;
		at++;
	}
	return at;
#endif
}

static inline bool
has_year(const Schedule *schedule, int year)
{
	unsigned	bit = (unsigned) (year - SCHEDULE_YEAR_MIN);

	return bit < YEAR_COUNT && (schedule->year[bit / 32] >> (bit % 32) & 1) != 0;
}

static inline bool
has_month(const Schedule *schedule, int month)
{
	return (schedule->month >> month & 1) != 0;
}

/*
 * Weekdays as bits 0-7 for reading: Sunday stands at the end of a week that
 * reaches it from Friday or before, unless the week goes on on Monday.
 */
static inline uint32_t
turn_week(uint32_t weekdays)
{
	return (weekdays & 0x63) == 0x61 ? weekdays ^ 0x81 : weekdays;
}

/*
 * The days of a month on which the schedule runs, as bits 1-31.  Month and
 * year themselves are not looked at.
 */
extern uint32_t clockwork_schedule_mask_days(const Schedule *schedule,
											 const CivilMonth *month,
											 bool match_dom_and_dow);

/*
 * The first matching date at or after day number `from`, or INT64_MAX.
 * Whole years and months that cannot match are stepped over.
 */
extern int64_t clockwork_schedule_find_date(const Schedule *schedule,
											bool match_dom_and_dow, int64_t from);

/* Where @at falls, in Unix microseconds; SCHEDULE_NEVER inside a lost day. */
extern ScheduleInstant clockwork_schedule_locate(const Schedule *schedule,
												 const ScheduleZone *zone);

#endif							/* CLOCKWORK_CORE_SCHEDULE_CALENDAR_H */
