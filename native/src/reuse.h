/*
 * May this session serve another run, without anybody being able to tell?
 */
#ifndef CLOCKWORK_REUSE_H
#define CLOCKWORK_REUSE_H

/*
 * Begin to watch, before the session connects: what changes from here on for
 * its role, its database or the settings of both makes it a session of yesterday.
 */
extern void clockwork_reuse_watch(void);

/* Note what a new session is like, once it is connected; outside a transaction. */
extern void clockwork_reuse_note_new(void);

/*
 * After a run, outside a transaction: has it left nothing behind but what
 * clockwork_reuse_clean() undoes, or finds?
 */
extern bool clockwork_reuse_is_possible(void);

/*
 * Undo what a run has left behind.  False if it made up a parameter, which stays:
 * the session is to end.  Raises an ERROR if undoing fails.
 */
extern bool clockwork_reuse_clean(void);

/*
 * Before the next run, outside a transaction: would a session that connected
 * now be like this one?
 */
extern bool clockwork_reuse_is_current(void);

#endif							/* CLOCKWORK_REUSE_H */
