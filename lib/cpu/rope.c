#include <string.h>

#include "cpu/backend.h"
#include "cpu/pieces.h"

typedef struct job {
    const eqi_simd *simd;
    const eqi_view *y, *x, *cos, *sin, *pos;
    float sign;
} job;

/* A piece is a range of (batch, time). */
static void rotate(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    int64_t time = j->x->shape[1], heads = j->x->shape[2], dim = j->x->shape[3],
            half = j->cos->shape[1];
    for (int64_t i = first; i < first + count; i++) {
        int64_t b = i / time, t = i % time;
        int64_t p = j->pos
            ? ((const int32_t *)j->pos->data)[b * j->pos->stride[0] + t * j->pos->stride[1]]
            : t;
        const float *c = (const float *)eqi_row(j->cos, p), *s = (const float *)eqi_row(j->sin, p);
        for (int64_t h = 0; h < heads; h++) {
            char *y = eqi_at(j->y, b * j->y->stride[0] + t * j->y->stride[1] + h * j->y->stride[2]);
            const char *x =
                eqi_at(j->x, b * j->x->stride[0] + t * j->x->stride[1] + h * j->x->stride[2]);
            j->simd->rope(y, x, c, s, j->sign, j->x->dtype, half);
            size_t size = eqi_dtype_size(j->x->dtype), done = (size_t)(2 * half) * size;
            if (y != x && dim > 2 * half) memcpy(y + done, x + done, (size_t)dim * size - done);
        }
    }
}

eqat_status eqi_cpu_rope(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *cos,
                         const eqi_view *sin, const eqi_view *pos, int sign)
{
    job j = {.simd = eqi_cpu_of(ctx)->simd,
             .y = y,
             .x = x,
             .cos = cos,
             .sin = sin,
             .pos = pos,
             .sign = (float)sign};
    eqi_pieces(ctx, x->shape[0] * x->shape[1], eqi_piece_rows(x->shape[2] * x->shape[3]), rotate,
               &j);
    return EQAT_OK;
}
