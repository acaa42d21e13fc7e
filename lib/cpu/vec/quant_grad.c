#include "cpu/vec/quant.h"
#include "cpu/vec/rows.h"

/* inside: dw = g, ds = g (r - t); outside: dw = 0, ds = g (q - z), dz = -g s */
static inline __attribute__((always_inline)) void fake_quant_grad(const eqi_rows *m, int64_t row,
                                                                  int64_t col, int64_t n,
                                                                  const float *grad, float *dw,
                                                                  float *sum_s, float *sum_z,
                                                                  bool acc)
{
    const float *w = (const float *)m->data + row * m->ld + col;
    const float top = quant_top(&m->q);
    for (int64_t i = 0, piece = 0; i < n; piece++) {
        int64_t g = (col + i) / m->q.group, end = eqi_min_i64((g + 1) * m->q.group - col, n);
        const vf s = v_set1(quant_step(m, row, g)), z = v_set1(quant_zero(m, row, g));
        vf ds = v_zero(), dz = v_zero();
        for (; i < end; i += VL) {
            int step = vec_step(end - i);
            vf gr = vec_load(grad, EQI_F32, i, step), t = v_div(vec_load(w, EQI_F32, i, step), s),
               r = v_rint(t), u = v_add(r, z);
            vm inside = vm_and(v_le(v_zero(), u), v_le(u, v_set1(top)));
            vf slope = v_sel(inside, v_sub(r, t), v_sub(quant_code(r, z, top), z));
            /* Past the end of the row gr is 0, but a slope of NaN would not be. */
            vf term = v_mul(gr, slope);
            ds = v_add(ds, step == VL ? term : v_head(term, step));
            dz = v_sub(dz, v_only(vm_not(inside), gr));
            if (dw) {
                vf d = v_only(inside, gr);
                if (acc) d = v_add(d, vec_load(dw, EQI_F32, i, step));
                vec_store(dw, EQI_F32, i, d, step);
            }
        }
        if (sum_s) sum_s[piece] = v_sum(ds);
        if (sum_z) sum_z[piece] = v_sum(v_mul(dz, s));
        i = end;
    }
}

void VEC(fake_quant_grad)(const eqi_rows *m, int64_t row, int64_t col, int64_t n, const float *g,
                          float *dw, float *sum_s, float *sum_z, bool acc)
{
    if (!dw)
        fake_quant_grad(m, row, col, n, g, NULL, sum_s, sum_z, false);
    else if (acc)
        fake_quant_grad(m, row, col, n, g, dw, sum_s, sum_z, true);
    else
        fake_quant_grad(m, row, col, n, g, dw, sum_s, sum_z, false);
}

/* ds = g (q - z), dz = -g s */
void VEC(packed_grad)(const eqi_rows *m, int64_t row, int64_t col, int64_t n, const float *grad,
                      float *sum_s, float *sum_z)
{
    float buffer[QUANT_STRIP + 32];
    const float *code = buffer;
    for (int64_t i = 0, first = 0, last = 0, piece = 0; i < n; piece++) {
        int64_t g = (col + i) / m->q.group, group_end = eqi_min_i64((g + 1) * m->q.group - col, n);
        const vf z = v_set1(quant_zero(m, row, g));
        vf ds = v_zero(), dz = v_zero();
        while (i < group_end) {
            if (i == last) {
                first = i;
                last = eqi_min_i64(i + QUANT_STRIP, n);
                code = quant_unpack(buffer, m, row, col + first, last - first);
            }
            for (int64_t end = eqi_min_i64(group_end, last); i < end;) {
                int step = vec_step(end - i);
                vf gr = vec_load(grad, EQI_F32, i, step);
                ds = v_add(ds, v_mul(gr, v_sub(vec_load(code, EQI_F32, i - first, step), z)));
                dz = v_sub(dz, gr);
                i += step;
            }
        }
        sum_s[piece] = v_sum(ds);
        if (sum_z) sum_z[piece] = v_sum(dz) * quant_step(m, row, g);
    }
}
