/*
 * What the files of the parser share.
 *
 * schedule_parse.c tells the kinds of schedule apart, schedule_field.c reads
 * the fields of a cron expression, schedule_elapsed.c reads intervals and
 * timestamps, schedule_after.c the jobs of @after.  Each stops at the first mistake, with the report written.
 */
#ifndef CLOCKWORK_CORE_SCHEDULE_PARSE_H
#define CLOCKWORK_CORE_SCHEDULE_PARSE_H

#include "schedule.h"
#include "schedule_text.h"

typedef enum FieldName
{
	FIELD_SECOND,
	FIELD_MINUTE,
	FIELD_HOUR,
	FIELD_DAY,
	FIELD_MONTH,
	FIELD_WEEKDAY,
	FIELD_YEAR
} FieldName;

typedef struct Parser
{
	const char *text;			/* the whole input, untrimmed */
	size_t		at;				/* the next byte to read */
	size_t		end;			/* of the part being read */
	const char *hash_key;
	size_t		hash_key_length;
	Schedule   *schedule;
	ScheduleReport *report;
} Parser;

/* Where a field lies in the text, and which one it is. */
typedef struct FieldSpan
{
	size_t		start;
	size_t		end;
	int			number;			/* as the user counts: from 1 */
	FieldName	name;
} FieldSpan;

static inline bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static inline bool
is_letter(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static inline bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* What may stand around a schedule. */
static inline bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static inline char
to_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char) (c + ('a' - 'A')) : c;
}

/* The byte at the cursor, or NUL at the end; a NUL in the text fits nothing. */
static inline char
peek(const Parser *parser)
{
	return parser->at < parser->end ? parser->text[parser->at] : '\0';
}

static inline bool
at_end(const Parser *parser)
{
	return parser->at >= parser->end;
}

/* Is the text [start, end) this lower-case word, in any case? */
static inline bool
is_word(const Parser *parser, size_t start, size_t end, const char *word)
{
	for (; start < end && *word != '\0'; start++, word++)
		if (to_lower(parser->text[start]) != *word)
			return false;
	return start == end && *word == '\0';
}

/* The position of a byte as people count: characters, from 1. */
static inline int
character_number(const Parser *parser, size_t at)
{
	int			number = 1;
	size_t		i;

	for (i = 0; i < at; i++)
		if (((unsigned char) parser->text[i] & 0xc0) != 0x80)
			number++;
	return number;
}

static inline TextSink
write_hint(const Parser *parser)
{
	return sink_open(parser->report->hint, sizeof(parser->report->hint));
}

/* Start a detail about the text as a whole. */
static inline TextSink
write_detail(const Parser *parser)
{
	return sink_open(parser->report->detail, sizeof(parser->report->detail));
}

/* Start a detail about the byte at `at`. */
static inline TextSink
write_detail_at(const Parser *parser, size_t at)
{
	TextSink	detail = write_detail(parser);

	sink_text(&detail, "Character ");
	sink_number(&detail, character_number(parser, at));
	sink_text(&detail, ": ");
	return detail;
}

/*
 * schedule_parse.c: line breaks and the many spaces of Unicode look like
 * separators and are none.  False, with the report written, if one stands at
 * `at`.
 */
extern bool clockwork_schedule_refuse_space(const Parser *parser, size_t at);

/* schedule_field.c */
extern bool clockwork_schedule_parse_field(Parser *parser, const FieldSpan *span);

/* schedule_elapsed.c: the text from the cursor to the end */
extern bool clockwork_schedule_parse_interval(Parser *parser);
extern bool clockwork_schedule_parse_timestamp(Parser *parser);

/* schedule_after.c: likewise */
extern bool clockwork_schedule_parse_after(Parser *parser);

#endif							/* CLOCKWORK_CORE_SCHEDULE_PARSE_H */
