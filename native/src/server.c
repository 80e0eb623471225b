/*
 * The server as a whole: what only its postmaster knows.
 *
 * A SIGTERM does not say whether one process is to end or all of them.  The
 * postmaster's lock file does: its status line changes before the signals go
 * out.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "compat.h"
#include "server.h"

#include "miscadmin.h"
#include "utils/pidfile.h"

bool
clockwork_server_is_stopping(void)
{
	char		path[MAXPGPATH];
	char		text[BLCKSZ];
	const char *line = text;
	ssize_t		length;
	int			file;

	snprintf(path, sizeof(path), "%s/postmaster.pid", DataDir);
	file = open(path, O_RDONLY | PG_BINARY, 0);
	if (file < 0)
		return false;
	length = read(file, text, sizeof(text) - 1);
	close(file);
	if (length <= 0)
		return false;
	text[length] = '\0';
	for (int i = 1; i < LOCK_FILE_LINE_PM_STATUS && line; i++)
	{
		line = strchr(line, '\n');
		if (line)
			line++;
	}
	return line && strncmp(line, PM_STATUS_STOPPING, strlen(PM_STATUS_STOPPING)) == 0;
}
