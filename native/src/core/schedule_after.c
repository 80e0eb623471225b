/*
 * "@after": the jobs whose runs a schedule waits for.
 *
 * A parent is a name in double quotes, a quote inside doubled, and what its
 * run must have done: succeeded (said or not), failed or finished.  Commas
 * separate parents, and all of them count.  A Schedule has no room for names:
 * it keeps how many there are, their conditions and a hash of the text, and
 * whoever wants the names walks the text that was parsed.
 */
#include "schedule_parse.h"

static const char *const condition_words[] = {"succeeded", "failed", "finished"};

/* What people write instead of our conditions. */
static const struct
{
	const char *word;
	ScheduleCondition condition;
}			other_words[] =
{
	{"success", SCHEDULE_SUCCEEDED},
	{"succeeds", SCHEDULE_SUCCEEDED},
	{"ok", SCHEDULE_SUCCEEDED},
	{"failure", SCHEDULE_FAILED},
	{"fails", SCHEDULE_FAILED},
	{"error", SCHEDULE_FAILED},
	{"finishes", SCHEDULE_FINISHED},
	{"ended", SCHEDULE_FINISHED},
	{"ends", SCHEDULE_FINISHED},
	{"done", SCHEDULE_FINISHED},
	{"complete", SCHEDULE_FINISHED},
	{"completed", SCHEDULE_FINISHED},
	{"completes", SCHEDULE_FINISHED},
	{"always", SCHEDULE_FINISHED}
};

#define LENGTH_OF(array) (sizeof(array) / sizeof((array)[0]))

/* FNV-1a, 64 bits. */
#define HASH_START UINT64_C(0xcbf29ce484222325)
#define HASH_PRIME UINT64_C(0x100000001b3)

static bool fits(const Parser *parser);
static bool parse_parent(Parser *parser, ScheduleParent *parent);
static bool parse_name(Parser *parser, ScheduleParent *parent);
static bool refuse_name(const Parser *parser);
static bool parse_condition(Parser *parser, ScheduleParent *parent);
static bool refuse_condition(const Parser *parser, size_t end);
static bool parse_separator(Parser *parser);
static bool refuse_twice(const Parser *parser, const ScheduleParent *parent);
static size_t find_word_end(const Parser *parser, size_t at);
static void skip_blanks(Parser *parser);
static uint64_t hash_bytes(uint64_t hash, const char *bytes, size_t count);
static bool same_name(const ScheduleParent *a, const ScheduleParent *b);

/* The text after "@after", from the cursor to the end. */
bool
clockwork_schedule_parse_after(Parser *parser)
{
	Schedule   *schedule = parser->schedule;
	ScheduleParent parent;

	schedule->kind = SCHEDULE_AFTER;
	schedule->parents = HASH_START;
	do
	{
		size_t		start = parser->at;

		if (!parse_parent(parser, &parent))
			return false;
		if (schedule->parent_count >= SCHEDULE_PARENTS_MAX)
		{
			TextSink	detail = write_detail_at(parser, start);

			sink_text(&detail, "a schedule can name ");
			sink_number(&detail, SCHEDULE_PARENTS_MAX);
			sink_text(&detail, " jobs at most.");
			return false;
		}
		if (!refuse_twice(parser, &parent))
			return false;
		schedule->parents = hash_bytes(schedule->parents, parent.name, parent.length);
		schedule->parents = hash_bytes(schedule->parents, condition_words[parent.condition], 2);
		schedule->parent_count++;
		if (at_end(parser))
			return fits(parser);
	} while (parse_separator(parser));
	return false;
}

/* The normalised text, which may be longer, must be a schedule too. */
static bool
fits(const Parser *parser)
{
	TextSink	detail;

	if (clockwork_schedule_format(parser->schedule, parser->text, parser->end, NULL, 0) <=
		SCHEDULE_TEXT_MAX)
		return true;
	detail = write_detail(parser);
	sink_text(&detail, "The names are too long together.");
	return false;
}

bool
clockwork_schedule_next_parent(const char *text, size_t length, size_t *position,
							   ScheduleParent *parent)
{
	Schedule	schedule;
	ScheduleReport report;
	Parser		parser;

	parser.text = text;
	parser.at = *position;
	parser.end = length;
	parser.hash_key = NULL;
	parser.hash_key_length = 0;
	parser.schedule = &schedule;
	parser.report = &report;

	while (parser.end > 0 && is_space(text[parser.end - 1]))
		parser.end--;
	if (parser.at == 0)
	{
		while (parser.at < parser.end && is_space(text[parser.at]))
			parser.at++;
		parser.at += strlen("@after");
	}
	if (parser.at >= parser.end || !parse_parent(&parser, parent))
		return false;
	if (!at_end(&parser))
		parser.at++;			/* the comma */
	*position = parser.at;
	return true;
}

size_t
clockwork_schedule_parent_name(const ScheduleParent *parent, char *buffer, size_t size)
{
	TextSink	sink = sink_open(buffer, size);
	size_t		i;

	for (i = 0; i < parent->length; i++)
	{
		sink_char(&sink, parent->name[i]);
		if (parent->name[i] == '"')
			i++;				/* its double */
	}
	return sink.length;
}

const char *
clockwork_schedule_condition_word(ScheduleCondition condition)
{
	return condition_words[condition];
}

/* One parent, and the blanks after it. */
static bool
parse_parent(Parser *parser, ScheduleParent *parent)
{
	skip_blanks(parser);
	if (!parse_name(parser, parent))
		return false;
	skip_blanks(parser);
	parent->condition = SCHEDULE_SUCCEEDED;
	if (at_end(parser) || peek(parser) == ',')
		return true;
	if (!parse_condition(parser, parent))
		return false;
	skip_blanks(parser);
	return true;
}

static bool
parse_name(Parser *parser, ScheduleParent *parent)
{
	size_t		start = parser->at;
	TextSink	detail;
	TextSink	hint;

	if (peek(parser) != '"')
		return refuse_name(parser);
	parser->at++;
	parent->name = parser->text + parser->at;
	for (; !at_end(parser); parser->at++)
	{
		unsigned char c = (unsigned char) peek(parser);

		if (c < 0x20 || c == 0x7f)
		{
			detail = write_detail_at(parser, parser->at);
			sink_text(&detail, "a name with ");
			sink_quote(&detail, (const char *) &c, 1);
			sink_text(&detail, " in it cannot be waited for.");
			return false;
		}
		if (c != '"')
			continue;
		if (parser->at + 1 < parser->end && parser->text[parser->at + 1] == '"')
		{
			parser->at++;
			continue;
		}
		parent->length = (size_t) (parser->text + parser->at - parent->name);
		parser->at++;
		if (parent->length > 0)
			return true;
		detail = write_detail_at(parser, start);
		sink_text(&detail, "the name is empty.");
		return false;
	}
	detail = write_detail_at(parser, start);
	sink_text(&detail, "the name has no closing quote.");
	hint = write_hint(parser);
	sink_text(&hint, "A quote that is part of a name is written twice.");
	return false;
}

/* There is no name in double quotes where one must be. */
static bool
refuse_name(const Parser *parser)
{
	const unsigned char *c = (const unsigned char *) parser->text + parser->at;
	size_t		end = find_word_end(parser, parser->at);
	size_t		start = parser->at;
	size_t		at;
	TextSink	detail;
	TextSink	hint;

	if (!clockwork_schedule_refuse_space(parser, parser->at))
		return false;
	detail = write_detail_at(parser, parser->at);
	hint = write_hint(parser);
	if (at_end(parser) || *c == ',')
	{
		sink_text(&detail, "a job's name is missing.");
		sink_text(&hint, "Write the name in double quotes: @after \"load\".");
		return false;
	}
	sink_text(&detail, "a job's name must stand in double quotes.");
	if (parser->end - parser->at >= 3 && c[0] == 0xe2 && c[1] == 0x80 &&
		c[2] >= 0x98 && c[2] <= 0x9f)
	{
		sink_text(&hint, "Use straight quotes: @after \"load\".");
		return false;
	}
	if (*c == '\'')
	{
		start++;
		while (end > start && parser->text[end - 1] == '\'')
			end--;
	}
	for (at = start; at < end; at++)
		if ((unsigned char) parser->text[at] >= 0x7f || parser->text[at] < 0x20)
			return false;
	if (end > start && end - start <= QUOTE_MAX)
	{
		sink_text(&hint, "Write ");
		sink_quote(&hint, parser->text + start, end - start);
		sink_char(&hint, '.');
	}
	return false;
}

static bool
parse_condition(Parser *parser, ScheduleParent *parent)
{
	size_t		end = find_word_end(parser, parser->at);
	size_t		i;

	for (i = 0; i < LENGTH_OF(condition_words); i++)
	{
		size_t		length = strlen(condition_words[i]);

		if (end - parser->at != length ||
			memcmp(parser->text + parser->at, condition_words[i], length) != 0)
			continue;
		parent->condition = (ScheduleCondition) i;
		parser->at = end;
		return true;
	}
	return refuse_condition(parser, end);
}

static bool
refuse_condition(const Parser *parser, size_t end)
{
	TextSink	detail;
	TextSink	hint;
	size_t		i;

	if (!clockwork_schedule_refuse_space(parser, parser->at))
		return false;
	detail = write_detail_at(parser, parser->at);
	hint = write_hint(parser);
	if (peek(parser) == '"')
	{
		sink_text(&detail, "a comma must stand between two names.");
		return false;
	}
	sink_text(&detail, "unexpected ");
	sink_quote(&detail, parser->text + parser->at, end - parser->at);
	sink_text(&detail, " after a job's name.");
	if (is_word(parser, parser->at, end, "and") || peek(parser) == '&' ||
		peek(parser) == ';' || peek(parser) == '+')
	{
		sink_text(&hint, "Separate the names by commas: all of the jobs are waited for.");
		return false;
	}
	if (is_word(parser, parser->at, end, "or") || peek(parser) == '|')
	{
		sink_text(&hint, "All of the jobs are waited for; for either of them, use two jobs.");
		return false;
	}
	for (i = 0; i < LENGTH_OF(condition_words); i++)
	{
		if (!is_word(parser, parser->at, end, condition_words[i]))
			continue;
		sink_text(&hint, "Conditions are lower case: \"");
		sink_text(&hint, condition_words[i]);
		sink_text(&hint, "\".");
		return false;
	}
	for (i = 0; i < LENGTH_OF(other_words); i++)
	{
		if (!is_word(parser, parser->at, end, other_words[i].word))
			continue;
		sink_text(&hint, "Write \"");
		sink_text(&hint, condition_words[other_words[i].condition]);
		sink_text(&hint, "\".");
		return false;
	}
	sink_text(&hint, "A condition is \"succeeded\", \"failed\" or \"finished\".");
	return false;
}

static bool
parse_separator(Parser *parser)
{
	TextSink	detail;

	if (peek(parser) == ',')
	{
		parser->at++;
		return true;
	}
	if (!clockwork_schedule_refuse_space(parser, parser->at))
		return false;
	detail = write_detail_at(parser, parser->at);
	if (peek(parser) == '"')
		sink_text(&detail, "a comma must stand between two jobs.");
	else
	{
		sink_text(&detail, "unexpected ");
		sink_quote(&detail, parser->text + parser->at,
				   find_word_end(parser, parser->at) - parser->at);
		sink_text(&detail, " after a condition.");
	}
	return false;
}

/* False, with the report written, if an earlier parent has the same name. */
static bool
refuse_twice(const Parser *parser, const ScheduleParent *parent)
{
	ScheduleParent earlier;
	size_t		position = 0;
	TextSink	detail;

	while (clockwork_schedule_next_parent(parser->text, parser->end, &position, &earlier) &&
		   earlier.name < parent->name)
	{
		if (!same_name(&earlier, parent))
			continue;
		detail = write_detail_at(parser, (size_t) (parent->name - parser->text) - 1);
		sink_text(&detail, "the job ");
		sink_quote(&detail, parent->name, parent->length);
		sink_text(&detail, " is named twice.");
		return false;
	}
	return true;
}

/* The end of what stands at `at`: a word, or one character that is none. */
static size_t
find_word_end(const Parser *parser, size_t at)
{
	size_t		start = at;

	while (at < parser->end && !is_blank(parser->text[at]) && parser->text[at] != ',' &&
		   parser->text[at] != '"')
		at++;
	return at == start && at < parser->end ? at + 1 : at;
}

static void
skip_blanks(Parser *parser)
{
	while (!at_end(parser) && is_blank(peek(parser)))
		parser->at++;
}

static uint64_t
hash_bytes(uint64_t hash, const char *bytes, size_t count)
{
	size_t		i;

	for (i = 0; i < count; i++)
		hash = (hash ^ (unsigned char) bytes[i]) * HASH_PRIME;
	return (hash ^ '"') * HASH_PRIME;
}

static bool
same_name(const ScheduleParent *a, const ScheduleParent *b)
{
	return a->length == b->length && memcmp(a->name, b->name, a->length) == 0;
}
