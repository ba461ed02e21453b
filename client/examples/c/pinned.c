/* Pins itself to the first of its CPUs and says where it runs. It gets its facts from
 * ../shell/with-facts.sh, so it needs no gRPC:
 *   cc -o pinned pinned.c && with-facts.sh ./pinned
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *fact(const char *name)
{
	const char *value = getenv(name);

	if (value == NULL) {
		fprintf(stderr, "pinned: %s is not set: start me by with-facts.sh\n", name);
		exit(2);
	}
	return value;
}

int main(void)
{
	const char *cpus = fact("FACTS_CPUS"); /* the kernel's list format, "2-3,8" */
	cpu_set_t set;
	char *end;
	unsigned long first;

	errno = 0;
	first = strtoul(cpus, &end, 10);
	if (end == cpus || errno != 0 || first >= CPU_SETSIZE) {
		fprintf(stderr, "pinned: FACTS_CPUS=%s names no CPU\n", cpus);
		return 2;
	}
	CPU_ZERO(&set);
	CPU_SET(first, &set);
	if (sched_setaffinity(0, sizeof set, &set) != 0) {
		fprintf(stderr, "pinned: CPU %lu: %s\n", first, strerror(errno));
		return 1;
	}
	printf("pod %s interfaces %s on CPU %d of %s\n",
	       fact("FACTS_POD"), fact("FACTS_INTERFACES"), sched_getcpu(), cpus);
	return 0;
}
