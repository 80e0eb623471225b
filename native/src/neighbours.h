/*
 * What other sessions do that concerns the workers that wait for a run.
 */
#ifndef CLOCKWORK_NEIGHBOURS_H
#define CLOCKWORK_NEIGHBOURS_H

/* Install the hook; call from _PG_init. */
extern void clockwork_neighbours_install(void);

#endif							/* CLOCKWORK_NEIGHBOURS_H */
