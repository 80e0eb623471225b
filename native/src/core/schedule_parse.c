/*
 * Which kind of schedule a text is.
 *
 * The kinds cannot be mistaken for each other: "@..." is a nickname, an event,
 * @every, @at or @after; "N seconds" is two words, and a cron expression never is.
 * The text is hostile: any bytes, NUL among them, in no particular encoding.
 */
#include "schedule_calendar.h"
#include "schedule_parse.h"

static const struct
{
	const char *name;
	const char *pattern;		/* NULL: not a calendar, an event */
}			nicknames[] =
{
	{"@yearly", "0 0 1 1 *"},
	{"@annually", "0 0 1 1 *"},
	{"@monthly", "0 0 1 * *"},
	{"@weekly", "0 0 * * 0"},
	{"@daily", "0 0 * * *"},
	{"@midnight", "0 0 * * *"},
	{"@hourly", "0 * * * *"},
	{"@reboot", NULL},
	{"@restart", NULL}
};

/* What people bring from elsewhere, and how it is said here. */
static const struct
{
	const char *name;
	const char *ours;
}			foreign_nicknames[] =
{
	{"@secondly", "1 second"},
	{"@minutely", "* * * * *"},
	{"@every_minute", "* * * * *"},
	{"@quarterly", "0 0 1 */3 *"},
	{"@weekdays", "0 0 * * 1-5"},
	{"@weekends", "0 0 * * 0,6"}
};

#define LENGTH_OF(array) (sizeof(array) / sizeof((array)[0]))

/* The most fields ever counted: more only need to be known to be too many. */
#define FIELDS_MAX 7

static bool parse_trimmed(Parser *parser);
static bool is_after(const Parser *parser);
static bool parse_at_sign(Parser *parser);
static bool parse_nickname(Parser *parser, size_t word_end);
static bool refuse_nickname(const Parser *parser, size_t word_end);
static bool parse_seconds(Parser *parser, bool *decided);
static bool refuse_seconds(const Parser *parser, bool huge, int64_t seconds);
static bool refuse_spaces(const Parser *parser);
static bool parse_pattern(Parser *parser);
static int	split_fields(const Parser *parser, FieldSpan *spans);
static bool refuse_count(const Parser *parser, int count);
static bool would_parse(const Parser *parser, bool (*parse) (Parser *));
static void move_hash_star(Schedule *schedule);
static void drop_redundant(Schedule *schedule);

bool
clockwork_schedule_parse(const char *text, size_t length,
						 const char *hash_key, size_t hash_key_length,
						 Schedule *schedule, ScheduleReport *report)
{
	Parser		parser;

	parser.text = text;
	parser.at = 0;
	parser.end = length;
	parser.hash_key = hash_key;
	parser.hash_key_length = hash_key == NULL ? 0 : hash_key_length;
	parser.schedule = schedule;
	parser.report = report;

	memset(schedule, 0, sizeof(*schedule));
	report->detail[0] = report->hint[0] = report->notice[0] = '\0';
	report->notice_detail[0] = report->notice_hint[0] = '\0';
	report->fields = 0;

	if (length > SCHEDULE_TEXT_MAX)
	{
		TextSink	detail = write_detail(&parser);

		sink_text(&detail, "The text has ");
		sink_number(&detail, (int64_t) length);
		sink_text(&detail, " bytes; at most ");
		sink_number(&detail, SCHEDULE_TEXT_MAX);
		sink_text(&detail, " are accepted.");
		return false;
	}
	if (parse_trimmed(&parser))
		return true;

	/* What was remarked before the mistake is of no interest any more. */
	report->notice[0] = report->notice_detail[0] = report->notice_hint[0] = '\0';
	return false;
}

static bool
parse_trimmed(Parser *parser)
{
	bool		decided = false;
	bool		accepted;

	while (parser->at < parser->end && is_space(parser->text[parser->at]))
		parser->at++;
	while (parser->at < parser->end && is_space(parser->text[parser->end - 1]))
		parser->end--;

	if (at_end(parser))
	{
		TextSink	detail = write_detail(parser);
		TextSink	hint = write_hint(parser);

		sink_text(&detail, "The text is empty.");
		sink_text(&hint, "Write a cron expression such as \"0 3 * * *\", a nickname such as "
				  "\"@daily\", or an interval such as \"30 seconds\".");
		return false;
	}
	if (is_after(parser))
	{
		/* Names may hold any space. */
		parser->at += strlen("@after");
		return clockwork_schedule_parse_after(parser);
	}
	if (!refuse_spaces(parser))
		return false;
	if (peek(parser) == '@')
		return parse_at_sign(parser);
	accepted = parse_seconds(parser, &decided);
	if (decided)
		return accepted;
	return parse_pattern(parser);
}

/* "@after", followed by a blank, a quote or nothing. */
static bool
is_after(const Parser *parser)
{
	const char *text = parser->text + parser->at;
	size_t		length = parser->end - parser->at;

	return length >= 6 && memcmp(text, "@after", 6) == 0 &&
		(length == 6 || is_space(text[6]) || text[6] == '"');
}

/*
 * Say of spaces that are no separators what they are, before anything is
 * counted.  False if there is one.
 */
static bool
refuse_spaces(const Parser *parser)
{
	size_t		at;

	for (at = parser->at; at < parser->end; at++)
		if (!clockwork_schedule_refuse_space(parser, at))
			return false;
	return true;
}

bool
clockwork_schedule_refuse_space(const Parser *parser, size_t at)
{
	const unsigned char *c = (const unsigned char *) parser->text + at;
	size_t		left = parser->end - at;
	const char *what = NULL;
	TextSink	detail;

	if (left == 0 || (*c >= 0x20 && *c < 0x80))
		return true;
	if (*c >= '\n' && *c <= '\r')
		what = "a line break";
	else if (left >= 2 && c[0] == 0xc2 && c[1] == 0xa0)
		what = "a no-break space";
	else if (left >= 3 && c[0] == 0xe2 && c[1] == 0x80 &&
			 (c[2] <= 0x8b || c[2] == 0xa8 || c[2] == 0xa9 || c[2] == 0xaf))
		what = "a Unicode space";
	else if (left >= 3 && ((c[0] == 0xe3 && c[1] == 0x80 && c[2] == 0x80) ||
						   (c[0] == 0xef && c[1] == 0xbb && c[2] == 0xbf)))
		what = "a Unicode space";
	if (what == NULL)
		return true;

	detail = write_detail_at(parser, at);
	sink_text(&detail, what);
	sink_text(&detail, " cannot be part of a schedule; fields are separated by spaces or tabs.");
	return false;
}

static bool
parse_at_sign(Parser *parser)
{
	size_t		start = parser->at;
	size_t		word_end = start;

	while (word_end < parser->end && !is_blank(parser->text[word_end]))
		word_end++;

	if (word_end - start == 6 && memcmp(parser->text + start, "@every", 6) == 0)
	{
		parser->at = word_end;
		return clockwork_schedule_parse_interval(parser);
	}
	if (word_end - start == 3 && memcmp(parser->text + start, "@at", 3) == 0)
	{
		parser->at = word_end;
		return clockwork_schedule_parse_timestamp(parser);
	}
	return parse_nickname(parser, word_end);
}

static bool
parse_nickname(Parser *parser, size_t word_end)
{
	size_t		length = word_end - parser->at;
	size_t		i;

	for (i = 0; i < LENGTH_OF(nicknames); i++)
	{
		Parser		inner = *parser;

		if (strlen(nicknames[i].name) != length ||
			memcmp(parser->text + parser->at, nicknames[i].name, length) != 0)
			continue;
		if (word_end < parser->end)
		{
			TextSink	detail;

			while (is_blank(parser->text[word_end]))
				word_end++;
			detail = write_detail_at(parser, word_end);
			sink_text(&detail, "nothing may follow \"");
			sink_text(&detail, nicknames[i].name);
			sink_text(&detail, "\".");
			return false;
		}
		if (nicknames[i].pattern == NULL)
		{
			parser->schedule->kind = SCHEDULE_REBOOT;
			return true;
		}
		inner.text = nicknames[i].pattern;
		inner.at = 0;
		inner.end = strlen(inner.text);
		(void) parse_pattern(&inner);
		parser->report->fields = 0;
		return true;
	}
	return refuse_nickname(parser, word_end);
}

static bool
refuse_nickname(const Parser *parser, size_t word_end)
{
	TextSink	detail = write_detail(parser);
	TextSink	hint = write_hint(parser);
	size_t		i;

	sink_text(&detail, "Unknown nickname ");
	sink_quote(&detail, parser->text + parser->at, word_end - parser->at);
	sink_char(&detail, '.');

	for (i = 0; i < LENGTH_OF(nicknames); i++)
	{
		if (!is_word(parser, parser->at, word_end, nicknames[i].name))
			continue;
		sink_text(&hint, "Nicknames are lower case: \"");
		sink_text(&hint, nicknames[i].name);
		sink_text(&hint, "\".");
		return false;
	}
	if (is_word(parser, parser->at, word_end, "@every") ||
		is_word(parser, parser->at, word_end, "@at") ||
		is_word(parser, parser->at, word_end, "@after"))
	{
		sink_text(&hint, "Nicknames are lower case: \"");
		for (i = parser->at; i < word_end; i++)
			sink_char(&hint, to_lower(parser->text[i]));
		sink_text(&hint, "\".");
		return false;
	}
	for (i = 0; i < LENGTH_OF(foreign_nicknames); i++)
	{
		if (!is_word(parser, parser->at, word_end, foreign_nicknames[i].name))
			continue;
		sink_text(&hint, "Write \"");
		sink_text(&hint, foreign_nicknames[i].ours);
		sink_text(&hint, "\".");
		return false;
	}
	sink_text(&hint, "Nicknames are ");
	for (i = 0; i < LENGTH_OF(nicknames); i++)
	{
		sink_text(&hint, nicknames[i].name);
		sink_text(&hint, ", ");
	}
	sink_text(&hint, "\"@every <interval>\", \"@at <timestamp>\" and \"@after <jobs>\".");
	return false;
}

/*
 * "N second" and "N seconds", in any case, with or without a blank.  *decided
 * stays false if the text is something else.
 */
static bool
parse_seconds(Parser *parser, bool *decided)
{
	size_t		at = parser->at;
	int64_t		seconds = 0;
	bool		is_signed = peek(parser) == '+' || peek(parser) == '-';
	bool		negative = peek(parser) == '-';
	bool		huge = false;
	size_t		first_digit;

	if (is_signed)
		at++;
	first_digit = at;
	for (; at < parser->end && is_digit(parser->text[at]); at++)
	{
		if (seconds < INT64_C(100000000000000))
			seconds = seconds * 10 + (parser->text[at] - '0');
		else
			huge = true;
	}
	if (at == first_digit)
		return false;
	while (at < parser->end && is_blank(parser->text[at]))
		at++;
	if (!is_word(parser, at, parser->end, "second") &&
		!is_word(parser, at, parser->end, "seconds"))
		return false;

	*decided = true;
	if (is_signed || huge || seconds < 1 || seconds > 59)
		return refuse_seconds(parser, huge || negative, seconds);
	parser->schedule->kind = SCHEDULE_INTERVAL;
	parser->schedule->microseconds = seconds * US_PER_SECOND;
	return true;
}

static bool
refuse_seconds(const Parser *parser, bool huge, int64_t seconds)
{
	TextSink	detail = write_detail(parser);
	TextSink	hint = write_hint(parser);

	sink_text(&detail, "An interval in seconds must be between 1 and 59.");
	if (huge || seconds < 1 || seconds > INT64_C(3155760000))
		return false;

	sink_text(&hint, seconds < 60 ? "Write \"" : "Write \"@every ");
	sink_number(&hint, seconds);
	sink_text(&hint, seconds == 1 ? " second\"" : " seconds\"");
	if (seconds == 60)
		sink_text(&hint, " or \"* * * * *\"");
	else if (seconds == 3600)
		sink_text(&hint, " or \"0 * * * *\"");
	else if (seconds > 60 && 3600 % seconds == 0 && seconds % 60 == 0)
	{
		sink_text(&hint, " or \"*/");
		sink_number(&hint, seconds / 60);
		sink_text(&hint, " * * * *\"");
	}
	sink_char(&hint, '.');
	return false;
}

static bool
parse_pattern(Parser *parser)
{
	FieldSpan	spans[FIELDS_MAX];
	Schedule   *schedule = parser->schedule;
	int			count = split_fields(parser, spans);
	int			i;

	if (count < 5 || count > 7)
		return refuse_count(parser, count);

	schedule->kind = SCHEDULE_CALENDAR;
	if (count == 5)
		schedule->second = 1;
	if (count < 7)
	{
		memset(schedule->year, 0xff, sizeof(schedule->year));
		schedule->year[7] = (UINT32_C(1) << (YEAR_COUNT - 7 * 32)) - 1;
	}
	for (i = 0; i < count; i++)
	{
		spans[i].number = i + 1;
		spans[i].name = (FieldName) (count == 5 ? i + 1 : i);
		if (!clockwork_schedule_parse_field(parser, &spans[i]))
			return false;
	}
	parser->report->fields = count;
	move_hash_star(schedule);
	drop_redundant(schedule);
	return true;
}

/* How many fields there are; the first seven are described in `spans`. */
static int
split_fields(const Parser *parser, FieldSpan *spans)
{
	size_t		at = parser->at;
	int			count = 0;

	while (at < parser->end)
	{
		size_t		start = at;

		while (at < parser->end && !is_blank(parser->text[at]))
			at++;
		if (count < FIELDS_MAX)
		{
			spans[count].start = start;
			spans[count].end = at;
		}
		count++;
		while (at < parser->end && is_blank(parser->text[at]))
			at++;
	}
	return count;
}

static bool
refuse_count(const Parser *parser, int count)
{
	TextSink	detail = write_detail(parser);
	TextSink	hint = write_hint(parser);
	const char *head = NULL;

	sink_text(&detail, "Found ");
	sink_number(&detail, count);
	sink_text(&detail, count == 1 ? " field" : " fields");
	sink_text(&detail, "; a cron expression has 5 (minute hour day month weekday), "
			  "6 (with seconds first) or 7 (with year last).");

	if (count > 3)
		return false;
	if (!is_digit(parser->text[parser->end - 1]) &&
		would_parse(parser, clockwork_schedule_parse_interval))
		head = "@every ";
	else if (would_parse(parser, clockwork_schedule_parse_timestamp))
		head = "@at ";
	if (head != NULL)
	{
		sink_text(&hint, "Write \"");
		sink_text(&hint, head);
		sink_input(&hint, parser->text + parser->at, parser->end - parser->at);
		sink_text(&hint, "\".");
	}
	return false;
}

static bool
would_parse(const Parser *parser, bool (*parse) (Parser *))
{
	Parser		trial = *parser;
	Schedule	schedule;
	ScheduleReport report;

	memset(&schedule, 0, sizeof(schedule));
	trial.schedule = &schedule;
	trial.report = &report;
	return parser->end - parser->at <= QUOTE_MAX && parse(&trial);
}

/*
 * "H/15" follows elapsed time as a step after a star does, but its values can be written
 * with a leading star only if they include 0.  What matters is that one of the
 * three fields has the star: let one carry it that can show it.
 */
static void
move_hash_star(Schedule *schedule)
{
	uint32_t	hidden = 0;

	if ((schedule->flags & FLAG_MINUTE_STAR) != 0 && (schedule->minute & 1) == 0)
		hidden |= FLAG_MINUTE_STAR;
	if ((schedule->flags & FLAG_HOUR_STAR) != 0 && (schedule->hour & 1) == 0)
		hidden |= FLAG_HOUR_STAR;
	if (hidden == 0)
		return;

	schedule->flags &= ~hidden;
	if ((schedule->flags & FLAGS_WILDCARD) != 0)
		return;
	if ((schedule->minute & 1) != 0)
		schedule->flags |= FLAG_MINUTE_STAR;
	else if ((schedule->hour & 1) != 0)
		schedule->flags |= FLAG_HOUR_STAR;
	else if ((schedule->second & 1) != 0)
		schedule->flags |= FLAG_SECOND_STAR;
	else
		schedule->flags |= FLAG_MINUTE_STAR;	/* schedule_format.c knows */
}

/* What was said twice is kept once, so that equal schedules have equal bytes. */
static void
drop_redundant(Schedule *schedule)
{
	int			day;

	if ((schedule->flags & (FLAG_DAY_STAR | FLAG_WEEKDAY_STAR)) != 0)
		schedule->flags &= ~(uint32_t) FLAG_BOTH_DAYS;
	if (schedule->day == ALL_DAYS)
		schedule->day_from_last = 0;
	for (day = 0; day < 7; day++)
		if ((schedule->weekday >> day & 1) != 0)
			schedule->weekday_nth &= ~(UINT64_C(0x3f) << (6 * day));
}
