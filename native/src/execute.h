/*
 * Running a command the way `psql -c` would.
 */
#ifndef CLOCKWORK_EXECUTE_H
#define CLOCKWORK_EXECUTE_H

#include "tcop/cmdtag.h"

/* How far a command has got, and what its last completed statement reported. */
typedef struct ExecuteResult
{
	CommandTag	tag;			/* CMDTAG_UNKNOWN: no statement completed */
	uint64		rows;			/* processed, where the tag counts rows */
	bool		has_rows;
	bool		left_open;		/* the command ended inside a transaction block,
								 * which was rolled back */
	bool		is_plain;		/* see clockwork_execute_is_plain */
	bool		is_last;		/* the last statement has done its work */
	bool		is_committed;	/* and its transaction is committed */
	uint32		transactions;	/* how many have ended so far */
} ExecuteResult;

/*
 * Called when the last statement has done its work and its transaction is
 * still open, right before it is committed; not if the command itself says
 * where that transaction ends.  An error fails the command.
 */
typedef void (*BeforeCommit) (const ExecuteResult *result);

/*
 * Run all statements of `command` in this session, outside any transaction.
 *
 * Several statements form one implicit transaction, which explicit BEGIN,
 * COMMIT and ROLLBACK divide; each statement has its own statement_timeout;
 * result rows are discarded.  `result` is kept up to date as statements and
 * transactions complete, until the next call.  Errors are raised; the caller
 * catches them and ends the transaction.  Everything allocated is in the
 * current memory context, which must outlive the transactions of the command.
 */
extern void clockwork_execute(const char *command, ExecuteResult *result,
							  BeforeCommit before_commit);

/*
 * Is it sure, by its text alone, that a command runs in one transaction?
 * Needs a transaction; raises an error if the command cannot be parsed.
 */
extern bool clockwork_execute_is_plain(const char *command);

#endif							/* CLOCKWORK_EXECUTE_H */
