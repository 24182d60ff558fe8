/* load MODE NAME=VALUE...: see load.h for the modes, and bench/generator.py, which starts it. */
#include "load.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {{"stream", stream}, {"request", request}, {"openings", openings}, {"hold", hold}, {"storm", storm}};
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* it does not outlive the benchmark */
    options(argc, argv);
    alarm((unsigned)number("limit", 300)); /* and it ends, whatever happens */
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; argc > 1 && i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(argv[1], modes[i].name)) {
            modes[i].run();
            return 0;
        }
    fail("no such mode");
}
