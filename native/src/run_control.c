/*
 * What people ask of the launcher while runs are under way.
 *
 * A cancellation is acted on in one place of the pass and answered at the end
 * of it, when the record of a run that will not start has been written: whoever
 * is answered can see it.
 */
#include "postgres.h"

#include "compat.h"
#include "run_control.h"
#include "run_policy.h"
#include "run_request.h"

/* The cancellations of this pass: from first_ticket on. */
static uint64 first_ticket;
static int	nanswers = 0;
static CancelAnswer answers[CLOCKWORK_MAX_CANCELS];

static CancelAnswer
cancel(const CancelRequest *request)
{
	Run		   *run = clockwork_run_find_by_id(request->runid);

	if (run == NULL || !clockwork_run_policy_cancel(run, NameStr(request->by), request->grace))
		return CANCEL_NO_RUN;
	return CANCEL_DONE;
}

void
clockwork_run_control_cancel(void)
{
	CancelRequest request;

	first_ticket = clockwork_run_request_first_cancel();
	nanswers = 0;
	while (nanswers < CLOCKWORK_MAX_CANCELS &&
		   clockwork_run_request_find_cancel(first_ticket + nanswers, &request))
	{
		answers[nanswers] = cancel(&request);
		nanswers++;
	}
}

void
clockwork_run_control_answer(void)
{
	for (int i = 0; i < nanswers; i++)
		clockwork_run_request_answer(first_ticket + i, answers[i]);
	nanswers = 0;
}
