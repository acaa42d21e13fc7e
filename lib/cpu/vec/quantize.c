#include "cpu/vec/quant.h"
#include "cpu/vec/rows.h"

/* What a vector of weights is rounded with: s and z of its group, or of each lane where groups meet
 * in it. */
typedef struct grid {
    vf s, z;
    bool short_s;
    vf inverse, minus_s, high; /* with a short s: 1 / s, -s and the weight of the top code */
    vi code_of_0;
} grid;

/* At most 11 significant bits, as all steps have that are stored. Then w / s is 2^-12 units or more
 * off the middle between two floats and w - t s exact for t near w / s: correcting t = w (1 / s), 2
 * units off at most, once gives the bits of the division. */
static inline bool is_short(float s)
{
    uint32_t bits;
    memcpy(&bits, &s, sizeof bits);
    return bits >= 0x1f800000u && bits <= 0x5f800000u &&
        bits % 0x2000u == 0; /* 2^-64 to 2^64: nothing overflows */
}

static inline grid grid_of_group(const eqi_rows *w, int64_t row, int64_t g)
{
    const float s = quant_step(w, row, g), z = quant_zero(w, row, g);
    return (grid){.s = v_set1(s),
                  .z = v_set1(z),
                  .short_s = V_FMA && is_short(s) && z >= 0.0f,
                  .inverse = v_set1(1.0f / s),
                  .minus_s = v_set1(-s),
                  .high = v_set1((quant_top(&w->q) - z) * s),
                  .code_of_0 = v_to_i(v_set1(z))};
}

static grid grid_of_lanes(const eqi_rows *w, int64_t row, int64_t at)
{
    float s[VL], z[VL];
    for (int i = 0; i < VL; i++) {
        s[i] = quant_step(w, row, (at + i) / w->q.group);
        z[i] = quant_zero(w, row, (at + i) / w->q.group);
    }
    return (grid){.s = v_load(s), .z = v_load(z)};
}

/* Codes that still have to be clamped to 0; that of what is not a number is far below it. v_min
 * gives the second operand then. */
static inline vi codes_of(vf w, const grid *g, vf top)
{
    if (!g->short_s)
        return v_to_i(v_min(top, v_max(v_add(v_rint(v_div(w, g->s)), g->z), v_zero())));
    w = v_min(g->high, w);
    vf t = v_mul(w, g->inverse);
    t = v_fma(v_fma(t, g->minus_s, w), g->inverse, t);
    return vi_add(v_to_i(t), g->code_of_0);
}

/* Eight codes, a byte each, to `bits` bytes: the lower code of a pair, then of pairs, then of fours
 * comes first. */
static inline uint64_t squeeze(uint64_t x, int bits)
{
    x = (x & UINT64_C(0x00ff00ff00ff00ff)) | (x & UINT64_C(0xff00ff00ff00ff00)) >> (8 - bits);
    x = (x & UINT64_C(0x0000ffff0000ffff)) | (x & UINT64_C(0xffff0000ffff0000)) >> (16 - 2 * bits);
    return (x & UINT64_C(0xffffffff)) | (x & UINT64_C(0xffffffff00000000)) >> (32 - 4 * bits);
}

/* n times eight codes from bytes to packed. Whole words overlap what comes after: more codes of the
 * row, but never the next row, which another thread may have written. */
static inline void pack(uint8_t *to, uint64_t *eight, int64_t n, int bits, bool more)
{
    if (bits == 2) {
        for (int64_t k = 0; k < n; k++) {
            const uint16_t two = (uint16_t)squeeze(eight[k], 2);
            memcpy(to + 2 * k, &two, 2);
        }
        return;
    }
    for (int64_t k = 0; k < n; k++) eight[k] = squeeze(eight[k], bits);
    for (int64_t k = 0; k < n; k++, to += bits)
        memcpy(to, &eight[k], more || (n - k) * bits >= 8 ? 8 : (size_t)bits);
}

static inline __attribute__((always_inline)) void quantize(uint32_t *out, const eqi_rows *w,
                                                           eqi_dtype dtype, int64_t row)
{
    const size_t size = dtype == EQI_F32 ? 4 : 2, row_size = (size_t)w->ld * size;
    const char *from = (const char *)w->data + (size_t)row * row_size,
               *next = row + 1 < w->rows ? from + row_size : from;
    const vf top = v_set1(quant_top(&w->q));
    const bool whole = w->q.group % VL == 0;
    union {
        uint8_t code[QUANT_STRIP];
        uint64_t eight[QUANT_STRIP / 8];
    } strip;
    uint8_t *to = (uint8_t *)out;
    grid at = {0};
    int64_t g = 0, end = 0; /* of `at` */
    for (int64_t first = 0; first < w->cols; first += QUANT_STRIP) {
        const int64_t n = eqi_min_i64(QUANT_STRIP, w->cols - first);
        for (int64_t i = 0; i < n; i += 4 * VL) {
            vi code[4];
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                const int64_t col = first + i + k * VL;
                code[k] = vi_set1(0);
                if (col >= w->cols) continue;
                if (col == end) {
                    at = whole ? grid_of_group(w, row, g++) : grid_of_lanes(w, row, col);
                    end += whole ? w->q.group : VL;
                }
                __builtin_prefetch(next + (size_t)col * size, 0,
                                   2); /* comes into the second level while this row is computed */
                code[k] = codes_of(vec_load(from, dtype, col, VL), &at, top);
            }
            vi_store_u8(strip.code + i, code);
        }
        pack(to, strip.eight, n / 8, w->q.bits, first + n < w->cols);
        to += n / 8 * w->q.bits;
    }
}

void VEC(quantize)(uint32_t *out, const eqi_rows *w, int64_t row)
{
    if (w->dtype == EQI_F32)
        quantize(out, w, EQI_F32, row);
    else if (w->dtype == EQI_BF16)
        quantize(out, w, EQI_BF16, row);
    else
        quantize(out, w, EQI_F16, row);
}
