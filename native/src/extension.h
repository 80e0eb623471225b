/*
 * The extension in this database: is it there, whose are its tables, and how
 * to run SQL on them that nobody can bend.
 */
#ifndef CLOCKWORK_EXTENSION_H
#define CLOCKWORK_EXTENSION_H

/* The version of this library, and of the SQL that belongs to it. */
#ifndef CLOCKWORK_VERSION
#define CLOCKWORK_VERSION "0.1.0"
#endif

typedef struct ExtensionObjects
{
	Oid			job;			/* cron.job */
	Oid			job_run_details;	/* cron.job_run_details */
	Oid			record_backlog; /* cron.record_backlog */
	Oid			owner;			/* of both tables */
} ExtensionObjects;

/*
 * Find the extension's tables.  False if the extension is not installed in
 * this database, or its tables are not there.  Needs a transaction.  Once found,
 * they are looked for again when one of them has changed; that a table is no
 * member of the extension any more (ALTER EXTENSION ... DROP TABLE) is not noticed.
 */
extern bool clockwork_extension_find(ExtensionObjects *objects);

/*
 * The same, raising an error with advice if it is not installed, or is of a
 * version that this library does not work with.
 */
extern void clockwork_extension_require(ExtensionObjects *objects);

/*
 * The version of the installed SQL, if this library does not work with it;
 * NULL if it does, or if the extension is not installed.  Needs a transaction.
 */
extern char *clockwork_extension_find_wrong_version(void);

/* What to do about a wrong version: advice for people. */
extern const char *clockwork_extension_version_hint(const char *version);

/* What clockwork_extension_enter changed, for clockwork_extension_leave. */
typedef struct ExtensionSection
{
	Oid			saved_user;
	int			saved_security;
	int			saved_guc_level;
	bool		has_untrusted;	/* a trigger that must not fire */
	bool		has_deferrable; /* a trigger that wants to fire at commit */
} ExtensionSection;

/*
 * Between enter and leave, SQL runs through SPI (which these open and close)
 * with the rights of the tables' owner, as a restricted operation, and with
 * search_path pinned to pg_catalog: nothing is looked up where a user could
 * have put something.  Triggers whose functions belong to neither the tables'
 * owner nor a superuser would have those rights too: while there is one on a
 * table of ours, no ordinary trigger fires.  An error in between is undone by
 * the abort of the (sub)transaction.
 */
extern void clockwork_extension_enter(ExtensionSection *section, Oid owner);
extern void clockwork_extension_leave(ExtensionSection *section);

/*
 * From here on the transactions of this process are its own, not a user's:
 * triggers on our tables that are deferred fire at once in its sections, with
 * their rights.  In a user's transaction the server refuses them.
 */
extern void clockwork_extension_own_transactions(void);

#endif							/* CLOCKWORK_EXTENSION_H */
