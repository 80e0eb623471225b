/*
 * The launcher's session: its settings, its transactions, and the ways out: of
 * an error, and of the process.
 */
#ifndef CLOCKWORK_SESSION_H
#define CLOCKWORK_SESSION_H

/* Bookkeeping does not wait longer than this for a lock. */
#define SESSION_LOCK_TIMEOUT "200ms"

/* Nor longer than this for what failed before, or can wait. */
#define SESSION_LOCK_TIMEOUT_SHORT "50ms"

/* A transaction may take this long before it is given up for the launcher's end. */
#define SESSION_PATIENCE_MS 2000

/* Set a configuration parameter of this session, if this server has it. */
extern void clockwork_session_set(const char *name, const char *value);

/*
 * The launcher's session must not inherit what ALTER DATABASE, ALTER ROLE or
 * the configuration file say for ordinary sessions.
 */
extern void clockwork_session_harden(void);

/*
 * From now on, SIGTERM does not end the process in the middle of a transaction
 * that is at most SESSION_PATIENCE_MS old: the loop asks for it in between.
 */
extern void clockwork_session_take_termination(void);

/* Has SIGTERM come since then? */
extern bool clockwork_session_is_told_to_end(void);

extern void clockwork_session_begin(void);
extern void clockwork_session_commit(void);

/* A transaction that does nothing else. */
extern void clockwork_session_take_in_invalidations(void);

/* When the last transaction began: monotonic, microseconds. */
extern int64 clockwork_session_last_transaction(void);

/*
 * In PG_CATCH: end the transaction, log the error unless it is to be quiet,
 * and return its SQLSTATE, with `context` as the current memory context.
 */
extern int	clockwork_session_recover(MemoryContext context, bool quiet);

#endif							/* CLOCKWORK_SESSION_H */
