/*
 * A schedule in English words.
 *
 * The common shapes get the words a person would use; whatever has no such
 * shape is listed value by value, so the text is plain at worst and never
 * wrong.  It is read with cron.match_dom_and_dow off, the default.
 */
#include "schedule_calendar.h"
#include "schedule_text.h"

/* So many times of day are named before hours and minutes are. */
#define TIMES_MAX 4

static const char *const month_names[] = {
	"", "January", "February", "March", "April", "May", "June", "July",
	"August", "September", "October", "November", "December"
};
static const char *const weekday_names[] = {
	"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday",
	"Sunday"
};
static const char *const ordinals[] = {
	"first", "second", "third", "fourth", "fifth", "last"
};

static void sink_interval(TextSink *sink, const char *interval);
static void sink_parents(TextSink *sink, const Schedule *schedule, const char *text, size_t length);
static void sink_calendar(TextSink *sink, const Schedule *schedule);
static bool sink_time(TextSink *sink, const Schedule *schedule);
static void sink_times_of_day(TextSink *sink, const Schedule *schedule);
static void sink_every_hour(TextSink *sink, const Schedule *schedule);
static void sink_time_parts(TextSink *sink, const Schedule *schedule);
static void sink_part(TextSink *sink, uint64_t bits, int count, const char *unit);
static void sink_clock(TextSink *sink, int hour, int minute, int second, bool seconds);
static void sink_days(TextSink *sink, const Schedule *schedule, bool at_times);
static void sink_days_of_month(TextSink *sink, const Schedule *schedule);
static void sink_weekdays(TextSink *sink, const Schedule *schedule);
static void sink_months(TextSink *sink, const Schedule *schedule, const char *conjunction);
static void sink_years(TextSink *sink, const Schedule *schedule);
static void sink_list(TextSink *sink, uint64_t bits, const char *const *names,
					  const char *conjunction);
static void sink_between(TextSink *sink, int *written, bool is_last, const char *conjunction);
static int	count_bits(uint64_t bits);
static int	even_step(uint64_t bits, int count);
static bool is_every_day_of_month(const Schedule *schedule);
static bool is_every_weekday(const Schedule *schedule);
static int	last_year(const Schedule *schedule);

size_t
clockwork_schedule_describe(const Schedule *schedule, const char *source, size_t length,
							char *buffer, size_t size)
{
	TextSink	sink = sink_open(buffer, size);
	char		text[64];

	switch (schedule->kind)
	{
		case SCHEDULE_CALENDAR:
			sink_calendar(&sink, schedule);
			break;
		case SCHEDULE_INTERVAL:
			clockwork_schedule_format(schedule, source, length, text, sizeof(text));
			sink_text(&sink, "Every ");
			sink_interval(&sink, text[0] == '@' ? text + strlen("@every ") : text);
			break;
		case SCHEDULE_AT:
			clockwork_schedule_format(schedule, source, length, text, sizeof(text));
			sink_text(&sink, "Once, at ");
			if ((schedule->flags & FLAG_LOCAL) == 0)
				text[strlen(text) - strlen("+00")] = '\0';
			sink_text(&sink, text + strlen("@at "));
			if ((schedule->flags & FLAG_LOCAL) == 0)
				sink_text(&sink, " UTC");
			break;
		case SCHEDULE_REBOOT:
			sink_text(&sink, "When the server starts");
			break;
		case SCHEDULE_AFTER:
			sink_parents(&sink, schedule, source, length);
			break;
	}
	return sink.length;
}

/* One of a unit goes without its number: "minute", but "1 minute 30 seconds". */
static void
sink_interval(TextSink *sink, const char *interval)
{
	bool		single = strncmp(interval, "1 ", 2) == 0 && strchr(interval + 2, ' ') == NULL;

	sink_text(sink, single ? interval + 2 : interval);
}

/* 'After "load" succeeds and "clean" fails, for the same due time' */
static void
sink_parents(TextSink *sink, const Schedule *schedule, const char *text, size_t length)
{
	static const char *const verbs[] = {"succeeds", "fails", "finishes"};
	ScheduleParent parent;
	size_t		position = 0;
	int			written = 0;

	sink_text(sink, "After ");
	while (clockwork_schedule_next_parent(text, length, &position, &parent))
	{
		sink_between(sink, &written, written == schedule->parent_count - 1, " and ");
		sink_char(sink, '"');
		sink_bytes(sink, parent.name, parent.length);
		sink_text(sink, "\" ");
		sink_text(sink, verbs[parent.condition]);
	}
	if (schedule->parent_count > 1)
		sink_text(sink, ", all for the same due time");
}

static void
sink_calendar(TextSink *sink, const Schedule *schedule)
{
	bool		at_times = sink_time(sink, schedule);

	sink_days(sink, schedule, at_times);
	sink_years(sink, schedule);
}

/* True if the words name times of day, so that "every day" may follow. */
static bool
sink_time(TextSink *sink, const Schedule *schedule)
{
	int			hours = count_bits(schedule->hour);
	int			minutes = count_bits(schedule->minute);
	int			seconds = count_bits(schedule->second);

	if (seconds == 1 && hours * minutes <= TIMES_MAX)
	{
		sink_times_of_day(sink, schedule);
		return true;
	}
	if (schedule->second == 1 && minutes == 1 && hours > TIMES_MAX &&
		schedule->hour != ALL_HOURS &&
		count_bits(schedule->hour & (schedule->hour << 1)) == hours - 1)
	{
		sink_every_hour(sink, schedule);
		return true;
	}
	sink_time_parts(sink, schedule);
	return false;
}

/* "At 03:00, 09:30 and 15:00" */
static void
sink_times_of_day(TextSink *sink, const Schedule *schedule)
{
	int			second = lowest_bit(schedule->second);
	int			total = count_bits(schedule->hour) * count_bits(schedule->minute);
	int			written = 0;
	uint32_t	hours;
	uint64_t	minutes;

	sink_text(sink, "At ");
	for (hours = schedule->hour; hours != 0; hours &= hours - 1)
	{
		for (minutes = schedule->minute; minutes != 0; minutes &= minutes - 1)
		{
			sink_between(sink, &written, written == total - 1, " and ");
			sink_clock(sink, lowest_bit(hours), lowest_bit(minutes), second, second != 0);
		}
	}
}

/* "Every hour from 09:15 through 17:15" */
static void
sink_every_hour(TextSink *sink, const Schedule *schedule)
{
	int			first = lowest_bit(schedule->hour);
	int			minute = lowest_bit(schedule->minute);

	sink_text(sink, "Every hour from ");
	sink_clock(sink, first, minute, 0, false);
	sink_text(sink, " through ");
	sink_clock(sink, first + count_bits(schedule->hour) - 1, minute, 0, false);
}

/*
 * Seconds, minutes and hours one after the other.  A part that leaves nothing
 * out is named only if no finer part has been.
 */
static void
sink_time_parts(TextSink *sink, const Schedule *schedule)
{
	const char *separator = "";
	size_t		start = sink->length;
	bool		zero_second = schedule->second == 1;
	int			hour_step = even_step(schedule->hour, 24);

	if (!zero_second)
	{
		sink_part(sink, schedule->second, 60, "second");
		separator = ", ";
	}
	if (zero_second && schedule->minute == 1 && hour_step != 0)
	{
		sink_text(sink, "every hour");	/* or every so many, see below */
		if (hour_step > 1)
		{
			sink->length -= strlen("hour");
			sink_number(sink, hour_step);
			sink_text(sink, " hours");
		}
	}
	else
	{
		if (schedule->minute != ALL_MINUTES || zero_second)
		{
			sink_text(sink, separator);
			sink_part(sink, schedule->minute, 60, "minute");
			separator = ", ";
		}
		if (schedule->hour != ALL_HOURS)
		{
			sink_text(sink, ", ");
			if (hour_step > 1)
				sink_part(sink, schedule->hour, 24, "hour");
			else
			{
				sink_text(sink, count_bits(schedule->hour) == 1 ? "in hour " : "in hours ");
				sink_list(sink, schedule->hour, NULL, " and ");
			}
		}
		else if (count_bits(schedule->minute) == 1 || even_step(schedule->minute, 60) == 0)
			sink_text(sink, " of every hour");
	}
	if (start < sink->size && start + 1 < sink->size && sink->buffer[start] >= 'a')
		sink->buffer[start] = (char) (sink->buffer[start] - ('a' - 'A'));
}

/* "every minute", "every 5 minutes", "at minute 7", "at minutes 7 and 22" */
static void
sink_part(TextSink *sink, uint64_t bits, int count, const char *unit)
{
	int			step = even_step(bits, count);

	if (step == 1)
		sink_text(sink, "every ");
	else if (step > 1)
	{
		sink_text(sink, "every ");
		sink_number(sink, step);
		sink_char(sink, ' ');
	}
	else
		sink_text(sink, "at ");
	sink_text(sink, unit);
	if (step > 1 || (step == 0 && count_bits(bits) > 1))
		sink_char(sink, 's');
	if (step == 0)
	{
		sink_char(sink, ' ');
		sink_list(sink, bits, NULL, " and ");
	}
}

static void
sink_clock(TextSink *sink, int hour, int minute, int second, bool seconds)
{
	sink_padded(sink, hour, 2);
	sink_char(sink, ':');
	sink_padded(sink, minute, 2);
	if (seconds)
	{
		sink_char(sink, ':');
		sink_padded(sink, second, 2);
	}
}

static void
sink_days(TextSink *sink, const Schedule *schedule, bool at_times)
{
	bool		both = (schedule->flags & FLAGS_BOTH_DAYS) != 0;
	bool		any_day = is_every_day_of_month(schedule);
	bool		any_weekday = is_every_weekday(schedule);

	if ((any_day && any_weekday) || (!both && (any_day || any_weekday)))
	{
		if (at_times)
			sink_text(sink, " every day");
		if (schedule->month != ALL_MONTHS)
		{
			sink_text(sink, at_times ? " in " : ", in ");
			sink_months(sink, schedule, " and ");
		}
		return;
	}
	if (!at_times)
		sink_char(sink, ',');
	if (any_weekday)
	{
		sink_text(sink, " on ");
		sink_days_of_month(sink, schedule);
		return;
	}
	if (!any_day)
	{
		sink_text(sink, " on ");
		sink_days_of_month(sink, schedule);
		sink_text(sink, both ? ", only if that is" : ", and also on");
	}
	else
		sink_text(sink, " on");
	sink_char(sink, ' ');
	sink_weekdays(sink, schedule);
}

/* "of the month", or "of February" */
static void
sink_of_months(TextSink *sink, const Schedule *schedule)
{
	sink_text(sink, " of ");
	if (schedule->month == ALL_MONTHS)
		sink_text(sink, "the month");
	else
		sink_months(sink, schedule, " and ");
}

/* "days 1 and 15 and the day 3 days before the last day of the month" */
static void
sink_days_of_month(TextSink *sink, const Schedule *schedule)
{
	uint32_t	left;
	int			written = 0;

	if (schedule->workday != 0)
	{
		sink_text(sink, "the weekday (Monday to Friday) nearest to day ");
		sink_number(sink, schedule->workday);
	}
	else if (schedule->workday_from_last == 1)
		sink_text(sink, "the last weekday (Monday to Friday)");
	else if (schedule->workday_from_last != 0)
	{
		sink_text(sink, "the weekday (Monday to Friday) nearest to ");
		sink_number(sink, schedule->workday_from_last - 1);
		sink_text(sink, schedule->workday_from_last == 2 ? " day" : " days");
		sink_text(sink, " before the last day");
	}
	else if (is_every_day_of_month(schedule))
		sink_text(sink, "any day");
	else if (schedule->day != 0)
	{
		sink_text(sink, (schedule->day & (schedule->day - 1)) == 0 ? "day " : "days ");
		sink_list(sink, schedule->day, NULL, " and ");
		written = 1;
	}
	for (left = schedule->day_from_last; left != 0; left &= left - 1)
	{
		int			before = lowest_bit(left);

		sink_between(sink, &written, (left & (left - 1)) == 0, " and ");
		if (before > 0)
		{
			sink_text(sink, "the day ");
			sink_number(sink, before);
			sink_text(sink, before == 1 ? " day before " : " days before ");
		}
		sink_text(sink, "the last day");
	}
	sink_of_months(sink, schedule);
}

/* "Mondays", "the second Monday of the month" */
static void
sink_weekdays(TextSink *sink, const Schedule *schedule)
{
	bool		both = (schedule->flags & FLAGS_BOTH_DAYS) != 0 &&
		!is_every_day_of_month(schedule);
	uint64_t	nth = schedule->weekday_nth;
	int			written = 0;

	if (schedule->weekday == ALL_WEEKDAYS)
	{
		sink_text(sink, "any day of the week");
		written = 1;
	}
	else if (schedule->weekday != 0)
	{
		if (both)
			sink_text(sink, "a ");
		sink_list(sink, turn_week(schedule->weekday), weekday_names, both ? " or " : " and ");
		written = 1;
		if (nth == 0 && schedule->month != ALL_MONTHS && !both && is_every_day_of_month(schedule))
		{
			sink_text(sink, " in ");
			sink_months(sink, schedule, " and ");
		}
	}
	if (nth == 0)
	{
		if (schedule->month != ALL_MONTHS && !both && !is_every_day_of_month(schedule))
		{
			sink_text(sink, " in ");
			sink_months(sink, schedule, " and ");
		}
		return;
	}
	for (; nth != 0; nth &= nth - 1)
	{
		int			bit = lowest_bit(nth);

		sink_between(sink, &written, (nth & (nth - 1)) == 0, both ? " or " : " and ");
		sink_text(sink, "the ");
		sink_text(sink, ordinals[bit % 6]);
		sink_char(sink, ' ');
		sink_text(sink, weekday_names[bit / 6]);
	}
	sink_of_months(sink, schedule);
}

static void
sink_months(TextSink *sink, const Schedule *schedule, const char *conjunction)
{
	sink_list(sink, schedule->month, month_names, conjunction);
}

static void
sink_years(TextSink *sink, const Schedule *schedule)
{
	int			year = SCHEDULE_YEAR_MIN;
	int			runs = 0;

	for (; year <= SCHEDULE_YEAR_MAX; year++)
	{
		int			last = year;

		if (!has_year(schedule, year))
			continue;
		while (has_year(schedule, last + 1))
			last++;
		if (year == SCHEDULE_YEAR_MIN && last == SCHEDULE_YEAR_MAX)
			return;
		sink_text(sink, runs++ == 0 ? ", in " : ", ");
		sink_number(sink, year);
		if (last > year)
		{
			sink_text(sink, " through ");
			sink_number(sink, last);
		}
		year = last;
	}
}

/* "1, 5 through 9 and 12"; numbers if there are no names. */
static void
sink_list(TextSink *sink, uint64_t bits, const char *const *names,
		  const char *conjunction)
{
	int			written = 0;

	while (bits != 0)
	{
		int			first = lowest_bit(bits);
		int			last = first;

		while (last < 63 && (bits >> (last + 1) & 1) != 0)
			last++;
		if (last - first < 2)
			last = first;
		bits &= last == 63 ? 0 : ~UINT64_C(0) << (last + 1);

		sink_between(sink, &written, bits == 0, conjunction);
		if (names != NULL)
			sink_text(sink, names[first]);
		else
			sink_number(sink, first);
		if (last == first)
			continue;
		sink_text(sink, " through ");
		if (names != NULL)
			sink_text(sink, names[last]);
		else
			sink_number(sink, last);
	}
}

/* What goes before the next element of a list. */
static void
sink_between(TextSink *sink, int *written, bool is_last, const char *conjunction)
{
	if ((*written)++ > 0)
		sink_text(sink, is_last ? conjunction : ", ");
}

static int
count_bits(uint64_t bits)
{
	int			count = 0;

	for (; bits != 0; bits &= bits - 1)
		count++;
	return count;
}

/*
 * k if the values are 0, k, 2k and so on, evenly all around `count`, and
 * there are at least two of them; else 0.
 */
static int
even_step(uint64_t bits, int count)
{
	int			step;
	int			value;

	if ((bits & 1) == 0 || (bits & (bits - 1)) == 0)
		return 0;
	step = lowest_bit(bits & (bits - 1));
	if (count % step != 0 || count_bits(bits) != count / step)
		return 0;
	for (value = 0; value < count; value += step)
		if ((bits >> value & 1) == 0)
			return 0;
	return step;
}

static bool
is_every_day_of_month(const Schedule *schedule)
{
	return schedule->day == ALL_DAYS;
}

static bool
is_every_weekday(const Schedule *schedule)
{
	return schedule->weekday == ALL_WEEKDAYS;
}

bool
clockwork_schedule_never_runs(const Schedule *schedule, char *why, size_t size)
{
	return clockwork_schedule_never_runs_after(schedule, false, INT64_MIN, why, size);
}

/*
 * Dates are what makes a schedule impossible, so dates are what is searched;
 * two days of `now` are left for the zone.
 */
bool
clockwork_schedule_never_runs_after(const Schedule *schedule, bool match_dom_and_dow,
									ScheduleInstant now, char *why, size_t size)
{
	TextSink	sink = sink_open(why, size);
	int64_t		today = floor_div(now, SECONDS_PER_DAY * US_PER_SECOND) - 2;
	int			year = last_year(schedule);

	if (schedule->kind != SCHEDULE_CALENDAR ||
		clockwork_schedule_find_date(schedule, match_dom_and_dow, today) != INT64_MAX)
		return false;

	if (today > day_number(year, 12, 31))
	{
		sink_text(&sink, "The last year of the schedule, ");
		sink_number(&sink, year);
		sink_text(&sink, ", has passed.");
		return true;
	}
	sink_text(&sink, "No date from now to 2199 ");
	if (is_every_weekday(schedule) && schedule->day_from_last == 0 &&
		schedule->workday_from_last == 0 && year == SCHEDULE_YEAR_MAX)
	{
		sink_text(&sink, "has day ");
		if (schedule->workday != 0)
			sink_number(&sink, schedule->workday);
		else
			sink_list(&sink, schedule->day, NULL, " or ");
		sink_text(&sink, " in ");
		sink_months(&sink, schedule, " or ");
	}
	else
		sink_text(&sink, "matches the day, month and year fields together");
	sink_char(&sink, '.');
	return true;
}

/* A calendar schedule has at least one year. */
static int
last_year(const Schedule *schedule)
{
	int			year = SCHEDULE_YEAR_MAX;

	while (year > SCHEDULE_YEAR_MIN && !has_year(schedule, year))
		year--;
	return year;
}
