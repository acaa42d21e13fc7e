#include <math.h>
#include <stdlib.h>

#include "fuzz.h"
#include "model/model.h"

/* What the rest of the library takes for granted of a configuration. */
static void sound(const eqi_config *c)
{
    int64_t limit = (int64_t)1 << 32;
    if (c->hidden < 1 || c->intermediate < 1 || c->blocks < 1 || c->vocab < 1) abort();
    if (c->head_dim < 2 || c->head_dim % 2 || c->heads % c->kv_heads) abort();
    if (c->heads * c->head_dim > limit || c->hidden > limit || c->intermediate > limit ||
        c->vocab > limit)
        abort();
    if (!(c->eps >= 0) || c->window < 0 || c->n_ropes < 1 || c->n_ropes > EQI_ROPES) abort();
    for (int i = 0; i < c->n_ropes; i++)
        if (!(c->ropes[i].theta >= 1) || !(c->ropes[i].factor >= 1)) abort();
}

static eqat_status tables(eqi_ctx *ctx, const eqi_config *c)
{
    for (int r = 0; r < c->n_ropes && c->head_dim <= 512; r++) {
        eqi_rotary t;
        EQI_RETURN_IF(eqi_rope_tables(ctx, c, &c->ropes[r], 2, 2 * c->max_positions, &t));
        for (int64_t i = 0; i < c->head_dim; i++)
            if (!isfinite(((float *)t.cos->v.data)[i]) || !isfinite(((float *)t.sin->v.data)[i]))
                abort();
        eqi_rotary_release(&t);
    }
    eqi_storage_trim(ctx);
    return EQAT_OK;
}

eqat_status eqat_fuzz_one(eqi_ctx *ctx, const char *path, const uint8_t *data, size_t size)
{
    json_error_t error;
    json_t *json = json_loadb((const char *)data, size, 0, &error);
    if (!json) return eqi_fail(ctx, EQAT_FORMAT, "%s: %s", path, error.text);
    eqi_config c;
    eqi_packing q;
    eqat_status st = eqi_config_parse(ctx, &c, json, path);
    if (st == EQAT_OK) {
        sound(&c);
        st = tables(ctx, &c);
    }
    if (st == EQAT_OK) st = eqi_packing_parse(ctx, &q, json, path);
    json_decref(json);
    return st;
}
