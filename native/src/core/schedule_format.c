/*
 * The normalised text of a schedule.
 *
 * Numbers, in order, each once; ranges and steps where they are shorter; "H"
 * resolved.  A field keeps a leading star if it had one, because the star
 * means something (docs/schedules.md), and is written without one otherwise.
 */
#include "schedule_calendar.h"
#include "schedule_text.h"

/* Fewer values than this are listed rather than written as a range or step. */
#define RUN_MIN 3

static void sink_parents(TextSink *sink, const char *text, size_t length);
static void sink_calendar(TextSink *sink, const Schedule *schedule);
static void sink_field(TextSink *sink, uint64_t bits, int low, int high, bool star);
static void sink_star(TextSink *sink, uint64_t *bits, int low, int high);
static void sink_values(TextSink *sink, uint64_t bits, const char *separator);
static void sink_day(TextSink *sink, const Schedule *schedule);
static void sink_weekday(TextSink *sink, const Schedule *schedule);
static void sink_years(TextSink *sink, const Schedule *schedule);
static int	next_year(const Schedule *schedule, int year);
static void sink_interval(TextSink *sink, int64_t microseconds);
static void sink_fraction(TextSink *sink, int64_t microseconds);
static void sink_timestamp(TextSink *sink, const Schedule *schedule);
static bool is_step_of_months(uint64_t months);
static bool has_all_years(const Schedule *schedule);

size_t
clockwork_schedule_format(const Schedule *schedule, const char *text, size_t length,
						  char *buffer, size_t size)
{
	TextSink	sink = sink_open(buffer, size);

	switch (schedule->kind)
	{
		case SCHEDULE_CALENDAR:
			sink_calendar(&sink, schedule);
			break;
		case SCHEDULE_INTERVAL:
			sink_interval(&sink, schedule->microseconds);
			break;
		case SCHEDULE_AT:
			sink_timestamp(&sink, schedule);
			break;
		case SCHEDULE_REBOOT:
			sink_text(&sink, "@reboot");
			break;
		case SCHEDULE_AFTER:
			sink_parents(&sink, text, length);
			break;
	}
	return sink.length;
}

static void
sink_parents(TextSink *sink, const char *text, size_t length)
{
	ScheduleParent parent;
	size_t		position = 0;
	const char *separator = " \"";

	sink_text(sink, "@after");
	while (clockwork_schedule_next_parent(text, length, &position, &parent))
	{
		sink_text(sink, separator);
		separator = ", \"";
		sink_bytes(sink, parent.name, parent.length);
		sink_char(sink, '"');
		if (parent.condition == SCHEDULE_SUCCEEDED)
			continue;
		sink_char(sink, ' ');
		sink_text(sink, clockwork_schedule_condition_word(parent.condition));
	}
}

static void
sink_calendar(TextSink *sink, const Schedule *schedule)
{
	uint32_t	flags = schedule->flags;
	bool		years = !has_all_years(schedule);

	if (years || schedule->second != 1 || (flags & FLAG_SECOND_STAR) != 0)
	{
		sink_field(sink, schedule->second, 0, 59, (flags & FLAG_SECOND_STAR) != 0);
		sink_char(sink, ' ');
	}
	sink_field(sink, schedule->minute, 0, 59, (flags & FLAG_MINUTE_STAR) != 0);
	sink_char(sink, ' ');
	sink_field(sink, schedule->hour, 0, 23, (flags & FLAG_HOUR_STAR) != 0);
	sink_char(sink, ' ');
	sink_day(sink, schedule);
	sink_char(sink, ' ');
	sink_field(sink, schedule->month, 1, 12, is_step_of_months(schedule->month));
	sink_char(sink, ' ');
	sink_weekday(sink, schedule);
	if (years)
	{
		sink_char(sink, ' ');
		sink_years(sink, schedule);
	}
}

/* A field of plain values, with or without a star to begin with. */
static void
sink_field(TextSink *sink, uint64_t bits, int low, int high, bool star)
{
	int			first = lowest_bit(bits);

	if (star && first == low)
		sink_star(sink, &bits, low, high);
	else if (star)
	{
		/*
		 * Values of "H/s" without the lowest one: no star can begin them, but
		 * an H that has no choice can, and means the same.
		 */
		sink_text(sink, "H(");
		sink_number(sink, first);
		sink_char(sink, '-');
		sink_number(sink, first);
		sink_text(sink, ")/1");
		bits &= bits - 1;
	}
	if (bits != 0)
		sink_values(sink, bits, star ? "," : "");
}

/*
 * The densest step after a star within the values, which it is taken out of.
* There always is one: a step beyond the field leaves the lowest
 * value alone.
 */
static void
sink_star(TextSink *sink, uint64_t *bits, int low, int high)
{
	int			step = 0;
	bool		inside;

	do
	{
		int			value;

		step++;
		inside = true;
		for (value = low; value <= high; value += step)
			inside = inside && (*bits >> value & 1) != 0;
	} while (!inside);

	for (; low <= high; low += step)
		*bits &= ~(UINT64_C(1) << low);
	sink_char(sink, '*');
	if (step > 1)
	{
		sink_char(sink, '/');
		sink_number(sink, step);
	}
}

/* "1,5-9,20-50/10": bits 0-63 as a list; `separator` comes first. */
static void
sink_values(TextSink *sink, uint64_t bits, const char *separator)
{
	while (bits != 0)
	{
		int			first = lowest_bit(bits);
		uint64_t	rest = bits & (bits - 1);
		int			step = rest == 0 ? 0 : lowest_bit(rest) - first;
		int			last = first;
		int			count = 1;

		while (step > 0 && last + step < 64 && (bits >> (last + step) & 1) != 0)
		{
			last += step;
			count++;
		}
		sink_text(sink, separator);
		separator = ",";
		sink_number(sink, first);
		if (count < RUN_MIN)
			last = first;
		else
		{
			sink_char(sink, '-');
			sink_number(sink, last);
			if (step > 1)
			{
				sink_char(sink, '/');
				sink_number(sink, step);
			}
		}
		for (; first <= last; first += step)
		{
			bits &= ~(UINT64_C(1) << first);
			if (first == last)
				break;
		}
	}
}

static void
sink_day(TextSink *sink, const Schedule *schedule)
{
	bool		star = (schedule->flags & FLAG_DAY_STAR) != 0;
	const char *separator = "";
	uint32_t	left;

	if (schedule->workday != 0)
	{
		sink_number(sink, schedule->workday);
		sink_char(sink, 'W');
		return;
	}
	if (schedule->day != 0)
	{
		sink_field(sink, schedule->day, 1, 31, star);
		separator = ",";
	}
	for (left = schedule->day_from_last; left != 0; left &= left - 1)
	{
		sink_text(sink, separator);
		separator = ",";
		sink_char(sink, 'L');
		if ((left & 1) == 0)
		{
			sink_char(sink, '-');
			sink_number(sink, lowest_bit(left));
		}
	}
	if (schedule->workday_from_last != 0)
	{
		sink_char(sink, 'L');
		if (schedule->workday_from_last > 1)
		{
			sink_char(sink, '-');
			sink_number(sink, schedule->workday_from_last - 1);
		}
		sink_char(sink, 'W');
	}
}

/* In this field a star stands for 0-7, and both ends are Sunday. */
static void
sink_weekday(TextSink *sink, const Schedule *schedule)
{
	uint64_t	bits = schedule->weekday;
	uint64_t	nth;
	const char *separator = "";

	if ((schedule->flags & FLAG_BOTH_DAYS) != 0)
		sink_char(sink, '+');
	if ((schedule->flags & FLAG_WEEKDAY_STAR) != 0)
	{
		bits |= (bits & 1) << 7;
		sink_star(sink, &bits, 0, 7);
		bits &= ALL_WEEKDAYS;
		separator = ",";
	}
	if (bits != 0)
	{
		sink_values(sink, turn_week((uint32_t) bits), separator);
		separator = ",";
	}
	for (nth = schedule->weekday_nth; nth != 0; nth &= nth - 1)
	{
		int			bit = lowest_bit(nth);

		sink_text(sink, separator);
		separator = ",";
		sink_number(sink, bit / 6);
		if (bit % 6 == 5)
			sink_char(sink, 'L');
		else
		{
			sink_char(sink, '#');
			sink_number(sink, bit % 6 + 1);
		}
	}
}

/* As sink_values; the years have no room in one word. */
static void
sink_years(TextSink *sink, const Schedule *schedule)
{
	const char *separator = "";
	int			year = next_year(schedule, SCHEDULE_YEAR_MIN - 1);

	while (year <= SCHEDULE_YEAR_MAX)
	{
		int			step = next_year(schedule, year) - year;
		int			last = year;
		int			count = 1;

		while (next_year(schedule, last) == last + step && last + step <= SCHEDULE_YEAR_MAX)
		{
			last += step;
			count++;
		}
		sink_text(sink, separator);
		separator = ",";
		sink_number(sink, year);
		if (count >= RUN_MIN)
		{
			sink_char(sink, '-');
			sink_number(sink, last);
			if (step > 1)
			{
				sink_char(sink, '/');
				sink_number(sink, step);
			}
			year = last;
		}
		year = next_year(schedule, year);
	}
}

/* The next year of the set, or one beyond all years. */
static int
next_year(const Schedule *schedule, int year)
{
	do
		year++;
	while (year <= SCHEDULE_YEAR_MAX && !has_year(schedule, year));
	return year;
}

/* Months mean the same with and without a star: it is used where it is shorter. */
static bool
is_step_of_months(uint64_t months)
{
	int			step;

	for (step = 1; step <= 5; step++)
	{
		uint64_t	starred = 0;
		int			month;

		for (month = 1; month <= 12; month += step)
			starred |= UINT64_C(1) << month;
		if (months == starred)
			return true;
	}
	return false;
}

static bool
has_all_years(const Schedule *schedule)
{
	int			i;

	for (i = 0; i < 7; i++)
		if (schedule->year[i] != UINT32_C(0xffffffff))
			return false;
	return schedule->year[7] == (UINT32_C(1) << (YEAR_COUNT - 7 * 32)) - 1;
}

static void
sink_interval(TextSink *sink, int64_t microseconds)
{
	static const struct
	{
		const char *one;
		int64_t		length;
	}			units[] =
	{
		{" day", SECONDS_PER_DAY * US_PER_SECOND},
		{" hour", 3600 * US_PER_SECOND},
		{" minute", 60 * US_PER_SECOND}
	};
	const char *separator = "";
	size_t		i;

	if (microseconds % US_PER_SECOND != 0 || microseconds >= 60 * US_PER_SECOND)
		sink_text(sink, "@every ");
	for (i = 0; i < sizeof(units) / sizeof(units[0]); i++)
	{
		int64_t		count = microseconds / units[i].length;

		if (count == 0)
			continue;
		sink_text(sink, separator);
		separator = " ";
		sink_number(sink, count);
		sink_text(sink, units[i].one);
		if (count > 1)
			sink_char(sink, 's');
		microseconds %= units[i].length;
	}
	if (microseconds == 0)
		return;
	sink_text(sink, separator);
	sink_number(sink, microseconds / US_PER_SECOND);
	sink_fraction(sink, microseconds % US_PER_SECOND);
	sink_text(sink, microseconds == US_PER_SECOND ? " second" : " seconds");
}

/* Microseconds as a decimal fraction without trailing zeros; nothing for 0. */
static void
sink_fraction(TextSink *sink, int64_t microseconds)
{
	int			digits = 6;

	if (microseconds == 0)
		return;
	for (; microseconds % 10 == 0; microseconds /= 10)
		digits--;
	sink_char(sink, '.');
	sink_padded(sink, microseconds, digits);
}

/* The reading, and "+00" if it is not local. */
static void
sink_timestamp(TextSink *sink, const Schedule *schedule)
{
	int64_t		seconds = floor_div(schedule->microseconds, US_PER_SECOND);
	int64_t		fraction = schedule->microseconds - seconds * US_PER_SECOND;
	int64_t		day = floor_div(seconds, SECONDS_PER_DAY);
	int64_t		time = seconds - day * SECONDS_PER_DAY;
	int			day_of_month;
	CivilMonth	month = month_of_day(day, &day_of_month);

	sink_text(sink, "@at ");
	sink_padded(sink, month.year, 4);
	sink_char(sink, '-');
	sink_padded(sink, month.month, 2);
	sink_char(sink, '-');
	sink_padded(sink, day_of_month, 2);
	sink_char(sink, ' ');
	sink_padded(sink, time / 3600, 2);
	sink_char(sink, ':');
	sink_padded(sink, time / 60 % 60, 2);
	sink_char(sink, ':');
	sink_padded(sink, time % 60, 2);
	sink_fraction(sink, fraction);
	if ((schedule->flags & FLAG_LOCAL) == 0)
		sink_text(sink, "+00");
}
