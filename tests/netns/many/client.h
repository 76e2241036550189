/*
 * The client: so many connections, so many of them at once.
 */
#ifndef MANY_CLIENT_H
#define MANY_CLIENT_H

#include "message.h"

static struct {
	uint32_t at_once, requests, pipeline, up, down, hold, half, reset, last, seconds, big, base;
	struct sockaddr_storage source[SOURCES];
	int sources;
	struct sockaddr_storage target;
	socklen_t size;
} how = { .at_once = 100, .requests = 1, .pipeline = 1, .seconds = 60 };
static struct conn *all;
static uint32_t wanted, opened, over, answered_first, busy;
static int resumed;

static void client_over(struct conn *c, int error, int whole)
{
	uint64_t took = now_ms() - c->begun;

	if (c->fd >= 0) {
		struct linger abort = { 1, 0 };

		if (whole && how.reset && !(c->number % how.reset))
			setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
		close(c->fd);
	}
	c->fd = -1;
	if (whole) {
		seen.connections++;
	} else {
		seen.failed++;
		refused[error & 4095]++;
	}
	if (took > seen.slowest)
		seen.slowest = took;
	if (!c->counted || !how.hold)
		busy--;
	over++;
}

static uint32_t length(struct conn *c, uint32_t number, int direction)
{
	uint32_t most = direction == TO_SERVER ? how.up : how.down;

	/* Now and then a long one. */
	if (how.big && !(c->number % how.big))
		most *= 16;
	return most ? mixed(c->id * 2 + direction + number * 7919ull) % (most + 1) : 0;
}

static int of_kind(struct conn *c, uint32_t every, uint32_t turn)
{
	return every && c->number % every == turn % every;
}

static struct ask request(struct conn *c, uint32_t number)
{
	struct ask ask = { .id = c->id, .magic = MAGIC, .number = number };

	ask.up = length(c, number, TO_SERVER);
	ask.down = length(c, number, TO_CLIENT);
	if (number + 1 == c->total) {
		ask.wants |= of_kind(c, how.half, 1) ? AFTER_EOF : 0;
		ask.wants |= of_kind(c, how.last, 2) ? THEN_CLOSE : 0;
	}
	return ask;
}

static int client_right(struct conn *c)
{
	struct answer *got = &c->head.answer;

	if (got->magic != MAGIC || got->id != c->id || got->number != c->in)
		return 0;
	return got->down == length(c, c->in, TO_CLIENT);
}

static void client_count(struct conn *c)
{
	struct answer *got = &c->head.answer;
	int at = 0;

	if (got->port == c->port && !memcmp(got->peer, c->own, 16))
		seen.known++;
	else
		seen.others++;
	while (at < 7 && names[at][0] && strncmp(names[at], got->server, 8))
		at++;
	memcpy(names[at], got->server, 8);
	of_server[at]++;
	note_options(options_of(c->fd) & got->options);
	seen.options_any |= got->options;
}

static uint32_t allowed(struct conn *c)
{
	uint32_t most = c->in + how.pipeline < c->total ? c->in + how.pipeline : c->total;

	return how.hold && !resumed && most > 1 ? 1 : most;
}

static void client_step(struct conn *c, uint32_t events)
{
	int result = 1, wants_out;

	if (c->fd < 0)
		return;
	while (c->out < allowed(c) && result == 1) {
		struct ask ask = request(c, c->out);

		result = give(c, &ask, sizeof(ask), ask.up, c->out, TO_SERVER);
		if (result < 0)
			return client_over(c, errno, 0);
		if (result == 1 && ++c->out == c->total && ask.wants & AFTER_EOF)
			shutdown(c->fd, SHUT_WR);
	}
	wants_out = result == 0;
	for (;;) {
		result = take(c, sizeof(struct answer), TO_CLIENT);
		if (!result)
			break;
		if (result < 0)
			/* The end is right where it was asked for, or all was said. */
			return client_over(c, result == -2 ? 0 : errno,
					   result == -2 && c->in == c->total);
		if (!client_right(c)) {
			seen.wrong++;
			return client_over(c, EBADMSG, 0);
		}
		if (!c->counted) {
			c->counted = 1;
			client_count(c);
			answered_first++;
			if (how.hold)
				busy--;
		}
		seen.requests++;
		if (++c->in == c->total) {
			int waits = of_kind(c, how.half, 1) || of_kind(c, how.last, 2) || c->ended;

			if (!waits && how.hold < 2)
				return client_over(c, 0, 1);
		}
	}
	if (c->out < allowed(c))
		wants_out = 1;
	watch(c, EPOLL_CTL_MOD, EPOLLIN | (wants_out ? EPOLLOUT : 0));
}

static void client_open(struct conn *c)
{
	struct sockaddr_storage own;
	socklen_t size = sizeof(own);
	int one = 1;

	c->number = opened++;
	c->id = (uint64_t)how.base << 32 | c->number;
	c->total = how.requests;
	c->begun = now_ms();
	busy++;
	c->fd = socket(how.target.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (c->fd < 0)
		die("socket");
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (how.sources) {
		setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
		if (bind(c->fd, (void *)&how.source[c->number % how.sources], how.size))
			die("bind");
	}
	if (connect(c->fd, (void *)&how.target, how.size) && errno != EINPROGRESS)
		return client_over(c, errno, 0);
	getsockname(c->fd, (void *)&own, &size);
	end_of(&own, c->own, &c->port);
	watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

/* A line of the operator's: go on, or end our half of every connection. */
static void client_told(void)
{
	char line[16] = "";

	if (read(0, line, sizeof(line) - 1) <= 0)
		exit(3);
	resumed = 1;
	for (uint32_t i = 0; i < opened; i++) {
		if (all[i].fd < 0)
			continue;
		if (line[0] == 'c') {
			all[i].ended = 1;
			all[i].total = all[i].in;
			shutdown(all[i].fd, SHUT_WR);
		}
		client_step(&all[i], 0);
	}
}

static int talk(void)
{
	uint64_t deadline = now_ms() + how.seconds * 1000ull;
	struct epoll_event events[EVENTS];
	int said = !how.hold;

	all = calloc(wanted, sizeof(*all));
	if (!all)
		die("memory");
	while (over < wanted && now_ms() < deadline) {
		while (opened < wanted && busy < how.at_once)
			client_open(&all[opened]);
		if (!said && answered_first + over >= wanted) {
			puts("held");
			fflush(stdout);
			said = 1;
			client_told();
			deadline = now_ms() + how.seconds * 1000ull;
		}
		int found = epoll_wait(loop, events, EVENTS, 10);

		for (int i = 0; i < found; i++)
			client_step(events[i].data.ptr, events[i].events);
	}
	seen.unfinished = opened - over;
	report();
	return 0;
}

static socklen_t address(const char *text, int port, struct sockaddr_storage *to)
{
	struct sockaddr_in *four = (void *)to;
	struct sockaddr_in6 *six = (void *)to;

	memset(to, 0, sizeof(*to));
	if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
		four->sin_family = AF_INET;
		four->sin_port = htons(port);
		return sizeof(*four);
	}
	if (inet_pton(AF_INET6, text, &six->sin6_addr) != 1)
		die(text);
	six->sin6_family = AF_INET6;
	six->sin6_port = htons(port);
	return sizeof(*six);
}

static void option(const char *text)
{
	static const struct {
		const char *name;
		uint32_t *to;
	} known[] = {
		{ "at_once", &how.at_once },   { "requests", &how.requests },
		{ "pipeline", &how.pipeline }, { "up", &how.up },
		{ "down", &how.down },	       { "hold", &how.hold },
		{ "half", &how.half },	       { "reset", &how.reset },
		{ "last", &how.last },	       { "seconds", &how.seconds },
		{ "big", &how.big },	       { "base", &how.base },
	};
	const char *value = strchr(text, '=');

	if (value && !strncmp(text, "source=", 7)) {
		address(value + 1, 0, &how.source[how.sources++ % SOURCES]);
		return;
	}
	for (size_t i = 0; value && i < sizeof(known) / sizeof(known[0]); i++)
		if (!strncmp(text, known[i].name, value - text) && !known[i].name[value - text]) {
			*known[i].to = strtoul(value + 1, NULL, 10);
			return;
		}
	fprintf(stderr, "no option %s\n", text);
	exit(2);
}

#endif
