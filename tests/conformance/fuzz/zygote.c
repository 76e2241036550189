/* Preloaded into the real ipvsadm: runs its main() once for every command line of a file.
 *
 * Each run is a fork of a process that is loaded and linked already, because starting a
 * program under software emulation takes far longer than ipvsadm itself.
 *
 * ZYGOTE_REQUESTS holds one request after the other, numbers being 32-bit little endian:
 *   1 where the run's standard output is to be kept, else 0;
 *   number of arguments, and each as length and bytes (the program's name included);
 *   length and bytes of standard input; length KEPT stands for what was kept last.
 * ZYGOTE_ANSWERS gets for each: exit status as a shell tells it, and length and bytes of
 * standard output and of standard error.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEPT	      UINT32_MAX
#define MAX_ARGUMENTS 64

typedef int main_function(int argc, char **argv, char **environment);

static main_function *real_main;
static const char *requests, *requests_end;
static FILE *answers;
static int streams[3]; /* a file in memory for each of the three standard streams */

static void stop(const char *reason)
{
	perror(reason);
	exit(111);
}

static void map_requests(const char *path)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	off_t size = lseek(file, 0, SEEK_END);

	if (file < 0 || size <= 0)
		stop("zygote: requests");
	requests = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
	if (requests == MAP_FAILED)
		stop("zygote: mmap");
	requests_end = requests + size;
	close(file);
}

static const char *take(uint32_t length)
{
	const char *bytes = requests;

	if (requests_end - requests < length)
		stop("zygote: the requests end early");
	requests += length;
	return bytes;
}

static uint32_t number(void)
{
	uint32_t value;

	memcpy(&value, take(sizeof(value)), sizeof(value));
	return value;
}

static char *text(uint32_t length)
{
	char *bytes = calloc(1, length + 1);

	if (!bytes)
		stop("zygote: calloc");
	return memcpy(bytes, take(length), length);
}

static void refill(int stream, const char *bytes, size_t length)
{
	if (ftruncate(stream, 0) || pwrite(stream, bytes, length, 0) != (ssize_t)length ||
	    lseek(stream, 0, SEEK_SET))
		stop("zygote: refill");
}

static char *contents(int stream, uint32_t *length)
{
	off_t size = lseek(stream, 0, SEEK_END);
	char *bytes = malloc(size + 1);

	if (!bytes || pread(stream, bytes, size, 0) != size)
		stop("zygote: contents");
	*length = size;
	return bytes;
}

static void answer(uint32_t value)
{
	fwrite(&value, sizeof(value), 1, answers);
}

static void answer_stream(int stream)
{
	uint32_t length;
	char *bytes = contents(stream, &length);

	answer(length);
	fwrite(bytes, 1, length, answers);
	free(bytes);
}

static int run(int argc, char **argv, char **environment)
{
	int status;
	pid_t child = fork();

	if (child < 0)
		stop("zygote: fork");
	if (!child) {
		for (int stream = 0; stream < 3; stream++)
			dup2(streams[stream], stream);
		exit(real_main(argc, argv, environment));
	}
	if (waitpid(child, &status, 0) != child)
		stop("zygote: waitpid");
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void serve_one(char **environment)
{
	static char *kept;
	static uint32_t kept_length;
	char *arguments[MAX_ARGUMENTS + 1] = { 0 };
	uint32_t keep = number(), count = number(), length;

	if (count > MAX_ARGUMENTS)
		stop("zygote: too many arguments");
	for (uint32_t i = 0; i < count; i++)
		arguments[i] = text(number());
	length = number();
	if (length == KEPT)
		refill(streams[0], kept, kept_length);
	else
		refill(streams[0], take(length), length);
	refill(streams[1], "", 0);
	refill(streams[2], "", 0);
	fflush(answers); /* a child's exit() would write what is left in it once more */
	answer(run(count, arguments, environment));
	answer_stream(streams[1]);
	answer_stream(streams[2]);
	if (keep) {
		free(kept);
		kept = contents(streams[1], &kept_length);
	}
	for (uint32_t i = 0; i < count; i++)
		free(arguments[i]);
}

/* The program's main(), as the C library sees it. */
static int serve(int argc, char **argv, char **environment)
{
	(void)argc;
	(void)argv;
	map_requests(getenv("ZYGOTE_REQUESTS"));
	answers = fopen(getenv("ZYGOTE_ANSWERS"), "we");
	if (!answers)
		stop("zygote: answers");
	for (int stream = 0; stream < 3; stream++)
		if ((streams[stream] = memfd_create("stream", MFD_CLOEXEC)) < 0)
			stop("zygote: memfd_create");
	unsetenv("LD_PRELOAD"); /* what ipvsadm itself starts is not ours */
	while (requests < requests_end)
		serve_one(environment);
	return fclose(answers) ? 111 : 0;
}

int __libc_start_main(main_function *main, int argc, char **argv, void (*init)(void),
		      void (*fini)(void), void (*rtld_fini)(void), void *stack_end)
{
	int (*real)(main_function *, int, char **, void (*)(void), void (*)(void), void (*)(void),
		    void *) = dlsym(RTLD_NEXT, "__libc_start_main");

	real_main = main;
	return real(serve, argc, argv, init, fini, rtld_fini, stack_end);
}
