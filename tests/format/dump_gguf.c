/* dump_gguf FILE OUT [CONFIG]: prints one line "name type dims..." per tensor and writes all values
 * as f32 to OUT, both in file order; with CONFIG under Hugging Face names, and config.json there.
 * For comparisons with other readers. */
#include <stdio.h>
#include <stdlib.h>

#include "engine/engine.h"
#include "format/gguf_names.h"

static eqat_status open_hf(eqi_gguf *g, eqi_source **s, const char *config_path)
{
    json_t *config;
    EQI_RETURN_IF(eqi_gguf_open_hf(g, s, &config));
    const int failed = json_dump_file(config, config_path, 0);
    json_decref(config);
    return failed ? EQAT_IO : EQAT_OK;
}

static eqat_status dump(eqi_ctx *ctx, const char *path, FILE *out, const char *config)
{
    eqi_gguf *g = NULL;
    eqi_source *s = NULL;
    eqat_status st;
    EQI_GOTO(done, eqi_gguf_open(ctx, &g, path));
    EQI_GOTO(done, config ? open_hf(g, &s, config) : eqi_gguf_source(g, &s));
    for (size_t i = 0; i < eqi_source_count(s); i++) {
        const eqi_source_entry *e = eqi_source_at(s, i);
        printf("%s %s", e->name, eqi_stored_name(e->stored));
        for (int d = 0; d < e->ndim; d++) printf(" %lld", (long long)e->shape[d]);
        putchar('\n');
        float *values = eqi_alloc(ctx, (size_t)e->elements * sizeof *values, e->name);
        st = values ? eqi_source_read_f32(s, e, 0, e->elements, values) : EQAT_OUT_OF_MEMORY;
        if (st == EQAT_OK &&
            fwrite(values, sizeof *values, (size_t)e->elements, out) != (size_t)e->elements)
            st = EQAT_IO;
        eqi_free(ctx, values);
        if (st != EQAT_OK) goto done;
    }
done:
    eqi_gguf_close(g);
    eqi_source_close(s);
    return st;
}

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: %s FILE OUT [CONFIG]\n", argv[0]);
        return 2;
    }
    eqi_ctx *ctx;
    char error[EQI_ERROR_MAX] = "";
    eqi_ctx_config config = {.device = "cpu", .threads = 1};
    if (eqi_ctx_create(&ctx, &config, error, sizeof error) != EQAT_OK) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    FILE *out = fopen(argv[2], "wb");
    eqat_status st = out ? dump(ctx, argv[1], out, argv[3]) : EQAT_IO;
    if (out && fclose(out) != 0) st = EQAT_IO;
    if (st != EQAT_OK) fprintf(stderr, "%s\n", ctx->error);
    eqi_ctx_unref(ctx);
    return st != EQAT_OK;
}
