/*
 * The server: it answers every request whole, in order.
 */
#ifndef MANY_SERVER_H
#define MANY_SERVER_H

#include "message.h"

#define PATIENCE \
	30000 /* milliseconds that connections may take to end when the server is told to */

static volatile sig_atomic_t ending, halving;
static int living; /* connections */
static struct conn **served;
static int most_served;

static void on_signal(int number)
{
	if (number == SIGUSR1)
		halving = 1;
	else
		ending = 1;
}

static void server_close(struct conn *c, int error)
{
	if (error) {
		seen.failed++;
		refused[error & 4095]++;
	}
	served[c->fd] = NULL;
	living--;
	close(c->fd);
	free(c);
}

/* A request is whole: make its answer. */
static void server_answer(struct conn *c, const char *name)
{
	struct sockaddr_storage from;
	socklen_t size = sizeof(from);

	memset(&c->reply, 0, sizeof(c->reply));
	c->reply.id = c->head.ask.id;
	c->reply.magic = MAGIC;
	c->reply.number = c->head.ask.number;
	c->reply.down = c->head.ask.down;
	c->reply.options = options_of(c->fd);
	memcpy(c->reply.server, name, strnlen(name, sizeof(c->reply.server)));
	if (!getpeername(c->fd, (void *)&from, &size))
		end_of(&from, c->reply.peer, &c->reply.port);
	note_options(c->reply.options);
	c->wants = c->head.ask.wants;
	c->id = c->head.ask.id;
	seen.requests++;
}

enum { READING, WAITING_FOR_EOF, WRITING };

static void server_step(struct conn *c, const char *name)
{
	for (;;) {
		int result;

		if (c->state == WRITING) {
			result = give(c, &c->reply, sizeof(c->reply), c->reply.down,
				      c->reply.number, TO_CLIENT);
			if (result < 0)
				return server_close(c, errno);
			if (!result)
				return watch(c, EPOLL_CTL_MOD, EPOLLOUT);
			if (c->wants & (THEN_CLOSE | AFTER_EOF))
				return server_close(c, 0);
			c->state = READING;
			watch(c, EPOLL_CTL_MOD, EPOLLIN);
		}
		if (c->state == WAITING_FOR_EOF) {
			ssize_t rest = recv(c->fd, buffer, CHUNK, 0);

			if (rest < 0 && errno == EAGAIN)
				return;
			if (rest)
				return server_close(c, rest < 0 ? errno : EBADMSG);
			c->state = WRITING;
			continue;
		}
		result = take(c, sizeof(struct ask), TO_SERVER);
		if (!result)
			return;
		if (result < 0)
			return server_close(c, result == -2 ? 0 : errno);
		/* A connection stays with whom it began with. */
		if (c->head.ask.magic != MAGIC || (c->counted && c->id != c->head.ask.id)) {
			seen.wrong++;
			return server_close(c, EBADMSG);
		}
		c->counted = 1;
		server_answer(c, name);
		c->state = c->wants & AFTER_EOF ? WAITING_FOR_EOF : WRITING;
	}
}

static void server_accept(int listener)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), one = 1;
		struct conn *c;

		if (fd < 0)
			return;
		c = calloc(1, sizeof(*c));
		if (!c || fd >= most_served)
			die("accept");
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		c->fd = fd;
		served[fd] = c;
		living++;
		seen.connections++;
		watch(c, EPOLL_CTL_ADD, EPOLLIN);
	}
}

static int serve(const char *name, int port)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int listener = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0), zero = 0, one = 1;
	struct sigaction action = { .sa_handler = on_signal };
	struct conn accepting = { .fd = listener };
	struct epoll_event events[EVENTS];
	uint64_t patient = 0;

	served = calloc(most_served, sizeof(*served));
	setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (void *)&any, sizeof(any)) || listen(listener, 65535) || !served)
		die("listen");
	watch(&accepting, EPOLL_CTL_ADD, EPOLLIN);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
	puts("ready");
	fflush(stdout);
	/* What its client has ended already may have to be said again: bad wires take the last word, too. */
	while (!ending || (living && (!patient || now_ms() < patient))) {
		int found = epoll_wait(loop, events, EVENTS, 100);

		for (int fd = 0; halving && fd < most_served; fd++)
			if (served[fd])
				shutdown(fd, SHUT_WR);
		halving = 0;
		if (ending && !patient)
			patient = now_ms() + PATIENCE;
		for (int i = 0; i < found; i++) {
			if (events[i].data.ptr == &accepting)
				server_accept(listener);
			else
				server_step(events[i].data.ptr, name);
		}
	}
	for (int fd = 0; fd < most_served; fd++)
		seen.unfinished += !!served[fd];
	report();
	return 0;
}

#endif
