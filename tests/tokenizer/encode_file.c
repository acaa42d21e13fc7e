/* Encodes records of a file for comparison with another implementation, and times it.
 *   encode_file TOKENIZER RECORDS IDS [add] [parse] [decode] [save=DIR]
 * RECORDS and IDS are rows of a little-endian u32 count and so many bytes or i32 ids. With "decode"
 * every result is decoded again and IDS holds the bytes instead; with "save=" the tokenizer's files
 * are written into DIR. Prints the processor seconds spent encoding. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "eqat/context.h"
#include "eqat/tokenizer.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "encode_file: %s: %s\n", what, why);
    return 1;
}

static int encode_all(const eqat_tokenizer *t, const eqat_context *ctx, FILE *in, FILE *out,
                      uint32_t flags, int decode, double *seconds)
{
    uint32_t n;
    while (fread(&n, sizeof n, 1, in) == 1) {
        char *text = malloc(n + 1u);
        const int32_t *ids;
        size_t count;
        if (!text || fread(text, 1, n, in) != n) {
            free(text);
            return fail("records", "cut off");
        }
        double start = now();
        eqat_status st = eqat_tokenizer_encode(t, text, n, flags, &ids, &count);
        *seconds += now() - start;
        free(text);
        if (st != EQAT_OK) return fail("encode", eqat_context_error(ctx));
        if (decode) {
            const char *bytes;
            size_t length;
            if (eqat_tokenizer_decode(t, ids, count, EQAT_TOKENIZE_PLAIN, &bytes, &length) !=
                EQAT_OK)
                return fail("decode", eqat_context_error(ctx));
            n = (uint32_t)length;
            fwrite(&n, sizeof n, 1, out);
            fwrite(bytes, 1, length, out);
        } else {
            n = (uint32_t)count;
            fwrite(&n, sizeof n, 1, out);
            fwrite(ids, sizeof *ids, count, out);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 4) return fail("usage", "encode_file TOKENIZER RECORDS IDS [add] [parse] [decode]");
    uint32_t flags = EQAT_TOKENIZE_PLAIN;
    int decode = 0;
    const char *save = NULL;
    for (int i = 4; i < argc; i++) {
        if (!strcmp(argv[i], "add")) flags |= EQAT_TOKENIZE_ADD_SPECIAL;
        if (!strcmp(argv[i], "parse")) flags |= EQAT_TOKENIZE_PARSE_SPECIAL;
        if (!strcmp(argv[i], "decode")) decode = 1;
        if (!strncmp(argv[i], "save=", 5)) save = argv[i] + 5;
    }
    eqat_context_options options;
    eqat_context_options_init(&options, sizeof options);
    options.threads = 1;
    char error[256];
    eqat_context *ctx;
    eqat_tokenizer *t;
    if (eqat_context_create(&ctx, &options, error, sizeof error) != EQAT_OK)
        return fail("context", error);
    double start = now(), seconds = 0;
    if (eqat_tokenizer_open(ctx, &t, argv[1]) != EQAT_OK) {
        fail("open", eqat_context_error(ctx));
        eqat_context_free(ctx);
        return 1;
    }
    double opened = now() - start;
    FILE *in = fopen(argv[2], "rb"), *out = fopen(argv[3], "wb");
    int rc = in && out ? encode_all(t, ctx, in, out, flags, decode, &seconds)
                       : fail(argv[2], "cannot open");
    if (save && eqat_tokenizer_save(t, save) != EQAT_OK) rc = fail("save", eqat_context_error(ctx));
    if (in) fclose(in);
    if (out && fclose(out) != 0) rc = fail(argv[3], "cannot write");
    printf("open %.3f s, encode %.6f s\n", opened, seconds);
    eqat_tokenizer_free(t);
    eqat_context_free(ctx);
    return rc;
}
