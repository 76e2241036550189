/*
 * What both ends have in common: messages, the bytes in them, and what was seen.
 */
#ifndef MANY_MESSAGE_H
#define MANY_MESSAGE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAGIC	0x6d616e79u
#define CHUNK	65536
#define EVENTS	512
#define SOURCES 64

enum { TO_SERVER, TO_CLIENT };
/* What a request asks for besides an answer. */
enum { AFTER_EOF = 1, THEN_CLOSE = 2 };

struct ask {
	uint64_t id;
	uint32_t magic, number, up, down, wants, pad;
};

struct answer {
	uint64_t id;
	uint32_t magic, number, down;
	uint16_t port, options; /* the client's as the server sees it; TCP's options in use */
	uint8_t peer[16];
	char server[8];
};

struct conn {
	int fd;
	uint32_t number, total; /* requests in all */
	uint64_t id, begun;
	uint8_t state, wants, ended, counted, idle;
	/* what is sent, and what is received: of which message, from which byte on */
	uint32_t out, out_at, in, in_at;
	union {
		struct ask ask;
		struct answer answer;
		uint8_t bytes[64];
	} head;
	struct answer reply; /* a server's, being sent */
	uint8_t own[16];
	uint16_t port;
};

static struct {
	uint64_t connections, requests, bytes, wrong, failed, unfinished, known, others;
	uint64_t options_all, options_any, slowest;
} seen = { .options_all = 0xff };
static uint64_t refused[4096]; /* failures by errno */
static uint64_t of_server[8];
static char names[8][9];
static uint8_t buffer[CHUNK];
static int loop;

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

static uint64_t mixed(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* The bytes from `at` on of a message's body. */
static void body(uint64_t id, uint32_t number, int direction, uint32_t at, uint8_t *to, size_t size)
{
	uint64_t seed = mixed(id ^ (uint64_t)number << 40 ^ (uint64_t)direction << 63), word = 0;

	for (size_t i = 0; i < size; i++, at++) {
		if (!i || !(at & 7))
			word = mixed(seed + (at >> 3));
		to[i] = word >> (at & 7) * 8;
	}
}

static int same_body(uint64_t id, uint32_t number, int direction, uint32_t at, const uint8_t *got,
		     size_t size)
{
	static uint8_t wanted[CHUNK];

	body(id, number, direction, at, wanted, size);
	return !memcmp(wanted, got, size);
}

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static void watch(struct conn *c, int operation, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = c };

	if (epoll_ctl(loop, operation, c->fd, &event))
		die("epoll_ctl");
}

/* Send from byte `out_at` on of a head and its body: 1 all gone, 0 not yet, -1 error. */
static int give(struct conn *c, const void *head, size_t head_size, uint32_t size, uint32_t number,
		int direction)
{
	while (c->out_at < head_size + size) {
		size_t have = 0, skip;
		ssize_t done;

		if (c->out_at < head_size) {
			have = head_size - c->out_at;
			memcpy(buffer, (const uint8_t *)head + c->out_at, have);
		}
		skip = c->out_at + have - head_size;
		size_t more = size - skip < CHUNK - have ? size - skip : CHUNK - have;
		body(c->id, number, direction, skip, buffer + have, more);
		done = send(c->fd, buffer, have + more, MSG_NOSIGNAL);
		if (done < 0)
			return errno == EAGAIN ? 0 : -1;
		c->out_at += done;
	}
	c->out_at = 0;
	return 1;
}

/* Receive into the head, then compare the body: 1 a whole message, 0 not yet, -1 error, -2 end. */
static int take(struct conn *c, size_t head_size, int direction)
{
	for (;;) {
		uint32_t size = direction == TO_SERVER ? c->head.ask.up : c->head.answer.down;
		uint32_t number =
			direction == TO_SERVER ? c->head.ask.number : c->head.answer.number;
		uint64_t id = direction == TO_SERVER ? c->head.ask.id : c->id;
		ssize_t done;

		if (c->in_at >= head_size && c->in_at == head_size + size) {
			c->in_at = 0;
			return 1;
		}
		if (c->in_at < head_size) {
			done = recv(c->fd, c->head.bytes + c->in_at, head_size - c->in_at, 0);
		} else {
			size_t left = head_size + size - c->in_at;

			done = recv(c->fd, buffer, left < CHUNK ? left : CHUNK, 0);
			if (done > 0 &&
			    !same_body(id, number, direction, c->in_at - head_size, buffer, done)) {
				seen.wrong++;
				errno = EBADMSG;
				return -1;
			}
		}
		if (!done)
			return c->in_at ? -1 : -2;
		if (done < 0)
			return errno == EAGAIN ? 0 : -1;
		c->in_at += done;
		seen.bytes += done;
	}
}

static int options_of(int fd)
{
	struct tcp_info info;
	socklen_t size = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size))
		return 0;
	return info.tcpi_options;
}

static void note_options(int options)
{
	seen.options_all &= options;
	seen.options_any |= options;
}

/* An address and port, IPv4 as mapped into IPv6. */
static void end_of(const struct sockaddr_storage *from, uint8_t *address, uint16_t *port)
{
	if (from->ss_family == AF_INET) {
		const struct sockaddr_in *four = (const void *)from;

		memset(address, 0, 10);
		memset(address + 10, 0xff, 2);
		memcpy(address + 12, &four->sin_addr, 4);
		*port = four->sin_port;
	} else {
		const struct sockaddr_in6 *six = (const void *)from;

		memcpy(address, &six->sin6_addr, 16);
		*port = six->sin6_port;
	}
}

static void report(void)
{
	printf("{\"connections\": %lu, \"requests\": %lu, \"bytes\": %lu, \"wrong\": %lu, "
	       "\"failed\": %lu, \"unfinished\": %lu, \"known\": %lu, \"others\": %lu, "
	       "\"options_all\": %lu, \"options_any\": %lu, \"slowest\": %lu, \"servers\": {",
	       seen.connections, seen.requests, seen.bytes, seen.wrong, seen.failed,
	       seen.unfinished, seen.known, seen.others, seen.options_all, seen.options_any,
	       seen.slowest);
	for (int i = 0; i < 8 && names[i][0]; i++)
		printf("%s\"%s\": %lu", i ? ", " : "", names[i], of_server[i]);
	printf("}, \"errors\": {");
	for (int i = 0, first = 1; i < 4096; i++)
		if (refused[i]) {
			printf("%s\"%s\": %lu", first ? "" : ", ",
			       i ? strerrorname_np(i) : "closed early", refused[i]);
			first = 0;
		}
	printf("}}\n");
	fflush(stdout);
}

#endif
