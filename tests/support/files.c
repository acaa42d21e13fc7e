#include "files.h"

#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct path {
    struct path *next;
    char text[];
} path;

static path *paths; /* all that were handed out since the last scratch_clean */
static const char *root;

const char *in_dir(const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    path *p = malloc(sizeof *p + size);
    ck_assert_ptr_nonnull(p);
    snprintf(p->text, size, "%s/%s", dir, name);
    p->next = paths;
    paths = p;
    return p->text;
}

static const char *made_in(const char *dir)
{
    const char *name = in_dir(dir, "eqat-test-XXXXXX");
    ck_assert_msg(mkdtemp((char *)name) != NULL, "%s", name);
    return name;
}

const char *scratch_dir(void)
{
    const char *base = getenv("TMPDIR");
    if (!base) base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    if (!root) root = made_in(base);
    return root;
}

const char *scratch(const char *name) { return in_dir(scratch_dir(), name); }

const char *fresh_dir(void) { return made_in(scratch_dir()); }

void scratch_clean(void)
{
    if (root) remove_dir(root);
    root = NULL;
    while (paths) {
        path *next = paths->next;
        free(paths);
        paths = next;
    }
}

static bool is_dots(const char *name) { return !strcmp(name, ".") || !strcmp(name, ".."); }

void remove_dir(const char *dir)
{
    DIR *list = opendir(dir);
    ck_assert_msg(list != NULL, "%s", dir);
    for (struct dirent *e; (e = readdir(list));) {
        struct stat sb;
        if (is_dots(e->d_name)) continue;
        ck_assert_int_eq(fstatat(dirfd(list), e->d_name, &sb, AT_SYMLINK_NOFOLLOW), 0);
        if (S_ISDIR(sb.st_mode))
            remove_dir(in_dir(dir, e->d_name));
        else
            unlinkat(dirfd(list), e->d_name, 0);
    }
    closedir(list);
    ck_assert_int_eq(rmdir(dir), 0);
}

int entries(const char *dir)
{
    DIR *list = opendir(dir);
    ck_assert_msg(list != NULL, "%s", dir);
    int n = 0;
    for (struct dirent *e; (e = readdir(list));) n += !is_dots(e->d_name);
    closedir(list);
    return n;
}

const char *write_file(const char *to, const void *data, size_t n)
{
    FILE *f = fopen(to, "wb");
    ck_assert_msg(f != NULL, "%s", to);
    ck_assert_uint_eq(fwrite(data, 1, n, f), n);
    ck_assert_int_eq(fclose(f), 0);
    return to;
}

const char *write_text(const char *to, const char *text)
{
    return write_file(to, text, strlen(text));
}

char *read_file(const char *from, size_t *n)
{
    FILE *f = fopen(from, "rb");
    struct stat sb;
    ck_assert_msg(f != NULL && fstat(fileno(f), &sb) == 0, "%s", from);
    char *text = calloc(1, (size_t)sb.st_size + 1);
    ck_assert_ptr_nonnull(text);
    ck_assert_uint_eq(fread(text, 1, (size_t)sb.st_size, f), (size_t)sb.st_size);
    fclose(f);
    if (n) *n = (size_t)sb.st_size;
    return text;
}

char *read_text(const char *from) { return read_file(from, NULL); }

static bool same_file(const char *a, const char *b)
{
    size_t n, m;
    if (access(a, F_OK) || access(b, F_OK)) return false;
    char *x = read_file(a, &n), *y = read_file(b, &m);
    bool same = n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

bool same_folders(const char *a, const char *b)
{
    bool same = entries(a) == entries(b);
    DIR *list = opendir(a);
    for (struct dirent *e; same && (e = readdir(list));)
        if (!is_dots(e->d_name)) same = same_file(in_dir(a, e->d_name), in_dir(b, e->d_name));
    closedir(list);
    return same;
}
