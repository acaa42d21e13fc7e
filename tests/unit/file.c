#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "each_test.h"
#include "unit.h"

static char message[512];
static const char *path; /* the last that was asked for */

static const char *named(const char *name) { return path = scratch(name); }

START_TEST(reads_by_position)
{
    OK(ctx, eqi_write_file(ctx, named("ten"), "0123456789", 10));
    eqi_file *f;
    OK(ctx, eqi_file_open(ctx, &f, path));
    ck_assert_uint_eq(f->size, 10);
    char b[4] = "";
    OK(ctx, eqi_file_read(f, b, 7, 3));
    ck_assert_str_eq(b, "789");
    OK(ctx, eqi_file_read(f, b, 10, 0));
    ck_assert_int_eq(eqi_file_read(f, b, 8, 3), EQAT_FORMAT);
    ck_assert_ptr_nonnull(strstr(ctx->error, "/ten: truncated"));
    eqi_file_close(f);
    eqi_file_close(NULL);
}
END_TEST

START_TEST(what_cannot_be_opened)
{
    eqi_file *f;
    snprintf(message, sizeof message, "%s/none: cannot open: No such file or directory", dir);
    FAILS(ctx, EQAT_NOT_FOUND, message, eqi_file_open(ctx, &f, named("none")));
    ck_assert_ptr_null(f);
    snprintf(message, sizeof message, "%s: not a regular file", dir);
    FAILS(ctx, EQAT_IO, message, eqi_file_open(ctx, &f, dir));
    ck_assert_int_eq(mkfifo(named("pipe"), 0600), 0);
    says(ctx, eqi_file_open(ctx, &f, path), EQAT_IO, "not a regular file");
    unlink(path);
}
END_TEST

START_TEST(slurps_up_to_a_limit)
{
    OK(ctx, eqi_write_file(ctx, named("f"), "abc", 3));
    char *text;
    size_t n;
    OK(ctx, eqi_file_slurp(ctx, path, 3, &text, &n));
    ck_assert_uint_eq(n, 3);
    ck_assert_str_eq(text, "abc");
    eqi_free(ctx, text);
    snprintf(message, sizeof message, "%s/f: found 3 bytes, expected at most 2", dir);
    FAILS(ctx, EQAT_FORMAT, message, eqi_file_slurp(ctx, path, 2, &text, &n));
    ck_assert_ptr_null(text);
}
END_TEST

START_TEST(buffered_output)
{
    enum { N = 200001 };
    char *data = malloc(N), *text;
    for (int i = 0; i < N; i++) data[i] = (char)(i * 31 % 251);
    eqi_out *o;
    OK(ctx, eqi_out_open(ctx, &o, named("out")));
    size_t at = 0;
    for (size_t step = 1; at < N; step = step * 3 % 70001) {
        size_t n = step < N - at ? step : N - at;
        OK(ctx, eqi_out_write(o, data + at, n));
        at += n;
    }
    OK(ctx, eqi_out_close(o));
    size_t size;
    OK(ctx, eqi_file_slurp(ctx, path, N, &text, &size));
    ck_assert_uint_eq(size, N);
    ck_assert_mem_eq(text, data, N);
    eqi_free(ctx, text);
    free(data);
    ck_assert_int_eq(eqi_out_open(ctx, &o, path), EQAT_EXISTS);
    OK(ctx, eqi_out_open(ctx, &o, named("gone")));
    eqi_out_discard(o);
    eqi_out_discard(NULL);
    ck_assert(!eqi_path_exists(path));
}
END_TEST

START_TEST(full_disk)
{
    int fd = open("/dev/full", O_WRONLY);
    if (fd < 0) return;
    close(fd);
    ck_assert_int_eq(symlink("/dev/full", named("full")), 0);
    eqi_out *o;
    /* O_EXCL refuses links: an output is never written through one. */
    ck_assert_int_eq(eqi_out_open(ctx, &o, path), EQAT_EXISTS);
}
END_TEST

START_TEST(folder_appears_on_commit)
{
    eqi_outdir *d;
    OK(ctx, eqi_outdir_begin(ctx, &d, named("model/")));
    ck_assert(!eqi_path_exists(path));
    char *p = eqi_path_join(ctx, d->temp, "config.json");
    OK(ctx, eqi_write_file(ctx, p, "{}", 2));
    eqi_free(ctx, p);
    OK(ctx, eqi_outdir_commit(&d));
    ck_assert_ptr_null(d);
    ck_assert(eqi_path_is_dir(named("model")));
    ck_assert(eqi_path_exists(named("model/config.json")));
    ck_assert_int_eq(entries(dir), 1);
    struct stat sb;
    mode_t mask = umask(0);
    umask(mask);
    ck_assert_int_eq(stat(named("model"), &sb), 0);
    ck_assert_uint_eq(sb.st_mode & 0777, 0777 & ~mask);
}
END_TEST

START_TEST(folder_of_nobody_else)
{
    eqi_outdir *d;
    ck_assert_int_eq(mkdir(named("model"), 0777), 0);
    OK(ctx, eqi_outdir_begin(ctx, &d, path));
    OK(ctx, eqi_outdir_commit(&d));
    OK(ctx, eqi_write_file(ctx, named("model/x"), "", 0));
    snprintf(message, sizeof message,
             "%s/model: found a folder that is not empty, expected a new or empty folder", dir);
    FAILS(ctx, EQAT_EXISTS, message, eqi_outdir_begin(ctx, &d, named("model")));
    ck_assert_ptr_null(d);
    ck_assert_int_eq(eqi_outdir_begin(ctx, &d, named("model/x")), EQAT_EXISTS);
    ck_assert_int_eq(eqi_outdir_begin(ctx, &d, named("no/such/place")), EQAT_NOT_FOUND);
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "output folder: found an empty name",
          eqi_outdir_begin(ctx, &d, ""));
    ck_assert_ptr_null(d);
    ck_assert_int_eq(entries(dir), 1);
}
END_TEST

START_TEST(folder_aborted)
{
    eqi_outdir *d;
    OK(ctx, eqi_outdir_begin(ctx, &d, named("model")));
    char *p = eqi_path_join(ctx, d->temp, "shard");
    OK(ctx, eqi_write_file(ctx, p, "x", 1));
    eqi_free(ctx, p);
    ck_assert_int_eq(entries(dir), 1);
    eqi_outdir_abort(&d);
    eqi_outdir_abort(&d);
    eqi_outdir_abort(NULL);
    ck_assert_int_eq(entries(dir), 0);
}
END_TEST

START_TEST(target_taken_meanwhile)
{
    eqi_outdir *d;
    OK(ctx, eqi_outdir_begin(ctx, &d, named("model")));
    ck_assert_int_eq(mkdir(path, 0777), 0);
    OK(ctx, eqi_write_file(ctx, named("model/theirs"), "x", 1));
    ck_assert_int_eq(eqi_outdir_commit(&d), EQAT_IO);
    ck_assert_ptr_null(d);
    ck_assert(eqi_path_exists(named("model/theirs")));
    ck_assert_int_eq(entries(dir), 1);
}
END_TEST

static void link_to(const char *target, const char *name)
{
    ck_assert_int_eq(symlink(target, named(name)), 0);
}

/* Of the folders a and a/b, and of a snapshot of Hugging Face's cache. */
START_TEST(links_stay_inside_their_folder)
{
    static const char *const folders[] = {"a",           "a/b",           "c", "c/blobs",
                                          "c/snapshots", "c/snapshots/r", "ab"};
    static const struct {
        const char *name, *target;
        eqat_status status;
    } links[] = {
        {"a/link", "file", EQAT_OK},
        {"a/down", "b/file", EQAT_OK},
        {"a/twice", "link", EQAT_OK},
        {"a/b/up", "../file", EQAT_FORMAT},
        {"a/beside", "../ab/file", EQAT_FORMAT},
        {"a/root", "/etc/hostname", EQAT_FORMAT},
        {"a/chain", "b/up", EQAT_OK},
        {"a/none", "missing", EQAT_FORMAT},
        {"a/self", "self", EQAT_FORMAT},
        {"c/snapshots/r/blob", "../../blobs/file", EQAT_OK},
        {"c/snapshots/r/over", "../../other", EQAT_FORMAT},
    };
    eqi_file *f;
    char *text;
    for (size_t i = 0; i < EQI_COUNT(folders); i++) mkdir(named(folders[i]), 0777);
    static const char *const files[] = {"a/file", "a/b/file", "ab/file", "c/blobs/file", "c/other"};
    for (size_t i = 0; i < EQI_COUNT(files); i++)
        OK(ctx, eqi_write_file(ctx, named(files[i]), "text", 4));
    for (size_t i = 0; i < EQI_COUNT(links); i++) {
        link_to(links[i].target, links[i].name);
        ck_assert_msg(eqi_path_check_inside(ctx, path) == links[i].status, "%s", path);
        ck_assert_msg(eqi_file_open_inside(ctx, &f, path) == links[i].status, "%s", path);
        if (links[i].status == EQAT_OK) {
            ck_assert_str_eq(f->path, path);
            eqi_file_close(f);
        } else {
            ck_assert_ptr_null(f);
            ck_assert_ptr_nonnull(strstr(ctx->error, "symbolic link"));
        }
    }
    OK(ctx, eqi_path_check_inside(ctx, named("a/nothing")));
    OK(ctx, eqi_file_slurp_inside(ctx, named("a/down"), 4, &text, NULL));
    ck_assert_str_eq(text, "text");
    eqi_free(ctx, text);
    OK(ctx, eqi_file_open(ctx, &f, named("a/beside"))); /* what the user names himself */
    eqi_file_close(f);
}
END_TEST

/* A process that is gone. */
static long dead(void)
{
    pid_t pid = fork();
    if (pid == 0) _exit(0);
    waitpid(pid, NULL, 0);
    return pid;
}

static void leave(const char *format, long pid)
{
    char name[64];
    snprintf(name, sizeof name, format, pid);
    OK(ctx, eqi_write_file(ctx, named(name), "x", 1));
}

START_TEST(what_the_dead_left)
{
    eqi_outdir *d;
    char name[64];
    long pid = dead();
    snprintf(name, sizeof name, "model.partial-%ld-0", pid);
    ck_assert_int_eq(mkdir(named(name), 0777), 0);
    snprintf(name, sizeof name, "model.partial-%ld-0/shard", pid);
    OK(ctx, eqi_write_file(ctx, named(name), "x", 1));
    leave("model.partial-%ld-1", pid);
    leave("model.partial-%ld", pid);
    leave("model.partial-%ldx", pid); /* none of ours */
    leave("other.partial-%ld-0", pid);
    leave("model.partial-%ld-9", getpid());
    leave("model.partial-0", 0);
    OK(ctx, eqi_outdir_begin(ctx, &d, named("model")));
    ck_assert_int_eq(entries(dir), 5);
    OK(ctx, eqi_outdir_commit(&d));
    ck_assert_int_eq(entries(dir), 5);
    ck_assert(eqi_path_is_dir(named("model")));
}
END_TEST

TCase *case_file(void)
{
    TCase *t = tcase_create("file");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, reads_by_position);
    tcase_add_test(t, what_cannot_be_opened);
    tcase_add_test(t, slurps_up_to_a_limit);
    tcase_add_test(t, buffered_output);
    tcase_add_test(t, full_disk);
    tcase_add_test(t, folder_appears_on_commit);
    tcase_add_test(t, folder_of_nobody_else);
    tcase_add_test(t, folder_aborted);
    tcase_add_test(t, links_stay_inside_their_folder);
    tcase_add_test(t, target_taken_meanwhile);
    tcase_add_test(t, what_the_dead_left);
    return t;
}
