/*
 * What the kernel does when mdevctl writes to sysfs, for a folder that only looks like it: loaded into mdevctl with
 * LD_PRELOAD. See mdevctl.ts.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void make(const char *folder, const char *name, int mode)
{
	char path[8192];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	int fd = open(path, O_CREAT | O_WRONLY, mode);
	if (fd >= 0)
		close(fd);
}

static int ends_with(const char *text, const char *end)
{
	size_t a = strlen(text), b = strlen(end);
	return a >= b && strcmp(text + a - b, end) == 0;
}

static void create(char *path, const char *uuid)
{
	char device[8192], link[8192], type[8192];
	*strrchr(path, '/') = 0; /* .../mdev_supported_types/TYPE */
	char *name = strrchr(path, '/') + 1;
	snprintf(type, sizeof type, "%s", path);
	int gpu = strcmp(name, "vgpu-1") == 0;
	name[-1] = 0;
	*strrchr(path, '/') = 0; /* the parent */
	snprintf(device, sizeof device, "%s/%s", path, uuid);
	mkdir(device, 0755);
	make(device, "remove", 0200);
	if (gpu) {
		make(device, "frame_rate", 0644);
		make(device, "licence", 0644);
	}
	snprintf(link, sizeof link, "%s/mdev_type", device);
	symlink(type, link);
	snprintf(link, sizeof link, "/sys/bus/mdev/devices/%s", uuid);
	symlink(device, link);
}

static int wrong(const char *name, const char *text, size_t length)
{
	int digits = strcmp(name, "frame_rate") == 0;
	if (!digits && strcmp(name, "licence") != 0)
		return 0;
	if (length == 0 || (digits && length > 3))
		return 1;
	for (size_t at = 0; at < length; at++)
		if (digits ? !isdigit((unsigned char)text[at]) : !islower((unsigned char)text[at]))
			return 1;
	return 0;
}

ssize_t write(int fd, const void *text, size_t length)
{
	char self[64], path[8192], uuid[64] = {0};
	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	ssize_t size = readlink(self, path, sizeof path - 1);
	path[size < 0 ? 0 : size] = 0;
	if (strncmp(path, "/sys/", 5) != 0)
		return syscall(SYS_write, fd, text, length);
	char *name = strrchr(path, '/') + 1;
	if (wrong(name, text, length)) {
		errno = EINVAL;
		return -1;
	}
	if (ends_with(path, "/create")) {
		memcpy(uuid, text, length < 63 ? length : 63);
		create(path, uuid);
	} else if (ends_with(path, "/remove")) {
		char link[8192];
		name[-1] = 0;
		snprintf(link, sizeof link, "/sys/bus/mdev/devices/%s", strrchr(path, '/') + 1);
		unlink(link);
	}
	return (ssize_t)length;
}
