/* Preloaded into a server of swap: all of its memory, now and later, stays in memory.
 *
 * Else the kernel may swap the server out to the very device that it serves, and then waits for
 * the one that waits for it. tmemfs does it by itself.
 */
#include <stdio.h>
#include <sys/mman.h>

__attribute__((constructor)) static void lock_memory(void)
{
    if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
        perror("not locked in memory");
}
