/*
 * Many connections at once, every byte of each compared at both ends.
 *
 *	many serve NAME PORT
 *	many talk ADDRESS PORT CONNECTIONS OPTION=VALUE...
 *
 * A connection carries requests: a head with the connection's own number, and bytes that
 * follow from it. The answer has the number, the server's name, the client as the server
 * sees it, and bytes that follow from the number as well.
 *
 * The server says "ready"; on SIGUSR1 it ends its half of every connection, on SIGTERM it
 * prints what it saw. The client prints that when all is over. Numbers on the wire are
 * the machine's own: both ends run on one.
 */
#define _GNU_SOURCE
#include "client.h"
#include "server.h"

#define FILES (1u << 17)

int main(int count, char **words)
{
	struct rlimit files;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max < FILES ? files.rlim_max : FILES;
	setrlimit(RLIMIT_NOFILE, &files);
	most_served = files.rlim_cur;
	loop = epoll_create1(0);
	if (count == 4 && !strcmp(words[1], "serve"))
		return serve(words[2], atoi(words[3]));
	if (count < 5 || strcmp(words[1], "talk"))
		return 2;
	how.size = address(words[2], atoi(words[3]), &how.target);
	wanted = strtoul(words[4], NULL, 10);
	for (int i = 5; i < count; i++)
		option(words[i]);
	return talk();
}
