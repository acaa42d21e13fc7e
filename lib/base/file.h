/* Files: whole reads by position, outputs that appear complete or not at all. */
#ifndef EQI_BASE_FILE_H
#define EQI_BASE_FILE_H

#include "base/context.h"

/* An input file read with pread: no shared position, no mapping that a shrinking file turns into
 * SIGBUS. */
typedef struct eqi_file {
    eqi_ctx *ctx; /* borrowed */
    char *path;
    int fd;
    uint64_t size;
} eqi_file;

eqat_status eqi_file_open(eqi_ctx *ctx, eqi_file **out, const char *path);
void eqi_file_close(eqi_file *file); /* NULL is fine */
/* Reads exactly n bytes at offset; a short file is EQAT_FORMAT naming path, size and the range
 * asked for. */
eqat_status eqi_file_read(eqi_file *file, void *buffer, uint64_t offset, size_t n);
/* Whole file with a terminating NUL that `size` does not count. At most `limit` bytes. Freed with
 * eqi_free. */
eqat_status eqi_file_slurp(eqi_ctx *ctx, const char *path, size_t limit, char **out, size_t *size);
/* The same for a file of a folder that may come from a stranger: a symbolic link in its place is
 * EQAT_FORMAT unless it leads to a file below the folder, or of the blobs of Hugging Face's cache
 * when the folder is one of its snapshots. */
eqat_status eqi_file_open_inside(eqi_ctx *ctx, eqi_file **out, const char *path);
eqat_status eqi_file_slurp_inside(eqi_ctx *ctx, const char *path, size_t limit, char **out,
                                  size_t *size);
/* Only whether it may be opened so. */
eqat_status eqi_path_check_inside(eqi_ctx *ctx, const char *path);
bool eqi_path_is_dir(const char *path);
bool eqi_path_exists(const char *path);
char *eqi_path_join(eqi_ctx *ctx, const char *dir, const char *name);

/* What a file or folder is called until it is whole: TARGET.partial-PID-ATTEMPT, beside it. */
char *eqi_temp_name(eqi_ctx *ctx, const char *target, int attempt);
/* Renames it and syncs the folder it is in, so that the new name outlives a loss of power. */
eqat_status eqi_temp_commit(eqi_ctx *ctx, const char *temp, const char *target);
/* Removes what processes that are dead have left under such names. */
void eqi_temp_clean(const char *target);

/* An output folder built beside its final place and renamed there by commit, so that a failure, a
 * full disk or a signal leaves no partial output. Refuses (EQAT_EXISTS) a target that is a file or
 * a folder with anything in it; an empty folder is taken over. */
typedef struct eqi_outdir {
    eqi_ctx *ctx;
    char *target;
    char *temp; /* write here */
} eqi_outdir;

eqat_status eqi_outdir_begin(eqi_ctx *ctx, eqi_outdir **out, const char *target);
/* Frees *dir, also on failure (the temporary folder is then removed). */
eqat_status eqi_outdir_commit(eqi_outdir **dir);
void eqi_outdir_abort(eqi_outdir **dir); /* removes what was written; NULL and *NULL are fine */

/* A buffered sequential output file inside an outdir. The first failure is kept and told by close.
 */
typedef struct eqi_out eqi_out;
eqat_status eqi_out_open(eqi_ctx *ctx, eqi_out **out, const char *path);
/* A file that is no part of an outdir: built beside `path`, where nothing is yet (else
 * EQAT_EXISTS), and renamed there by close. */
eqat_status eqi_out_open_beside(eqi_ctx *ctx, eqi_out **out, const char *path);
eqat_status eqi_out_write(eqi_out *out, const void *data, size_t n);
eqat_status eqi_out_seek(eqi_out *out, uint64_t at); /* where the next bytes go */
eqat_status eqi_out_close(eqi_out *out);             /* fsync and close; frees in every case */
void eqi_out_discard(eqi_out *out); /* after a failure elsewhere: close and unlink; NULL is fine */
/* One small file at once, through eqi_out. */
eqat_status eqi_write_file(eqi_ctx *ctx, const char *path, const void *data, size_t n);
/* Copies a file of the folder `from`, which may come from a stranger and lack it, into `to`. */
eqat_status eqi_copy_inside(eqi_ctx *ctx, const char *from, const char *to, const char *name,
                            size_t limit);

#endif
