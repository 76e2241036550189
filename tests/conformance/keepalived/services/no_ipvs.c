/* Preloaded under keepalived: its generic netlink socket to IPVS says yes to everything.
 * So its checkers' process starts on a kernel without IPVS, and dumps what it has read. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

typedef int (*callback)(void *message, void *argument);

enum { MOST = 64, CB_FINISH = 1, CB_ACK = 4, FAMILY = 30 };

static void *sockets[MOST];
static unsigned int count;
static struct {
	void *socket;
	callback call;
	void *argument;
} answers[MOST][CB_ACK + 1];

static int place(void *socket)
{
	for (unsigned int at = 0; at < count && at < MOST; at++)
		if (sockets[at] == socket)
			return (int)at;
	return -1;
}

int genl_connect(void *socket)
{
	int (*real)(void *) = dlsym(RTLD_NEXT, "genl_connect");

	if (place(socket) < 0)
		sockets[count++ % MOST] = socket;
	return real(socket);
}

int genl_ctrl_resolve(void *socket, const char *name)
{
	(void)socket;
	(void)name;
	return FAMILY;
}

int nl_socket_modify_cb(void *socket, int type, int kind, callback call, void *argument)
{
	int (*real)(void *, int, int, callback, void *) = dlsym(RTLD_NEXT, "nl_socket_modify_cb");
	int at = place(socket);

	if (at >= 0 && type >= 0 && type <= CB_ACK) {
		answers[at][type].call = call;
		answers[at][type].argument = argument;
	}
	return real(socket, type, kind, call, argument);
}

int nl_send_auto(void *socket, void *message)
{
	int (*real)(void *, void *) = dlsym(RTLD_NEXT, "nl_send_auto");

	return place(socket) >= 0 ? 0 : real(socket, message);
}

int nl_recvmsgs_default(void *socket)
{
	int (*real)(void *) = dlsym(RTLD_NEXT, "nl_recvmsgs_default");
	int at = place(socket);

	if (at < 0)
		return real(socket);
	if (answers[at][CB_FINISH].call)
		answers[at][CB_FINISH].call(NULL, answers[at][CB_FINISH].argument);
	if (answers[at][CB_ACK].call)
		answers[at][CB_ACK].call(NULL, answers[at][CB_ACK].argument);
	return 0;
}
