/*
 * Inserting rows together.
 *
 * Every INSERT writes a record of its own to the write-ahead log for each row,
 * a third of it headers.  COPY puts all rows of a page into one.  So this is a
 * COPY that reads from memory, in its binary format: what it does to triggers,
 * defaults and indexes is the server's own doing.
 */
#include "postgres.h"

#include "compat.h"
#include "bulk_insert.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/copy.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "nodes/makefuncs.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* The format of COPY BINARY: signature, flags, length of an extension; -1 at the end. */
static const char header[] = "PGCOPY\n\377\r\n\0" "\0\0\0\0" "\0\0\0\0";

/* What COPY reads from.  Its callback has no argument. */
static StringInfo source = NULL;

static int
read_source(void *buffer, int least, int most)
{
	int			count = Min(most, source->len - source->cursor);

	memcpy(buffer, source->data + source->cursor, count);
	source->cursor += count;
	return count;
}

static void
send_value(StringInfo out, Oid type, Datum value)
{
	text	   *words;

	switch (type)
	{
		case INT4OID:
			pq_sendint32(out, 4);
			pq_sendint32(out, DatumGetInt32(value));
			break;
		case INT8OID:
		case TIMESTAMPTZOID:	/* microseconds, like int8 */
			pq_sendint32(out, 8);
			pq_sendint64(out, DatumGetInt64(value));
			break;
		case TEXTOID:
			words = DatumGetTextPP(value);
			pq_sendint32(out, VARSIZE_ANY_EXHDR(words));
			appendBinaryStringInfo(out, VARDATA_ANY(words), VARSIZE_ANY_EXHDR(words));
			break;
		default:
			elog(ERROR, "cannot insert values of type %u together", type);
	}
}

static void
send_rows(StringInfo out, const Oid *types, const BulkRow *rows, int nrows)
{
	appendBinaryStringInfo(out, header, sizeof(header) - 1);
	for (int i = 0; i < nrows; i++)
	{
		pq_sendint16(out, rows[i].count);
		for (int column = 0; column < rows[i].count; column++)
		{
			if (rows[i].nulls[column] == 'n')
				pq_sendint32(out, -1);
			else
				send_value(out, types[column], rows[i].values[column]);
		}
	}
	pq_sendint16(out, -1);
}

bool
clockwork_bulk_insert_is_possible(Oid table)
{
	Relation	relation = table_open(table, RowExclusiveLock);
	const TriggerDesc *triggers = relation->trigdesc;
	bool		is_possible = relation->rd_rules == NULL &&
		(triggers == NULL || !triggers->trig_insert_before_row);

	table_close(relation, NoLock);
	return is_possible;
}

void
clockwork_bulk_insert(Oid table, const char *const *columns, const Oid *types,
					  const BulkRow *rows, int nrows)
{
	StringInfoData data;
	Relation	relation = table_open(table, RowExclusiveLock);
	ParseState *parse_state = make_parsestate(NULL);
	List	   *names = NIL;
	List	   *options = list_make1(makeDefElem("format", (Node *) makeString("binary"), -1));
	CopyFromState copy;

	initStringInfo(&data);
	send_rows(&data, types, rows, nrows);
	source = &data;
	for (int i = 0; i < rows[0].count; i++)
		names = lappend(names, makeString(pstrdup(columns[i])));
	(void) addRangeTableEntryForRelation(parse_state, relation, RowExclusiveLock, NULL, false, false);

	PushActiveSnapshot(GetTransactionSnapshot());
	copy = BeginCopyFrom(parse_state, relation, NULL, NULL, false, read_source, names, options);
	(void) CopyFrom(copy);
	EndCopyFrom(copy);
	PopActiveSnapshot();

	free_parsestate(parse_state);
	table_close(relation, NoLock);
	pfree(data.data);
	CommandCounterIncrement();
}
