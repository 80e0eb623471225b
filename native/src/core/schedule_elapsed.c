/*
 * @every and @at: intervals and timestamps.
 *
 * What is accepted here reads as PostgreSQL reads it.  It is a subset: no
 * signs, no "ago", no words such as "tomorrow", no names of time zones, and
 * nothing whose length depends on the calendar.
 */
#include "schedule_calendar.h"
#include "schedule_parse.h"

/* A hundred years: far from overflow, and longer than anybody waits. */
#define INTERVAL_MAX_DAYS 36525
#define INTERVAL_MAX (INTERVAL_MAX_DAYS * SECONDS_PER_DAY * US_PER_SECOND)

/* Digits of a number that are read; more are refused or of no account. */
#define WHOLE_DIGITS 15
#define FRACTION_DIGITS 15

typedef enum Unit
{
	UNIT_MICROSECOND,
	UNIT_MILLISECOND,
	UNIT_SECOND,
	UNIT_MINUTE,
	UNIT_HOUR,
	UNIT_DAY,
	UNIT_WEEK,
	UNIT_MONTH,					/* and whatever else has no fixed length */
	UNIT_YEAR
} Unit;

static const int64_t unit_length[] =
{
	1, 1000, US_PER_SECOND, 60 * US_PER_SECOND, 3600 * US_PER_SECOND,
	SECONDS_PER_DAY * US_PER_SECOND, 7 * SECONDS_PER_DAY * US_PER_SECOND
};

static const struct
{
	const char *word;
	Unit		unit;
}			unit_words[] =
{
	{"s", UNIT_SECOND}, {"sec", UNIT_SECOND}, {"secs", UNIT_SECOND},
	{"second", UNIT_SECOND}, {"seconds", UNIT_SECOND},
	{"m", UNIT_MINUTE}, {"min", UNIT_MINUTE}, {"mins", UNIT_MINUTE},
	{"minute", UNIT_MINUTE}, {"minutes", UNIT_MINUTE},
	{"h", UNIT_HOUR}, {"hr", UNIT_HOUR}, {"hrs", UNIT_HOUR},
	{"hour", UNIT_HOUR}, {"hours", UNIT_HOUR},
	{"d", UNIT_DAY}, {"day", UNIT_DAY}, {"days", UNIT_DAY},
	{"w", UNIT_WEEK}, {"week", UNIT_WEEK}, {"weeks", UNIT_WEEK},
	{"ms", UNIT_MILLISECOND}, {"msec", UNIT_MILLISECOND}, {"msecs", UNIT_MILLISECOND},
	{"millisecond", UNIT_MILLISECOND}, {"milliseconds", UNIT_MILLISECOND},
	{"us", UNIT_MICROSECOND}, {"usec", UNIT_MICROSECOND}, {"usecs", UNIT_MICROSECOND},
	{"microsecond", UNIT_MICROSECOND}, {"microseconds", UNIT_MICROSECOND},
	{"mon", UNIT_MONTH}, {"mons", UNIT_MONTH},
	{"month", UNIT_MONTH}, {"months", UNIT_MONTH},
	{"y", UNIT_YEAR}, {"yr", UNIT_YEAR}, {"yrs", UNIT_YEAR},
	{"year", UNIT_YEAR}, {"years", UNIT_YEAR},
	{"decade", UNIT_YEAR}, {"decades", UNIT_YEAR},
	{"century", UNIT_YEAR}, {"centuries", UNIT_YEAR}
};

/* A decimal number as written. */
typedef struct Decimal
{
	size_t		start;
	int64_t		whole;
	double		fraction;		/* 0 <= fraction < 1 */
	bool		has_fraction;
} Decimal;

/* An interval being read: the sum so far, and the units it has. */
typedef struct Sum
{
	int64_t		microseconds;
	uint32_t	units;			/* bit per Unit */
} Sum;

static bool parse_parts(Parser *parser, Sum *sum);
static bool parse_iso_parts(Parser *parser, Sum *sum);
static bool parse_clock(Parser *parser, const Decimal *hours, Sum *sum);
static bool parse_decimal(Parser *parser, Decimal *number);
static bool parse_unit(Parser *parser, Unit *unit);
static bool add_part(Parser *parser, Sum *sum, const Decimal *number, Unit unit);
static bool refuse_months(const Parser *parser, Unit unit);
static bool parse_date(Parser *parser, int64_t *day);
static bool parse_time(Parser *parser, int64_t *microseconds);
static bool parse_offset(Parser *parser, int64_t *offset, bool *given);
static bool parse_group(Parser *parser, int digits, int low, int high,
						const char *what, int *number);
static bool refuse_here(const Parser *parser, size_t at, const char *why);
static int64_t round_down(double value);
static int64_t round_even(double value);
static void skip_blanks(Parser *parser);

bool
clockwork_schedule_parse_interval(Parser *parser)
{
	Sum			sum = {0, 0};
	TextSink	detail;

	skip_blanks(parser);
	if (at_end(parser))
	{
		TextSink	hint = write_hint(parser);

		detail = write_detail(parser);
		sink_text(&detail, "\"@every\" needs an interval.");
		sink_text(&hint, "Write it as in \"@every 90 seconds\" or \"@every 1h30m\".");
		return false;
	}
	if (!(peek(parser) == 'P' ? parse_iso_parts(parser, &sum) : parse_parts(parser, &sum)))
		return false;
	if (sum.microseconds < US_PER_SECOND)
	{
		detail = write_detail(parser);
		sink_text(&detail, "An interval must be at least 1 second.");
		return false;
	}
	parser->schedule->kind = SCHEDULE_INTERVAL;
	parser->schedule->microseconds = sum.microseconds;
	return true;
}

/* "1 day 02:30:00", "1h30m", "1.5 hours", and "90" for seconds. */
static bool
parse_parts(Parser *parser, Sum *sum)
{
	while (!at_end(parser))
	{
		Decimal		number;
		Unit		unit = UNIT_SECOND;
		bool		accepted;

		if (!parse_decimal(parser, &number))
			return false;
		if (peek(parser) == ':' && !number.has_fraction)
			accepted = parse_clock(parser, &number, sum);
		else
		{
			skip_blanks(parser);
			if (at_end(parser) && sum->units != 0)
				return refuse_here(parser, parser->at, "the last number has no unit.");
			if (!at_end(parser) && !parse_unit(parser, &unit))
				return false;
			accepted = add_part(parser, sum, &number, unit);
		}
		if (!accepted)
			return false;
		skip_blanks(parser);
	}
	return true;
}

/* ISO 8601 with designators: P1DT12H, PT90S. */
static bool
parse_iso_parts(Parser *parser, Sum *sum)
{
	bool		in_time = false;

	parser->at++;
	while (!at_end(parser))
	{
		Decimal		number;
		Unit		unit;

		if (peek(parser) == 'T' && !in_time)
		{
			in_time = true;
			parser->at++;
			if (at_end(parser))
				break;
		}
		if (!parse_decimal(parser, &number))
			return false;
		switch (peek(parser))
		{
			case 'Y':
				unit = UNIT_YEAR;
				break;
			case 'M':
				unit = in_time ? UNIT_MINUTE : UNIT_MONTH;
				break;
			case 'W':
				unit = UNIT_WEEK;
				break;
			case 'D':
				unit = UNIT_DAY;
				break;
			case 'H':
				unit = UNIT_HOUR;
				break;
			case 'S':
				unit = UNIT_SECOND;
				break;
			default:
				return refuse_here(parser, parser->at, "a number must be followed by one of Y, M, W, D, H and S.");
		}
		if (in_time != (unit == UNIT_MINUTE || unit == UNIT_HOUR || unit == UNIT_SECOND))
			return refuse_here(parser, parser->at, in_time ? "hours, minutes and seconds alone may follow \"T\"."
							   : "hours, minutes and seconds must follow \"T\".");
		parser->at++;
		if (!add_part(parser, sum, &number, unit))
			return false;
	}
	if (sum->units == 0)
		return refuse_here(parser, parser->at, "\"P\" must be followed by a number and its unit.");
	return true;
}

/* HH:MM or HH:MM:SS[.f]; the hours are read, the cursor is on the colon. */
static bool
parse_clock(Parser *parser, const Decimal *hours, Sum *sum)
{
	Decimal		part = *hours;
	int			minutes;
	int			seconds;

	if (!add_part(parser, sum, &part, UNIT_HOUR))
		return false;
	parser->at++;
	part.start = parser->at;
	if (!parse_group(parser, 2, 0, 59, "minutes", &minutes))
		return false;
	part.whole = minutes;
	if (!add_part(parser, sum, &part, UNIT_MINUTE))
		return false;
	part.whole = 0;
	if (peek(parser) == ':')
	{
		parser->at++;
		part.start = parser->at;
		if (!parse_group(parser, 2, 0, 59, "seconds", &seconds))
			return false;
		if (peek(parser) == '.')
		{
			if (!parse_decimal(parser, &part))
				return false;
			part.fraction = (double) round_even(part.fraction * (double) US_PER_SECOND) / (double) US_PER_SECOND;
		}
		part.whole = seconds;
	}
	else if (peek(parser) == '.')
		return refuse_here(parser, parser->at, "a time of day is written HH:MM or HH:MM:SS.");
	return add_part(parser, sum, &part, UNIT_SECOND);
}

static bool
parse_decimal(Parser *parser, Decimal *number)
{
	int			digits = 0;
	double		scale = 1.0;
	double		fraction = 0.0;

	number->start = parser->at;
	number->whole = 0;
	number->fraction = 0.0;
	number->has_fraction = false;

	if (peek(parser) == '-')
		return refuse_here(parser, parser->at, "an interval cannot have negative parts.");
	for (; is_digit(peek(parser)); parser->at++)
	{
		number->whole = number->whole * 10 + (peek(parser) - '0');
		if (number->whole > 0 && ++digits > WHOLE_DIGITS)
			return refuse_here(parser, number->start, "the number is too large.");
	}
	digits = parser->at > number->start;
	if (peek(parser) == '.')
	{
		int			kept = 0;

		number->has_fraction = true;
		for (parser->at++; is_digit(peek(parser)); parser->at++)
		{
			if (++kept > FRACTION_DIGITS)
				continue;
			fraction = fraction * 10.0 + (peek(parser) - '0');
			scale *= 10.0;
		}
		if (kept == 0)
			return refuse_here(parser, parser->at, "a digit must follow the point.");
		digits = 1;
		number->fraction = fraction / scale;
	}
	if (digits == 0)
		return refuse_here(parser, number->start, "a number was expected.");
	return true;
}

static bool
parse_unit(Parser *parser, Unit *unit)
{
	size_t		start = parser->at;
	TextSink	detail;
	size_t		i;

	while (is_letter(peek(parser)))
		parser->at++;
	if (parser->at == start)
		return refuse_here(parser, start, "a unit was expected, such as \"seconds\".");
	for (i = 0; i < sizeof(unit_words) / sizeof(unit_words[0]); i++)
	{
		if (!is_word(parser, start, parser->at, unit_words[i].word))
			continue;

		/* Only "1d2h30m5s" and its like go without blanks in PostgreSQL. */
		if (peek(parser) == '.' ||
			(is_digit(peek(parser)) && (parser->at - start > 1 || unit_words[i].unit == UNIT_WEEK)))
			return refuse_here(parser, parser->at, "a blank must follow the unit.");
		*unit = unit_words[i].unit;
		return true;
	}
	detail = write_detail_at(parser, start);
	sink_text(&detail, "unrecognized unit ");
	sink_quote(&detail, parser->text + start, parser->at - start);
	sink_char(&detail, '.');
	return false;
}

/*
 * As in PostgreSQL, no unit may be given twice, and a fraction of a second
 * leaves no room for smaller units.
 */
static bool
add_part(Parser *parser, Sum *sum, const Decimal *number, Unit unit)
{
	int64_t		length;
	int64_t		part;
	uint32_t	taken = UINT32_C(1) << unit;

	if (unit >= UNIT_MONTH)
		return refuse_months(parser, unit);
	if (unit == UNIT_SECOND && number->has_fraction)
		taken |= UINT32_C(1) << UNIT_MILLISECOND | UINT32_C(1) << UNIT_MICROSECOND;
	if ((sum->units & taken) != 0)
		return refuse_here(parser, number->start, "the same unit is given twice.");
	sum->units |= taken;

	length = unit_length[unit];
	if (number->whole > INTERVAL_MAX / length)
		part = INTERVAL_MAX + 1;
	else
		part = number->whole * length + round_down(number->fraction * (double) length);
	sum->microseconds += part;
	if (sum->microseconds > INTERVAL_MAX)
		return refuse_here(parser, number->start, "an interval cannot exceed 36525 days.");
	return true;
}

static bool
refuse_months(const Parser *parser, Unit unit)
{
	TextSink	detail = write_detail(parser);
	TextSink	hint = write_hint(parser);

	sink_text(&detail, "Months and years have no fixed length, so \"@every\" cannot count them.");
	sink_text(&hint, unit == UNIT_MONTH
			  ? "Write \"0 0 1 * *\" for the first day of every month."
			  : "Write \"0 0 1 1 *\" for the first day of every year.");
	return false;
}

/* YYYY-MM-DD [HH:MM[:SS[.f]]] [offset] */
bool
clockwork_schedule_parse_timestamp(Parser *parser)
{
	Schedule   *schedule = parser->schedule;
	int64_t		day = 0;
	int64_t		time = 0;
	int64_t		offset = 0;
	bool		has_offset = false;
	size_t		start;

	skip_blanks(parser);
	start = parser->at;
	if (at_end(parser))
	{
		TextSink	detail = write_detail(parser);
		TextSink	hint = write_hint(parser);

		sink_text(&detail, "\"@at\" needs a timestamp.");
		sink_text(&hint, "Write it as in \"@at 2030-05-01 10:00\" or \"@at 2030-05-01T10:00:00+02\".");
		return false;
	}
	if (!parse_date(parser, &day))
		return false;
	if (peek(parser) == 'T')
	{
		parser->at++;
		if (!parse_time(parser, &time))
			return false;
	}
	else
	{
		skip_blanks(parser);
		if (is_digit(peek(parser)) && !parse_time(parser, &time))
			return false;
	}
	if (!parse_offset(parser, &offset, &has_offset))
		return false;

	schedule->kind = SCHEDULE_AT;
	schedule->microseconds = (day * SECONDS_PER_DAY - offset) * US_PER_SECOND + time;
	if (!has_offset)
		schedule->flags |= FLAG_LOCAL;
	if (schedule->microseconds < 0 ||
		schedule->microseconds >= day_number(SCHEDULE_YEAR_MAX + 1, 1, 1) * SECONDS_PER_DAY * US_PER_SECOND)
		return refuse_here(parser, start, "the timestamp is outside the years 1970 to 2199.");
	return true;
}

static bool
parse_date(Parser *parser, int64_t *day)
{
	int			year;
	int			month;
	int			day_of_month;
	size_t		start;

	if (!parse_group(parser, 4, SCHEDULE_YEAR_MIN, SCHEDULE_YEAR_MAX, "year", &year))
		return false;
	if (peek(parser) != '-')
		return refuse_here(parser, parser->at, "a date is written YYYY-MM-DD.");
	parser->at++;
	if (!parse_group(parser, 2, 1, 12, "month", &month))
		return false;
	if (peek(parser) != '-')
		return refuse_here(parser, parser->at, "a date is written YYYY-MM-DD.");
	parser->at++;
	start = parser->at;
	if (!parse_group(parser, 2, 1, 31, "day", &day_of_month))
		return false;
	if (day_of_month > month_length(year, month))
		return refuse_here(parser, start, "the month does not have that day.");
	*day = day_number(year, month, day_of_month);
	return true;
}

/* HH:MM[:SS[.f]], up to 24:00; microseconds since midnight. */
static bool
parse_time(Parser *parser, int64_t *microseconds)
{
	Decimal		fraction = {0, 0, 0.0, false};
	size_t		start = parser->at;
	int			hour;
	int			minute;
	int			second = 0;

	if (!parse_group(parser, 2, 0, 24, "hour", &hour))
		return false;
	if (peek(parser) != ':')
		return refuse_here(parser, parser->at, "a time of day is written HH:MM or HH:MM:SS.");
	parser->at++;
	if (!parse_group(parser, 2, 0, 59, "minute", &minute))
		return false;
	if (peek(parser) == ':')
	{
		parser->at++;
		if (!parse_group(parser, 2, 0, 59, "second", &second))
			return false;
		if (peek(parser) == '.' && !parse_decimal(parser, &fraction))
			return false;
	}
	*microseconds = (hour * 3600 + minute * 60 + second) * US_PER_SECOND +
		round_even(fraction.fraction * (double) US_PER_SECOND);
	if (*microseconds > SECONDS_PER_DAY * US_PER_SECOND)
		return refuse_here(parser, start, "a day ends at 24:00.");
	return true;
}

/* Nothing, Z, UTC, or +HH, +HHMM, +HH:MM, +HH:MM:SS; east is positive. */
static bool
parse_offset(Parser *parser, int64_t *offset, bool *given)
{
	bool		west;
	int			hours;
	int			minutes = 0;
	int			seconds = 0;

	skip_blanks(parser);
	*given = true;
	if (is_word(parser, parser->at, parser->end, "z") ||
		is_word(parser, parser->at, parser->end, "utc"))
		return true;
	if (at_end(parser))
	{
		*given = false;
		return true;
	}
	if (peek(parser) != '+' && peek(parser) != '-')
	{
		TextSink	detail = write_detail_at(parser, parser->at);
		TextSink	hint = write_hint(parser);

		sink_text(&detail, "unexpected ");
		sink_quote(&detail, parser->text + parser->at, parser->end - parser->at);
		sink_text(&detail, " after a timestamp.");
		if (is_letter(peek(parser)))
			sink_text(&hint, "Write an offset such as \"+02\", or none to use the time zone of the job.");
		return false;
	}
	west = peek(parser) == '-';
	parser->at++;
	if (!parse_group(parser, 2, 0, 15, "offset hours", &hours))
		return false;
	if (peek(parser) == ':' || is_digit(peek(parser)))
	{
		parser->at += peek(parser) == ':';
		if (!parse_group(parser, 2, 0, 59, "offset minutes", &minutes))
			return false;
	}
	if (peek(parser) == ':')
	{
		parser->at++;
		if (!parse_group(parser, 2, 0, 59, "offset seconds", &seconds))
			return false;
	}
	if (!at_end(parser))
		return refuse_here(parser, parser->at, "nothing may follow the offset.");
	*offset = hours * 3600 + minutes * 60 + seconds;
	if (west)
		*offset = -*offset;
	return true;
}

/* A number of exactly so many digits, within limits. */
static bool
parse_group(Parser *parser, int digits, int low, int high,
			const char *what, int *number)
{
	size_t		start = parser->at;
	TextSink	detail;

	*number = 0;
	while (is_digit(peek(parser)) && parser->at - start < (size_t) digits)
		*number = *number * 10 + (parser->text[parser->at++] - '0');
	if (parser->at - start == (size_t) digits && *number >= low && *number <= high)
		return true;

	detail = write_detail_at(parser, start);
	if (parser->at - start != (size_t) digits)
	{
		sink_text(&detail, "the ");
		sink_text(&detail, what);
		sink_text(&detail, " must have ");
		sink_number(&detail, digits);
		sink_text(&detail, " digits.");
		return false;
	}
	sink_text(&detail, what);
	sink_char(&detail, ' ');
	sink_number(&detail, *number);
	sink_text(&detail, " is out of range ");
	sink_number(&detail, low);
	sink_char(&detail, '-');
	sink_number(&detail, high);
	sink_char(&detail, '.');
	return false;
}

static bool
refuse_here(const Parser *parser, size_t at, const char *why)
{
	TextSink	detail = write_detail_at(parser, at);

	sink_text(&detail, why);
	return false;
}

/*
 * PostgreSQL rounds microseconds in two ways: halves go down where a unit is
 * named, and to the even number in a time of day.  The value is not negative.
 */
static int64_t
round_down(double value)
{
	int64_t		whole = (int64_t) value;

	return whole + (value - (double) whole > 0.5);
}

static int64_t
round_even(double value)
{
	int64_t		whole = (int64_t) value;
	double		rest = value - (double) whole;

	return whole + (rest > 0.5 || (rest == 0.5 && whole % 2 != 0));
}

static void
skip_blanks(Parser *parser)
{
	while (is_blank(peek(parser)))
		parser->at++;
}
