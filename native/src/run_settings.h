/*
 * The configuration parameters that a job sets for its runs.
 *
 * They are a JSON object of names and values (strings, numbers, booleans), and
 * are set with the rights of the job's owner, before the command begins.
 */
#ifndef CLOCKWORK_RUN_SETTINGS_H
#define CLOCKWORK_RUN_SETTINGS_H

/* Error unless that role may set all of them, to values that are accepted. */
extern void clockwork_run_settings_check(const char *settings, const char *username);

/*
 * Set them for this session, as its starting values: RESET returns to them.
 * Needs a transaction.  Raises an error for what is not accepted.
 */
extern void clockwork_run_settings_apply(const char *settings);

#endif							/* CLOCKWORK_RUN_SETTINGS_H */
