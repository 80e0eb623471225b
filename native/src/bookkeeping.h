/*
 * Writing what a pass has found out.
 */
#ifndef CLOCKWORK_BOOKKEEPING_H
#define CLOCKWORK_BOOKKEEPING_H

/*
 * Once per pass.  Write the ends of runs, give slots to ready runs and write their
 * beginnings, and write what waits and what is skipped.  What cannot be
 * written is put off.  Survives errors; needs no transaction.
 */
extern void clockwork_bookkeeping_write(void);

/* Is there anything to write now, or a run that could begin? */
extern bool clockwork_bookkeeping_is_due(void);

#endif							/* CLOCKWORK_BOOKKEEPING_H */
