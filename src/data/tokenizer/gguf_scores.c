/* SentencePiece keeps a score per token and merges the pair whose token scores best. As a merge
 * list that is every way to put a token together from two others, best score first, and for equal
 * scores by the ids of the left part and of the right. */
#include <stdlib.h>

#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/utf8.h"
#include "format/gguf.h"

typedef struct candidate {
    double score;
    int32_t left, right;
    uint32_t left_length; /* of the merged token's text */
    int32_t id;
} candidate;

typedef struct candidates {
    candidate *list;
    size_t count, capacity;
} candidates;

static int better(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return x->right < y->right ? -1 : x->right > y->right;
}

static eqat_status add(eqi_ctx *ctx, candidates *c, candidate one)
{
    candidate *list =
        eqi_grow(ctx, c->list, c->count, &c->capacity, sizeof *list, "a tokenizer's merges");
    if (!list) return EQAT_OUT_OF_MEMORY;
    c->list = list;
    c->list[c->count++] = one;
    return EQAT_OK;
}

static eqat_status collect(const eqi_gguf_vocab *v, const eqi_vocab *texts, candidates *c)
{
    for (int32_t id = 0; id < texts->count; id++) {
        int64_t type = 1;
        double score;
        size_t n;
        const char *s = eqi_vocab_text(texts, id, &n);
        eqi_gguf_array_int(v->file, "tokenizer.ggml.token_type", id, &type);
        if (!s || type != 1)
            continue; /* control, byte and user-defined tokens are no result of merging */
        if (!eqi_gguf_array_float(v->file, "tokenizer.ggml.scores", id, &score) || score != score)
            return eqi_fail(v->ctx, EQAT_FORMAT,
                            "%s: tokenizer.ggml.scores: expected a number for token %d", v->path,
                            (int)id);
        if (n > 4096) continue;
        for (size_t i = eqi_utf8_length((unsigned char)s[0]); i < n;
             i += eqi_utf8_length((unsigned char)s[i])) {
            int32_t left = eqi_vocab_find(texts, s, i), right = eqi_vocab_find(texts, s + i, n - i);
            if (left == EQI_NO_ID || right == EQI_NO_ID) continue;
            EQI_RETURN_IF(add(v->ctx, c,
                              (candidate){.score = score,
                                          .left = left,
                                          .right = right,
                                          .left_length = (uint32_t)i,
                                          .id = id}));
        }
    }
    return EQAT_OK;
}

static eqat_status write(eqi_ctx *ctx, const eqi_vocab *texts, const candidates *c, json_t *out)
{
    eqi_bytes merge = {0};
    eqat_status st = EQAT_OK;
    /* Older readers know merges as "left right" only, which cannot say a token with a space in it.
     */
    bool pairs = false;
    for (size_t i = 0; i < c->count && !pairs; i++)
        pairs = strchr(eqi_vocab_text(texts, c->list[i].id, NULL), ' ') != NULL;
    for (size_t i = 0; i < c->count && st == EQAT_OK; i++) {
        size_t n, left = c->list[i].left_length;
        const char *s = eqi_vocab_text(texts, c->list[i].id, &n);
        merge.size = 0;
        EQI_GOTO(done, eqi_bytes_append(ctx, &merge, s, left));
        EQI_GOTO(done, eqi_bytes_append(ctx, &merge, " ", 1));
        EQI_GOTO(done, eqi_bytes_append(ctx, &merge, s + left, n - left));
        json_t *one = pairs ? json_pack("[s%, s%]", s, left, s + left, n - left)
                            : json_stringn(merge.data, merge.size);
        if (json_array_append_new(out, one) != 0) st = eqi_json_memory(ctx);
    }
done:
    eqi_bytes_free(ctx, &merge);
    return st;
}

eqat_status eqi_gguf_merges_from_scores(const eqi_gguf_vocab *v, json_t **merges)
{
    eqi_vocab texts = {0};
    candidates c = {0};
    const char *text;
    json_t *id, *list = json_array();
    eqat_status st = list ? EQAT_OK : eqi_json_memory(v->ctx);
    if (st == EQAT_OK && eqi_gguf_array_count(v->file, "tokenizer.ggml.scores") != v->count)
        st = eqi_fail(v->ctx, EQAT_FORMAT,
                      "%s: tokenizer.ggml.scores: expected %lld entries, as many as tokens",
                      v->path, (long long)v->count);
    if (st != EQAT_OK) goto done;
    json_object_foreach(v->vocab, text, id) EQI_GOTO(
        done, eqi_vocab_add(v->ctx, &texts, (int32_t)json_integer_value(id), text, strlen(text)));
    EQI_GOTO(done, collect(v, &texts, &c));
    if (c.count) qsort(c.list, c.count, sizeof *c.list, better);
    EQI_GOTO(done, write(v->ctx, &texts, &c, list));
done:
    eqi_free(v->ctx, c.list);
    eqi_vocab_free(v->ctx, &texts);
    if (st == EQAT_OK)
        *merges = list;
    else
        json_decref(list);
    return st;
}
