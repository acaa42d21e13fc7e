/* Scratch folders, and files read and written without the library. */
#ifndef TESTS_SUPPORT_FILES_H
#define TESTS_SUPPORT_FILES_H

#include <stdbool.h>
#include <stddef.h>

/* The process's scratch folder, under TMPDIR or else in memory where there is such a place.
 * scratch_clean removes it with everything inside; the next use makes a new one. */
const char *scratch_dir(void);
void scratch_clean(void);
/* Paths: valid until scratch_clean. */
const char *scratch(const char *name); /* in the scratch folder */
const char *fresh_dir(void);           /* a new, empty folder there */
const char *in_dir(const char *dir, const char *name);

void remove_dir(const char *dir); /* with what is inside */
/* Names in a folder, hidden ones too. */
int entries(const char *dir);
/* Both give the path. */
const char *write_file(const char *path, const void *data, size_t n);
const char *write_text(const char *path, const char *text);
/* The whole file with a NUL behind it; freed with free. n may be NULL. */
char *read_file(const char *path, size_t *n);
char *read_text(const char *path);
/* Same names and bytes in both folders. */
bool same_folders(const char *a, const char *b);

#endif
