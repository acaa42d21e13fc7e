/* The public handle: from beginning to end. */
#include "data/tokenizer/tokenizer.h"

#include "base/file.h"

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static eqat_status open_into(eqat_tokenizer *t, const char *path)
{
    eqi_ctx *ctx = t->ctx;
    t->path = eqi_strdup(ctx, path);
    if (!t->path) return EQAT_OUT_OF_MEMORY;
    eqi_definition d = {0};
    eqat_status st = t->source == EQI_TOKENIZER_FOLDER ? eqi_define_folder(ctx, path, &d)
        : t->source == EQI_TOKENIZER_JSON              ? eqi_define_json(ctx, path, &d)
                                                       : eqi_define_gguf(ctx, path, &d, NULL);
    if (st == EQAT_OK) st = eqi_build(t, &d);
    eqi_definition_free(ctx, &d);
    return st;
}

eqat_status eqat_tokenizer_open(eqat_context *context, eqat_tokenizer **out, const char *path)
{
    if (out) *out = NULL;
    EQI_ENTER(context);
    EQI_NEED(context, out, path);
    if (!eqi_path_exists(path))
        return eqi_fail(context, EQAT_NOT_FOUND,
                        "%s: found nothing, expected a folder with a tokenizer, a tokenizer.json "
                        "or a GGUF file",
                        path);
    return eqi_tokenizer_open_as(context, out, path,
                                 eqi_path_is_dir(path)          ? EQI_TOKENIZER_FOLDER
                                     : ends_with(path, ".json") ? EQI_TOKENIZER_JSON
                                                                : EQI_TOKENIZER_GGUF);
}

eqat_status eqi_tokenizer_open_as(eqi_ctx *context, eqat_tokenizer **out, const char *path,
                                  eqi_tokenizer_source source)
{
    *out = NULL;
    eqat_tokenizer *t = eqi_calloc(context, 1, sizeof *t, "a tokenizer");
    if (!t) return EQAT_OUT_OF_MEMORY;
    t->ctx = eqi_ctx_ref(context);
    t->source = source;
    t->bpe.ctx = context;
    t->bpe.unk = t->bos = t->eos = t->unk = EQI_NO_ID;
    eqi_added_init(&t->added);
    eqat_status st = open_into(t, path);
    if (st != EQAT_OK) {
        eqat_tokenizer_free(t);
        return st;
    }
    eqat_tokenizer_release_buffers(t);
    *out = t;
    return EQAT_OK;
}

static void unref(void *tokenizer)
{
    eqat_tokenizer *t = tokenizer;
    eqi_ctx *ctx = t->ctx;
    eqat_tokenizer_release_buffers(t);
    eqi_bpe_free(&t->bpe);
    eqi_added_free(ctx, &t->added);
    eqi_normalizers_free(ctx, &t->normalizers);
    eqi_split_free(ctx, &t->split);
    eqi_decoder_free(ctx, &t->decoder);
    eqi_ids_free(ctx, &t->before);
    eqi_ids_free(ctx, &t->after);
    eqi_free(ctx, t->path);
    eqi_free(ctx, t);
    eqi_ctx_unref(ctx);
}

void eqat_tokenizer_free(eqat_tokenizer *t)
{
    if (t) eqi_handle_free(t->ctx, &t->handle, unref, t);
}
