/* Linears whose weight is of type Q2_0 in a GGUF file are packed: codes 0 to 3, of which 1 is zero,
 * in groups of 64. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "format/layout_impl.h"

enum { GROUP = 64, BYTES = 18, ZERO = 1 };

static void describe(const eqi_packing *packing, const eqi_source *source, eqi_layout_linear *l)
{
    (void)packing;
    const eqi_source_entry *e = eqi_layout_tensor_of(source, l, "weight");
    l->q.bits = e->stored == EQI_STORED_Q2_0 ? 2 : 0;
    l->q.group = GROUP;
}

static eqat_status check(eqi_ctx *ctx, const eqi_layout_linear *linear)
{
    (void)ctx, (void)linear;
    return EQAT_OK;
}

static int tensors(const eqi_layout_linear *l, eqi_layout_tensor list[EQI_LAYOUT_TENSORS])
{
    list[0] = (eqi_layout_tensor){.suffix = "weight",
                                  .stored = EQI_STORED_Q2_0,
                                  .types = EQI_ACCEPT_FLOATS,
                                  .ndim = 2,
                                  .shape = {l->out, l->in}};
    return 1;
}

/* The codes of a block lie as the engine's do. */
static void take_block(const unsigned char *block, uint32_t *codes, uint8_t *z, float *s)
{
    const float d = eqi_f16_to_f32((uint16_t)(block[0] | block[1] << 8));
    *z = ZERO;
    *s = d != 0 ? d : 1;
    if (d != 0)
        memcpy(codes, block + 2, BYTES - 2);
    else
        memset(codes, 0x55, BYTES - 2); /* all zeros, under a scale that may train */
}

static eqat_status read_linear(const eqi_packing *packing, eqi_source *source,
                               const eqi_layout_linear *l, eqi_packed *out)
{
    (void)packing;
    const eqi_source_entry *e = eqi_layout_tensor_of(source, l, "weight");
    const int64_t groups = l->in / GROUP, words = GROUP / 16;
    const size_t bytes = (size_t)groups * BYTES;
    unsigned char *row = eqi_alloc(source->ctx, bytes, e->name);
    eqat_status st = row ? EQAT_OK : EQAT_OUT_OF_MEMORY;
    for (int64_t n = 0; st == EQAT_OK && n < l->out; n++) {
        st = eqi_source_read_raw(source, e, (uint64_t)n * bytes, bytes, row);
        for (int64_t g = n * groups; st == EQAT_OK && g < (n + 1) * groups; g++)
            take_block(row + (g - n * groups) * BYTES, out->codes + g * words, out->z + g,
                       out->s + g);
    }
    eqi_free(source->ctx, row);
    return st;
}

static const eqi_layout layout = {
    .name = "gguf",
    .mark = "weight",
    .describe = describe,
    .check = check,
    .tensors = tensors,
    .read = read_linear,
};

eqi_packing eqi_packing_of_gguf(void) { return (eqi_packing){.layout = &layout}; }
