/*
 * Running a command the way `psql -c` would.
 */
#ifndef CLOCKWORK_EXECUTE_H
#define CLOCKWORK_EXECUTE_H

#include "tcop/cmdtag.h"

/* What the last completed statement of a command reported. */
typedef struct ExecuteResult
{
	CommandTag	tag;			/* CMDTAG_UNKNOWN: no statement completed */
	uint64		rows;			/* processed, where the tag counts rows */
	bool		has_rows;
	bool		left_open;		/* the command ended inside a transaction block,
								 * which was rolled back */
} ExecuteResult;

/*
 * Run all statements of `command` in this session, outside any transaction.
 *
 * Several statements form one implicit transaction, which explicit BEGIN,
 * COMMIT and ROLLBACK divide; each statement has its own statement_timeout;
 * result rows are discarded.  `result` is kept up to date as statements
 * complete.  Errors are raised; the caller catches them and ends the
 * transaction.  Everything allocated is in the current memory context, which
 * must outlive the transactions of the command.
 */
extern void clockwork_execute(const char *command, ExecuteResult *result);

#endif							/* CLOCKWORK_EXECUTE_H */
