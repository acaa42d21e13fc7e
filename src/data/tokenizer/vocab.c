#include "data/tokenizer/vocab.h"

static uint32_t hash(const char *s, size_t n)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ n;
    for (; n >= 8; s += 8, n -= 8) {
        uint64_t w;
        memcpy(&w, s, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    uint64_t w = 0;
    memcpy(&w, s, n);
    h = (h ^ w) * 0xff51afd7ed558ccdu;
    h ^= h >> 29;
    h *= 0xc4ceb9fe1a85ec53u;
    return (uint32_t)(h >> 32);
}

static bool same(const eqi_vocab *v, int32_t id, const char *text, size_t n)
{
    return v->length[id] == n && memcmp(v->texts.data + v->start[id] - 1, text, n) == 0;
}

static uint32_t slot_of(const eqi_vocab *v, const char *text, size_t n)
{
    uint32_t i = hash(text, n) & v->mask;
    while (v->slots[i] && !same(v, v->slots[i] - 1, text, n)) i = (i + 1) & v->mask;
    return i;
}

static eqat_status grow_slots(eqi_ctx *ctx, eqi_vocab *v)
{
    uint32_t size = v->slots ? (v->mask + 1) * 2 : 1024;
    int32_t *old = v->slots;
    uint32_t old_size = old ? v->mask + 1 : 0;
    int32_t *slots = eqi_calloc(ctx, size, sizeof *slots, "a vocabulary");
    if (!slots) return EQAT_OUT_OF_MEMORY;
    v->slots = slots;
    v->mask = size - 1;
    for (uint32_t i = 0; i < old_size; i++)
        if (old[i])
            slots[slot_of(v, v->texts.data + v->start[old[i] - 1] - 1, v->length[old[i] - 1])] =
                old[i];
    eqi_free(ctx, old);
    return EQAT_OK;
}

static eqat_status grow_ids(eqi_ctx *ctx, eqi_vocab *v, int32_t need)
{
    int32_t capacity = v->capacity ? v->capacity : 1024;
    while (capacity < need) capacity *= 2;
    size_t *start = eqi_realloc(ctx, v->start, (size_t)capacity * sizeof *start, "a vocabulary");
    if (!start) return EQAT_OUT_OF_MEMORY;
    v->start = start;
    uint32_t *length =
        eqi_realloc(ctx, v->length, (size_t)capacity * sizeof *length, "a vocabulary");
    if (!length) return EQAT_OUT_OF_MEMORY;
    v->length = length;
    for (int32_t i = v->capacity; i < capacity; i++) start[i] = length[i] = 0;
    v->capacity = capacity;
    return EQAT_OK;
}

eqat_status eqi_vocab_add(eqi_ctx *ctx, eqi_vocab *v, int32_t id, const char *text, size_t n)
{
    if (id < 0 || id >= EQI_VOCAB_MAX || n > UINT32_MAX) return EQAT_INVALID_ARGUMENT;
    if (eqi_vocab_text(v, id, NULL) || eqi_vocab_find(v, text, n) != EQI_NO_ID) return EQAT_EXISTS;
    if (id >= v->capacity) EQI_RETURN_IF(grow_ids(ctx, v, id + 1));
    if (!v->slots || v->used >= (v->mask + 1) / 2) EQI_RETURN_IF(grow_slots(ctx, v));
    EQI_RETURN_IF(eqi_bytes_reserve(ctx, &v->texts, n + 1));
    uint32_t slot = slot_of(v, text, n);
    v->start[id] = v->texts.size + 1;
    v->length[id] = (uint32_t)n;
    EQI_RETURN_IF(eqi_bytes_append(ctx, &v->texts, text, n));
    v->texts.data[v->texts.size++] = 0;
    v->slots[slot] = id + 1;
    v->used++;
    if (id >= v->count) v->count = id + 1;
    return EQAT_OK;
}

void eqi_vocab_free(eqi_ctx *ctx, eqi_vocab *v)
{
    eqi_bytes_free(ctx, &v->texts);
    eqi_free(ctx, v->start);
    eqi_free(ctx, v->length);
    eqi_free(ctx, v->slots);
    *v = (eqi_vocab){0};
}

int32_t eqi_vocab_find(const eqi_vocab *v, const char *text, size_t n)
{
    return v->slots ? v->slots[slot_of(v, text, n)] - 1 : EQI_NO_ID;
}

const char *eqi_vocab_text(const eqi_vocab *v, int32_t id, size_t *n)
{
    if (id < 0 || id >= v->count || !v->start[id]) return NULL;
    if (n) *n = v->length[id];
    return v->texts.data + v->start[id] - 1;
}
