#define _GNU_SOURCE
#include "caller.h"

#include <string.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>

#ifdef SYS_setgroups32
#define SET_GROUPS SYS_setgroups32
#else
#define SET_GROUPS SYS_setgroups
#endif

#define NOBODY UINT32_MAX
#define SWITCHING (1u << CAP_SETUID | 1u << CAP_SETGID)

/* The C library's own functions would change all threads. */
static void set_capabilities(const struct __user_cap_data_struct *data)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    (void)!syscall(SYS_capset, &header, data);
}

void caller_of_thread(struct caller *caller)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    memset(caller, 0, sizeof *caller);
    caller->own_uid = caller->uid = geteuid();
    caller->own_gid = caller->gid = getegid();
    caller->group_count = getgroups(MOST_GROUPS, caller->groups);
    caller->switches = caller->group_count >= 0 && !syscall(SYS_capget, &header, caller->own) &&
                       (caller->own[0].effective & SWITCHING) == SWITCHING;
}

/* Nothing but the right to be somebody else. */
static void drop_capabilities(const struct caller *caller)
{
    struct __user_cap_data_struct few[2];
    memcpy(few, caller->own, sizeof few);
    few[0].effective = SWITCHING;
    few[1].effective = 0;
    set_capabilities(few);
}

void caller_strip(struct caller *caller)
{
    if (!caller->switches)
        return;
    (void)!syscall(SET_GROUPS, (size_t)0, NULL);
    drop_capabilities(caller);
}

int caller_become(struct caller *caller, uint32_t uid, uint32_t gid)
{
    if (!caller->switches || (uid == caller->uid && gid == caller->gid))
        return 1;
    setfsgid(gid);
    setfsuid(uid);
    /* With an id that is none they change nothing, and say who it is. */
    caller->gid = (uint32_t)setfsgid(NOBODY);
    caller->uid = (uint32_t)setfsuid(NOBODY);
    /* Who becomes root gets what root may do to files. */
    drop_capabilities(caller);
    return uid == caller->uid && gid == caller->gid && uid != NOBODY && gid != NOBODY;
}

void caller_restore(struct caller *caller)
{
    if (!caller->switches)
        return;
    (void)caller_become(caller, caller->own_uid, caller->own_gid);
    (void)!syscall(SET_GROUPS, (size_t)caller->group_count, caller->groups);
    set_capabilities(caller->own);
}
