/*
 * The extension in this database: is it there, whose are its tables, and how
 * to run SQL on them that nobody can bend.
 */
#ifndef CLOCKWORK_EXTENSION_H
#define CLOCKWORK_EXTENSION_H

#define CLOCKWORK_VERSION "0.1.0"

typedef struct ExtensionObjects
{
	Oid			job;			/* cron.job */
	Oid			job_run_details;	/* cron.job_run_details */
	Oid			owner;			/* of both tables */
} ExtensionObjects;

/*
 * Find the extension's tables.  False if the extension is not installed in
 * this database, or its tables are not there.  Needs a transaction.
 */
extern bool clockwork_extension_find(ExtensionObjects *objects);

/* The same, raising an error with advice if it is not installed. */
extern void clockwork_extension_require(ExtensionObjects *objects);

/* What clockwork_extension_enter changed, for clockwork_extension_leave. */
typedef struct ExtensionSection
{
	Oid			saved_user;
	int			saved_security;
	int			saved_guc_level;
} ExtensionSection;

/*
 * Between enter and leave, SQL runs through SPI (which these open and close)
 * with the rights of the tables' owner, as a restricted operation, and with
 * search_path pinned to pg_catalog: nothing is looked up where a user could
 * have put something.  An error in between is undone by the abort of the
 * (sub)transaction.
 */
extern void clockwork_extension_enter(ExtensionSection *section, Oid owner);
extern void clockwork_extension_leave(ExtensionSection *section);

#endif							/* CLOCKWORK_EXTENSION_H */
