/* Preloaded into the real ipvsadm: counters come from COUNTERS (numbers, blanks between)
 * instead of the kernel, one after the other, so that it prints numbers of every size. */
#include <stdint.h>
#include <stdlib.h>

struct nlattr;

uint64_t nla_get_u64(const struct nlattr *attribute)
{
	static const char *next;

	(void)attribute;
	if (!next)
		next = getenv("COUNTERS");
	return strtoull(next, (char **)&next, 10);
}
