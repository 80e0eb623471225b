/*
 * Inserting rows together: what many of them write to the write-ahead log is
 * shared.
 */
#ifndef CLOCKWORK_BULK_INSERT_H
#define CLOCKWORK_BULK_INSERT_H

#define BULK_COLUMNS_MAX 24

/* The values of a row, as SPI takes them. */
typedef struct BulkRow
{
	int			count;
	Datum		values[BULK_COLUMNS_MAX];
	char		nulls[BULK_COLUMNS_MAX];	/* 'n' for NULL */
} BulkRow;

/*
 * Can rows be inserted into the table this way, each of them for sure?  Not past
 * rules, nor past triggers that may keep a row out.  Needs a transaction.
 */
extern bool clockwork_bulk_insert_is_possible(Oid table);

/*
 * Insert the rows, each with values for these columns, which have these types:
 * int8, int4, text or timestamptz.  Defaults, generated columns, indexes,
 * constraints and triggers are as in any INSERT.  The texts of all rows together
 * must have less than 1 GB.  Needs a transaction, whose next command sees the
 * rows, and a client encoding that is the server's.
 */
extern void clockwork_bulk_insert(Oid table, const char *const *columns, const Oid *types,
								  const BulkRow *rows, int nrows);

#endif							/* CLOCKWORK_BULK_INSERT_H */
