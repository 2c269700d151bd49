/* LD_PRELOAD: writes every attempt to reach a network into the file $NETWORK_LOG, and refuses it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void record(const char *call, const char *what) {
    const char *path = getenv("NETWORK_LOG");
    int file = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (file < 0) return;
    char line[512];
    size_t length = 0;
    for (const char *part = call; *part && length < 100; part++) line[length++] = *part;
    line[length++] = ' ';
    for (const char *part = what; *part && length < 500; part++) line[length++] = *part;
    line[length++] = '\n';
    if (write(file, line, length) < 0) abort();
    close(file);
}

/* AF_UNIX and AF_NETLINK stay on this machine. */
int socket(int family, int type, int protocol) {
    if (family == AF_INET || family == AF_INET6) {
        record("socket", family == AF_INET ? "IPv4" : "IPv6");
        errno = EACCES;
        return -1;
    }
    int (*real)(int, int, int) = (int (*)(int, int, int))dlsym(RTLD_NEXT, "socket");
    return real(family, type, protocol);
}

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found) {
    (void)port, (void)hints, (void)found;
    record("getaddrinfo", host ? host : "");
    return EAI_FAIL;
}

struct hostent *gethostbyname(const char *host) {
    record("gethostbyname", host);
    return NULL;
}

int gethostbyname_r(const char *host, struct hostent *entry, char *space, size_t size, struct hostent **found, int *error) {
    (void)entry, (void)space, (void)size;
    record("gethostbyname_r", host);
    *found = NULL;
    *error = NO_RECOVERY;
    return EACCES;
}
