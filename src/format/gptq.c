#include "format/gptq.h"

#include <string.h>

#include "eqat/context.h"
#include "format/json_text.h"

static eqat_status refuse(eqi_ctx *ctx, const char *path, const char *key, const json_t *found,
                          const char *expected)
{
    char text[EQI_JSON_TEXT];
    return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: quantization_config.%s: found %s, expected %s",
                    path, key, eqi_json_text(found, text), expected);
}

static bool valid_bits(int64_t bits) { return bits == 2 || bits == 3 || bits == 4 || bits == 8; }

eqat_status eqi_gptq_config_parse(eqi_ctx *ctx, eqi_gptq_config *out, const json_t *json,
                                  const char *path)
{
    *out = (eqi_gptq_config){0};
    const json_t *q = json_object_get(json, "quantization_config");
    if (!q || json_is_null(q)) return EQAT_OK;
    const json_t *method = json_object_get(q, "quant_method"),
                 *format = json_object_get(q, "checkpoint_format");
    const json_t *bits = json_object_get(q, "bits"), *group = json_object_get(q, "group_size");
    const json_t *pack = json_object_get(q, "pack_dtype"), *dynamic = json_object_get(q, "dynamic");
    const char *name = json_string_value(method),
               *layout = format && !json_is_null(format) ? json_string_value(format) : "gptq";
    if (!name || strcmp(name, "gptq") != 0)
        return refuse(ctx, path, "quant_method", method, "gptq");
    if (!layout || (strcmp(layout, "gptq") != 0 && strcmp(layout, "gptq_v2") != 0))
        return refuse(ctx, path, "checkpoint_format", format, "gptq or gptq_v2");
    if (!json_is_integer(bits) || !valid_bits(json_integer_value(bits)))
        return refuse(ctx, path, "bits", bits, "2, 3, 4 or 8");
    if (!json_is_integer(group) ||
        (json_integer_value(group) < 1 && json_integer_value(group) != -1))
        return refuse(ctx, path, "group_size", group, "a positive number or -1");
    if (json_is_true(json_object_get(q, "desc_act")))
        return refuse(ctx, path, "desc_act", json_object_get(q, "desc_act"), "false");
    if (json_is_true(json_object_get(q, "lm_head")))
        return refuse(ctx, path, "lm_head", json_object_get(q, "lm_head"), "false");
    if (json_is_string(pack) && strcmp(json_string_value(pack), "int32") != 0)
        return refuse(ctx, path, "pack_dtype", pack, "int32");
    out->present = true;
    out->bits = (int)json_integer_value(bits);
    out->group = json_integer_value(group);
    out->minus_one = !strcmp(layout, "gptq");
    out->dynamic = json_object_size(dynamic) > 0;
    return EQAT_OK;
}

int64_t eqi_gptq_weight_rows(int64_t in, int bits) { return in / 32 * bits; }
int64_t eqi_gptq_zero_columns(int64_t out, int bits) { return out * bits / 32; }

eqat_status eqi_gptq_check(eqi_ctx *ctx, const char *name, int64_t out, int64_t in,
                           const eqi_quant_desc *q)
{
    if (!valid_bits(q->bits))
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "%s: found %d bits, expected 2, 3, 4 or 8: no engine reads others", name,
                        q->bits);
    if (in % 32)
        return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: found %lld inputs, expected a multiple of 32",
                        name, (long long)in);
    /* Zero points of one group fill whole words; 3 bits do so after 32 of them. */
    int64_t step = q->bits == 3 ? 32 : 32 / q->bits;
    if (out % step)
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "%s: found %lld outputs, expected a multiple of %lld at %d bits", name,
                        (long long)out, (long long)step, q->bits);
    return EQAT_OK;
}

void eqi_gptq_transpose(const uint32_t *src, int64_t rows, int64_t columns, uint32_t *dst)
{
    enum { TILE = 32 };
    for (int64_t r0 = 0; r0 < rows; r0 += TILE)
        for (int64_t c0 = 0; c0 < columns; c0 += TILE) {
            int64_t r1 = r0 + TILE < rows ? r0 + TILE : rows,
                    c1 = c0 + TILE < columns ? c0 + TILE : columns;
            for (int64_t r = r0; r < r1; r++)
                for (int64_t c = c0; c < c1; c++) dst[c * rows + r] = src[r * columns + c];
        }
}

void eqi_gptq_pack_zeros(const uint8_t *zeros, int64_t out, int64_t groups, int bits,
                         uint32_t *qzeros)
{
    int64_t columns = eqi_gptq_zero_columns(out, bits);
    memset(qzeros, 0, (size_t)(groups * columns) * sizeof *qzeros);
    for (int64_t g = 0; g < groups; g++)
        for (int64_t n = 0; n < out; n++) {
            int64_t bit = n * bits;
            uint64_t value = (uint64_t)zeros[n * groups + g] << (bit % 32);
            uint32_t *word = qzeros + g * columns + bit / 32;
            word[0] |= (uint32_t)value;
            if (value >> 32) word[1] |= (uint32_t)(value >> 32);
        }
}

void eqi_gptq_unpack_zeros(const uint32_t *qzeros, int64_t out, int64_t groups, int bits,
                           bool minus_one, uint8_t *zeros)
{
    int64_t columns = eqi_gptq_zero_columns(out, bits);
    uint32_t top = (1u << bits) - 1;
    for (int64_t g = 0; g < groups; g++)
        for (int64_t n = 0; n < out; n++) {
            int64_t bit = n * bits;
            const uint32_t *word = qzeros + g * columns + bit / 32;
            uint64_t two = word[0];
            if (bit % 32 + bits > 32) two |= (uint64_t)word[1] << 32;
            uint32_t value = (uint32_t)(two >> (bit % 32)) & top;
            zeros[n * groups + g] = (uint8_t)((value + minus_one) & top);
        }
}

/* group_size as config.json says it: -1 can stand for any row. */
static bool covers(int bits, int64_t group, const eqi_gptq_linear *l)
{
    return l->bits == bits && (group == -1 ? l->group == l->in : l->group == group);
}

static bool choose(const eqi_gptq_linear *linears, size_t n, int *bits, int64_t *group)
{
    size_t best = 0;
    for (size_t i = 0; i < n; i++) {
        if (!linears[i].bits) continue;
        int64_t candidates[2] = {linears[i].group,
                                 linears[i].group == linears[i].in ? -1 : linears[i].group};
        for (int c = 0; c < 2; c++) {
            size_t count = 0;
            for (size_t j = 0; j < n; j++)
                count += covers(linears[i].bits, candidates[c], &linears[j]);
            if (count <= best) continue;
            best = count;
            *bits = linears[i].bits;
            *group = candidates[c];
        }
        if (best == n) break;
    }
    return best > 0;
}

/* "+:^model\.layers\.0\.self_attn\.q_proj$", the regular expression of exactly this linear. */
static void pattern(char sign, const char *name, char *buffer, size_t size)
{
    size_t at = (size_t)snprintf(buffer, size, "%c:^", sign);
    for (; *name && at + 4 < size; name++) {
        if (*name == '.') buffer[at++] = '\\';
        buffer[at++] = *name;
    }
    snprintf(buffer + at, size - at, "$");
}

json_t *eqi_gptq_config_make(const eqi_gptq_linear *linears, size_t n)
{
    int bits = 0;
    int64_t group = 0;
    if (!choose(linears, n, &bits, &group)) return NULL;
    json_t *dynamic = json_object();
    bool failed = !dynamic;
    for (size_t i = 0; i < n && !failed; i++) {
        const eqi_gptq_linear *l = &linears[i];
        if (covers(bits, group, l)) continue;
        char key[256];
        pattern(l->bits ? '+' : '-', l->name, key, sizeof key);
        json_t *value = l->bits
            ? json_pack("{s:i, s:I}", "bits", l->bits, "group_size", (json_int_t)l->group)
            : json_object();
        failed = json_object_set_new(dynamic, key, value) != 0;
    }
    json_t *out = NULL;
    if (!failed)
        out = json_pack("{s:i, s:I, s:s, s:s, s:b, s:b, s:b, s:s, s:{s:[s+]}}", "bits", bits,
                        "group_size", (json_int_t)group, "quant_method", "gptq",
                        "checkpoint_format", "gptq_v2", "desc_act", 0, "sym", 0, "lm_head", 0,
                        "pack_dtype", "int32", "meta", "quantizer", "libeqat:", eqat_version());
    if (out && json_object_size(dynamic) && json_object_set(out, "dynamic", dynamic) != 0) {
        json_decref(out);
        out = NULL;
    }
    json_decref(dynamic);
    return out;
}
