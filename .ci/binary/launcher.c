/* The head of the single executable file: unpacks what is appended to it, once, and becomes the program.
 *
 * Behind this code stand a tar archive in gzip, and a trailer: 32 hex digits that name the archive by its content, its
 * length in bytes (20 decimal digits), and MAGIC. The archive is unpacked into a folder of that name below the cache
 * folder of the user; later starts find it there. Then this process *becomes* the program by exec: no parent is left
 * behind, so signals and exit codes are the program's own.
 *
 * Whoever unpacks holds a lock, so that two first starts do not do it twice, and moves the finished folder into place by
 * one rename, after everything is on the disk: a killed start leaves a part that the next one removes, never half a
 * program. A running program holds a shared lock on its folder; folders of other versions that nobody holds and nobody
 * has started for a week are removed.
 *
 * Linked statically: it needs nothing of the system but its kernel. It must never trust a folder that somebody else
 * could have made.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#define MAGIC "memoryrouter:1"
#define NAME_LENGTH 32
#define SIZE_DIGITS 20
#define TRAILER_LENGTH (NAME_LENGTH + SIZE_DIGITS + sizeof MAGIC - 1)
#define PROGRAM "memoryrouter"
#define PART "part-"          /* what begins so is unpacked just now, or was left over */
#define LOCK "lock"
#define UNUSED_S (7 * 24 * 3600)
#define EXIT_SETUP 2          /* as the program's own code for what its operator has to mend */
#define BLOCK 512

static char failure[2 * PATH_MAX] = "no folder to unpack into";
static int is_damaged; /* no other folder would help */

/* Remember why a folder cannot be used; the last one is told if none can. */
static int fail(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vsnprintf(failure, sizeof failure, format, values);
    va_end(values);
    return -1;
}

static void join(char *path, const char *folder, const char *name)
{
    if (snprintf(path, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX) {
        fprintf(stderr, "error: the path %s is too long.\n", folder);
        exit(EXIT_SETUP);
    }
}

/* Make a folder and those above it, each for this user only. */
static int make_folders(const char *path)
{
    char part[PATH_MAX];
    snprintf(part, sizeof part, "%s", path);
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(part, 0700) && errno != EEXIST)
            return -1;
        *slash = '/';
    }
    return mkdir(part, 0700) && errno != EEXIST ? -1 : 0;
}

/* Whether a folder is this user's own and nobody else can write to it. */
static int is_ours(const char *path)
{
    struct stat found;
    return !lstat(path, &found) && S_ISDIR(found.st_mode) && found.st_uid == geteuid() && !(found.st_mode & 022);
}

static void remove_folder(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        char inner[PATH_MAX];
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        join(inner, path, entry->d_name);
        if (unlink(inner) && (errno == EISDIR || errno == EPERM))
            remove_folder(inner);
    }
    if (folder)
        closedir(folder);
    rmdir(path);
}

static int fail_damaged(void)
{
    is_damaged = 1;
    return fail("this file is damaged: download it again");
}

/* Read exactly so many bytes of the archive. */
static int take(gzFile archive, void *bytes, unsigned length)
{
    return gzread(archive, bytes, length) == (int)length ? 0 : fail_damaged();
}

/* Write the content of one file, which stands in whole blocks. */
static int unpack_file(gzFile archive, const char *path, unsigned mode, unsigned long left)
{
    static char bytes[64 * BLOCK];
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (file < 0)
        return fail("cannot write %s: %s", path, strerror(errno));
    while (left) {
        unsigned long wanted = left < sizeof bytes ? left : sizeof bytes;
        if (take(archive, bytes, (unsigned)((wanted + BLOCK - 1) / BLOCK * BLOCK))) {
            close(file);
            return -1;
        }
        if (write(file, bytes, wanted) != (ssize_t)wanted) {
            fail("cannot write %s: %s", path, strerror(errno ? errno : ENOSPC));
            close(file);
            return -1;
        }
        left -= wanted;
    }
    return close(file) ? fail("cannot write %s: %s", path, strerror(errno)) : 0;
}

/* One entry of a ustar archive (POSIX.1-1988): folders, files and links are all that was packed. */
static int unpack_entry(gzFile archive, const char *folder, const char *head)
{
    char name[PATH_MAX], path[PATH_MAX], target[101];
    unsigned mode = (unsigned)strtoul(head + 100, NULL, 8);
    unsigned long size = strtoul(head + 124, NULL, 8);
    snprintf(name, sizeof name, "%.155s%s%.100s", head + 345, head[345] ? "/" : "", head);
    join(path, folder, name);
    switch (head[156]) {
    case '5':
        return mkdir(path, 0700) ? fail("cannot make %s: %s", path, strerror(errno)) : 0;
    case '2':
        snprintf(target, sizeof target, "%.100s", head + 157);
        return symlink(target, path) ? fail("cannot make %s: %s", path, strerror(errno)) : 0;
    default:
        return unpack_file(archive, path, mode & 0755, size);
    }
}

/* Unpack all; the end is read too, since the checksum stands there. */
static int unpack(int self, off_t begin, const char *folder)
{
    char head[BLOCK];
    int result;
    gzFile archive = lseek(self, begin, SEEK_SET) == begin ? gzdopen(dup(self), "rb") : NULL;
    if (!archive)
        return fail("cannot read this file: %s", strerror(errno));
    gzbuffer(archive, 1 << 18);
    while (!(result = take(archive, head, BLOCK)) && head[0])
        if ((result = unpack_entry(archive, folder, head)))
            break;
    while (!result) {
        int count = gzread(archive, head, BLOCK);
        if (count < 0)
            result = fail_damaged();
        if (count <= 0)
            break;
    }
    gzclose(archive);
    return result;
}

/* Take away parts that a killed start has left, and versions that nobody uses. The caller holds the lock. */
static void tidy(const char *base, const char *name)
{
    DIR *folder = opendir(base);
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        char path[PATH_MAX], part[PATH_MAX];
        struct stat found;
        join(path, base, entry->d_name);
        if (!strncmp(entry->d_name, PART, strlen(PART))) {
            remove_folder(path);
        } else if (strlen(entry->d_name) == NAME_LENGTH && strspn(entry->d_name, "0123456789abcdef") == NAME_LENGTH
                   && strcmp(entry->d_name, name) && !lstat(path, &found) && time(NULL) - found.st_mtime > UNUSED_S) {
            int held = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            join(part, base, PART "old");
            if (held >= 0 && !flock(held, LOCK_EX | LOCK_NB) && !rename(path, part))
                remove_folder(part);
            if (held >= 0)
                close(held);
        }
    }
    if (folder)
        closedir(folder);
}

/* Hold a folder by a shared lock that lasts as long as the program, and mark it as used today. */
static int hold(const char *folder)
{
    struct stat held_stat, path_stat;
    int held = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (held < 0)
        return -1;
    if (flock(held, LOCK_SH) || fstat(held, &held_stat) || stat(folder, &path_stat)
        || held_stat.st_ino != path_stat.st_ino || held_stat.st_dev != path_stat.st_dev || held_stat.st_uid != geteuid()) {
        close(held);
        return -1;
    }
    futimens(held, NULL);
    return 0;
}

/* The unpacked folder below `base`, unpacking it first if need be. */
static int prepare(const char *base, const char *name, int self, off_t begin, char *folder)
{
    struct statvfs system;
    char part[PATH_MAX], path[PATH_MAX];
    join(folder, base, name);
    if (is_ours(base) && !hold(folder))
        return 0;
    if (make_folders(base))
        return fail("cannot make %s: %s", base, strerror(errno));
    if (!is_ours(base))
        return fail("%s is not a folder that only this user can write to", base);
    if (!statvfs(base, &system) && system.f_flag & ST_NOEXEC)
        return fail("%s is on a file system without programs (noexec)", base);
    join(path, base, LOCK);
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock < 0 || flock(lock, LOCK_EX))
        return fail("cannot write to %s: %s", base, strerror(errno));
    int result = hold(folder); /* another start may just have finished it */
    if (result) {
        tidy(base, name);
        snprintf(path, sizeof path, PART "%ld", (long)getpid());
        join(part, base, path);
        result = mkdir(part, 0700) ? fail("cannot write to %s: %s", base, strerror(errno)) : unpack(self, begin, part);
        int written = open(part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (!result && (syncfs(written) || rename(part, folder) || hold(folder)))
            result = fail("cannot write to %s: %s", base, strerror(errno));
        if (written >= 0)
            close(written);
        if (result)
            remove_folder(part);
    }
    close(lock);
    return result;
}

/* The folders that may be used, in their order; "" for none. */
static void candidate(int number, char *base)
{
    static const char *const variables[] = {"MEMORYROUTER_UNPACK_DIR", "CACHE_DIRECTORY", "XDG_CACHE_HOME", "HOME"};
    static const char *const below[] = {"", "", "/" PROGRAM, "/.cache/" PROGRAM};
    const char *value = number < 4 ? getenv(variables[number]) : NULL;
    base[0] = 0;
    if (number >= 4)
        snprintf(base, PATH_MAX, "%s/" PROGRAM "-%u", number == 4 ? "/var/tmp" : "/tmp", (unsigned)geteuid());
    else if (value && value[0] == '/')
        snprintf(base, PATH_MAX, "%s%s", value, below[number]);
}

int main(int count, char **arguments)
{
    char trailer[TRAILER_LENGTH + 1] = "", name[NAME_LENGTH + 1] = "", base[PATH_MAX], folder[PATH_MAX], program[PATH_MAX];
    int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    off_t end = self < 0 ? 0 : lseek(self, 0, SEEK_END);
    (void)count;
    if (end < (off_t)TRAILER_LENGTH
        || pread(self, trailer, TRAILER_LENGTH, end - (off_t)TRAILER_LENGTH) != (ssize_t)TRAILER_LENGTH
        || strcmp(trailer + NAME_LENGTH + SIZE_DIGITS, MAGIC)) {
        fprintf(stderr, "error: this file is not whole, or /proc is not there.\n");
        return EXIT_SETUP;
    }
    memcpy(name, trailer, NAME_LENGTH);
    trailer[NAME_LENGTH + SIZE_DIGITS] = 0;
    off_t begin = end - (off_t)TRAILER_LENGTH - (off_t)strtoull(trailer + NAME_LENGTH, NULL, 10);
    for (int number = 0; number < 6; number++) {
        candidate(number, base);
        if (!base[0] || prepare(base, name, self, begin, folder)) {
            if (is_damaged)
                break;
            continue;
        }
        join(program, folder, PROGRAM);
        execv(program, arguments);
        fail("cannot run %s: %s", program, strerror(errno));
    }
    fprintf(stderr, "error: %s.%s\n", failure,
            is_damaged ? "" : " Name a folder of yours with 200 MB of room in MEMORYROUTER_UNPACK_DIR.");
    return EXIT_SETUP;
}
