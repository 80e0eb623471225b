/*
 * The fields of a cron expression.
 *
 * A field is a list of terms; each term adds values to a set of bits that
 * starts at the field's lowest value.  A mistake is reported at its first
 * character, with the corrected text where there is one to give.
 */
#include "schedule_calendar.h"
#include "schedule_parse.h"

#define STEP_MAX 999999999

/* Larger than anything a field or a step accepts. */
#define TOO_LARGE INT64_C(1000000000000)

typedef struct FieldInfo
{
	const char *name;
	int			low;
	int			high;
	const char *value_names;	/* three letters each, or NULL */
	int			first_name;		/* the value of the first of them */
} FieldInfo;

static const FieldInfo fields[] =
{
	{"second", 0, 59, NULL, 0},
	{"minute", 0, 59, NULL, 0},
	{"hour", 0, 23, NULL, 0},
	{"day of month", 1, 31, NULL, 0},
	{"month", 1, 12, "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC", 1},
	{"day of week", 0, 7, "SUNMONTUEWEDTHUFRISAT", 0},
	{"year", SCHEDULE_YEAR_MIN, SCHEDULE_YEAR_MAX, NULL, 0}
};

/* A field being read.  Value v of the field is bit v - low of `bits`. */
typedef struct Field
{
	Parser	   *parser;
	const FieldSpan *span;
	const FieldInfo *info;
	uint64_t	bits[4];
} Field;

/* A number or name as written. */
typedef struct Value
{
	int			number;
	bool		named;
	size_t		start;
	size_t		end;
} Value;

static bool parse_list(Field *field);
static bool parse_term(Field *field);
static bool parse_star(Field *field);
static bool parse_value_term(Field *field);
static bool parse_range(Field *field, const Value *low);
static bool parse_hash(Field *field);
static bool parse_from_last(Field *field);
static bool parse_whole(Field *field);
static bool parse_workday(Field *field, size_t term, int workday, int workday_from_last);
static bool parse_nth(Field *field, const Value *day);
static bool parse_value(Field *field, Value *value);
static bool parse_name(Field *field, Value *value);
static bool parse_step(Field *field, int *step);
static int64_t parse_digits(Parser *parser);
static void note_star(Field *field, bool star, bool hash_step);
static void note_wide_step(Field *field, size_t term, int low, int high, int step);
static void add_range(Field *field, int low, int high, int step);
static void store(Field *field);
static int	hash_value(const Field *field, int span);

static TextSink refuse(const Field *field, size_t at);
static bool refuse_character(const Field *field, const char *context);
static bool refuse_here(const Field *field, size_t at, const char *why);
static bool refuse_empty(const Field *field);
static bool refuse_name(const Field *field, size_t start, size_t end);
static bool refuse_reversed(const Field *field, const Value *low, const Value *high,
							int low_number, int high_number, int step);
static bool refuse_value_step(const Field *field, const Value *value);
static bool refuse_list_workday(const Field *field, size_t term);
static bool refuse_random(const Field *field, size_t term);
static void sink_value(TextSink *sink, const Field *field, int number, bool named);
static void sink_range(TextSink *sink, const Field *field, int low, bool low_named,
					   int high, bool high_named, int step);

bool
clockwork_schedule_parse_field(Parser *parser, const FieldSpan *span)
{
	Field		field = {NULL, NULL, NULL, {0, 0, 0, 0}};
	size_t		outer_end = parser->end;
	bool		accepted;

	field.parser = parser;
	field.span = span;
	field.info = &fields[span->name];

	parser->at = span->start;
	parser->end = span->end;
	accepted = parse_list(&field);
	parser->end = outer_end;
	if (accepted)
		store(&field);
	return accepted;
}

static bool
parse_list(Field *field)
{
	Parser	   *parser = field->parser;

	if (field->span->name == FIELD_WEEKDAY && peek(parser) == '+')
	{
		parser->schedule->flags |= FLAG_BOTH_DAYS;
		parser->at++;
		if (at_end(parser))
			return refuse_here(field, parser->at, "\"+\" must be followed by days of the week.");
	}
	if ((peek(parser) == '?' || peek(parser) == '$') &&
		(field->span->name == FIELD_DAY || field->span->name == FIELD_WEEKDAY))
		return parse_whole(field);

	note_star(field, peek(parser) == '*', false);
	for (;;)
	{
		if (!parse_term(field))
			return false;
		if (at_end(parser))
			return true;
		if (peek(parser) != ',')
			return refuse_character(field, " after a complete value");
		parser->at++;
	}
}

static bool
parse_term(Field *field)
{
	Parser	   *parser = field->parser;
	char		c = peek(parser);
	bool		alone = parser->at + 1 >= parser->end || !is_letter(parser->text[parser->at + 1]);

	if (at_end(parser) || c == ',')
		return refuse_empty(field);
	if (c == '*')
		return parse_star(field);
	if (c == 'H' && alone)
		return parse_hash(field);
	if (c == 'L' && field->span->name == FIELD_DAY)
		return parse_from_last(field);
	if (c == 'L' && alone)
	{
		TextSink	hint = write_hint(parser);

		if (field->span->name != FIELD_WEEKDAY)
			return refuse_here(field, parser->at,
							   "\"L\" belongs in the day of month and day of week fields.");
		sink_text(&hint, "Write \"6L\" for the last Saturday of the month.");
		return refuse_here(field, parser->at, "\"L\" must follow a day of the week.");
	}
	if (is_digit(c) || is_letter(c))
		return parse_value_term(field);
	if (c == '/')
	{
		TextSink	hint = write_hint(parser);
		size_t		start = parser->at;
		int			step;

		if (parse_step(field, &step))
		{
			sink_text(&hint, "Write \"*");
			sink_input(&hint, parser->text + start, parser->at - start);
			sink_text(&hint, "\".");
		}
		else
			hint = write_hint(parser);
		return refuse_here(field, start, "a step must follow \"*\" or a range.");
	}
	if (c == '~')
		return refuse_random(field, parser->at);
	if (c == '?')
	{
		bool		day_field = field->span->name == FIELD_DAY || field->span->name == FIELD_WEEKDAY;
		TextSink	hint = write_hint(parser);

		sink_text(&hint, "Write \"*\".");
		return refuse_here(field, parser->at, day_field ? "\"?\" must stand alone in its field."
						   : "\"?\" belongs in the day of month and day of week fields.");
	}
	if (c == '$' && field->span->name == FIELD_DAY)
	{
		TextSink	hint = write_hint(parser);

		sink_text(&hint, "Write \"L\" for the last day in a list.");
		return refuse_here(field, parser->at, "\"$\" must be the whole field.");
	}
	if (c == '+')
		return refuse_here(field, parser->at,
						   "\"+\" may only be the first character of the day of week field.");
	return refuse_character(field, "");
}

/* "?", and pg_cron's "$": nothing else may be in the field. */
static bool
parse_whole(Field *field)
{
	Parser	   *parser = field->parser;
	size_t		at = parser->at;
	char		c = peek(parser);
	TextSink	hint;

	if (c == '$' && field->span->name != FIELD_DAY)
		return refuse_character(field, "");

	parser->at++;
	if (c == '?' && at_end(parser))
	{
		note_star(field, true, false);
		add_range(field, field->info->low, field->info->high, 1);
		return true;
	}
	if (c == '$' && at_end(parser))
	{
		parser->schedule->day_from_last |= 1;
		return true;
	}
	hint = write_hint(parser);
	sink_text(&hint, c == '?' ? "Write \"*\"." : "Write \"L\" for the last day in a list.");
	return refuse_here(field, at, c == '?' ? "\"?\" must stand alone in its field."
					   : "\"$\" must be the whole field.");
}

static bool
parse_star(Field *field)
{
	Parser	   *parser = field->parser;
	size_t		term = parser->at;
	int			step = 1;

	parser->at++;
	if (peek(parser) == '/' && !parse_step(field, &step))
		return false;
	if (!at_end(parser) && peek(parser) != ',')
		return refuse_character(field, step == 1 ? " after \"*\"" : " after a step");
	note_wide_step(field, term, field->info->low, field->info->high, step);
	add_range(field, field->info->low, field->info->high, step);
	return true;
}

/* A value, a range, or one of the forms that begin with a single day. */
static bool
parse_value_term(Field *field)
{
	Parser	   *parser = field->parser;
	Value		value;

	if (!parse_value(field, &value))
		return false;
	switch (peek(parser))
	{
		case '-':
			return parse_range(field, &value);
		case '/':
			return refuse_value_step(field, &value);
		case '~':
			return refuse_random(field, value.start);
		case 'W':
			if (field->span->name == FIELD_DAY)
				return parse_workday(field, value.start, value.number, 0);
			break;
		case '#':
		case 'L':
			if (field->span->name == FIELD_WEEKDAY)
				return parse_nth(field, &value);
			break;
		default:
			break;
	}
	if (!at_end(parser) && peek(parser) != ',')
	{
		char		context[QUOTE_MAX + 16];
		TextSink	after = sink_open(context, sizeof(context));

		sink_text(&after, " after ");
		sink_quote(&after, parser->text + value.start, value.end - value.start);
		return refuse_character(field, context);
	}
	add_range(field, value.number, value.number, 1);
	return true;
}

static bool
parse_range(Field *field, const Value *low)
{
	Parser	   *parser = field->parser;
	Value		high;
	int			low_number = low->number;
	int			high_number;
	int			step = 1;

	parser->at++;
	if (at_end(parser) || peek(parser) == ',')
		return refuse_here(field, parser->at, "a range must have an end.");
	if (peek(parser) == 'L' && field->span->name == FIELD_DAY)
	{
		TextSink	hint = write_hint(parser);

		sink_text(&hint, "Write \"");
		sink_number(&hint, low_number);
		sink_text(&hint, "-31\": it ends with the month.");
		return refuse_here(field, parser->at, "\"L\" cannot be part of a range.");
	}
	if (!is_digit(peek(parser)) && !is_letter(peek(parser)))
		return refuse_character(field, " at the end of a range");
	if (!parse_value(field, &high))
		return false;
	high_number = high.number;

	/* SUN ends a week, but a range from Sunday to SUN is that one day. */
	if (field->span->name == FIELD_WEEKDAY && high.named && high_number == 0)
	{
		if (low_number % 7 == 0)
			low_number = 0;
		else
			high_number = 7;
	}
	if (peek(parser) == '/' && !parse_step(field, &step))
		return false;
	if (low_number > high_number)
		return refuse_reversed(field, low, &high, low_number, high_number, step);
	if (peek(parser) == 'W' && field->span->name == FIELD_DAY)
		return refuse_list_workday(field, low->start);
	if (peek(parser) == '#' && field->span->name == FIELD_WEEKDAY)
	{
		size_t		at = parser->at++;
		TextSink	hint = write_hint(parser);
		char		n = peek(parser);
		int			day;

		if ((n >= '1' && n <= '5') || n == 'L')
		{
			sink_text(&hint, "Write \"");
			for (day = low_number; day <= high_number; day += step)
			{
				sink_value(&hint, field, day, low->named);
				sink_char(&hint, '#');
				sink_char(&hint, n);
				sink_text(&hint, day + step <= high_number ? "," : "\".");
			}
		}
		return refuse_here(field, at, "\"#\" applies to a single day and cannot follow a range.");
	}
	if (!at_end(parser) && peek(parser) != ',')
		return refuse_character(field, step == 1 ? " after a range" : " after a step");

	note_wide_step(field, low->start, low_number, high_number, step);
	add_range(field, low_number, high_number, step);
	return true;
}

/*
 * H, H/s, H(a-b), H(a-b)/s: values derived from the hash key.  Days of the
 * month stay within 1-28 unless told otherwise, so that every month has them.
 */
static bool
parse_hash(Field *field)
{
	Parser	   *parser = field->parser;
	size_t		term = parser->at;
	int			low = field->info->low;
	int			high = field->info->high;
	int			step = 0;
	int			start;

	if (field->span->name == FIELD_YEAR)
		return refuse_here(field, term, "\"H\" cannot be used for years.");
	if (field->span->name == FIELD_DAY)
		high = 28;
	if (field->span->name == FIELD_WEEKDAY)
		high = 6;

	parser->at++;
	if (peek(parser) == '(')
	{
		Value		from;
		Value		until;

		parser->at++;
		if (!is_digit(peek(parser)) && !is_letter(peek(parser)))
			return refuse_here(field, parser->at, "\"H(\" must be followed by a range.");
		if (!parse_value(field, &from))
			return false;
		if (peek(parser) != '-')
			return refuse_here(field, parser->at, "the range of \"H\" is written \"H(first-last)\".");
		parser->at++;
		if (!is_digit(peek(parser)) && !is_letter(peek(parser)))
			return refuse_here(field, parser->at, "a range must have an end.");
		if (!parse_value(field, &until))
			return false;
		if (peek(parser) != ')')
			return refuse_here(field, parser->at, "the range of \"H\" must end with \")\".");
		parser->at++;
		low = from.number;
		high = until.number;
		if (field->span->name == FIELD_WEEKDAY && until.named && high == 0 && low % 7 != 0)
			high = 7;
		if (low > high)
			return refuse_reversed(field, &from, &until, low, high, 1);
	}
	if (peek(parser) == '/' && !parse_step(field, &step))
		return false;
	if (!at_end(parser) && peek(parser) != ',')
		return refuse_character(field, step == 0 ? " after \"H\"" : " after a step");

	if (step == 0)
	{
		start = low + hash_value(field, high - low + 1);
		add_range(field, start, start, 1);
		return true;
	}
	if (term == field->span->start)
		note_star(field, false, true);
	note_wide_step(field, term, low, high, step);
	start = low + hash_value(field, step < high - low + 1 ? step : high - low + 1);
	add_range(field, start, high, step);
	return true;
}

/* L, L-n, LW, L-nW. */
static bool
parse_from_last(Field *field)
{
	Parser	   *parser = field->parser;
	size_t		term = parser->at;
	int64_t		before = 0;

	parser->at++;
	if (peek(parser) == '-')
	{
		size_t		start = ++parser->at;

		before = parse_digits(parser);
		if (before < 0)
			return refuse_here(field, start, "\"L-\" must be followed by a number of days.");
		if (before > 30)
		{
			TextSink	detail = refuse(field, start);

			sink_text(&detail, "offset ");
			sink_input(&detail, parser->text + start, parser->at - start);
			sink_text(&detail, " after \"L-\" is out of range 0-30.");
			return false;
		}
	}
	if (peek(parser) == 'W')
		return parse_workday(field, term, 0, (int) before + 1);
	if (!at_end(parser) && peek(parser) != ',')
		return refuse_character(field, " after \"L\"");
	parser->schedule->day_from_last |= UINT32_C(1) << before;
	return true;
}

/* The cursor is on the W. */
static bool
parse_workday(Field *field, size_t term, int workday, int workday_from_last)
{
	Parser	   *parser = field->parser;

	if (term != field->span->start || (parser->at + 1 < parser->end &&
									   parser->text[parser->at + 1] == ','))
		return refuse_list_workday(field, term);
	parser->at++;
	if (!at_end(parser))
		return refuse_character(field, " after \"W\"");
	parser->schedule->workday = (uint8_t) workday;
	parser->schedule->workday_from_last = (uint8_t) workday_from_last;
	return true;
}

/* d#n, d#L, dL: the cursor is on the # or the L. */
static bool
parse_nth(Field *field, const Value *day)
{
	Parser	   *parser = field->parser;
	int64_t		nth = 6;
	size_t		at;

	if (peek(parser) == '#')
	{
		at = ++parser->at;
		if (peek(parser) == 'L')
			parser->at++;
		else if (peek(parser) == 'l')
			return refuse_character(field, "");
		else
		{
			nth = parse_digits(parser);
			if (nth < 0)
				return refuse_here(field, at, "\"#\" must be followed by 1 to 5, or L for the last.");
			if (nth < 1 || nth > 5)
			{
				TextSink	detail = refuse(field, at);

				sink_text(&detail, "occurrence ");
				sink_input(&detail, parser->text + at, parser->at - at);
				sink_text(&detail, " after \"#\" must be 1 to 5, or L for the last.");
				return false;
			}
		}
	}
	else
		parser->at++;
	if (!at_end(parser) && peek(parser) != ',')
		return refuse_character(field, " after a single weekday of the month");
	parser->schedule->weekday_nth |= UINT64_C(1) << (6 * (day->number % 7) + nth - 1);
	return true;
}

/* A number or a name; the cursor is on its first character. */
static bool
parse_value(Field *field, Value *value)
{
	Parser	   *parser = field->parser;
	int64_t		number;

	value->start = parser->at;
	value->named = false;
	if (!is_digit(peek(parser)))
		return parse_name(field, value);

	number = parse_digits(parser);
	value->end = parser->at;
	if (number < field->info->low || number > field->info->high)
	{
		TextSink	detail = refuse(field, value->start);

		sink_text(&detail, "value ");
		sink_input(&detail, parser->text + value->start, value->end - value->start);
		sink_text(&detail, " is out of range ");
		sink_number(&detail, field->info->low);
		sink_char(&detail, '-');
		sink_number(&detail, field->info->high);
		sink_char(&detail, '.');
		if (field->span->name == FIELD_HOUR && number == 24)
		{
			TextSink	hint = write_hint(parser);

			sink_text(&hint, "Midnight is hour 0.");
		}
		return false;
	}
	value->number = (int) number;
	return true;
}

/* Exactly three letters; a weekday may be followed by L. */
static bool
parse_name(Field *field, Value *value)
{
	Parser	   *parser = field->parser;
	const char *names = field->info->value_names;
	size_t		start = parser->at;
	size_t		end = start;
	int			i;

	while (end < parser->end && is_letter(parser->text[end]))
		end++;
	value->named = true;
	value->end = start + 3;

	/* A lone letter is a misplaced L, W or H rather than a name. */
	if (end - start == 1)
		return refuse_character(field, "");
	if (names == NULL || (end - start != 3 &&
						  !(end - start == 4 && field->span->name == FIELD_WEEKDAY &&
							to_lower(parser->text[end - 1]) == 'l')))
		return refuse_name(field, start, end);
	for (i = 0; names[i] != '\0'; i += 3)
	{
		if (to_lower(parser->text[start]) != to_lower(names[i]) ||
			to_lower(parser->text[start + 1]) != to_lower(names[i + 1]) ||
			to_lower(parser->text[start + 2]) != to_lower(names[i + 2]))
			continue;
		value->number = field->info->first_name + i / 3;
		parser->at = value->end;
		return true;
	}
	return refuse_name(field, start, end);
}

/* The cursor is on the slash. */
static bool
parse_step(Field *field, int *step)
{
	Parser	   *parser = field->parser;
	size_t		start = ++parser->at;
	int64_t		number = parse_digits(parser);
	TextSink	detail;

	if (number < 0)
	{
		if (at_end(parser) || peek(parser) == ',')
			return refuse_here(field, start, "\"/\" must be followed by a step.");
		return refuse_character(field, " where a step was expected");
	}
	if (number == 0)
		return refuse_here(field, start, "a step must be 1 or more.");
	if (number > STEP_MAX)
	{
		detail = refuse(field, start);
		sink_text(&detail, "step ");
		sink_input(&detail, parser->text + start, parser->at - start);
		sink_text(&detail, " is larger than 999999999.");
		return false;
	}
	*step = (int) number;
	return true;
}

/* A run of digits as a number that stops growing when too large; -1 if none. */
static int64_t
parse_digits(Parser *parser)
{
	int64_t		number = -1;

	for (; is_digit(peek(parser)); parser->at++)
	{
		if (number < 0)
			number = 0;
		if (number < TOO_LARGE)
			number = number * 10 + (peek(parser) - '0');
	}
	return number;
}

/* Remember how the field begins, where that matters. */
static void
note_star(Field *field, bool star, bool hash_step)
{
	uint32_t	flag = 0;

	switch (field->span->name)
	{
		case FIELD_SECOND:
			flag = star ? FLAG_SECOND_STAR : 0;
			break;
		case FIELD_MINUTE:
			flag = star || hash_step ? FLAG_MINUTE_STAR : 0;
			break;
		case FIELD_HOUR:
			flag = star || hash_step ? FLAG_HOUR_STAR : 0;
			break;
		case FIELD_DAY:
			flag = star ? FLAG_DAY_STAR : 0;
			break;
		case FIELD_WEEKDAY:
			flag = star ? FLAG_WEEKDAY_STAR : 0;
			break;
		case FIELD_MONTH:
		case FIELD_YEAR:
			break;
	}
	field->parser->schedule->flags |= flag;
}

/* A step that leaves the field at once is accepted, but hardly ever meant. */
static void
note_wide_step(Field *field, size_t term, int low, int high, int step)
{
	static const struct
	{
		const char *at;
		const char *once;
		const char *unit;		/* of @every; NULL if there is none */
	}			words[] =
	{
		{"at second ", "once a minute", " seconds"},
		{"at minute ", "once an hour", " minutes"},
		{"at hour ", "once a day", " hours"},
		{"on day ", "once a month", " days"},
		{"in month ", "once a year", NULL},
		{"on weekday ", "once a week", " days"},
		{"in year ", "once", NULL}
	};
	const Parser *parser = field->parser;
	ScheduleReport *report = parser->report;
	FieldName	name = field->span->name;
	TextSink	sink;

	if (step <= field->info->high - field->info->low || low + step <= high ||
		report->notice[0] != '\0')
		return;

	sink = sink_open(report->notice, sizeof(report->notice));
	sink_text(&sink, "step ");
	sink_number(&sink, step);
	sink_text(&sink, " in field ");
	sink_number(&sink, field->span->number);
	sink_text(&sink, " (");
	sink_text(&sink, field->info->name);
	sink_text(&sink, ") is larger than the field");

	sink = sink_open(report->notice_detail, sizeof(report->notice_detail));
	sink_quote(&sink, parser->text + term, parser->at - term);
	sink_text(&sink, " runs ");
	if (parser->text[term] == 'H')
		low += hash_value(field, high - low + 1);
	sink_text(&sink, words[name].at);
	sink_number(&sink, low);
	sink_text(&sink, " only, ");
	sink_text(&sink, words[name].once);
	sink_char(&sink, '.');

	sink = sink_open(report->notice_hint, sizeof(report->notice_hint));
	if (words[name].unit != NULL)
	{
		sink_text(&sink, "Write \"@every ");
		sink_number(&sink, step);
		sink_text(&sink, words[name].unit);
		sink_text(&sink, "\" for every ");
		sink_number(&sink, step);
		sink_text(&sink, words[name].unit);
		sink_char(&sink, '.');
	}
	else if (name == FIELD_MONTH)
		sink_text(&sink, "Name the years in a seventh field to leave years out.");
}

static void
add_range(Field *field, int low, int high, int step)
{
	int64_t		value;

	low -= field->info->low;
	high -= field->info->low;
	if (step == 1 && high < 64)
	{
		field->bits[0] |= ~UINT64_C(0) >> (63 - high) & ~UINT64_C(0) << low;
		return;
	}
	for (value = low; value <= high; value += step)
		field->bits[value / 64] |= UINT64_C(1) << (value % 64);
}

static void
store(Field *field)
{
	Schedule   *schedule = field->parser->schedule;
	uint64_t	bits = field->bits[0] << field->info->low % 64;
	int			i;

	switch (field->span->name)
	{
		case FIELD_SECOND:
			schedule->second = bits;
			break;
		case FIELD_MINUTE:
			schedule->minute = bits;
			break;
		case FIELD_HOUR:
			schedule->hour = (uint32_t) bits;
			break;
		case FIELD_DAY:
			schedule->day = (uint32_t) bits;
			break;
		case FIELD_MONTH:
			schedule->month = (uint16_t) bits;
			break;
		case FIELD_WEEKDAY:		/* 7 is Sunday too */
			schedule->weekday = (uint8_t) ((bits | bits >> 7) & ALL_WEEKDAYS);
			break;
		case FIELD_YEAR:
			for (i = 0; i < 8; i++)
				schedule->year[i] = (uint32_t) (field->bits[i / 2] >> (i % 2 * 32));
			break;
	}
}

/*
 * 0 to span - 1, from the hash key and the field: FNV-1a over the key and one
 * more byte for the field, then the finalizer of SplitMix64, since the low
 * bits of FNV are weak.  Stored schedules depend on it: it must not change.
 */
static int
hash_value(const Field *field, int span)
{
	const Parser *parser = field->parser;
	uint64_t	hash = UINT64_C(0xcbf29ce484222325);
	size_t		i;

	for (i = 0; i < parser->hash_key_length; i++)
		hash = (hash ^ (unsigned char) parser->hash_key[i]) * UINT64_C(0x100000001b3);
	hash = (hash ^ (unsigned char) field->span->name) * UINT64_C(0x100000001b3);
	hash = (hash ^ hash >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	hash = (hash ^ hash >> 27) * UINT64_C(0x94d049bb133111eb);
	hash ^= hash >> 31;
	return (int) (hash % (uint64_t) span);
}

/* Start a detail about the character at `at`. */
static TextSink
refuse(const Field *field, size_t at)
{
	TextSink	detail = write_detail(field->parser);

	sink_text(&detail, "Field ");
	sink_number(&detail, field->span->number);
	sink_text(&detail, " (");
	sink_text(&detail, field->info->name);
	sink_text(&detail, "), character ");
	sink_number(&detail, character_number(field->parser, at));
	sink_text(&detail, ": ");
	return detail;
}

static bool
refuse_here(const Field *field, size_t at, const char *why)
{
	TextSink	detail = refuse(field, at);

	sink_text(&detail, why);
	return false;
}

/* The character at the cursor fits nothing; `context` says after what. */
static bool
refuse_character(const Field *field, const char *context)
{
	const Parser *parser = field->parser;
	TextSink	detail = refuse(field, parser->at);
	TextSink	hint = write_hint(parser);
	size_t		length = 1;
	bool		day_field = field->span->name == FIELD_DAY || field->span->name == FIELD_WEEKDAY;

	/* Show a multibyte character whole. */
	while (parser->at + length < parser->end &&
		   ((unsigned char) parser->text[parser->at] & 0xc0) == 0xc0 && length < 4 &&
		   ((unsigned char) parser->text[parser->at + length] & 0xc0) == 0x80)
		length++;

	sink_text(&detail, "unexpected character ");
	sink_quote(&detail, parser->text + parser->at, length);
	sink_text(&detail, context);
	sink_char(&detail, '.');

	switch (peek(parser))
	{
		case 'l':
			if (field->span->name == FIELD_DAY)
				sink_text(&hint, "\"L\" (last day of the month) must be upper case.");
			else if (day_field)
				sink_text(&hint, "\"L\" (last such day of the month) must be upper case.");
			break;
		case 'w':
			if (field->span->name == FIELD_DAY)
				sink_text(&hint, "\"W\" (nearest weekday) must be upper case.");
			break;
		case 'h':
			sink_text(&hint, "\"H\" (a value derived from the job's name) must be upper case.");
			break;
		case 'L':
			if (!day_field)
				sink_text(&hint, "\"L\" belongs in the day of month and day of week fields.");
			break;
		case 'W':
			if (field->span->name != FIELD_DAY)
				sink_text(&hint, "\"W\" belongs in the day of month field.");
			break;
		case '#':
			if (field->span->name != FIELD_WEEKDAY)
				sink_text(&hint, "\"#\" belongs in the day of week field.");
			break;
		case ';':
			sink_text(&hint, "Values are separated by \",\".");
			break;
		case '\xe2':
			if (length == 3 && parser->text[parser->at + 1] == '\x80')
				sink_text(&hint, "A range is written with \"-\".");
			break;
		default:
			break;
	}
	return false;
}

/* An empty list element, or nothing before a comma. */
static bool
refuse_empty(const Field *field)
{
	const Parser *parser = field->parser;
	TextSink	hint = write_hint(parser);
	size_t		at = parser->at;
	size_t		i;
	bool		pending = false;
	bool		any = false;

	/* The same list without the commas that separate nothing. */
	sink_text(&hint, "Write \"");
	for (i = field->span->start; i < field->span->end; i++)
	{
		if (parser->text[i] == ',')
		{
			pending = any;
			continue;
		}
		if (pending)
			sink_char(&hint, ',');
		pending = false;
		any = true;
		sink_input(&hint, parser->text + i, 1);
	}
	sink_text(&hint, "\".");
	if (!any)
		hint = write_hint(parser);
	return refuse_here(field, at, "an element of the list is empty.");
}

static bool
refuse_name(const Field *field, size_t start, size_t end)
{
	const Parser *parser = field->parser;
	TextSink	detail = refuse(field, start);
	TextSink	hint = write_hint(parser);
	int			owner;

	sink_text(&detail, "unrecognized name ");
	sink_quote(&detail, parser->text + start, end - start);
	sink_char(&detail, '.');
	if (is_word(parser, start, end, "tz") || is_word(parser, start, end, "cron"))
		sink_text(&hint, "The time zone is an option of the job, not part of the schedule.");
	if (end - start < 3)
		return false;

	for (owner = FIELD_MONTH; owner <= FIELD_WEEKDAY; owner++)
	{
		const char *name;

		for (name = fields[owner].value_names; *name != '\0'; name += 3)
		{
			if (to_lower(parser->text[start]) != to_lower(name[0]) ||
				to_lower(parser->text[start + 1]) != to_lower(name[1]) ||
				to_lower(parser->text[start + 2]) != to_lower(name[2]))
				continue;
			if (field->span->name == (FieldName) owner && end - start > 3)
			{
				sink_text(&hint, "Names have three letters: \"");
				sink_bytes(&hint, name, 3);
				sink_text(&hint, "\".");
			}
			else if (field->span->name != (FieldName) owner && end - start == 3)
			{
				sink_text(&hint, "Names of ");
				sink_text(&hint, owner == FIELD_MONTH ? "months" : "days");
				sink_text(&hint, " belong in the ");
				sink_text(&hint, fields[owner].name);
				sink_text(&hint, " field.");
			}
			return false;
		}
	}
	return false;
}

/* "FRI-MON" can be said as "FRI-SUN,MON", keeping the phase of a step. */
static bool
refuse_reversed(const Field *field, const Value *low, const Value *high,
				int low_number, int high_number, int step)
{
	const Parser *parser = field->parser;
	TextSink	detail = refuse(field, low->start);
	TextSink	hint = write_hint(parser);
	bool		weekday = field->span->name == FIELD_WEEKDAY;
	int			size = field->info->high - field->info->low + (weekday ? 0 : 1);
	int			next;
	int			top;

	sink_text(&detail, "range start ");
	sink_value(&detail, field, low->number, low->named);
	if (low->named)
	{
		sink_text(&detail, " (");
		sink_number(&detail, low->number);
		sink_char(&detail, ')');
	}
	sink_text(&detail, " is after its end ");
	sink_value(&detail, field, high->number, high->named);
	if (high->named)
	{
		sink_text(&detail, " (");
		sink_number(&detail, high->number);
		sink_char(&detail, ')');
	}
	sink_char(&detail, '.');

	if (field->span->name == FIELD_YEAR || parser->text[low->start - (low->start > 0)] == '(')
		return false;
	if (weekday && low_number == 7)
		low_number = 0;

	sink_text(&hint, "Write \"");
	if (low_number <= high_number)	/* 7-3: the week begins with Sunday */
		sink_range(&hint, field, low_number, low->named, high_number, high->named, step);
	else
	{
		sink_range(&hint, field, low_number, low->named, field->info->high, low->named, step);
		top = low_number + (field->info->high - low_number) / step * step;
		next = top + step - size;
		if (next < field->info->low)
			next = field->info->low;
		if (next <= high_number)
		{
			sink_char(&hint, ',');
			sink_range(&hint, field, next, high->named, high_number, high->named, step);
		}
	}
	sink_text(&hint, "\".");
	return false;
}

/* "5/15": the cursor is on the slash. */
static bool
refuse_value_step(const Field *field, const Value *value)
{
	Parser	   *parser = field->parser;
	size_t		slash = parser->at;
	int			start = value->number;
	int			last = field->info->high;
	int			step;
	Field		scratch = *field;
	TextSink	hint;

	if (field->span->name == FIELD_WEEKDAY)
	{
		start %= 7;
		last = 6;
	}
	if (!parse_step(&scratch, &step) || (!at_end(parser) && peek(parser) != ','))
	{
		hint = write_hint(parser);
		return refuse_here(field, slash, "a step must follow \"*\" or a range.");
	}
	hint = write_hint(parser);
	sink_text(&hint, "Write \"");
	sink_value(&hint, field, start, value->named);
	sink_char(&hint, '-');
	sink_value(&hint, field, last, value->named);
	sink_char(&hint, '/');
	sink_number(&hint, step);
	sink_text(&hint, "\" to start at ");
	sink_value(&hint, field, start, value->named);
	sink_char(&hint, '.');
	return refuse_here(field, slash, "a step must follow \"*\" or a range.");
}

/*
 * A W next to something else.  Two terms are named in the hint as two jobs; a
 * range of weekdays can be had by restricting both day fields.
 */
static bool
refuse_list_workday(const Field *field, size_t term)
{
	const Parser *parser = field->parser;
	const char *list = parser->text + field->span->start;
	size_t		length = field->span->end - field->span->start;
	const char *comma = memchr(list, ',', length);
	TextSink	hint = write_hint(parser);
	size_t		i;
	int			terms = 1;

	for (i = 0; i < length; i++)
	{
		terms += list[i] == ',';
		if (!is_digit(list[i]) && memchr(",LW", list[i], 3) == NULL)
			terms = 100;		/* more than plain days: no simple advice */
	}
	if (terms == 2)
	{
		size_t		first = (size_t) (comma - list);
		size_t		second = length - first - 1;

		sink_text(&hint, "Use two jobs, \"");
		sink_input(&hint, list, first);
		sink_text(&hint, first > 0 && list[first - 1] == 'W' ? "\" and \"" : "W\" and \"");
		sink_input(&hint, comma + 1, second);
		sink_text(&hint, second > 0 && comma[second] == 'W' ? "\"." : "W\".");
	}
	else if (comma == NULL && is_digit(list[0]))
	{
		sink_text(&hint, "For Monday to Friday among these days write \"");
		sink_input(&hint, list, parser->at - field->span->start);
		sink_text(&hint, "\" here and \"+1-5\" in the day of week field.");
	}
	else
		sink_text(&hint, "Use one job for each such day.");
	return refuse_here(field, term,
					   "\"W\" applies to a single day and cannot be used in a list or range.");
}

/* cronie's "~": the cursor is on it, `term` is where its term begins. */
static bool
refuse_random(const Field *field, size_t term)
{
	Parser	   *parser = field->parser;
	size_t		at = parser->at;
	size_t		end = at + 1;
	TextSink	hint = write_hint(parser);

	while (end < parser->end && (is_digit(parser->text[end]) || is_letter(parser->text[end])))
		end++;
	sink_text(&hint, "Write \"H");
	if (term < at && end > at + 1)
	{
		sink_char(&hint, '(');
		sink_input(&hint, parser->text + term, at - term);
		sink_char(&hint, '-');
		sink_input(&hint, parser->text + at + 1, end - at - 1);
		sink_char(&hint, ')');
	}
	sink_text(&hint, "\" for a value derived from the job's name.");
	return refuse_here(field, at, "random values (\"~\") are not supported.");
}

static void
sink_value(TextSink *sink, const Field *field, int number, bool named)
{
	if (!named || field->info->value_names == NULL)
		sink_number(sink, number);
	else if (field->span->name == FIELD_WEEKDAY)
		sink_bytes(sink, field->info->value_names + 3 * (number % 7), 3);
	else
		sink_bytes(sink, field->info->value_names + 3 * (number - 1), 3);
}

/* low-high/step as short as it can be said. */
static void
sink_range(TextSink *sink, const Field *field, int low, bool low_named,
		   int high, bool high_named, int step)
{
	sink_value(sink, field, low, low_named);
	if (step > high - low)
		return;
	sink_char(sink, '-');
	sink_value(sink, field, high, high_named);
	if (step > 1)
	{
		sink_char(sink, '/');
		sink_number(sink, step);
	}
}
