#include "cpu/vec/rows.h"

/* The operations of lib/cpu/ref/adamw.c in their order, none contracted: the update is the same bit
 * for bit. */
void VEC(adamw)(float *p, const float *g, float *m, float *v, const eqi_adamw_terms *t, int64_t n)
{
    vf factor = v_set1(t->factor), beta1 = v_set1(t->beta1), beta2 = v_set1(t->beta2),
       gain1 = v_set1(t->gain1), gain2 = v_set1(t->gain2);
    vf eps = v_set1(t->eps), size = v_set1(t->step_size), root = v_set1(t->root),
       keep = v_set1(t->keep);
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vf gi = v_mul(factor, vec_load(g, EQI_F32, i, step));
        vf mi = v_add(v_mul(beta1, vec_load(m, EQI_F32, i, step)), v_mul(gain1, gi));
        vf vi_ = v_add(v_mul(beta2, vec_load(v, EQI_F32, i, step)), v_mul(v_mul(gain2, gi), gi));
        vf below = v_add(v_div(v_sqrt(vi_), root), eps);
        vf pi = v_sub(v_mul(vec_load(p, EQI_F32, i, step), keep), v_div(v_mul(size, mi), below));
        vec_store(m, EQI_F32, i, mi, step);
        vec_store(v, EQI_F32, i, vi_, step);
        vec_store(p, EQI_F32, i, pi, step);
    }
}
