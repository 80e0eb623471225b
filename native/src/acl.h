/*
 * Who may schedule what: the checks on roles and databases.
 */
#ifndef CLOCKWORK_ACL_H
#define CLOCKWORK_ACL_H

/* The role of that name; InvalidOid if there is none. */
extern Oid	clockwork_acl_find_role(const char *username);

/*
 * Does the current user count as the owner of what is pinned to that role?
 * The role itself does, and who inherits its privileges; superusers always.
 * InvalidOid stands for a role that is not there.
 */
extern bool clockwork_acl_is_owner(Oid owner);

/*
 * What a record is to call the role of a job that is pinned to `owner` and
 * whose row says `username`: what the role is called now; if it is gone, the
 * name in the row, unless that is another role's by now (NULL): that one must
 * not see the record as its own.  Needs a transaction.
 */
extern char *clockwork_acl_find_owner(Oid owner, const char *username);

/* The name of the current user. */
extern char *clockwork_acl_current_user(void);

/* Error unless the role exists and can log in. */
extern void clockwork_acl_check_login(const char *username);

/* Warn if the role cannot log in: its runs will fail. */
extern void clockwork_acl_warn_no_login(const char *username);

/*
 * Error if the role is a superuser and cron.enable_superuser_jobs is off, if
 * the database does not exist, or if the role may not connect to it.
 */
extern void clockwork_acl_check_job(const char *username, const char *database);

/*
 * May the current user remove any job?  Superusers may, and whoever has the
 * right to delete from the table and is not held back by row security.
 */
extern bool clockwork_acl_may_delete_all(Oid job_table);

/*
 * Error unless the current user may run jobs outside the home database: the
 * right to execute cron.schedule_in_database is the switch for that.
 */
extern void clockwork_acl_check_other_database(void);

#endif							/* CLOCKWORK_ACL_H */
