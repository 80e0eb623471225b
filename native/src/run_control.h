/*
 * What people ask of the launcher while runs are under way.
 */
#ifndef CLOCKWORK_RUN_CONTROL_H
#define CLOCKWORK_RUN_CONTROL_H

/* Act on the cancellations that have come. */
extern void clockwork_run_control_cancel(void);

/* Answer them, now that the records are written. */
extern void clockwork_run_control_answer(void);

#endif							/* CLOCKWORK_RUN_CONTROL_H */
