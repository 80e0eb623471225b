/*
 * Building short texts without allocation.
 *
 * A TextSink counts what it is given and keeps what fits, so a caller learns
 * the full length as from snprintf.  Pieces of user input go through
 * sink_quote, which leaves nothing but printable ASCII.
 */
#ifndef CLOCKWORK_CORE_SCHEDULE_TEXT_H
#define CLOCKWORK_CORE_SCHEDULE_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Input shown in a message is cut after this many bytes. */
#define QUOTE_MAX 40

typedef struct TextSink
{
	char	   *buffer;
	size_t		size;
	size_t		length;			/* given so far, whether it fitted or not */
} TextSink;

static inline void
sink_bytes(TextSink *sink, const char *bytes, size_t count)
{
	if (sink->length + 1 < sink->size)
	{
		size_t		room = sink->size - 1 - sink->length;
		size_t		kept = count < room ? count : room;

		memcpy(sink->buffer + sink->length, bytes, kept);
		sink->buffer[sink->length + kept] = '\0';
	}
	sink->length += count;
}

static inline TextSink
sink_open(char *buffer, size_t size)
{
	TextSink	sink;

	sink.buffer = buffer;
	sink.size = size;
	sink.length = 0;
	if (size > 0)
		buffer[0] = '\0';
	return sink;
}

static inline void
sink_text(TextSink *sink, const char *text)
{
	sink_bytes(sink, text, strlen(text));
}

static inline void
sink_char(TextSink *sink, char c)
{
	sink_bytes(sink, &c, 1);
}

/* `value` in decimal, with leading zeros up to `width` digits. */
static inline void
sink_padded(TextSink *sink, int64_t value, int width)
{
	char		digits[24];
	int			at = (int) sizeof(digits);
	uint64_t	rest = value < 0 ? 0 - (uint64_t) value : (uint64_t) value;

	while (rest > 0 || width > 0 || at == (int) sizeof(digits))
	{
		digits[--at] = (char) ('0' + rest % 10);
		rest /= 10;
		width--;
	}
	if (value < 0)
		digits[--at] = '-';
	sink_bytes(sink, digits + at, sizeof(digits) - (size_t) at);
}

static inline void
sink_number(TextSink *sink, int64_t value)
{
	sink_padded(sink, value, 0);
}

/* Input bytes: printable ASCII as it is, anything else as \xNN. */
static inline void
sink_input(TextSink *sink, const char *bytes, size_t count)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t		shown = count > QUOTE_MAX ? QUOTE_MAX : count;
	size_t		i;

	for (i = 0; i < shown; i++)
	{
		unsigned char c = (unsigned char) bytes[i];

		if (c >= 0x20 && c < 0x7f)
			sink_char(sink, (char) c);
		else
		{
			sink_text(sink, "\\x");
			sink_char(sink, hex[c >> 4]);
			sink_char(sink, hex[c & 15]);
		}
	}
	if (shown < count)
		sink_text(sink, "...");
}

static inline void
sink_quote(TextSink *sink, const char *bytes, size_t count)
{
	sink_char(sink, '"');
	sink_input(sink, bytes, count);
	sink_char(sink, '"');
}

#endif							/* CLOCKWORK_CORE_SCHEDULE_TEXT_H */
